/// What carries the records of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Two rings in memory that both processes map; the socket is the doorbell.
    Shm,
    /// The socket itself: see [`stream`](crate::stream).
    Stream,
}

impl Transport {
    pub(crate) fn to_bits(self) -> u8 {
        match self {
            Self::Shm => 0,
            Self::Stream => 1,
        }
    }

    pub(crate) fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Shm),
            1 => Some(Self::Stream),
            _ => None,
        }
    }

    /// A short name for logs and settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Stream => "stream",
        }
    }
}
