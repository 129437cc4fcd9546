//! Why a server could not start, and what a handler answers instead of a reply.

use std::{borrow::Cow, io, path::PathBuf};

use bellrope_proto::{connection::Failure, frame::ErrorCode};

/// A handler's own error. Its text travels to the caller, so it must hold nothing secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerError {
    code: ErrorCode,
    own_code: u32,
    text: Cow<'static, str>,
}

impl HandlerError {
    /// An error with this text for the caller. At most 1,024 bytes of it travel.
    #[must_use]
    pub fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self::with_code(0, text)
    }

    /// An error with a number of the handler's own, which the caller finds in `CallError::Handler`.
    #[must_use]
    pub fn with_code(code: u32, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code: ErrorCode::Handler, own_code: code, text: text.into() }
    }

    /// Something behind the handler failed, and is looked after by a breaker of its own: the caller gets a
    /// `CallError::Handler`, but the breaker of the message type counts nothing.
    #[must_use]
    pub fn upstream(text: impl Into<Cow<'static, str>>) -> Self {
        Self { code: ErrorCode::Upstream, own_code: 0, text: text.into() }
    }

    /// The caller's mistake: the request's contents are wrong. Logged as a warning, and no sign of a failing handler.
    #[must_use]
    pub fn invalid_request(text: impl Into<Cow<'static, str>>) -> Self {
        Self { code: ErrorCode::InvalidRequest, own_code: 0, text: text.into() }
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
        Self { code: error.code, detail: error.own_code.into(), text: error.text }
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
