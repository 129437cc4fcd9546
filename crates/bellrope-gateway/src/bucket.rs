//! How often a provider is asked at most: so many requests a minute, and so many at once. It is told the time and knows
//! no request.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bellrope::rate::{Debt, Rate};

/// A limit that callers of many threads share.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    /// `None` until the first request.
    debt: Mutex<Option<Debt>>,
}

impl Bucket {
    /// A full bucket. `None` for no limit.
    pub(crate) fn new(requests_per_minute: u32, burst: u32) -> Option<Self> {
        let period = Duration::from_secs(60).checked_div(requests_per_minute)?;
        let burst = if burst == 0 { requests_per_minute } else { burst };
        Some(Self { rate: Rate { burst, period }, debt: Mutex::new(None) })
    }

    /// Takes a token out.
    ///
    /// # Errors
    /// There is none; the time until there will be one.
    pub(crate) fn take(&self, now: Instant) -> Result<(), Duration> {
        let mut debt = self.debt.lock().unwrap_or_else(PoisonError::into_inner);
        debt.get_or_insert(Debt::none(now)).take(self.rate, now)
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
