//! No client can flood the log: lines about one process come out of a token bucket, and what is left out is counted. A process
//! id of 0 stands for all processes of a user that the kernel does not name, which live in other PID namespaces.
//!
//! It knows neither sockets nor messages, and is told the time.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bellrope_shm::socket::PeerCredentials;

use crate::rate::{Debt, Rate};

/// Lines about one process that may come at once.
const BURST: u32 = 50;
/// How soon one more may come after that.
const REFILL: Duration = Duration::from_millis(200);
const RATE: Rate = Rate { burst: BURST, period: REFILL };
/// Processes that are told apart; all others share one bucket.
const PROCESSES: usize = 256;
/// What those that share a bucket are known as.
const SHARED: Option<(u32, i32)> = None;

/// The buckets of all clients that something was logged about lately.
#[derive(Debug, Default)]
pub(crate) struct LogLimit(Mutex<HashMap<Option<(u32, i32)>, Bucket>>);

#[derive(Debug, Clone, Copy)]
struct Bucket {
    debt: Debt,
    /// Lines left out since the last one that came.
    left_out: u64,
}

/// Lines that were left out before one that may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LeftOut {
    /// About this process.
    pub(crate) of_this: u64,
    /// About those that shared a bucket, or have been forgotten.
    pub(crate) of_others: u64,
}

impl LogLimit {
    /// Whether a line about this process may come now; if so, how many were left out before it.
    pub(crate) fn admits(&self, peer: PeerCredentials, now: Instant) -> Option<LeftOut> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut of = Some((peer.uid, peer.pid));
        if !buckets.contains_key(&of) && buckets.len() >= PROCESSES {
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
                of = SHARED;
            }
        }
        let bucket = buckets.entry(of).or_insert(Bucket { debt: Debt::none(now), left_out: 0 });
        match bucket.debt.take(RATE, now) {
            Ok(()) => {
                let own = std::mem::take(&mut bucket.left_out);
                let of_others = buckets.get_mut(&SHARED).map_or(0, |shared| std::mem::take(&mut shared.left_out));
                let is_shared = of == SHARED;
                Some(LeftOut {
                    of_this: if is_shared { 0 } else { own },
                    of_others: of_others + if is_shared { own } else { 0 },
                })
            }
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

    /// A process of one and the same user.
    fn process(pid: i32) -> PeerCredentials {
        PeerCredentials { pid, uid: 7 }
    }

    fn left_out(of_this: u64, of_others: u64) -> Option<LeftOut> {
        Some(LeftOut { of_this, of_others })
    }

    // Fault 48.
    #[test]
    fn a_flood_of_one_process_is_cut_to_a_trickle_and_what_is_left_out_is_told() {
        let (limit, start) = (LogLimit::default(), Instant::now());
        let admitted = |pid, count: u32, at| (0..count).filter(|_| limit.admits(process(pid), at).is_some()).count();
        assert_eq!(admitted(7, 1_000, start), BURST as usize);
        assert_eq!(limit.admits(process(7), start + REFILL), left_out(950, 0), "the ones left out are told once");
        assert_eq!(limit.admits(process(7), start + REFILL), None);
        assert_eq!(limit.admits(process(8), start), left_out(0, 0), "another process has a bucket of its own");
        // A second of refilling, also when it is asked for in small steps.
        let steps =
            (1..=1_000).filter(|ms| limit.admits(process(7), start + REFILL + Duration::from_millis(*ms)).is_some());
        assert_eq!(steps.count(), 5);
        assert_eq!(admitted(7, 1_000, start + Duration::from_secs(60)), BURST as usize);
    }

    // Fault 48.
    #[test]
    fn processes_without_end_take_no_memory_without_end() {
        let (limit, start) = (LogLimit::default(), Instant::now());
        for pid in 1..=10_000 {
            limit.admits(process(pid), start);
        }
        assert!(limit.0.lock().unwrap().len() <= PROCESSES + 1);
        assert_eq!(limit.admits(process(20_000), start), None, "newcomers share a bucket, which is empty");
        // Processes about which nothing is logged make room.
        let told = limit.admits(process(20_001), start + Duration::from_secs(60));
        assert_eq!(told, left_out(0, 10_001 - PROCESSES as u64 - u64::from(BURST)), "what was left out, once");
    }

    // Fault 48.
    #[test]
    fn processes_that_once_logged_too_much_do_not_make_others_share_a_bucket_for_ever() {
        let (limit, start) = (LogLimit::default(), Instant::now());
        let flood = BURST + 7;
        for pid in 1..=PROCESSES as i32 {
            assert_eq!((0..flood).filter(|_| limit.admits(process(pid), start).is_none()).count(), 7);
        }
        let later = start + Duration::from_secs(60);
        assert_eq!(limit.admits(process(20_000), later), left_out(0, PROCESSES as u64 * 7), "it is told all the same");
        for pid in 20_001..20_100 {
            assert!(
                (0..BURST).all(|_| limit.admits(process(pid), later) == left_out(0, 0)),
                "each has a bucket of its own"
            );
        }
    }

    // Faults 48, 56.
    #[test]
    fn of_processes_that_the_kernel_does_not_name_no_user_silences_those_of_another() {
        let (limit, now) = (LogLimit::default(), Instant::now());
        let of = |uid| PeerCredentials { pid: 0, uid };
        assert_eq!((0..1_000).filter(|_| limit.admits(of(7), now).is_some()).count(), BURST as usize);
        assert_eq!(limit.admits(of(8), now), left_out(0, 0));
    }
}
