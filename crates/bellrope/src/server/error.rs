//! Why a server could not start, and what a handler answers instead of a reply.

use std::{borrow::Cow, io, path::PathBuf};

use bellrope_proto::{connection::Failure, frame::ErrorCode};

/// A handler's own error. Its text travels to the caller, so it must hold nothing secret.
///
/// What it says of the service decides whether the [breaker](crate::breaker::BreakerConfig) of the message type counts it:
///
/// | made by | meaning | counts |
/// |---|---|---|
/// | [`new`](Self::new), [`with_code`](Self::with_code) | the answer is no, as in "no such file" | no |
/// | [`invalid_request`](Self::invalid_request) | the caller's mistake | no |
/// | [`failure`](Self::failure) | the service failed, or its own time-out passed | yes |
/// | [`upstream`](Self::upstream) | something behind the service failed | yes, unless [`guarded`](Self::guarded) |
///
/// A panic counts too. A failure that comes when the deadline of the call has passed does not.
///
/// ```
/// use bellrope::{HandlerError, client::ErrorCode};
///
/// assert_eq!(HandlerError::new("no such file").code(), ErrorCode::Handler);
/// assert_eq!(HandlerError::with_code(404, "no such page").code(), ErrorCode::Handler);
/// assert_eq!(HandlerError::invalid_request("give a path").code(), ErrorCode::InvalidRequest);
/// assert_eq!(HandlerError::upstream("the provider is away").guarded().code(), ErrorCode::Upstream);
/// assert_eq!(HandlerError::exhausted("no room for the index").code(), ErrorCode::Exhausted);
///
/// // Of a handler that forwards calls to another server.
/// assert_eq!(HandlerError::not_executed("it was not sent").code(), ErrorCode::NotExecuted);
/// assert_eq!(HandlerError::unknown("the server went away").code(), ErrorCode::Unknown);
/// assert_eq!(HandlerError::forwarded(ErrorCode::Rejected, 0, "busy").code(), ErrorCode::Rejected);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerError {
    code: ErrorCode,
    own_code: u32,
    text: Cow<'static, str>,
    /// Whether breakers count it.
    of_service: bool,
}

impl HandlerError {
    /// An error with this text for the caller. At most 1,024 bytes of it travel. It is an answer, and no sign of a failing
    /// service.
    #[must_use]
    pub fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self::with_code(0, text)
    }

    /// An error with a number of the handler's own, which the caller finds in `CallError::Handler`.
    #[must_use]
    pub fn with_code(code: u32, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code: ErrorCode::Handler, own_code: code, text: text.into(), of_service: false }
    }

    /// The service failed: whoever asks is likely to meet the same. The caller gets a `CallError::Handler`, and the
    /// breaker of the message type counts it.
    ///
    /// ```
    /// use bellrope::HandlerError;
    ///
    /// fn store(disk_is_full: bool) -> Result<(), HandlerError> {
    ///     if disk_is_full { Err(HandlerError::failure("the disk is full")) } else { Ok(()) }
    /// }
    /// # assert!(store(true).is_err());
    /// ```
    #[must_use]
    pub fn failure(text: impl Into<Cow<'static, str>>) -> Self {
        Self { of_service: true, ..Self::new(text) }
    }

    /// Something behind the handler failed: the caller gets a `CallError::Handler`, and the breaker of the message type
    /// counts it.
    #[must_use]
    pub fn upstream(text: impl Into<Cow<'static, str>>) -> Self {
        Self { code: ErrorCode::Upstream, ..Self::failure(text) }
    }

    /// The same, looked after by a breaker of its own: that of the message type counts nothing, so that one of several
    /// upstreams does not close the way to the others.
    #[must_use]
    pub fn guarded(self) -> Self {
        Self { of_service: false, ..self }
    }

    /// Whoever this handler forwards to has not run the call, and that is proven. The caller gets
    /// [`CallError::NotExecuted`](crate::CallError::NotExecuted) and may send it again; the text is for the log.
    #[must_use]
    pub fn not_executed(text: impl Into<Cow<'static, str>>) -> Self {
        Self { code: ErrorCode::NotExecuted, ..Self::new(text) }
    }

    /// Whoever this handler forwards to was lost, and may have run the call. The caller gets
    /// [`CallError::Unknown`](crate::CallError::Unknown); the text is for the log.
    #[must_use]
    pub fn unknown(text: impl Into<Cow<'static, str>>) -> Self {
        Self { code: ErrorCode::Unknown, ..Self::new(text) }
    }

    /// What somebody else answered with, for a handler that forwards calls: with this code, and a detail as
    /// [`Failure`] has it, of which 32 bits travel.
    #[must_use]
    pub fn forwarded(code: ErrorCode, detail: u64, text: impl Into<Cow<'static, str>>) -> Self {
        let detail = u32::try_from(detail).unwrap_or(0);
        Self { code, own_code: detail, text: text.into(), of_service: false }
    }

    /// The call found no room for what its handler needs. Its caller sees it as
    /// [`CallError::Exhausted`](crate::CallError::Exhausted), and may try again.
    #[cfg(feature = "tokio")]
    #[must_use]
    pub fn exhausted(text: impl Into<Cow<'static, str>>) -> Self {
        Self { code: ErrorCode::Exhausted, ..Self::new(text) }
    }

    /// The caller's mistake: the request's contents are wrong. Logged as a warning, and no sign of a failing handler.
    #[must_use]
    pub fn invalid_request(text: impl Into<Cow<'static, str>>) -> Self {
        Self { code: ErrorCode::InvalidRequest, ..Self::new(text) }
    }
}

impl HandlerError {
    /// What its caller gets.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.code
    }
}

impl std::fmt::Display for HandlerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for HandlerError {}

/// So that a handler can end with `?` what it writes into its [`Reply`](crate::Reply). The text of the error travels.
impl From<io::Error> for HandlerError {
    fn from(error: io::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<HandlerError> for Failure {
    fn from(error: HandlerError) -> Self {
        Self { code: error.code, detail: error.own_code.into(), text: error.text, of_service: error.of_service }
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
    #[error("{0} exists and is not a socket; it stays as it is: choose another socket path")]
    NotASocket(PathBuf),
    /// The socket's path is longer than the system takes.
    #[error(
        "the socket path {path} is longer than {limit} bytes, the most that a socket's may have; choose another (--socket)"
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length, in bytes.
        length: usize,
        /// The most that it may have.
        limit: usize,
    },
    /// A message type was registered twice, or its name is empty or longer than 255 bytes, or there are too many.
    #[error("message type {name:?} cannot be registered: {fault}")]
    Registry {
        /// Its name.
        name: String,
        /// What is wrong.
        fault: &'static str,
    },
    /// What a method of a service takes or answers cannot travel with its codec.
    #[error("the method {name} cannot be served: {fault}")]
    Service {
        /// Its name.
        name: String,
        /// What cannot travel, and where it stands.
        fault: String,
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
