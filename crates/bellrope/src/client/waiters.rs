//! Wakers of tasks that wait for something of a connection, and those whose time has come.
//!
//! A waker is anybody's code: it may poll its task at once, or be the last that holds a task with calls of the same client. So
//! none is woken or dropped while the state of the connection is locked: it is noted as [`DueWakers`].

#[cfg(feature = "tokio")]
use std::collections::BTreeMap;
use std::task::Waker;

/// The most of them for which memory is kept.
const MOST_KEPT: usize = 64;

/// Wakers that are woken or dropped when the lock is free. Empty whenever it is.
#[derive(Debug, Default)]
pub(crate) struct DueWakers {
    /// Mostly there is one.
    first: Option<Turn>,
    rest: Vec<Turn>,
}

/// A waker, and whether it is woken.
type Turn = (Waker, bool);

impl DueWakers {
    /// Has it woken.
    pub(super) fn wake(&mut self, waker: Waker) {
        self.add((waker, true));
    }

    /// Has it dropped.
    pub(super) fn forget(&mut self, waker: Waker) {
        self.add((waker, false));
    }

    fn add(&mut self, turn: Turn) {
        if self.first.is_none() {
            self.first = Some(turn);
        } else {
            self.rest.push(turn);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Takes all of them out, to be told without the lock.
    pub(super) fn take(&mut self) -> Self {
        let rest = if self.rest.is_empty() { Vec::new() } else { std::mem::take(&mut self.rest) };
        Self { first: self.first.take(), rest }
    }

    /// Wakes or drops them. What is left is empty, and has memory for as many as there were.
    pub(super) fn tell(&mut self) {
        let tell = |(waker, woken): Turn| {
            if woken {
                waker.wake();
            }
        };
        self.first.take().into_iter().for_each(tell);
        self.rest.drain(..).for_each(tell);
    }

    /// Uses the memory of one that was told.
    pub(super) fn reuse(&mut self, told: Self) {
        if told.rest.capacity() <= MOST_KEPT && self.rest.capacity() < told.rest.capacity() && self.rest.is_empty() {
            self.rest = told.rest;
        }
    }

    /// Whether it has memory that is worth keeping.
    pub(super) fn has_memory(&self) -> bool {
        self.rest.capacity() > 0
    }
}

/// Tasks that wait for the same thing, by the numbers of their places, which grow.
#[cfg(feature = "tokio")]
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    last: u64,
    by_number: BTreeMap<u64, Waker>,
}

#[cfg(feature = "tokio")]
impl Waiters {
    pub(super) fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Has a task woken when the time comes. It keeps its place, however often it asks.
    pub(super) fn wait(&mut self, place: &mut Option<u64>, waker: &Waker, told: &mut DueWakers) {
        let number = *place.get_or_insert_with(|| {
            self.last += 1;
            self.last
        });
        if self.by_number.get(&number).is_some_and(|known| known.will_wake(waker)) {
            return;
        }
        if let Some(before) = self.by_number.insert(number, waker.clone()) {
            told.forget(before);
        }
    }

    /// A task waits no longer.
    pub(super) fn leave(&mut self, place: u64, told: &mut DueWakers) {
        if let Some(waker) = self.by_number.remove(&place) {
            told.forget(waker);
        }
    }

    /// Has all of them woken.
    pub(super) fn wake(&mut self, told: &mut DueWakers) {
        while let Some((_, waker)) = self.by_number.pop_first() {
            told.wake(waker);
        }
    }
}
