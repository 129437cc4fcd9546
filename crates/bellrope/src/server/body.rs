/// Bytes that wait for room in a response ring. The permit, if any, is given back when they have gone.
#[derive(Debug)]
pub(crate) struct Body {
    bytes: Vec<u8>,
    #[cfg(feature = "tokio")]
    _permit: Option<tokio::sync::OwnedSemaphorePermit>,
}

impl Body {
    #[cfg(feature = "tokio")]
    pub(crate) fn with_permit(bytes: Vec<u8>, permit: tokio::sync::OwnedSemaphorePermit) -> Self {
        Self { bytes, _permit: Some(permit) }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            #[cfg(feature = "tokio")]
            _permit: None,
        }
    }
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
