//! A call as the handlers that run on a worker see it.

use std::time::Duration;

use bellrope_proto::metadata::Metadata;

use super::context::CallContext;

/// A call as a handler on the worker sees it: the payload is a private copy that nobody else can change.
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
