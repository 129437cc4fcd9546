//! What can go wrong with a connection or a call, told apart by who is to blame and what can be done.

use std::{io, path::PathBuf, time::Duration};

use bellrope_proto::{
    Violation,
    frame::{ErrorCode, Rejection},
    handshake::{HandshakeError, Style},
};
use bellrope_shm::{MapError, process};

/// Why a client could not connect.
///
/// ```
/// use bellrope::Client;
/// use bellrope::client::ConnectError;
///
/// let error = Client::connect("/tmp/nobody/listens/here.sock").unwrap_err();
/// assert!(matches!(error, ConnectError::NoServer { .. }));
/// assert!(error.to_string().starts_with("no server listens at /tmp/nobody/listens/here.sock"));
/// ```
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
    /// The path is longer than that of any socket.
    #[error(
        "the socket path {path} is longer than {limit} bytes, the most that a socket's may have; choose another (--socket)"
    )]
    PathTooLong {
        /// The socket path.
        path: PathBuf,
        /// Its length, in bytes.
        length: usize,
        /// The most that it may have.
        limit: usize,
    },
    /// The listener belongs to another user.
    #[error("the server at {path} runs as user {uid}, neither you nor root; it was not trusted{}", unnamed(*uid))]
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
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("echo.sock");
/// # let server = bellrope::Server::builder()
/// #     .unary("shout", |_, _| Err(bellrope::HandlerError::with_code(7, "hoarse today"))).bind(&path)?;
/// use bellrope::client::Blame;
/// use bellrope::{CallError, Client};
///
/// let client = Client::connect(&path)?;
/// let error = client.call("shout", b"").unwrap_err();
/// assert!(matches!(&error, CallError::Handler { code: 7, text } if text == "hoarse today"));
/// assert_eq!((error.blame(), error.is_retryable()), (Blame::Handler, false));
///
/// let error = client.call("shuot", b"").unwrap_err();
/// assert_eq!(error.to_string(), "the server knows no message type \"shuot\"; nearest known: shout");
/// assert_eq!(error.blame(), Blame::Caller);
///
/// // The server is gone: may the same call be sent again without the risk that it runs twice?
/// assert!(CallError::NotExecuted.is_retryable());
/// assert!(!CallError::Unknown.is_retryable());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The handler answered with an error of its own.
    #[error("handler_error: {text}")]
    Handler {
        /// The handler's number for it, 0 if it gave none.
        code: u32,
        /// The handler's own words.
        text: String,
    },
    /// The handler refused the contents of the request.
    #[error("{}{text}", unless_said("invalid_request: ", text))]
    InvalidRequest {
        /// The handler's own words.
        text: String,
    },
    /// The handler panicked. Connection and server go on.
    #[error("handler_panic: {text}")]
    HandlerPanic {
        /// What it said.
        text: String,
    },
    /// The server offers no such message type; known to this side, nothing was sent.
    #[error("the server knows no message type {name:?}{}", suggest(nearest))]
    UnknownMessageType {
        /// The name that was asked for.
        name: String,
        /// Known names, the most similar first.
        nearest: Vec<String>,
    },
    /// The message type is called in another way; nothing was sent.
    #[error("the message type {name:?} is called with {}()", method(*style))]
    WrongStyle {
        /// Its name.
        name: String,
        /// Its style.
        style: Style,
    },
    /// The message type was looked up when another server was there, and the one that is there now offers none of its name;
    /// nothing was sent.
    #[error(
        "the server that is there now offers no message type of the name that was looked up with message_type(); look it \
         up again, or call by name to see what is offered"
    )]
    MessageTypeGone,
    /// An option makes no sense for this form of call; nothing was sent.
    #[error("the option {option} cannot be used with {form}: {reason}")]
    UnusableOption {
        /// The method of [`CallOptions`](crate::client::CallOptions).
        option: &'static str,
        /// The method that calls.
        form: &'static str,
        /// Why, and what to do instead.
        reason: &'static str,
    },
    /// The message is larger than a message may be. If it is the request, nothing was sent; if it is the reply, the
    /// handler has run.
    #[error("the message of {size} bytes exceeds the limit of {limit} bytes")]
    MessageTooLarge {
        /// Its size, in bytes.
        size: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The chunk is larger than a chunk may be: it travels in one piece, or not at all. It was not sent, and others may be.
    #[error("the chunk of {size} bytes exceeds the limit of {limit} bytes (a quarter of ring_bytes)")]
    ChunkTooLarge {
        /// Its size, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The deadline passed. The call was cancelled at the server, but may have run.
    #[error("the deadline passed before the answer came")]
    DeadlineExceeded,
    /// The caller cancelled it. It may have run in part.
    #[error("the call was cancelled")]
    Cancelled,
    /// It was refused before its handler ran.
    #[error("rejected ({}): {text}", reason.name())]
    Rejected {
        /// Why.
        reason: Rejection,
        /// When it may be worth another try, if that is known.
        retry_after: Option<Duration>,
        /// Which limit is in the way, and its value.
        text: String,
    },
    /// The handler has run, but the server's buffer budget had no room for its reply.
    #[error("exhausted: {text}")]
    Exhausted {
        /// Which limit is in the way, and its value.
        text: String,
    },
    /// The server is gone and has not run the call: it is safe to send it again.
    #[error("the server went away before it took the call; it is safe to send it again")]
    NotExecuted,
    /// The server is gone and may have run the call, once.
    #[error("the server went away while the call was under way; it may have run")]
    Unknown,
    /// The server has closed the connection on account of this client, and has said why. Other calls get a new connection.
    #[error(
        "the server closed the connection: {reason}; the call {}",
        if *may_have_run { "may have run" } else { "has not run" }
    )]
    ClosedByServer {
        /// The server's own words: which limit or rule, its value, and what to do.
        reason: String,
        /// Whether it may have run, once. If not, it is safe to send it again.
        may_have_run: bool,
    },
    /// The server broke the protocol, and the connection was closed.
    #[error("the server broke the protocol: {0}")]
    Violation(#[from] Violation),
    /// There is no connection and none could be made; nothing was sent.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The client was closed on this side.
    #[error("the client was closed")]
    Closed,
    /// The system refused a wait.
    #[error("waiting for the answer failed: {0}")]
    Io(#[from] io::Error),
    /// The service that is there now takes or answers something else than this client's, and its codec sends no names by which
    /// they could do with each other; nothing was sent.
    #[cfg(feature = "service")]
    #[error("the server's {method} is another one than this client's: {differences}")]
    Incompatible {
        /// The method.
        method: &'static str,
        /// What differs, `here` at the client and `there` at the server.
        differences: String,
    },
    /// An argument, or an item of a stream, cannot travel with the codec of its service; nothing was sent.
    #[cfg(feature = "service")]
    #[error("what {method} is to be given cannot be sent: {fault}")]
    Unwritable {
        /// The method.
        method: &'static str,
        /// What cannot travel, and where it stands.
        fault: crate::service::CodecError,
    },
    /// What a service answered is not what its method answers with. The method has run.
    #[cfg(feature = "service")]
    #[error("what {method} answered cannot be read: {fault}")]
    Unreadable {
        /// The method.
        method: &'static str,
        /// What is wrong with it, and where.
        fault: crate::service::CodecError,
    },
    /// Anything else that the server answered with.
    #[error("{code}: {text}")]
    Other {
        /// Its code.
        code: ErrorCode,
        /// The server's own words.
        text: String,
    },
}

/// Who can fix what went wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The caller: the request, or what was done with it.
    Caller,
    /// The handler of the message type.
    Handler,
    /// The server: it is overloaded, going away, gone or broken.
    Server,
    /// The machine.
    System,
}

