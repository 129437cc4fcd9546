//! How many of the calls of the last while failed or were slow. Time is cut into slices that are used in turn.
//!
//! Several threads may count at once. Where one starts a slice anew while another still counts into it, that count is
//! lost: rates need no exactness, and the state is not decided here.

use std::{sync::atomic::AtomicU64 as Setting, time::Duration};

use super::config::Live;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

const SLICES: u64 = 10;
/// Below it stands the place of a slice in time, from it on how often the window began anew: see [`Window::span`].
const EPOCH: u32 = 48;
const PLACE_MASK: u64 = (1 << EPOCH) - 1;

#[derive(Debug)]
pub(super) struct Window {
    /// How often it began anew, and below [`EPOCH`] how long a slice is, in microseconds. Written by one at a time.
    span: Setting,
    slices: [Slice; SLICES as usize],
}

#[derive(Debug, Default)]
struct Slice {
    /// Which stretch of time it counts, from 1 on, with the epoch above it; 0 for none.
    number: AtomicU64,
    calls: AtomicU32,
    failed: AtomicU32,
    slow: AtomicU32,
}

impl Window {
    /// A window that looks back so far.
    pub(super) fn new(window: Duration) -> Self {
        Self { span: Setting::new(slice_us(window)), slices: Default::default() }
    }

    /// Begins anew, with another length perhaps. Whoever still counts by the old one is a stretch long past.
    pub(super) fn restart(&self, window: Duration) {
        let epoch = (self.span.load(Ordering::Relaxed) & !PLACE_MASK).wrapping_add(PLACE_MASK + 1);
        self.span.store(epoch | slice_us(window), Ordering::Relaxed);
        self.clear();
    }

    /// Counts a call. Answers whether a rate is reached.
    pub(super) fn note(&self, now_ns: u64, failed: bool, slow: bool, live: &Live) -> bool {
        let span = self.span.load(Ordering::Relaxed);
        let place = (now_ns / 1_000 / (span & PLACE_MASK) + 1) & PLACE_MASK;
        let number = span & !PLACE_MASK | place;
        let slice = &self.slices[(place % SLICES) as usize];
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
        (failed || slow) && self.is_reached(number, live)
    }

    pub(super) fn clear(&self) {
        for slice in &self.slices {
            slice.number.store(0, Ordering::Relaxed);
            slice.empty();
        }
    }

    fn is_reached(&self, number: u64, live: &Live) -> bool {
        // No slice stands so late in an epoch that it would seem to be just before the next one. The oldest of these has
        // the same place as the newest, and made room for it.
        let oldest = number.saturating_sub(SLICES).max(1);
        let (mut calls, mut failed, mut slow) = (0, 0, 0);
        for slice in &self.slices {
            if (oldest..=number).contains(&slice.number.load(Ordering::Relaxed)) {
                calls += u64::from(slice.calls.load(Ordering::Relaxed));
                failed += u64::from(slice.failed.load(Ordering::Relaxed));
                slow += u64::from(slice.slow.load(Ordering::Relaxed));
            }
        }
        live.is_reached(calls, failed, slow)
    }
}

/// How long a slice of such a window is. At least a millisecond, and far below 2^[`EPOCH`].
fn slice_us(window: Duration) -> u64 {
    u64::try_from(window.as_micros()).unwrap_or(u64::MAX) / SLICES
}

impl Slice {
    fn empty(&self) {
        for count in [&self.calls, &self.failed, &self.slow] {
            count.store(0, Ordering::Relaxed);
        }
    }
}
