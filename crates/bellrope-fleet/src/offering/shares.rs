//! How many of the calls that may run here each server has: nobody has more than half of the places.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// By the number of a server's key; all that nobody has signed are one.
#[derive(Debug, Default)]
pub(super) struct Shares(Mutex<HashMap<Option<u64>, Arc<AtomicUsize>>>);

/// A place of a call, until it has ended.
#[derive(Debug)]
pub(super) struct Share(Arc<AtomicUsize>);

impl Drop for Share {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Shares {
    /// A place for a call of this server, if it has fewer than so many.
    pub(super) fn take(&self, server: Option<u64>, most: usize) -> Option<Share> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = Arc::clone(counts.entry(server).or_default());
        let has = count.load(Relaxed);
        if has == 0 {
            // Whoever has nothing here is forgotten, now and then.
            counts.retain(|known, count| *known == server || count.load(Relaxed) > 0);
        }
        (has < most).then(|| {
            count.fetch_add(1, Relaxed);
            Share(count)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_and_what_has_ended_counts_no_more() {
        let shares = Shares::default();
        let held: Vec<_> = (0..10).filter_map(|_| shares.take(Some(1), 4)).collect();
        assert_eq!(held.len(), 4);
        assert!(shares.take(Some(2), 4).is_some() && shares.take(None, 4).is_some());
        drop(held);
        assert!(shares.take(Some(1), 4).is_some());
        (0..10_000).for_each(|server| drop(shares.take(Some(server), 4)));
        assert!(shares.0.lock().unwrap().len() <= 2);
    }
}
