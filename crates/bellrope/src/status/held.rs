//! Handlers that hold a thread for so long that others wait.

use std::{
    sync::atomic::{
        AtomicU64,
        Ordering::{AcqRel, Relaxed},
    },
    time::Duration,
};

/// How long a handler may hold a worker, or an async thread between two points where it waits.
pub(crate) const LONGEST_HOLD: Duration = Duration::from_millis(10);
/// How often the log names one handler.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// How often the handler of each message type held a thread for too long.
#[derive(Debug)]
pub(crate) struct HeldThreads(Vec<Row>);

#[derive(Debug, Default)]
struct Row {
    count: AtomicU64,
    /// When the log may name it again, in milliseconds since the server started.
    quiet_until_ms: AtomicU64,
}

impl HeldThreads {
    pub(crate) fn new(types: usize) -> Self {
        Self((0..types).map(|_| Row::default()).collect())
    }

    /// Counts that the handler of a registered type held a thread, and tells whether the log is to say so now, `since_start`
    /// of the server.
    pub(crate) fn note(&self, message_type: u16, since_start: Duration) -> bool {
        let Some(row) = self.0.get(usize::from(message_type).wrapping_sub(1)) else { return false };
        row.count.fetch_add(1, Relaxed);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (now, next) = (millis(since_start), millis(since_start.saturating_add(LOG_EVERY)));
        // Of several threads one says it.
        row.quiet_until_ms.fetch_update(AcqRel, Relaxed, |until| (now >= until).then_some(next)).is_ok()
    }

    /// How often, for the type in this place.
    pub(crate) fn count(&self, index: usize) -> u64 {
        self.0.get(index).map_or(0, |row| row.count.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hold_is_counted_and_one_a_minute_is_logged_for_each_type() {
        let held = HeldThreads::new(2);
        let said = |message_type, seconds| held.note(message_type, Duration::from_secs(seconds));
        assert_eq!([said(1, 0), said(1, 1), said(1, 59), said(2, 59)], [true, false, false, true]);
        assert_eq!([said(1, 60), said(1, 61), said(2, 118), said(2, 119)], [true, false, false, true]);
        assert_eq!([held.count(0), held.count(1), held.count(2)], [5, 3, 0]);
        assert!(!said(0, 500) && !said(3, 500), "no handler has these types");
    }
}
