//! When a worker looks after clients that leave something half done.

use std::time::{Duration, Instant};

use crate::server::core::SWEEP;

/// How often a worker looks after large requests that are on their way, at the most.
const LOOK_AFTER_UNFINISHED: Duration = Duration::from_millis(10);
/// How long a worker sleeps at the most while requests wait for the buffer budget.
const STARVED_PAUSE: Duration = Duration::from_millis(1);

/// When a worker last looked, and when it is to look again.
pub(crate) struct Patience {
    /// When it last looked for clients that let it wait.
    swept: Instant,
    /// When it last looked for large requests that come too slowly.
    reclaimed: Instant,
}

impl Patience {
    pub(crate) fn new(now: Instant) -> Self {
        Self { swept: now, reclaimed: now }
    }

    /// Every second it is time to look for clients that left something half done.
    pub(crate) fn is_time_to_sweep(&mut self, now: Instant) -> bool {
        if now - self.swept < SWEEP {
            return false;
        }
        self.swept = now;
        true
    }

    /// Now and then it is time to look after large requests that are on their way: how long their clients had since
    /// then. `grace` is what they have in all.
    pub(crate) fn is_time_to_reclaim(&mut self, now: Instant, grace: Duration) -> Option<Duration> {
        if now - self.reclaimed < LOOK_AFTER_UNFINISHED {
            return None;
        }
        // If we were kept from looking for longer than that, so may clients have been from sending.
        let waited = (now - self.reclaimed).min(between_looks(grace));
        self.reclaimed = now;
        Some(waited)
    }
}

/// How long there is nothing to look after, unless somebody rings.
pub(crate) fn longest_sleep(starved: bool, reclaims: bool, grace: Duration) -> Duration {
    match (starved, reclaims) {
        (true, _) => STARVED_PAUSE,
        (false, true) => between_looks(grace),
        (false, false) => SWEEP,
    }
}

/// How long a worker that has nothing to do leaves large requests alone that are on their way.
fn between_looks(grace: Duration) -> Duration {
    LOOK_AFTER_UNFINISHED.max(grace / 4)
}
