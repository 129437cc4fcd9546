//! A token bucket: how often a provider is asked at most. It is told the time and knows no request.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many requests a minute, and so many at once.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// The time in which one token comes in.
    period: Duration,
    /// The most tokens there can be, as time.
    full: Duration,
    /// When the bucket will be full. It holds what is missing until then, in units of `period`; `None` while untouched.
    full_at: Mutex<Option<Instant>>,
}

impl Bucket {
    /// A full bucket. `None` for no limit.
    pub(crate) fn new(requests_per_minute: u32, burst: u32) -> Option<Self> {
        let period = Duration::from_secs(60).checked_div(requests_per_minute)?;
        let burst = if burst == 0 { requests_per_minute } else { burst };
        Some(Self { period, full: period.saturating_mul(burst), full_at: Mutex::new(None) })
    }

    /// Takes a token out.
    ///
    /// # Errors
    /// There is none; the time until there will be one.
    pub(crate) fn take(&self, now: Instant) -> Result<(), Duration> {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = full_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now)) + self.period;
        match missing.checked_sub(self.full).filter(|wait| !wait.is_zero()) {
            Some(wait) => Err(wait),
            None => {
                *full_at = Some(now + missing);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_needs_no_bucket() {
        assert!(Bucket::new(0, 5).is_none());
    }

    #[test]
    fn a_burst_goes_through_and_then_one_a_period() {
        let bucket = Bucket::new(60, 3).unwrap();
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(bucket.take(start), Ok(()));
        }
        assert_eq!(bucket.take(start), Err(Duration::from_secs(1)));
        assert_eq!(bucket.take(start + Duration::from_millis(400)), Err(Duration::from_millis(600)));
        assert_eq!(bucket.take(start + Duration::from_secs(1)), Ok(()));
        assert_eq!(bucket.take(start + Duration::from_secs(1)), Err(Duration::from_secs(1)));
    }

    #[test]
    fn a_long_pause_fills_it_no_further_than_its_burst() {
        let bucket = Bucket::new(600, 2).unwrap();
        let start = Instant::now();
        assert_eq!(bucket.take(start), Ok(()));
        let later = start + Duration::from_secs(3600);
        assert_eq!((bucket.take(later), bucket.take(later)), (Ok(()), Ok(())));
        assert_eq!(bucket.take(later), Err(Duration::from_millis(100)));
    }

    #[test]
    fn a_clock_that_stands_still_or_lags_harms_nobody() {
        let bucket = Bucket::new(60, 1).unwrap();
        let now = Instant::now() + Duration::from_secs(10);
        assert_eq!(bucket.take(now), Ok(()));
        assert_eq!(bucket.take(now - Duration::from_secs(5)), Err(Duration::from_secs(6)));
        assert_eq!(bucket.take(now + Duration::from_secs(1)), Ok(()));
    }
}
