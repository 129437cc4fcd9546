//! How long calls took, in buckets that are twice as wide each as the one before.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// The last one begins at nine hours.
const BUCKETS: usize = 36;

/// Counts of calls by how long they took: the first of those below a microsecond, each next one of those below twice as much.
#[derive(Debug)]
pub(crate) struct Latencies([AtomicU64; BUCKETS]);

impl Default for Latencies {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Latencies {
    pub(crate) fn add(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - us.leading_zeros()) as usize;
        self.0[bucket.min(BUCKETS - 1)].fetch_add(1, Relaxed);
    }

    /// The counts, without those after the last that is not 0.
    pub(crate) fn counts(&self) -> Vec<u64> {
        let mut counts: Vec<_> = self.0.iter().map(|count| count.load(Relaxed)).collect();
        let used = counts.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        counts.truncate(used);
        counts
    }
}

/// Below how many microseconds so much of what was counted is, such as 0.5 of it: the upper bound of a bucket. `None` of nothing.
/// Whoever said the counts may say anything.
pub(crate) fn quantile(counts: &[u64], share: f64) -> Option<u64> {
    let all = counts.iter().fold(0_u64, |all, count| all.saturating_add(*count));
    let wanted = (all as f64 * share).ceil().max(1.0) as u64;
    let mut seen = 0_u64;
    let bucket = counts.iter().position(|count| {
        seen = seen.saturating_add(*count);
        seen >= wanted
    });
    bucket.map(|bucket| 1 << bucket.min(BUCKETS - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_upper_bound_of_its_bucket() {
        let latencies = Latencies::default();
        assert_eq!((latencies.counts(), quantile(&latencies.counts(), 0.5)), (Vec::new(), None));
        (0..98).for_each(|_| latencies.add(Duration::from_micros(100)));
        (0..2).for_each(|_| latencies.add(Duration::from_millis(3)));
        latencies.add(Duration::ZERO);
        let counts = latencies.counts();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| quantile(&counts, share)), [1, 128, 4096, 4096].map(Some));
        latencies.add(Duration::MAX);
        assert_eq!(latencies.counts().len(), BUCKETS);
    }

    #[test]
    fn counts_of_a_stranger_make_no_number_that_is_none() {
        assert_eq!(quantile(&[u64::MAX; 100], 0.99), Some(1));
        assert_eq!(quantile(&[[0; 99].as_slice(), &[1]].concat(), 0.5), Some(1 << (BUCKETS - 1)));
    }
}
