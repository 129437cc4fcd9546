use std::{mem, ops::Deref, time::Instant};

use super::{Admitted, Breaker, word};

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

/// An admitted call's right to say how it ended: once, and only to the state that admitted it.
///
/// Dropped without a verdict, because the caller cancelled, the request was bad or the code panicked, it counts for
/// nothing and gives its place back. `B` is a reference to the breaker, or an `Arc` of it.
#[derive(Debug)]
#[must_use = "a permit that is dropped counts for nothing"]
pub struct Permit<B: Deref<Target = Breaker>> {
    breaker: B,
    key: u32,
    started: Option<Instant>,
}

/// A key that settles nothing and is no probe's.
const SETTLED: u32 = 0;

impl<B: Deref<Target = Breaker>> Permit<B> {
    #[inline]
    pub(super) fn new(breaker: B, Admitted { key, started }: Admitted) -> Self {
        Self { breaker, key, started }
    }

    /// The call went well.
    #[inline]
    pub fn succeed(mut self, now: impl Now) {
        let key = mem::replace(&mut self.key, SETTLED);
        self.breaker.succeeded(key, self.started, now);
    }

    /// The call failed, by its handler's fault or by taking too long.
    pub fn fail(mut self, now: impl Now) {
        let key = mem::replace(&mut self.key, SETTLED);
        self.breaker.settle(key, self.started, now.now(), false);
    }

    /// Whether the call is one of the few that decide whether a half-open breaker closes.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        word::is_probe(self.key)
    }
}

impl<B: Deref<Target = Breaker>> Drop for Permit<B> {
    #[inline]
    fn drop(&mut self) {
        if self.is_probe() {
            self.breaker.released(self.key);
        }
    }
}
