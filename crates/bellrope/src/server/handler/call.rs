//! A call as the handlers that run on a worker see it.

use std::time::Duration;

use bellrope_proto::metadata::Metadata;

use super::context::CallContext;

/// A call as a handler on the worker sees it: the payload is a private copy that nobody else can change.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("who.sock");
/// use std::time::Duration;
///
/// use bellrope::{Client, HandlerError, Server};
///
/// let server = Server::builder()
///     .unary("who", |call, reply| {
///         if call.payload().is_empty() {
///             return Err(HandlerError::invalid_request("say who you are"));
///         }
///         let session = call.metadata().and_then(|metadata| metadata.session_text()).unwrap_or("none");
///         let has_deadline = call.time_left().is_some();
///         reply.put(format!("connection {}, session {session}, deadline {has_deadline}", call.connection()).as_bytes());
///         Ok(())
///     })
///     .bind(&path)?;
/// let answer = Client::connect(&path)?.call_within("who", b"me", Duration::from_secs(5))?;
/// assert!(answer.ends_with(b", session none, deadline true"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) context: CallContext,
    pub(crate) metadata: Option<&'a Metadata>,
}

impl<'a> Call<'a> {
    /// What the caller sent.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// What its caller says of the call beyond the request, if that is anything.
    #[must_use]
    pub fn metadata(&self) -> Option<&'a Metadata> {
        self.metadata
    }

    /// The server's number for the caller's connection.
    #[must_use]
    pub fn connection(&self) -> u64 {
        self.context.connection
    }

    /// Time that is left for the answer, if its caller set a deadline.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        self.context.time_left()
    }
}

/// A call whose handler makes the reply out of the request, in the memory in which that came.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("sign.sock");
/// use std::time::Duration;
///
/// use bellrope::{Client, Server};
///
/// let server = Server::builder()
///     .in_place("sign", |call| {
///         let (has_deadline, has_trace) = (call.time_left().is_some(), call.metadata().is_some());
///         let signature = format!(" (connection {}, deadline {has_deadline}, metadata {has_trace})", call.connection());
///         call.message().extend_from_slice(signature.as_bytes());
///         Ok(())
///     })
///     .bind(&path)?;
/// let answer = Client::connect(&path)?.call_within("sign", b"ding", Duration::from_secs(5))?;
/// assert!(answer.starts_with(b"ding (connection ") && answer.ends_with(b", deadline true, metadata false)"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct CallInPlace<'a> {
    pub(crate) message: &'a mut Vec<u8>,
    pub(crate) context: CallContext,
    pub(crate) metadata: Option<&'a Metadata>,
}

impl CallInPlace<'_> {
    /// What the caller sent, a private copy that nobody else can change. What is in it when the handler returns is the
    /// reply.
    #[must_use]
    pub fn message(&mut self) -> &mut Vec<u8> {
        self.message
    }

    /// What its caller says of the call beyond the request, if that is anything.
    #[must_use]
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata
    }

    /// The server's number for the caller's connection.
    #[must_use]
    pub fn connection(&self) -> u64 {
        self.context.connection
    }

    /// Time that is left for the answer, if its caller set a deadline.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        self.context.time_left()
    }
}
