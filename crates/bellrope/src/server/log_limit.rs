//! No client can flood the log: lines about one process come out of a token bucket, and what is left out is counted.
//!
//! It knows neither sockets nor messages, and is told the time.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::rate::{Debt, Rate};

/// Lines about one process that may come at once.
const BURST: u32 = 50;
/// How soon one more may come after that.
const REFILL: Duration = Duration::from_millis(200);
const RATE: Rate = Rate { burst: BURST, period: REFILL };
/// Processes that are told apart; all others share one bucket.
const PROCESSES: usize = 256;
/// What those that share have for a process id.
const SHARED: i32 = 0;

/// The buckets of all clients that something was logged about lately.
#[derive(Debug, Default)]
pub(crate) struct LogLimit(Mutex<HashMap<i32, Bucket>>);

#[derive(Debug, Clone, Copy)]
struct Bucket {
    debt: Debt,
    /// Lines left out since the last one that came.
    left_out: u64,
}

impl LogLimit {
    /// Whether a line about this process may come now; if so, how many were left out before it.
    pub(crate) fn admits(&self, pid: i32, now: Instant) -> Option<u64> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pid = pid;
        if !buckets.contains_key(&pid) && buckets.len() >= PROCESSES {
            // A full bucket says no more than none, but for what was left out: those that share one tell it.
            let mut left_out = 0;
            buckets.retain(|_, bucket| {
                let stays = !bucket.debt.is_paid(now);
                left_out += if stays { 0 } else { bucket.left_out };
                stays
            });
            if left_out > 0 {
                buckets.entry(SHARED).or_insert(Bucket { debt: Debt::none(now), left_out: 0 }).left_out += left_out;
            }
            if buckets.len() >= PROCESSES {
                pid = SHARED;
            }
        }
        let bucket = buckets.entry(pid).or_insert(Bucket { debt: Debt::none(now), left_out: 0 });
        match bucket.debt.take(RATE, now) {
            Ok(()) => Some(std::mem::take(&mut bucket.left_out)),
            Err(_) => {
                bucket.left_out += 1;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fault 48.
    #[test]
    fn a_flood_of_one_process_is_cut_to_a_trickle_and_what_is_left_out_is_told() {
        let (limit, start) = (LogLimit::default(), Instant::now());
        let admitted = |pid, count: u32, at| (0..count).filter(|_| limit.admits(pid, at).is_some()).count();
        assert_eq!(admitted(7, 1_000, start), BURST as usize);
        assert_eq!(limit.admits(7, start + REFILL), Some(950), "the ones left out are told once");
        assert_eq!(limit.admits(7, start + REFILL), None);
        assert_eq!(limit.admits(8, start), Some(0), "another process has a bucket of its own");
        // A second of refilling, also when it is asked for in small steps.
        let steps = (1..=1_000).filter(|ms| limit.admits(7, start + REFILL + Duration::from_millis(*ms)).is_some());
        assert_eq!(steps.count(), 5);
        assert_eq!(admitted(7, 1_000, start + Duration::from_secs(60)), BURST as usize);
    }

    // Fault 48.
    #[test]
    fn processes_without_end_take_no_memory_without_end() {
        let (limit, start) = (LogLimit::default(), Instant::now());
        for pid in 1..=10_000 {
            limit.admits(pid, start);
        }
        assert!(limit.0.lock().unwrap().len() <= PROCESSES + 1);
        assert_eq!(limit.admits(20_000, start), None, "newcomers share a bucket, which is empty");
        // Processes about which nothing is logged make room.
        assert_eq!(limit.admits(20_001, start + Duration::from_secs(60)), Some(0));
    }

    // Fault 48.
    #[test]
    fn processes_that_once_logged_too_much_do_not_make_others_share_a_bucket_for_ever() {
        let (limit, start) = (LogLimit::default(), Instant::now());
        let flood = BURST + 7;
        for pid in 1..=PROCESSES as i32 {
            assert_eq!((0..flood).filter(|_| limit.admits(pid, start).is_none()).count(), 7);
        }
        let later = start + Duration::from_secs(60);
        for pid in 20_000..20_100 {
            assert!((0..BURST).all(|_| limit.admits(pid, later) == Some(0)), "each has a bucket of its own");
        }
        assert_eq!(limit.admits(SHARED, later), Some(PROCESSES as u64 * 7), "what was left out is told all the same");
    }
}
