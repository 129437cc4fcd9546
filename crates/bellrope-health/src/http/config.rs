//! How a listener is named, what a client may take of it, and what it reports.

use std::{io, net::SocketAddr, time::Duration};

/// How an [`HttpListener`](super::HttpListener) is named, and what a client may take of it. Worst case of memory: `max_connections` times
/// `max_head_bytes`, and what the service holds for each request.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ListenerConfig {
    /// What it is called in the log, such as `the health server`.
    pub name: &'static str,
    /// The name of its thread, at most 15 bytes.
    pub thread_name: &'static str,
    /// How many threads serve its connections. Default 1.
    pub threads: usize,
    /// Virtual memory of a thread's stack; only touched pages count. Default `None`: as the standard library has it,
    /// 2 MiB.
    pub stack_bytes: Option<usize>,
    /// Connections open at once. For one more, one gives way: first one that asks nothing, then one whose request comes too
    /// slowly, then one that takes nothing of its answer. Where one of them may be so soon, the new one waits for that; else it
    /// is answered with 503. Default 64.
    pub max_connections: usize,
    /// Of those, connections from one address. Default: all of them.
    pub max_of_address: usize,
    /// Whether one whose answer is on its way out gives way as well, however quickly it is taken, where there is none of
    /// those. Default no.
    pub answers_give_way: bool,
    /// The JSON of the answer 503. Default: an object with `error`.
    pub full_answer: &'static str,
    /// Bytes of a request's head; fewer than 8 KiB count as 8 KiB. Default 8 KiB.
    pub max_head_bytes: usize,
    /// How long a client may take to send a request's head. Default 5 s.
    pub head_time: Duration,
    /// How long a connection may last, its answers included; `None` for ever. A response may allow its connection
    /// a longer time: see [`ConnectionTime`]. Default 10 s.
    pub connection_time: Option<Duration>,
    /// How long a client may read nothing while there is something to read; `None` for as long as the connection lasts.
    /// Default `None`.
    pub stall_time: Option<Duration>,
    /// Whether a connection may carry more than one request. Default no: then no client keeps a place for long.
    pub keep_alive: bool,
    /// Whether small pieces of an answer are sent at once (`TCP_NODELAY`). Default no.
    pub nodelay: bool,
    /// Whether a connection from the first address to the second, which is ours, may stay, or why not. Default: every one
    /// may.
    pub admit: fn(SocketAddr, SocketAddr) -> Result<(), String>,
    /// Logs what the listener, of this name, reports. Default: log lines with the target `bellrope_health::http`.
    pub log: fn(&'static str, &ListenerEvent<'_>),
}

impl ListenerConfig {
    /// The defaults, with these names.
    #[must_use]
    pub fn new(name: &'static str, thread_name: &'static str) -> Self {
        Self {
            name,
            thread_name,
            threads: 1,
            stack_bytes: None,
            max_connections: 64,
            max_of_address: usize::MAX,
            answers_give_way: false,
            full_answer: r#"{"error":"as many connections are at work as may be; try again"}"#,
            max_head_bytes: 8 * 1024,
            head_time: Duration::from_secs(5),
            connection_time: Some(Duration::from_secs(10)),
            stall_time: None,
            keep_alive: false,
            nodelay: false,
            admit: |_, _| Ok(()),
            log,
        }
    }

    pub(super) fn report(&self, event: &ListenerEvent<'_>) {
        (self.log)(self.name, event);
    }
}

/// How long the connection of a response may last, from its beginning. Put into the extensions of a response, it extends
/// [`ListenerConfig::connection_time`]: for the few answers that last longer than all others. A shorter time has no
/// effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionTime(pub Duration);

/// What a listener reports: see [`ListenerConfig::log`].
#[derive(Debug)]
#[non_exhaustive]
pub enum ListenerEvent<'a> {
    /// It listens at this address.
    Listens(SocketAddr),
    /// The system gives it no connection; it rests for this time before it accepts again.
    CannotAccept {
        /// What the system says.
        error: &'a io::Error,
        /// How long it rests.
        rest: Duration,
    },
    /// As many connections are at work as may be; further ones are answered with 503. Reported at most once a minute.
    Full {
        /// [`ListenerConfig::max_connections`].
        limit: usize,
    },
    /// There was no place left, and a connection was closed for a new one. Reported at most once a minute.
    Displaced {
        /// [`ListenerConfig::max_connections`].
        limit: usize,
        /// Where the new one came from.
        from: SocketAddr,
    },
    /// A connection was closed because [`ListenerConfig::admit`] refused it.
    Refused {
        /// Where it came from.
        from: SocketAddr,
        /// Why it was refused.
        reason: &'a str,
        /// Refusals since the last one that was reported: at most 20 at once are, and one a second after that.
        left_out: u64,
    },
    /// A connection ended with an error.
    Failed(&'a hyper::Error),
    /// A connection was closed because it lasted longer than [`ListenerConfig::connection_time`].
    TookTooLong(Duration),
    /// The listener's thread panicked.
    Panicked,
}

/// The default of [`ListenerConfig::log`].
fn log(name: &'static str, event: &ListenerEvent<'_>) {
    match event {
        ListenerEvent::Listens(local_addr) => tracing::debug!(%local_addr, "{name} listens"),
        ListenerEvent::CannotAccept { error, rest } => {
            tracing::warn!(%error, "{name} can not accept; resting for {rest:?}");
        }
        ListenerEvent::Full { limit } => {
            tracing::warn!(limit, "{name} is full; further connections are answered with 503");
        }
        ListenerEvent::Displaced { limit, from } => {
            tracing::warn!(limit, %from, "{name} has no place left; connections that ask nothing, or are too slow, are closed for new ones");
        }
        ListenerEvent::Refused { from, reason, left_out } => {
            tracing::warn!(%from, left_out, "a connection to {name} was closed: {reason}");
        }
        ListenerEvent::Failed(error) => tracing::debug!(%error, "a connection to {name} failed"),
        ListenerEvent::TookTooLong(time) => tracing::debug!("a connection to {name} took longer than {time:?}"),
        ListenerEvent::Panicked => tracing::error!("{name}'s thread panicked"),
    }
}
