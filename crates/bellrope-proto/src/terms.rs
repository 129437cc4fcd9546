//! What the two ends of a connection agree on, before anything travels on it.

use crate::{layout::Geometry, metadata::MAX_METADATA};

/// Bytes of one part of a large message, unless a record holds less. Small enough that both sides work on a part at the
/// same time and find it in their caches.
pub const PART: usize = 32 * 1024;

/// What both ends of a connection agreed on in the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Size of the rings.
    pub geometry: Geometry,
    /// Bytes of the largest request and of the largest response.
    pub max_message: u32,
    /// Calls and streams under way at once.
    pub max_in_flight: u32,
    /// Credit of a fresh stream, in bytes.
    pub stream_window: u32,
}

impl Terms {
    /// Bytes of the largest message that travels in one record, and of the largest chunk.
    #[inline]
    #[must_use]
    pub fn max_record(&self) -> usize {
        (self.geometry.max_payload() as usize).min(self.max_message as usize)
    }

    /// As [`Self::max_record`], of a request with metadata in front of it, however many.
    #[must_use]
    pub fn max_described(&self) -> usize {
        (self.geometry.max_payload() as usize).saturating_sub(MAX_METADATA).clamp(1, self.max_message as usize)
    }

    /// Bytes of a part of a message that does not fit a record.
    pub(crate) fn part(&self) -> usize {
        self.max_record().min(PART)
    }
}
