//! The cheapest clock there is, for measuring short spans: the time-stamp counter where the machine has one.
#![expect(unsafe_code, reason = "reading the time-stamp counter is an intrinsic")]

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

pub use crate::system::clock::monotonic_us;

/// A reading of the clock, in ticks since some moment in the past. Two readings on different cores may disagree by a
/// few ticks.
#[inline]
#[must_use]
pub fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: every x86-64 processor has the instruction; it touches no memory.
        unsafe { std::arch::x86_64::_rdtsc() }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(not(target_arch = "x86_64"))]
static START: OnceLock<Instant> = OnceLock::new();

/// Ticks in a nanosecond, measured against the monotonic clock when first asked, which takes 10 ms.
#[must_use]
pub fn ticks_per_ns() -> f64 {
    static RATE: OnceLock<f64> = OnceLock::new();
    *RATE.get_or_init(|| {
        let (start, from) = stamp();
        while start.elapsed() < Duration::from_millis(10) {
            std::hint::spin_loop();
        }
        let (end, to) = stamp();
        (to - from) as f64 / (end - start).as_nanos() as f64
    })
}

/// Both clocks at one moment: the closest of several pairs, so that an interruption in between does no harm.
fn stamp() -> (Instant, u64) {
    let pair = || {
        let (before, ticks) = (Instant::now(), ticks());
        (before.elapsed(), before, ticks)
    };
    let closest = (0..10).map(|_| pair()).min_by_key(|(apart, ..)| *apart);
    closest.map_or_else(|| (Instant::now(), ticks()), |(_, moment, ticks)| (moment, ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_measure_time() {
        let (start, from) = stamp();
        while start.elapsed() < Duration::from_millis(20) {}
        let (end, to) = stamp();
        let measured = (to - from) as f64 / ticks_per_ns();
        let real = (end - start).as_nanos() as f64;
        assert!((measured / real - 1.0).abs() < 0.2, "{measured} ns measured of {real} ns");
    }
}
