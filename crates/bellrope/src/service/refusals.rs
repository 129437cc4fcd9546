//! What a caller is told whose call cannot be read, or answered.

use std::fmt;

use super::codec::CodecError;
use crate::server::HandlerError;

#[cold]
pub(super) fn unreadable(method: &str, what: impl fmt::Display, error: &CodecError) -> HandlerError {
    HandlerError::invalid_request(format!("{method}: {what} cannot be read: {error}"))
}

/// The handler's fault, but of this call alone: what it was to answer depends on what it was asked.
#[cold]
pub(super) fn unwritable(method: &str, what: impl fmt::Display, error: &CodecError) -> HandlerError {
    HandlerError::new(format!("{method}: {what} cannot be written: {error}"))
}

#[cold]
pub(super) fn too_large(method: &str, sent: usize, size: usize, limit: usize) -> HandlerError {
    HandlerError::new(format!(
        "{method}: item {sent} of the stream has {size} bytes, and a chunk at most {limit} (a quarter of ring_bytes)"
    ))
}
