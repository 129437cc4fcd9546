//! Handshakes under way, and who gives way when there are too many.
//!
//! Each is charged to the process and the user that it came from. Where there is no place left, the oldest handshake of the
//! process that holds most goes, of the user who holds most. So a process that begins handshakes without end puts out its
//! own, and a newcomer always has its turn. A process id of 0 stands for all processes of a user that the kernel does not
//! name, which live in other PID namespaces.
//!
//! It knows no socket and no clock: what a handshake is, is its owner's business.

use std::collections::{BTreeMap, HashMap};

use bellrope_shm::socket::PeerCredentials;

/// Handshakes under way, by their keys, which grow: the first is the oldest.
#[derive(Debug)]
pub(crate) struct HalfOpens<T> {
    by_key: BTreeMap<u64, (PeerCredentials, T)>,
    /// How many each process of each user has. None has none.
    holders: HashMap<u32, HashMap<i32, usize>>,
}

impl<T> Default for HalfOpens<T> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new(), holders: HashMap::new() }
    }
}

impl<T> HalfOpens<T> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Adds one, whose key must be greater than all before it.
    pub(crate) fn insert(&mut self, key: u64, peer: PeerCredentials, half_open: T) {
        *self.holders.entry(peer.uid).or_default().entry(peer.pid).or_default() += 1;
        self.by_key.insert(key, (peer, half_open));
    }

    /// The one under this key.
    pub(crate) fn of(&mut self, key: u64) -> Option<&mut T> {
        self.by_key.get_mut(&key).map(|(_, half_open)| half_open)
    }

    /// Takes the one under this key out.
    pub(crate) fn remove(&mut self, key: u64) -> Option<T> {
        let (peer, half_open) = self.by_key.remove(&key)?;
        if let Some(processes) = self.holders.get_mut(&peer.uid) {
            if let Some(count) = processes.get_mut(&peer.pid) {
                *count -= 1;
                if *count == 0 {
                    processes.remove(&peer.pid);
                }
            }
            if processes.is_empty() {
                self.holders.remove(&peer.uid);
            }
        }
        Some(half_open)
    }

    /// Takes the one out that is to give way, now that another of `newcomer` is to be added, which counts already.
    pub(crate) fn give_way(&mut self, newcomer: PeerCredentials) -> Option<T> {
        let of_user = |uid: u32, processes: &HashMap<i32, usize>| {
            processes.values().sum::<usize>() + usize::from(uid == newcomer.uid)
        };
        let of_process =
            |uid: u32, pid: i32, count: usize| count + usize::from((uid, pid) == (newcomer.uid, newcomer.pid));
        let most = self.holders.iter().map(|(uid, processes)| of_user(*uid, processes)).max()?;
        // The users who hold most, each with what its heaviest process has.
        let heaviest: HashMap<u32, usize> = self
            .holders
            .iter()
            .filter(|(uid, processes)| of_user(**uid, processes) == most)
            .filter_map(|(uid, processes)| {
                Some((*uid, processes.iter().map(|(pid, count)| of_process(*uid, *pid, *count)).max()?))
            })
            .collect();
        let goes = |peer: &PeerCredentials| {
            let count = self.holders.get(&peer.uid).and_then(|processes| processes.get(&peer.pid)).copied();
            heaviest.get(&peer.uid).copied() == count.map(|count| of_process(peer.uid, peer.pid, count))
        };
        // Keys grow, so the first is the oldest, also of those that hold as much as each other.
        let key = self.by_key.iter().find(|(_, (peer, _))| goes(peer)).map(|(key, _)| *key)?;
        self.remove(key)
    }

    /// Takes the oldest one out of which this holds.
    pub(crate) fn remove_first(&mut self, holds: impl Fn(&T) -> bool) -> Option<T> {
        let key = self.iter().find(|(_, half_open)| holds(half_open)).map(|(key, _)| key)?;
        self.remove(key)
    }

    /// All of them, the oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.by_key.iter().map(|(key, (_, half_open))| (*key, half_open))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Handshakes of these users and processes, each told by its key.
    fn of(peers: &[(u32, i32)]) -> HalfOpens<u64> {
        let mut all = HalfOpens::default();
        (1..).zip(peers).for_each(|(key, (uid, pid))| all.insert(key, PeerCredentials { pid: *pid, uid: *uid }, key));
        all
    }

    fn gives_way(all: &mut HalfOpens<u64>, uid: u32, pid: i32) -> Option<u64> {
        all.give_way(PeerCredentials { pid, uid })
    }

    // Fault 62.
    #[test]
    fn the_oldest_of_the_process_that_holds_most_gives_way_of_the_user_who_holds_most() {
        let mut all = of(&[(1, 10), (1, 11), (1, 11), (1, 11), (1, 12)]);
        assert_eq!(gives_way(&mut all, 1, 13), Some(2), "the oldest of 11");
        assert_eq!(gives_way(&mut all, 1, 13), Some(3), "11 still holds most");
        assert_eq!(gives_way(&mut all, 1, 12), Some(5), "12 would hold two then, and nobody else does");
        // Ever new processes do not help a user: it is charged as well.
        let mut all = of(&[(7, 1), (8, 1), (8, 2), (8, 3)]);
        assert_eq!(gives_way(&mut all, 7, 1), Some(2));
        // Nor do processes without a number of their own put others out.
        let mut all = of(&[(1, 10), (1, 0), (1, 0), (2, 5)]);
        assert_eq!(gives_way(&mut all, 2, 6), Some(2));
    }

    // Fault 62.
    #[test]
    fn among_those_that_hold_as_much_the_oldest_goes_and_nobody_is_remembered_who_holds_none() {
        let mut all = of(&[(1, 10), (1, 11), (1, 12)]);
        assert_eq!(gives_way(&mut all, 1, 13), Some(1));
        assert_eq!(all.remove(2), Some(2));
        assert_eq!(all.remove(2), None);
        assert_eq!(gives_way(&mut all, 1, 13), Some(3));
        assert_eq!((gives_way(&mut all, 1, 13), all.len(), all.holders.len()), (None, 0, 0));
    }
}
