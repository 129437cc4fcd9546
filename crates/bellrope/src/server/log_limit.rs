//! No client can flood the log: lines about one process come out of a token bucket, and what is left out is counted.
//!
//! It knows neither sockets nor messages, and is told the time.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Lines about one process that may come at once.
const BURST: u32 = 50;
/// How soon one more may come after that.
const REFILL: Duration = Duration::from_millis(200);
/// Processes that are told apart; all others share one bucket.
const PROCESSES: usize = 256;
/// What those that share have for a process id.
const SHARED: i32 = 0;

/// The buckets of all clients that something was logged about lately.
#[derive(Debug, Default)]
pub(super) struct Quiet(Mutex<HashMap<i32, Bucket>>);

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Lines that may come at once, when it was last looked at.
    left: u32,
    looked: Instant,
    /// Lines left out since the last one that came.
    left_out: u64,
}

impl Quiet {
    /// Whether a line about this process may come now; if so, how many were left out before it.
    pub(super) fn admits(&self, pid: i32, now: Instant) -> Option<u64> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pid = pid;
        if !buckets.contains_key(&pid) && buckets.len() >= PROCESSES {
            // A full bucket with nothing left out says no more than none.
            buckets.retain(|_, bucket| bucket.left_out > 0 || bucket.lines(now) < BURST);
            if buckets.len() >= PROCESSES {
                pid = SHARED;
            }
        }
        let full = Bucket { left: BURST, looked: now, left_out: 0 };
        let bucket = buckets.entry(pid).or_insert(full);
        let lines = bucket.lines(now);
        if lines == 0 {
            bucket.left_out += 1;
            return None;
        }
        let left_out = bucket.left_out;
        // What is left of the time since then, so that a steady trickle gets its due.
        let rest = match lines {
            BURST => Duration::ZERO,
            _ => now.saturating_duration_since(bucket.looked).saturating_sub(REFILL * (lines - bucket.left)),
        };
        let looked = now.checked_sub(rest).unwrap_or(now);
        *bucket = Bucket { left: lines - 1, looked, left_out: 0 };
        Some(left_out)
    }
}

impl Bucket {
    fn lines(&self, now: Instant) -> u32 {
        let refilled = now.saturating_duration_since(self.looked).as_millis() / REFILL.as_millis();
        self.left.saturating_add(u32::try_from(refilled).unwrap_or(BURST)).min(BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fault 48.
    #[test]
    fn a_flood_of_one_process_is_cut_to_a_trickle_and_what_is_left_out_is_told() {
        let (quiet, start) = (Quiet::default(), Instant::now());
        let admitted = |pid, count: u32, at| (0..count).filter(|_| quiet.admits(pid, at).is_some()).count();
        assert_eq!(admitted(7, 1_000, start), BURST as usize);
        assert_eq!(quiet.admits(7, start + REFILL), Some(950), "the ones left out are told once");
        assert_eq!(quiet.admits(7, start + REFILL), None);
        assert_eq!(quiet.admits(8, start), Some(0), "another process has a bucket of its own");
        // A second of refilling, also when it is asked for in small steps.
        let steps = (1..=1_000).filter(|ms| quiet.admits(7, start + REFILL + Duration::from_millis(*ms)).is_some());
        assert_eq!(steps.count(), 5);
        assert_eq!(admitted(7, 1_000, start + Duration::from_secs(60)), BURST as usize);
    }

    // Fault 48.
    #[test]
    fn processes_without_end_take_no_memory_without_end() {
        let (quiet, start) = (Quiet::default(), Instant::now());
        for pid in 1..=10_000 {
            quiet.admits(pid, start);
        }
        assert!(quiet.0.lock().unwrap().len() <= PROCESSES + 1);
        assert_eq!(quiet.admits(20_000, start), None, "newcomers share a bucket, which is empty");
        // Those that were quiet make room.
        assert_eq!(quiet.admits(20_001, start + Duration::from_secs(60)), Some(0));
    }
}
