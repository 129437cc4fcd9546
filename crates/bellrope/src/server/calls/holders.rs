//! Who the buffer budget is divided among: connections, of processes, of users.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use bellrope_proto::{BufferBudget, Holder};
use bellrope_shm::socket::PeerCredentials;

/// The processes and users that have connections, as those who hold some of the budget.
#[derive(Debug)]
pub(crate) struct Holders {
    budget: Arc<BufferBudget>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    holders: HashMap<Peer, Weak<Holder>>,
    /// How many there may be before those are looked for whose connections are all gone.
    until_cleared: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Peer {
    User(u32),
    Process(u32, i32),
}

impl Holders {
    pub(crate) fn new(budget: &Arc<BufferBudget>) -> Self {
        Self { budget: Arc::clone(budget), known: Mutex::default() }
    }

    /// A new connection of this peer.
    pub(crate) fn connection(&self, peer: PeerCredentials) -> Arc<Holder> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let user = known.find(Peer::User(peer.uid), || Holder::new(&self.budget, None));
        let process =
            known.find(Peer::Process(peer.uid, peer.pid), || Holder::new(&self.budget, Some(Arc::clone(&user))));
        known.clear();
        Holder::new(&self.budget, Some(process))
    }
}

impl Known {
    fn find(&mut self, peer: Peer, new: impl FnOnce() -> Arc<Holder>) -> Arc<Holder> {
        self.holders.get(&peer).and_then(Weak::upgrade).unwrap_or_else(|| {
            let holder = new();
            self.holders.insert(peer, Arc::downgrade(&holder));
            holder
        })
    }

    /// Forgets those that are gone, so seldom that it costs a connection next to nothing.
    fn clear(&mut self) {
        if self.holders.len() > self.until_cleared {
            self.holders.retain(|_, holder| holder.strong_count() > 0);
            self.until_cleared = 2 * self.holders.len() + 16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_one_process_share_what_is_its_own_and_what_is_gone_is_forgotten() {
        let budget = BufferBudget::new(1000);
        let holders = Holders::new(&budget);
        let peer = |pid| PeerCredentials { pid, uid: 7 };
        let (one, two) = (holders.connection(peer(1)), holders.connection(peer(1)));
        let other = holders.connection(peer(2));
        let _held = [one.reserve(300).unwrap(), two.reserve(300).unwrap()];
        let _waiting = other.wait(500);
        assert_eq!((one.exceeds_share(), other.exceeds_share()), (Some(250), None));
        (10..10_000).for_each(|pid| drop(holders.connection(peer(pid))));
        assert!(holders.known.lock().unwrap().holders.len() < 100);
    }
}
