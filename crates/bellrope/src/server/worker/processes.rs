//! Small numbers for the processes that a worker's connections belong to, so that many connections are told apart by process
//! without a look at any of them.

use std::collections::HashMap;

use bellrope_shm::socket::PeerCredentials;

/// The processes of a worker's connections.
#[derive(Debug, Default)]
pub(super) struct Processes {
    known: HashMap<(u32, i32), Process>,
    /// Numbers that are nobody's any more.
    free: Vec<usize>,
    /// Of each connection, by its index: the number of its process.
    of: Vec<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Process {
    number: usize,
    /// How many there are of it.
    connections: usize,
}

impl Processes {
    /// A connection of this peer came.
    pub(super) fn came(&mut self, index: usize, peer: PeerCredentials) {
        let given = self.known.len() + self.free.len();
        let process = self.known.entry((peer.uid, peer.pid)).or_insert_with(|| {
            let number = self.free.pop().unwrap_or(given);
            Process { number, connections: 0 }
        });
        process.connections += 1;
        if self.of.len() <= index {
            self.of.resize(index + 1, 0);
        }
        self.of[index] = process.number;
    }

    /// A connection of this peer is gone.
    pub(super) fn left(&mut self, peer: PeerCredentials) {
        let Some(process) = self.known.get_mut(&(peer.uid, peer.pid)) else { return };
        process.connections -= 1;
        if process.connections == 0 {
            self.free.push(process.number);
            self.known.remove(&(peer.uid, peer.pid));
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// All numbers are below this one.
    pub(super) fn numbers(&self) -> usize {
        self.known.len() + self.free.len()
    }

    /// The number of this connection's process.
    pub(super) fn of(&self, index: usize) -> Option<usize> {
        self.of.get(index).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_small_however_many_processes_come_and_go() {
        let mut processes = Processes::default();
        let peer = |pid| PeerCredentials { pid, uid: 1 };
        processes.came(0, peer(1));
        processes.came(1, peer(1));
        for pid in 2..1_000 {
            processes.came(2, peer(pid));
            assert_eq!((processes.of(0), processes.of(1), processes.of(2)), (Some(0), Some(0), Some(1)));
            processes.left(peer(pid));
        }
        assert_eq!((processes.len(), processes.numbers(), processes.of(3)), (1, 2, None));
        processes.left(peer(1));
        assert_eq!(processes.len(), 1, "one of its connections is there");
        processes.left(peer(1));
        assert_eq!((processes.len(), processes.numbers()), (0, 2));
    }
}