impl CallError {
    /// The error that a server's error record means. `limit` is that on the size of messages.
    #[cold]
    pub(crate) fn from_server(code: ErrorCode, detail: u64, text: &[u8], limit: usize) -> Self {
        let text = String::from_utf8_lossy(text).into_owned();
        match code {
            ErrorCode::Handler | ErrorCode::Upstream => {
                Self::Handler { code: u32::try_from(detail).unwrap_or(0), text }
            }
            ErrorCode::InvalidRequest => Self::InvalidRequest { text },
            ErrorCode::HandlerPanic => Self::HandlerPanic { text },
            ErrorCode::MessageTooLarge => Self::MessageTooLarge { size: detail, limit: limit as u64 },
            ErrorCode::DeadlineExceeded => Self::DeadlineExceeded,
            ErrorCode::Cancelled => Self::Cancelled,
            ErrorCode::Rejected => {
                let (reason, retry_after_ms) = Rejection::from_detail(detail);
                Self::Rejected { reason, retry_after: retry_after_ms.map(Duration::from_millis), text }
            }
            ErrorCode::Exhausted => Self::Exhausted { text },
            ErrorCode::NotExecuted => Self::NotExecuted,
            ErrorCode::Unknown => Self::Unknown,
            code => Self::Other { code, text },
        }
    }

