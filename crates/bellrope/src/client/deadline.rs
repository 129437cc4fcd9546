//! When something has to be over.

use std::time::{Duration, Instant};

/// The longest that is waited for anything, about 30 years: some clocks do not go much further.
const LONGEST: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// A moment so far ahead. A time-out may be as long as `Duration::MAX`, to say "for ever".
pub(super) fn from_now(timeout: Duration) -> Instant {
    Instant::now() + timeout.min(LONGEST)
}

/// Time left until a deadline.
pub(super) fn left(deadline: Option<Instant>) -> Option<Duration> {
    deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
}
