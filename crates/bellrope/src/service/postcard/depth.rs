//! How deep values may nest.

use super::super::codec::CodecError;

/// How deep values may nest.
pub(in crate::service) const MOST_DEPTH: u32 = 128;

#[cold]
pub(in crate::service) fn too_deep() -> CodecError {
    CodecError::new(format_args!("it nests deeper than {MOST_DEPTH}"))
}
