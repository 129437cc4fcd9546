//! What a caller is told whose call cannot be read, or answered.

use std::fmt;

use super::codec::CodecError;
use crate::server::{HandlerError, SendError};

#[cold]
pub(super) fn unreadable(method: &str, what: impl fmt::Display, error: &CodecError) -> HandlerError {
    HandlerError::invalid_request(format!("{method}: {what} cannot be read: {error}"))
}

/// The handler's fault, but of this call alone: what it was to answer depends on what it was asked.
#[cold]
pub(super) fn unwritable(method: &str, what: impl fmt::Display, error: &CodecError) -> HandlerError {
    HandlerError::new(format!("{method}: {what} cannot be written: {error}"))
}

/// In the words of a chunk of bytes, which the client has for its own items, too.
#[cold]
pub(super) fn unsendable(method: &str, sent: usize, error: SendError) -> HandlerError {
    match error {
        SendError::ChunkTooLarge { .. } => HandlerError::new(format!("{method}: item {sent} of the stream: {error}")),
        error => error.into(),
    }
}
