//! The kernel's clock.

use rustix::time::{ClockId, clock_gettime};

/// The monotonic clock in microseconds. All processes of a machine read the same one, unless they are in time
/// namespaces of their own.
#[inline]
#[must_use]
pub fn monotonic_us() -> u64 {
    microseconds(ClockId::Monotonic)
}

/// A clock in microseconds.
#[inline]
pub(super) fn microseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec * 1_000_000 + time.tv_nsec / 1_000).unwrap_or(0)
}
