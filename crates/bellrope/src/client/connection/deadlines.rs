//! When the calls of an exclusive connection have to be over that were given a time-out.
//!
//! A call that ends in time is not looked for here: its entry stays until its time has come, or until there are far more
//! entries than calls under way.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet},
    time::Instant,
};

/// Entries that are kept without a look at which of them are of use.
const FEW: usize = 64;

#[derive(Debug)]
pub(super) struct Deadlines {
    /// The earliest first.
    calls: BinaryHeap<Reverse<(Instant, u64)>>,
    /// With so many entries, those of ended calls are removed.
    crowded: usize,
}

impl Deadlines {
    pub(super) fn new() -> Self {
        Self { calls: BinaryHeap::new(), crowded: FEW }
    }

    /// Notes when a call has to be over. `under_way` are the ids of all calls that are.
    pub(super) fn note(&mut self, deadline: Instant, id: u64, under_way: impl Iterator<Item = u64>) {
        if self.calls.len() >= self.crowded {
            let under_way: HashSet<u64> = under_way.collect();
            self.calls.retain(|Reverse((_, id))| under_way.contains(id));
            self.crowded = FEW + 2 * self.calls.len();
        }
        self.calls.push(Reverse((deadline, id)));
    }

    /// Whether nobody's time is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// The next deadline of all.
    pub(super) fn next(&self) -> Option<Instant> {
        self.calls.peek().map(|Reverse((deadline, _))| *deadline)
    }

    /// Takes a call whose time is over by now. It may have ended.
    pub(super) fn take_late(&mut self, now: Instant) -> Option<u64> {
        self.next().filter(|deadline| *deadline <= now)?;
        self.calls.pop().map(|Reverse((_, id))| id)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_earliest_comes_first_and_what_has_ended_does_not_pile_up() {
        let (mut deadlines, now) = (Deadlines::new(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        for (seconds, id) in [(30, 1), (10, 2), (20, 3)] {
            deadlines.note(after(seconds), id, std::iter::empty());
        }
        assert_eq!((deadlines.next(), deadlines.take_late(after(9))), (Some(after(10)), None));
        let mut late = || deadlines.take_late(after(20));
        assert_eq!([late(), late(), late()], [Some(2), Some(3), None]);
        // Three calls are under way all the time, and each ends long before its time.
        for id in 10..100_000 {
            deadlines.note(after(id), id, id - 3..id);
            assert!(deadlines.calls.len() <= 2 * FEW, "{}", deadlines.calls.len());
        }
        assert!(!deadlines.is_empty());
    }
}
