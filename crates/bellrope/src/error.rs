//! What can go wrong, told apart by who is to blame and what can be done.

use std::{borrow::Cow, io, path::PathBuf};

use bellrope_proto::{Violation, connection::Failure, frame::ErrorCode, handshake::HandshakeError};
use bellrope_shm::MapError;

/// A handler's own error. Its text travels to the caller, so it must hold nothing secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerError {
    code: ErrorCode,
    text: Cow<'static, str>,
}

impl HandlerError {
    /// An error with this text for the caller. At most 1,024 bytes of it travel.
    #[must_use]
    pub fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self { code: ErrorCode::Handler, text: text.into() }
    }

    /// The caller's mistake: the request's contents are wrong. Logged as a warning, and no sign of a failing handler.
    #[must_use]
    pub fn invalid_request(text: impl Into<Cow<'static, str>>) -> Self {
        Self { code: ErrorCode::InvalidRequest, text: text.into() }
    }
}

impl std::fmt::Display for HandlerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for HandlerError {}

impl From<HandlerError> for Failure {
    fn from(error: HandlerError) -> Self {
        Self::new(error.code, error.text)
    }
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another server holds the path.
    #[error("another server (process {}) holds {path}; stop it or choose another socket path", holder.map_or("unknown".to_owned(), |pid| pid.to_string()))]
    InUse {
        /// The socket path.
        path: PathBuf,
        /// The process that holds it, as its lock file says.
        holder: Option<u32>,
    },
    /// The directory of the socket is not safe.
    #[error("the socket directory {path} {fault}; use a directory that belongs to you alone (mode 0700)")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// Something that is no socket is in the way.
    #[error("{0} exists and is not a socket; remove it or choose another socket path")]
    NotASocket(PathBuf),
    /// A message type was registered twice, or its name is empty or longer than 255 bytes, or there are too many.
    #[error("message type {name:?} cannot be registered: {fault}")]
    Registry {
        /// Its name.
        name: String,
        /// What is wrong.
        fault: &'static str,
    },
    /// A setting is out of its range.
    #[error("the setting {key} is {value}, {expected}")]
    Setting {
        /// Its name.
        key: &'static str,
        /// Its value.
        value: u64,
        /// What it must be.
        expected: &'static str,
    },
    /// The system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a client could not connect.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody listens at the path.
    #[error("no server listens at {path} ({source})")]
    NoServer {
        /// The socket path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The listener belongs to another user.
    #[error("the server at {path} runs as user {uid}, neither you nor root; it was not trusted")]
    ForeignServer {
        /// The socket path.
        path: PathBuf,
        /// Its user.
        uid: u32,
    },
    /// The server refused, or does not speak our version.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The memory that came with the welcome is not what was promised.
    #[error(transparent)]
    Memory(#[from] MapError),
    /// The welcome came without memory.
    #[error("the server's welcome came without shared memory")]
    MissingMemory,
    /// The server did not answer in time, or hung up in mid-handshake.
    #[error("the handshake with {path} failed: {source}")]
    Io {
        /// The socket path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// How a call ended, if not with a response. Every call ends exactly once.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The server answered with an error.
    #[error("{code}: {text}")]
    Failed {
        /// What happened, and so who is to blame.
        code: ErrorCode,
        /// The server's or handler's own words.
        text: String,
    },
    /// The server offers no such message type; known only to this side, nothing was sent.
    #[error("the server knows no message type {name:?}{}", suggest(nearest))]
    UnknownMessageType {
        /// The name that was asked for.
        name: String,
        /// Known names, the most similar first.
        nearest: Vec<String>,
    },
    /// The message type is answered in another style; nothing was sent.
    #[error("the message type {name:?} is answered {}", if *stream { "with a stream; use stream()" } else { "with one response; use call()" })]
    WrongStyle {
        /// Its name.
        name: String,
        /// Whether it is answered with a stream.
        stream: bool,
    },
    /// The message is larger than the server takes; nothing was sent.
    #[error("the message of {size} bytes exceeds the limit of {limit} bytes")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// As many calls are under way on this connection as the server allows; nothing was sent.
    #[error("{limit} calls are under way on this connection, as many as the server allows")]
    TooManyInFlight {
        /// The limit.
        limit: u32,
    },
    /// The deadline passed. The call was cancelled at the server, but may have run.
    #[error("the deadline passed before the answer came")]
    DeadlineExceeded,
    /// The server is gone and has not run the call: it is safe to send it again.
    #[error("the server went away before it took the call; it is safe to send it again")]
    NotExecuted,
    /// The server is gone and may have run the call, once.
    #[error("the server went away while the call was under way; it may have run")]
    Unknown,
    /// The server broke the protocol, and the connection was closed.
    #[error("the server broke the protocol: {0}")]
    Violation(#[from] Violation),
    /// There is no connection and none could be made; nothing was sent.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The system refused a wait.
    #[error("waiting for the answer failed: {0}")]
    Io(#[from] io::Error),
}

impl CallError {
    /// Whether the same call may be sent again without the risk that it runs twice.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::NotExecuted
                | Self::TooManyInFlight { .. }
                | Self::Connect(_)
                | Self::Failed { code: ErrorCode::Rejected, .. }
        )
    }
}

fn suggest(nearest: &[String]) -> String {
    match nearest {
        [] => "; it offers none".to_owned(),
        names => format!("; nearest known: {}", names.join(", ")),
    }
}
