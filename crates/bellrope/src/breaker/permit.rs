use std::{
    mem,
    ops::Deref,
    time::{Duration, Instant},
};

use super::{caller::Caller, core::Breaker, now::Now, word};

/// What an admitted call takes along.
#[derive(Debug, Clone, Copy)]
pub(super) struct Admitted {
    /// The mode and generation that admitted it.
    pub(super) key: u32,
    /// When, if anybody will ask.
    pub(super) started: Option<Instant>,
}

/// An admitted call's right to say how it ended: once, and only to the state that admitted it.
///
/// Dropped without a verdict, because the caller cancelled, the request was bad or the code panicked, it counts for
/// nothing and gives its place back. `B` is a reference to the breaker, or an `Arc` of it.
///
/// ```
/// use std::time::Instant;
///
/// use bellrope::breaker::{Breaker, BreakerConfig, Caller};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let breaker = Breaker::new(BreakerConfig::default())?;
/// let permit = breaker.acquire(Instant::now)?;
/// println!("probe: {}, slow from {:?} on", permit.is_probe(), permit.slow_call());
/// permit.succeed(Instant::now); // or `fail`
///
/// // Where callers are told apart.
/// let caller = Caller::Connection(7);
/// breaker.acquire_for(|| caller, Instant::now)?.fail_for(caller, Instant::now);
/// // A stream takes as long as its reader likes.
/// breaker.acquire_for(|| caller, Instant::now)?.untimed().succeed_for(|| caller, Instant::now);
/// # breaker.acquire(Instant::now)?.fail(Instant::now);
/// # Ok(())
/// # }
/// ```
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
        self.breaker.succeeded(key, || None, self.started, now);
    }

    /// The call went well. `caller` is asked who made it where that matters: the same as with
    /// [`Breaker::acquire_for`].
    #[inline(always)]
    pub fn succeed_for(mut self, caller: impl FnOnce() -> Caller, now: impl Now) {
        let key = mem::replace(&mut self.key, SETTLED);
        self.breaker.succeeded(key, || Some(caller()), self.started, now);
    }

    /// The call failed by what was called: what its caller chose or did is no failure.
    pub fn fail(mut self, now: impl Now) {
        let key = mem::replace(&mut self.key, SETTLED);
        self.breaker.settle(key, None, self.started, now.now(), false);
    }

    /// The call failed, and was this caller's.
    pub fn fail_for(mut self, caller: Caller, now: impl Now) {
        let key = mem::replace(&mut self.key, SETTLED);
        self.breaker.settle(key, Some(caller), self.started, now.now(), false);
    }

    /// From which on a call is slow, by the breaker's settings.
    #[must_use]
    pub fn slow_call(&self) -> Duration {
        self.breaker.slow_call()
    }

    /// The same permit, for a call that is never slow: its caller decides how long it takes.
    pub fn untimed(mut self) -> Self {
        self.started = None;
        self
    }

    /// Whether the call is one of the few that decide whether a half-open breaker closes.
    #[inline]
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
