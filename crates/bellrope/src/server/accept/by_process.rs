//! What waits, in turns by the process that it came from: nobody stands behind all that another process has put in.
//!
//! It knows no socket: what waits is its owner's business.

use std::collections::VecDeque;

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
}
