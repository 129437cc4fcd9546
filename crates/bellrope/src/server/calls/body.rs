use std::sync::Arc;

use bellrope_proto::Reservation;

use super::buffers::SpareBuffers;

/// Bytes of a buffer beyond those in use that are left as they are, and beyond those as many as are in use.
const SLACK: usize = 4096;

/// Bytes that wait for room in a response ring. Permit and reservation, if any, are given back when they have gone.
#[derive(Debug)]
pub(crate) struct Body {
    bytes: Vec<u8>,
    /// Where the buffer goes when it is done with.
    home: Option<Arc<SpareBuffers>>,
    _reservation: Option<Reservation>,
    #[cfg(feature = "tokio")]
    _permit: Option<tokio::sync::OwnedSemaphorePermit>,
}

impl Body {
    /// Bytes that may wait with this reservation, in a buffer that `home` takes back.
    pub(crate) fn new(bytes: Vec<u8>, reservation: Option<Reservation>, home: &Arc<SpareBuffers>) -> Self {
        Self {
            bytes: fitted(bytes),
            home: Some(Arc::clone(home)),
            _reservation: reservation,
            #[cfg(feature = "tokio")]
            _permit: None,
        }
    }

    /// Bytes that may wait with this permit.
    #[cfg(feature = "tokio")]
    pub(crate) fn with_permit(bytes: Vec<u8>, permit: tokio::sync::OwnedSemaphorePermit) -> Self {
        Self { bytes: fitted(bytes), home: None, _reservation: None, _permit: Some(permit) }
    }
}

/// The same bytes without much more room than they need: what waits counts by its bytes, and its buffer may have been made for
/// a large request, or for a reply before it that was too large.
pub(crate) fn fitted(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.capacity() - bytes.len() > bytes.len().max(SLACK) {
        bytes.shrink_to_fit();
    }
    bytes
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            home.put(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use bellrope_proto::BufferBudget;

    use super::*;

    // Faults 34, 69.
    #[test]
    fn what_waits_has_no_more_room_than_it_counts_for() {
        let home = Arc::new(SpareBuffers::new(&BufferBudget::new(1 << 20)));
        for (len, room, most) in [(10, 10 << 20, 10), (60_000, 10 << 20, 60_000), (0, 1 << 20, 0)] {
            let mut bytes = Vec::with_capacity(room);
            bytes.resize(len, 7);
            let body = Body::new(bytes, None, &home);
            assert!(body.bytes.capacity() <= most + SLACK && body.as_ref() == vec![7; len]);
        }
        let bytes = Vec::with_capacity(1_000);
        let at = bytes.as_ptr();
        assert_eq!(Body::new(bytes, None, &home).as_ref().as_ptr(), at, "a little more is left alone");
    }
}
