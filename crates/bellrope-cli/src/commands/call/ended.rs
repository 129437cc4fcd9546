//! How a stream of the gateway's has ended.

use bellrope_gateway::{Chunk, ErrorInfo, MESSAGE_TYPES, SequencedChunk};

/// Whether this is the error with which a stream of the gateway's ends.
pub(super) fn is_error(message_type: &str, item: &[u8]) -> bool {
    error_of(message_type, item).is_some()
}

/// The error with which a stream of the gateway's has ended.
pub(super) fn error_of(message_type: &str, last: &[u8]) -> Option<ErrorInfo> {
    match SequencedChunk::read(last) {
        Ok(SequencedChunk { chunk: Chunk::Error(info), .. }) if MESSAGE_TYPES.contains(&message_type) => Some(info),
        _ => None,
    }
}
