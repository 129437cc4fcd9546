//! How a client is configured, and what it reports of its connection.

use std::{path::PathBuf, time::Duration};

use bellrope_proto::layout::DEFAULT_MAX_MESSAGE;

use crate::{breaker::BreakerConfig, settings::setters, spin::SpinPolicy};

/// What carries the records of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Transport {
    /// Shared memory, or else the socket alone: where this side or the server has no memory to share or no descriptors for it.
    /// That is logged once for each server. Whoever reconnects tries shared memory again.
    #[default]
    Auto,
    /// Shared memory.
    Shm,
    /// The socket alone: every promise holds, every call costs some system calls, and of calls that a killed server had been
    /// sent nothing is known. For sandboxes without shared memory, and sockets that are forwarded from elsewhere. Needs a
    /// server of version 1.1.
    Stream,
}

/// How a client connects and waits.
///
/// ```
/// use std::time::Duration;
///
/// use bellrope::client::ClientConfig;
///
/// let config = ClientConfig::new("/run/user/1000/bellrope/bellrope.sock")
///     .name("my-editor")
///     .call_timeout(Duration::from_secs(2));
/// assert_eq!(config.call_timeout, Duration::from_secs(2));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientConfig {
    /// The server's socket.
    pub path: PathBuf,
    /// A name for the server's logs, at most 64 bytes. Default: the program's name.
    pub name: String,
    /// Whether to ask to be served ahead of the others. The server allows it to a limited number. Default no.
    pub priority: bool,
    /// Most time a handshake may take. Default 5 s: on a machine that is busy with a build, a server may wait that long for
    /// a CPU.
    pub connect_timeout: Duration,
    /// How long a call waits for a server that went away, before it fails. Default 1 s.
    pub reconnect_timeout: Duration,
    /// Most time a call may take, unless it says otherwise. Default 30 s; a stream has none.
    pub call_timeout: Duration,
    /// Bytes of the largest message to send or to take. Default 10 MiB; the server's own limit holds if it is lower,
    /// and a server that sends more than this breaks the connection.
    pub max_message_bytes: u32,
    /// A breaker of the client's own, for its calls: while it is open they fail at once, as rejected, and nothing is sent.
    /// What counts: a server that is away or is lost during a call, a broken protocol, a handler's panic, a reply that
    /// found no room, and a deadline that passed after the breaker's `slow_call_ms` at least. What does not: a handler's own
    /// errors, which are answers; refusals; shorter deadlines, cancels and mistakes of this side. Default none.
    pub breaker: Option<BreakerConfig>,
    /// What carries the records. Default [`Transport::Auto`].
    pub transport: Transport,
    /// When to spin instead of sleeping. Default adaptive. Over the socket alone nobody spins.
    pub spin: SpinPolicy,
    /// Most time that an adaptive waiter spins before it sleeps. Default 50 us.
    pub spin_cap: Duration,
}

impl ClientConfig {
    /// The defaults for the server at `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let name = std::env::current_exe().ok().and_then(|exe| Some(exe.file_name()?.to_string_lossy().into_owned()));
        Self {
            path: path.into(),
            name: name.unwrap_or_default(),
            priority: false,
            connect_timeout: Duration::from_secs(5),
            reconnect_timeout: Duration::from_secs(1),
            call_timeout: Duration::from_secs(30),
            max_message_bytes: DEFAULT_MAX_MESSAGE,
            breaker: None,
            transport: Transport::Auto,
            spin: SpinPolicy::Adaptive,
            spin_cap: Duration::from_micros(50),
        }
    }

    /// Sets [`name`](Self#structfield.name).
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }
}

setters!(ClientConfig {
    priority: bool,
    connect_timeout: Duration,
    reconnect_timeout: Duration,
    call_timeout: Duration,
    max_message_bytes: u32,
    breaker: Option<BreakerConfig>,
    transport: Transport,
    spin: SpinPolicy,
    spin_cap: Duration,
});

/// Whether a client has a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectionState {
    /// Yes.
    Connected,
    /// It went away and is looked for.
    Reconnecting,
    /// The client was closed, and will have none any more.
    Closed,
}
