//! Rate limits, kept as debt.
//!
//! Each unit that a party uses is owed for a *period*. Debts shrink as time passes, and as long as no more than a *burst* is
//! owed, nothing has to wait. This is the generic cell rate algorithm: a token bucket that needs one moment of memory. The
//! time is an argument; the caller keeps who owes what.
//!
//! ```
//! use std::time::{Duration, Instant};
//!
//! use bellrope::rate::{Debt, Rate};
//!
//! let rate = Rate { burst: 2, period: Duration::from_secs(1) };
//! let now = Instant::now();
//! let mut debt = Debt::none(now);
//! assert_eq!(debt.take(rate, now), Ok(()));
//! assert_eq!(debt.take(rate, now), Ok(()));
//! assert_eq!(debt.take(rate, now), Err(Duration::from_secs(1)));
//! assert_eq!(debt.take(rate, now + Duration::from_secs(1)), Ok(()));
//!
//! assert_eq!(rate.burst_time(), Duration::from_secs(2));
//! assert_eq!((debt.is_paid(now), debt.wait(rate, now)), (false, Duration::from_secs(1)));
//! // For what is done all the same, and pays later: two units more, of which at most two are owed beyond the burst.
//! let more = debt.and_one(rate, now).and_one(rate, now).at_most(2, rate, now);
//! assert_eq!(more.wait(rate, now), Duration::from_secs(2));
//! ```

use std::time::{Duration, Instant};

/// How much may come at once, and how soon one more after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Units that may come at once. With none, nothing may ever come.
    pub burst: u32,
    /// The time in which one unit is paid off.
    pub period: Duration,
}

impl Rate {
    /// Of lines in a log about one party: 50 at once, and then five a second.
    pub const LOG_LINES: Self = Self { burst: 50, period: Duration::from_millis(200) };

    /// How long it takes to pay a whole burst off.
    #[must_use]
    pub fn burst_time(self) -> Duration {
        self.period.saturating_mul(self.burst)
    }
}

/// What comes at a rate, and how much of it did not.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// use bellrope::rate::{Throttle, Rate};
///
/// let rate = Rate { burst: 1, period: Duration::from_secs(1) };
/// let now = Instant::now();
/// let mut lines = Throttle::new();
/// assert_eq!(lines.admits(rate, now), Some(0));
/// assert_eq!(lines.admits(rate, now), None);
/// assert_eq!(lines.admits(rate, now + rate.period), Some(1));
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Throttle {
    /// `None`: nothing has come yet.
    debt: Option<Debt>,
    left_out: u64,
}

impl Throttle {
    /// Nothing has come yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { debt: None, left_out: 0 }
    }

    /// Whether one may come now; if so, how many were left out since the last one that came.
    ///
    /// # Panics
    /// As [`Debt::and_one`].
    pub fn admits(&mut self, rate: Rate, now: Instant) -> Option<u64> {
        if self.debt.get_or_insert(Debt::none(now)).take(rate, now).is_err() {
            self.left_out += 1;
            return None;
        }
        Some(std::mem::take(&mut self.left_out))
    }
}

/// What one party owes: the moment at which everything will have been paid off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Debt(Instant);

impl Debt {
    /// Nothing.
    #[must_use]
    pub fn none(now: Instant) -> Self {
        Self(now)
    }

    /// Whether nothing is owed any more.
    #[must_use]
    pub fn is_paid(self, now: Instant) -> bool {
        self.0 <= now
    }

    /// How long it takes until no more than the burst is owed.
    #[must_use]
    pub fn wait(self, rate: Rate, now: Instant) -> Duration {
        self.0.saturating_duration_since(now).saturating_sub(rate.burst_time())
    }

    /// This with one unit more.
    ///
    /// # Panics
    /// If the system's clock cannot express the moment, which is centuries away.
    #[must_use]
    pub fn and_one(self, rate: Rate, now: Instant) -> Self {
        Self(self.0.max(now) + rate.period)
    }

    /// This, but at most so many units beyond the burst.
    ///
    /// # Panics
    /// As [`Debt::and_one`].
    #[must_use]
    pub fn at_most(self, beyond: u32, rate: Rate, now: Instant) -> Self {
        Self(self.0.min(now + rate.burst_time() + rate.period.saturating_mul(beyond)))
    }

    /// Uses one unit.
    ///
    /// # Errors
    /// The burst is used up; the time until there is a unit again. Nothing is charged then.
    ///
    /// # Panics
    /// As [`Debt::and_one`].
    pub fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        let next = self.and_one(rate, now);
        let wait = next.wait(rate, now);
        if !wait.is_zero() {
            return Err(wait);
        }
        *self = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_millis(200);
    const RATE: Rate = Rate { burst: 3, period: PERIOD };

    #[test]
    fn a_burst_goes_through_and_then_one_a_period() {
        let start = Instant::now();
        let mut debt = Debt::none(start);
        for _ in 0..3 {
            assert_eq!(debt.take(RATE, start), Ok(()));
        }
        assert_eq!(debt.take(RATE, start), Err(PERIOD));
        assert_eq!(debt.take(RATE, start + PERIOD / 4), Err(PERIOD * 3 / 4));
        assert_eq!(debt.take(RATE, start + PERIOD), Ok(()));
        assert_eq!(debt.take(RATE, start + PERIOD), Err(PERIOD), "a refusal costs nothing");
        // A steady trickle gets its due, however often it is asked for.
        let steps = (1..=1_000).filter(|ms| debt.take(RATE, start + PERIOD + Duration::from_millis(*ms)).is_ok());
        assert_eq!(steps.count(), 5);
    }

    #[test]
    fn a_long_pause_pays_for_no_more_than_a_burst() {
        let start = Instant::now();
        let mut debt = Debt::none(start);
        assert_eq!(debt.take(RATE, start), Ok(()));
        assert!(!debt.is_paid(start) && debt.is_paid(start + PERIOD));
        let later = start + PERIOD * 1_000;
        assert_eq!((0..10).filter(|_| debt.take(RATE, later).is_ok()).count(), 3);
    }

    #[test]
    fn what_is_owed_beyond_the_burst_waits_and_is_bounded() {
        let start = Instant::now();
        let mut debt = Debt::none(start);
        for _ in 0..4 {
            debt = debt.and_one(RATE, start);
        }
        assert_eq!(debt.wait(RATE, start), PERIOD);
        assert_eq!(debt.wait(RATE, start + PERIOD), Duration::ZERO);
        for _ in 0..100 {
            debt = debt.and_one(RATE, start).at_most(10, RATE, start);
        }
        assert_eq!(debt.wait(RATE, start), PERIOD * 10);
    }

    #[test]
    fn a_clock_that_stands_still_or_lags_harms_nobody() {
        let now = Instant::now() + Duration::from_secs(10);
        let rate = Rate { burst: 1, ..RATE };
        let mut debt = Debt::none(now);
        assert_eq!(debt.take(rate, now), Ok(()));
        assert_eq!(debt.take(rate, now - PERIOD), Err(PERIOD * 2));
        assert_eq!(debt.take(rate, now + PERIOD), Ok(()));
    }
}
