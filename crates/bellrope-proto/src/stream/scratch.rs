//! Where bytes lie for a moment on their way between a socket and a ring.

/// Bytes that an end keeps beside the rings at most: those that came and find no room in the ring.
pub const READ_AHEAD: usize = 8 * 1024;

/// Bytes that one read or write moves at most.
const LEN: usize = 64 * 1024;

/// Where bytes lie for a moment on their way between a socket and a ring, 64 KiB. Nothing stays in it, so all connections of a
/// thread share one.
#[derive(Debug)]
pub struct Scratch(pub(super) Box<[u8]>);

impl Scratch {
    /// A new one.
    #[must_use]
    pub fn new() -> Self {
        Self(vec![0; LEN].into())
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

const _: () = assert!(LEN > READ_AHEAD, "what was kept stands before what comes");
