//! What travels for a call of one message type or another.

/// How a message type is called and answered. Every call has a request message; what follows differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Style {
    /// One response.
    Unary,
    /// A stream of chunks from the server.
    ServerStream,
    /// A stream of chunks from the client, then one response.
    ClientStream,
    /// Streams of chunks both ways at once.
    Duplex,
}

impl Style {
    /// Whether the client sends chunks.
    #[inline]
    #[must_use]
    pub fn uploads(self) -> bool {
        matches!(self, Self::ClientStream | Self::Duplex)
    }

    /// Whether the server answers with chunks and an end, and not with a response.
    #[inline]
    #[must_use]
    pub fn streams(self) -> bool {
        matches!(self, Self::ServerStream | Self::Duplex)
    }

    pub(crate) fn to_bits(self) -> u8 {
        match self {
            Self::Unary => 0,
            Self::ServerStream => 1,
            Self::ClientStream => 2,
            Self::Duplex => 3,
        }
    }

    pub(crate) fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Unary,
            1 => Self::ServerStream,
            2 => Self::ClientStream,
            3 => Self::Duplex,
            _ => return None,
        })
    }
}
