//! What waits, in turns by the process that it came from: nobody stands behind all that another process has put in.
//!
//! It knows no socket: what waits is its owner's business.

use std::collections::{HashMap, VecDeque};

use bellrope_shm::socket::PeerCredentials;

/// What waits, in a line for each process. A process id of 0 stands for all processes of a user that the kernel does not name.
#[derive(Debug)]
pub(crate) struct ByProcess<T> {
    /// Whose turn is next is first. None is empty.
    lines: VecDeque<(PeerCredentials, VecDeque<T>)>,
    len: usize,
}

impl<T> Default for ByProcess<T> {
    fn default() -> Self {
        Self { lines: VecDeque::new(), len: 0 }
    }
}

impl<T> ByProcess<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds something at the end of its process's line.
    pub(crate) fn push(&mut self, peer: PeerCredentials, one: T) {
        self.len += 1;
        match self.lines.iter_mut().find(|(of, _)| *of == peer) {
            Some((_, line)) => line.push_back(one),
            None => self.lines.push_back((peer, VecDeque::from([one]))),
        }
    }

    /// The first one of the process whose turn it is.
    pub(crate) fn first(&self) -> Option<&T> {
        self.lines.front()?.1.front()
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.lines.iter().flat_map(|(_, line)| line)
    }

    /// Takes out one of which this holds.
    pub(crate) fn take_one(&mut self, holds: impl Fn(&T) -> bool) -> Option<(PeerCredentials, T)> {
        let mut lines = self.lines.iter().enumerate();
        let (line, at) = lines.find_map(|(number, (_, line))| Some((number, line.iter().position(&holds)?)))?;
        self.remove(line, at)
    }

    /// Takes the last one out of the process that has most, of the user who has most, for another of `newcomer`. `None`: nobody
    /// has more than that would have then.
    pub(crate) fn give_way(&mut self, newcomer: PeerCredentials) -> Option<(PeerCredentials, T)> {
        let mut by_user = HashMap::<u32, usize>::from([(newcomer.uid, 1)]);
        self.lines.iter().for_each(|(peer, line)| *by_user.entry(peer.uid).or_default() += line.len());
        let (most, own) = (by_user.values().copied().max()?, by_user.get(&newcomer.uid).copied()?);
        let is_other = most > own;
        let of_user =
            |peer: PeerCredentials| if is_other { by_user[&peer.uid] == most } else { peer.uid == newcomer.uid };
        let heaviest = self.lines.iter().enumerate().filter(|(_, (peer, _))| of_user(*peer));
        let (number, count) =
            heaviest.map(|(number, (_, line))| (number, line.len())).max_by_key(|(_, count)| *count)?;
        let own = self.lines.iter().find(|(peer, _)| *peer == newcomer).map_or(0, |(_, line)| line.len());
        if !is_other && count <= own + 1 {
            return None;
        }
        self.remove(number, count - 1)
    }

    fn remove(&mut self, number: usize, at: usize) -> Option<(PeerCredentials, T)> {
        let (peer, line) = self.lines.get_mut(number)?;
        let (peer, one) = (*peer, line.remove(at)?);
        self.len -= 1;
        if line.is_empty() {
            self.lines.remove(number);
        }
        Some((peer, one))
    }

    /// Takes the first one of the process whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<(PeerCredentials, T)> {
        let (peer, mut line) = self.lines.pop_front()?;
        let one = line.pop_front()?;
        self.len -= 1;
        if !line.is_empty() {
            self.lines.push_back((peer, line));
        }
        Some((peer, one))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fault 62.
    #[test]
    fn one_of_each_process_has_its_turn_in_the_order_in_which_they_came() {
        let mut all = ByProcess::default();
        let of = |pid| PeerCredentials { pid, uid: 1 };
        (0..100).for_each(|number| all.push(of(7), number));
        (100..150).for_each(|number| all.push(of(8), number));
        all.push(of(9), 150);
        assert_eq!((all.len(), all.is_empty()), (151, false));
        let first: Vec<_> = (0..5).map(|_| all.pop().unwrap()).map(|(peer, number)| (peer.pid, number)).collect();
        assert_eq!(first, [(7, 0), (8, 100), (9, 150), (7, 1), (8, 101)]);
        let rest: Vec<_> = std::iter::from_fn(|| all.pop()).map(|(_, number)| number).collect();
        assert_eq!((rest.len(), rest.last(), all.len()), (146, Some(&99), 0));
    }

    // Fault 62.
    #[test]
    fn the_last_of_the_process_that_has_most_gives_way_to_one_that_still_has_less_with_another() {
        let of = |uid, pid| PeerCredentials { pid, uid };
        let gives = |held: &[(u32, i32)], newcomer: (u32, i32)| {
            let mut all = ByProcess::default();
            (0..).zip(held).for_each(|(number, (uid, pid))| all.push(of(*uid, *pid), number));
            let gave = all.give_way(of(newcomer.0, newcomer.1)).map(|(_, number)| number);
            assert_eq!(all.len(), held.len() - usize::from(gave.is_some()));
            assert_eq!(all.iter().count(), all.len());
            gave
        };
        assert_eq!(gives(&[(1, 7), (1, 7), (1, 7), (1, 8)], (1, 9)), Some(2));
        assert_eq!(gives(&[(1, 7), (1, 7), (1, 7), (1, 8)], (1, 8)), Some(2));
        assert_eq!(gives(&[(1, 7), (1, 7), (1, 8)], (1, 8)), None, "it would have as many");
        assert_eq!(gives(&[(1, 7), (1, 7)], (1, 7)), None, "its own");
        assert_eq!(gives(&[(1, 7), (1, 8), (1, 9)], (1, 10)), None, "each has one");
        assert!(gives(&[(1, 7), (1, 8), (1, 9)], (2, 10)).is_some(), "one user has three");
        assert_eq!(gives(&[(1, 7), (2, 8)], (2, 9)), None, "its own user has most");
    }

    #[test]
    fn whichever_is_taken_out_the_others_keep_their_turns() {
        let of = |pid| PeerCredentials { pid, uid: 1 };
        let mut all = ByProcess::default();
        [(7, 1), (7, 2), (8, 3), (9, 4)].into_iter().for_each(|(pid, number)| all.push(of(pid), number));
        assert_eq!(all.first(), Some(&1));
        assert_eq!(all.take_one(|number| *number == 3), Some((of(8), 3)));
        assert_eq!(all.take_one(|number| *number == 3), None);
        let rest: Vec<_> = std::iter::from_fn(|| all.pop()).map(|(_, number)| number).collect();
        assert_eq!((rest, all.first()), (vec![1, 4, 2], None));
    }
}
