use std::sync::Arc;

use bellrope_proto::Reservation;

use super::buffers::Buffers;

/// Bytes that wait for room in a response ring. Permit and reservation, if any, are given back when they have gone.
#[derive(Debug)]
pub(crate) struct Body {
    bytes: Vec<u8>,
    /// Where the buffer goes when it is done with.
    home: Option<Arc<Buffers>>,
    _reservation: Option<Reservation>,
    #[cfg(feature = "tokio")]
    _permit: Option<tokio::sync::OwnedSemaphorePermit>,
}

impl Body {
    /// Bytes that may wait with this reservation, in a buffer that `home` takes back.
    pub(crate) fn new(bytes: Vec<u8>, reservation: Option<Reservation>, home: &Arc<Buffers>) -> Self {
        Self {
            bytes,
            home: Some(Arc::clone(home)),
            _reservation: reservation,
            #[cfg(feature = "tokio")]
            _permit: None,
        }
    }

    /// Bytes that may wait with this permit.
    #[cfg(feature = "tokio")]
    pub(crate) fn with_permit(bytes: Vec<u8>, permit: tokio::sync::OwnedSemaphorePermit) -> Self {
        Self { bytes, home: None, _reservation: None, _permit: Some(permit) }
    }
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
