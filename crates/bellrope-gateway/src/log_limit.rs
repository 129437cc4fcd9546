//! No caller floods the log: lines that a request can cause come out of a bucket, and what is left out is counted.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use bellrope::rate::{Rate, Throttle};
use tracing::warn;

/// The target of its log lines, which filters name: it stays when the file moves.
const TARGET: &str = "bellrope_gateway::gateway";
const RATE: Rate = Rate::LOG_LINES;

/// Lines of one kind.
#[derive(Debug)]
pub(crate) struct Lines(Mutex<Throttle>);

/// Lines about what callers did wrong. They leave none of the others out.
pub(crate) static OF_CALLERS: Lines = Lines::new();
/// Lines about providers, the way to them and their settings, which a caller's requests show.
pub(crate) static OF_PROVIDERS: Lines = Lines::new();

impl Lines {
    const fn new() -> Self {
        Self(Mutex::new(Throttle::new()))
    }

    /// Whether a line may come now. It is told how many were left out before it.
    pub(crate) fn may_come(&self) -> bool {
        let left_out = self.admits(Instant::now());
        if let Some(left_out) = left_out.filter(|left_out| *left_out > 0) {
            warn!(target: TARGET, left_out, "lines about requests like the next one were left out");
        }
        left_out.is_some()
    }

    fn admits(&self, now: Instant) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).admits(RATE, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fault 48.
    #[test]
    fn requests_without_end_make_few_lines_and_a_count() {
        let (lines, start) = (Lines::new(), Instant::now());
        let came = (0..1_000).filter(|_| lines.admits(start).is_some()).count();
        assert_eq!(came, RATE.burst as usize);
        assert_eq!(lines.admits(start + RATE.period), Some(1_000 - u64::from(RATE.burst)));
        assert_eq!(lines.admits(start + 2 * RATE.period), Some(0), "they are told once");
    }
}
