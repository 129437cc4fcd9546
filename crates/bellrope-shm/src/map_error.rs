//! Why a peer's memory is not mapped.

use std::io;

/// Why memory that came from a peer was not mapped.
#[derive(Debug)]
pub enum MapError {
    /// The memory could still be shrunk or grown under us, so that reading it could end in SIGBUS; or, where its bytes
    /// were to be final, they could still be written.
    NotSealed,
    /// The memory has another size than the handshake said.
    Size {
        /// Bytes the handshake promised.
        expected: u64,
        /// Bytes the memory has.
        found: u64,
    },
    /// The kernel refused.
    Io(io::Error),
}

impl std::fmt::Display for MapError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotSealed => f.write_str("the shared memory is not sealed against resizing"),
            Self::Size { expected, found } => {
                write!(f, "the shared memory has {found} bytes where {expected} were promised")
            }
            Self::Io(error) => write!(f, "mapping the shared memory failed: {error}"),
        }
    }
}

impl std::error::Error for MapError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::NotSealed | Self::Size { .. } => None,
        }
    }
}
