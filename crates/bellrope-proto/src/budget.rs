//! A bound on bytes that many connections share.
//!
//! **Absent on purpose**: nobody waits here. Who gets no reservation leaves his message where it is, in the ring, and
//! asks again.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// How many bytes all connections of a server may hold outside their rings.
#[derive(Debug)]
pub struct Budget {
    /// Bytes. Never exceeded.
    limit: u64,
    /// Bytes reserved now, from 0 to `limit`.
    used: AtomicU64,
}

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
        Arc::new(Self { limit, used: AtomicU64::new(0) })
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

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
