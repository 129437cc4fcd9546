//! How many of the calls of the last while failed or were slow. Time is cut into slices that are used in turn.
//!
//! Several threads may count at once. Where one starts a slice anew while another still counts into it, that count is
//! lost: rates need no exactness, and the state is not decided here.

use super::BreakerConfig;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

const SLICES: u64 = 10;

#[derive(Debug)]
pub(super) struct Window {
    slice_ns: u64,
    slices: [Slice; SLICES as usize],
    min_calls: u64,
    failure_percent: u64,
    slow_percent: u64,
}

#[derive(Debug, Default)]
struct Slice {
    /// Which stretch of time it counts, from 1 on; 0 for none.
    number: AtomicU64,
    calls: AtomicU32,
    failed: AtomicU32,
    slow: AtomicU32,
}

impl Window {
    pub(super) fn new(config: &BreakerConfig) -> Self {
        Self {
            slice_ns: super::nanos_of(config.rate_window_ms) / SLICES,
            slices: Default::default(),
            min_calls: config.rate_min_calls.into(),
            failure_percent: config.failure_rate_percent.into(),
            slow_percent: config.slow_rate_percent.into(),
        }
    }

    /// Counts a call. Answers whether a rate is reached.
    pub(super) fn note(&self, now_ns: u64, failed: bool, slow: bool) -> bool {
        let number = now_ns / self.slice_ns + 1;
        let slice = &self.slices[(number % SLICES) as usize];
        let found = slice.number.load(Ordering::Relaxed);
        if found < number && slice.number.compare_exchange(found, number, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            slice.empty();
        } else if found > number {
            // Told a time long past.
            return false;
        }
        slice.calls.fetch_add(1, Ordering::Relaxed);
        if failed {
            slice.failed.fetch_add(1, Ordering::Relaxed);
        }
        if slow {
            slice.slow.fetch_add(1, Ordering::Relaxed);
        }
        (failed || slow) && self.is_reached(number)
    }

    pub(super) fn clear(&self) {
        for slice in &self.slices {
            slice.number.store(0, Ordering::Relaxed);
            slice.empty();
        }
    }

    fn is_reached(&self, number: u64) -> bool {
        let oldest = number.saturating_sub(SLICES - 1).max(1);
        let (mut calls, mut failed, mut slow) = (0, 0, 0);
        for slice in &self.slices {
            if (oldest..=number).contains(&slice.number.load(Ordering::Relaxed)) {
                calls += u64::from(slice.calls.load(Ordering::Relaxed));
                failed += u64::from(slice.failed.load(Ordering::Relaxed));
                slow += u64::from(slice.slow.load(Ordering::Relaxed));
            }
        }
        let reached = |count: u64, percent: u64| percent > 0 && count * 100 >= calls * percent;
        calls >= self.min_calls && (reached(failed, self.failure_percent) || reached(slow, self.slow_percent))
    }
}

impl Slice {
    fn empty(&self) {
        for count in [&self.calls, &self.failed, &self.slow] {
            count.store(0, Ordering::Relaxed);
        }
    }
}