    /// Refused on this side, since as many calls are under way as the server allows.
    #[cold]
    pub(crate) fn too_many_in_flight(limit: u32) -> Self {
        let text = format!("{limit} calls are under way on this connection, the limit max_in_flight");
        Self::Rejected { reason: Rejection::Busy, retry_after: None, text }
    }

    /// Whether the same call may be sent again without the risk that it runs twice. [Example](Self).
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::NotExecuted
                | Self::ClosedByServer { may_have_run: false, .. }
                | Self::Connect(_)
                | Self::Rejected { .. }
        )
    }

    /// Whether the server failed, as a client's own breaker sees it. A handler's answer "no" is an answer, a refusal is
    /// how a server looks after itself, and what the caller chose says nothing of the server. Of a deadline that means:
    /// it counts if the server had a `fair` time.
    pub(crate) fn is_failure(&self, fair: bool) -> bool {
        match self {
            Self::HandlerPanic { .. }
            | Self::Exhausted { .. }
            | Self::NotExecuted
            | Self::Unknown
            | Self::Violation(_)
            | Self::Connect(_) => true,
            Self::DeadlineExceeded => fair,
            _ => false,
        }
    }

    /// Who can fix it. [Example](Self).
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::Handler { .. } | Self::HandlerPanic { .. } => Blame::Handler,
            Self::InvalidRequest { .. }
            | Self::UnknownMessageType { .. }
            | Self::WrongStyle { .. }
            | Self::MessageTypeGone
            | Self::UnusableOption { .. }
            | Self::MessageTooLarge { .. }
            | Self::ChunkTooLarge { .. }
            | Self::Cancelled
            | Self::ClosedByServer { .. }
            | Self::Closed => Blame::Caller,
            #[cfg(feature = "service")]
            Self::Unwritable { .. } | Self::Incompatible { .. } => Blame::Caller,
            #[cfg(feature = "service")]
            Self::Unreadable { .. } => Blame::Server,
            Self::DeadlineExceeded
            | Self::Rejected { .. }
            | Self::Exhausted { .. }
            | Self::NotExecuted
            | Self::Unknown
            | Self::Violation(_)
            | Self::Connect(_)
            | Self::Other { .. } => Blame::Server,
            Self::Io(_) => Blame::System,
        }
    }
}

/// What a text is introduced with, unless it begins so already.
fn unless_said(introduction: &'static str, text: &str) -> &'static str {
    if text.starts_with(introduction) { "" } else { introduction }
}

fn suggest(nearest: &[String]) -> String {
    match nearest {
        [] => "; it offers none".to_owned(),
        names => format!("; nearest known: {}", names.join(", ")),
    }
}

/// What a user id means that is no user's.
fn unnamed(uid: u32) -> &'static str {
    match process::names_user(uid) {
        true => "",
        false => " (that number stands for every user that this user namespace does not map: run both sides in one)",
    }
}

/// The method that calls message types of this style.
fn method(style: Style) -> &'static str {
    match style {
        Style::Unary => "call",
        Style::ServerStream => "stream",
        Style::ClientStream => "client_stream",
        Style::Duplex => "duplex",
    }
}
