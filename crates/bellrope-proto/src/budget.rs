//! A bound on bytes that many connections share.
//!
//! **Absent on purpose**: nobody waits here. Who gets no reservation leaves his message where it is, in the ring, and
//! asks again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Bytes a second at which a large request has to come while others wait for its room.
const LEAST_RATE: u64 = 16 * 1024 * 1024;

/// How many bytes all connections of a server may hold outside their rings.
#[derive(Debug)]
pub struct Budget {
    /// Bytes. Never exceeded.
    limit: u64,
    /// Bytes reserved now, from 0 to `limit`.
    used: AtomicU64,
    /// Those who wait for room.
    waiting: AtomicU64,
}

/// Somebody who waits for room in a [`Budget`], until this is dropped.
#[derive(Debug)]
pub struct Waiting(Arc<Budget>);

/// Bytes of a [`Budget`] that are somebody's until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// A budget of `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(0), waiting: AtomicU64::new(0) })
    }

    /// Bytes in all.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes reserved now. It may have changed when the caller looks at it.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Counts somebody among those who wait for room. Nothing is reserved by that.
    #[must_use]
    pub fn wait(self: &Arc<Self>) -> Waiting {
        self.waiting.fetch_add(1, Relaxed);
        Waiting(Arc::clone(self))
    }

    /// Whether anybody waits for room. It may have changed when the caller looks at it.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    /// Reserves `bytes`, if there are as many left.
    ///
    /// ```
    /// use bellrope_proto::Budget;
    ///
    /// let budget = Budget::new(100);
    /// let most = budget.reserve(70).unwrap();
    /// assert!(budget.reserve(31).is_none());
    /// drop(most);
    /// assert!(budget.reserve(31).is_some());
    /// assert_eq!(budget.used(), 0);
    /// ```
    #[must_use]
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        // Only the number matters, no data hangs on it: relaxed.
        let taken = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Relaxed, Relaxed, taken).ok()?;
        Some(Reservation { budget: Arc::clone(self), bytes })
    }
}

/// How long a large request may keep its server waiting, and the room reserved for it, while others wait for room: a
/// `grace`, and a second for every 16 MiB of it that came. Each part buys time, but a tiny one next to none. Only time in
/// which nothing of it was there to be taken counts: that of a server which is busy with others is not its client's fault.
///
/// ```
/// use std::time::Duration;
///
/// use bellrope_proto::keeps_for;
///
/// let grace = Duration::from_millis(200);
/// assert_eq!(keeps_for(grace, 0), grace);
/// assert_eq!(keeps_for(grace, 16 * 1024 * 1024), grace + Duration::from_secs(1));
/// ```
#[must_use]
pub fn keeps_for(grace: Duration, came: u64) -> Duration {
    grace.saturating_add(Duration::from_micros(came.saturating_mul(1_000_000) / LEAST_RATE))
}

impl Reservation {
    /// Bytes reserved.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives back all but `bytes`. A smaller reservation stays as it is.
    pub fn shrink_to(&mut self, bytes: u64) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        self.budget.used.fetch_sub(surplus, Relaxed);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fault 34.
    #[test]
    fn no_thread_ever_sees_more_than_the_limit_reserved() {
        let budget = Budget::new(1000);
        std::thread::scope(|scope| {
            for seed in 1..=4_u64 {
                let budget = &budget;
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for step in 0..2000_u64 {
                        held.extend(budget.reserve(step * seed % 331));
                        assert!(budget.used() <= budget.limit());
                        if step % 3 == 0 {
                            held.clear();
                        }
                    }
                });
            }
        });
        assert_eq!(budget.used(), 0, "everything was given back");
    }

    #[test]
    fn room_is_wanted_as_long_as_anybody_waits_and_no_longer() {
        let budget = Budget::new(10);
        let _all = budget.reserve(10);
        assert!(!budget.is_wanted(), "who has room waits for none");
        let (one, other) = (budget.wait(), budget.wait());
        assert!(budget.is_wanted());
        drop(one);
        assert!(budget.is_wanted(), "one still waits");
        drop(other);
        assert!(!budget.is_wanted());
    }

    // Fault 34.
    #[test]
    fn each_part_of_a_large_request_buys_time_by_its_size_and_a_tiny_one_next_to_none() {
        let grace = Duration::from_millis(200);
        for (came, bought_us) in [(0, 0), (1, 0), (160, 9), (1 << 20, 62_500), (16 << 20, 1_000_000)] {
            assert_eq!(keeps_for(grace, came), grace + Duration::from_micros(bought_us), "{came} bytes");
        }
        assert_eq!(keeps_for(Duration::MAX, u64::MAX), Duration::MAX);
    }

    // Fault 7.
    #[test]
    fn hostile_sizes_do_not_overflow() {
        let budget = Budget::new(u64::MAX);
        let _one = budget.reserve(1).unwrap();
        assert!(budget.reserve(u64::MAX).is_none());
        let mut most = budget.reserve(u64::MAX - 1).unwrap();
        most.shrink_to(10);
        most.shrink_to(20);
        assert_eq!((most.bytes(), budget.used()), (10, 11));
    }
}
