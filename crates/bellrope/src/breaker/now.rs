use std::time::Instant;

/// The time, or a way to ask for it where asking costs more than not knowing: `Instant::now`, or an [`Instant`].
pub trait Now {
    /// The time.
    fn now(self) -> Instant;
}

impl Now for Instant {
    #[inline]
    fn now(self) -> Instant {
        self
    }
}

impl<F: FnOnce() -> Instant> Now for F {
    #[inline]
    fn now(self) -> Instant {
        self()
    }
}
