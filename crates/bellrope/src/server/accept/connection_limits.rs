//! How many may be connected: in all, of one user, and with priority. Where all places are taken, it says which process has
//! more than its share of them and is to give one up.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bellrope_shm::socket::PeerCredentials;

use crate::server::limits::LiveSettings;

/// The connections that are open, counted for their limits.
#[derive(Debug, Default)]
pub(crate) struct ConnectionLimits(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    all: Places,
    /// By user, then by process. A process id of 0 stands for all processes of a user that the kernel does not name. None has
    /// none, so that there are no more of them than connections.
    by_user: HashMap<u32, HashMap<i32, Places>>,
}

/// Places that somebody has.
#[derive(Debug, Default, Clone, Copy)]
struct Places {
    connections: u32,
    /// Those of them with priority.
    priority: u32,
}

/// One connection's place, free again when this is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    limits: Arc<ConnectionLimits>,
    peer: PeerCredentials,
    /// Whether it is one of those with priority.
    pub(crate) priority: bool,
}

/// There is no place.
#[derive(Debug)]
pub(crate) struct NoPlace {
    /// Which limit is in the way.
    pub(crate) text: String,
    /// Who has more than its share, so much that it still has as much as the newcomer when that is let in.
    pub(crate) giver: Option<Giver>,
}

/// A process that is to give a place up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Giver {
    pub(crate) peer: PeerCredentials,
    /// Whether it is to be a place with priority.
    pub(crate) priority: bool,
    /// Places of that kind that it has.
    pub(crate) held: u32,
    /// How many there are, and the name of that limit.
    pub(crate) limit: u32,
    pub(crate) name: &'static str,
    /// Whether it, or its user beside another, has more than half of them: then one goes even if all are in use.
    pub(crate) has_most: bool,
}

impl ConnectionLimits {
    /// Takes a place for a connection of this client, or says which limit is in the way. A limit that is lowered later
    /// takes nobody's place away.
    pub(crate) fn take(
        self: &Arc<Self>,
        live: &LiveSettings,
        peer: PeerCredentials,
        priority: bool,
    ) -> Result<ConnectionSlot, NoPlace> {
        let mut taken = self.lock();
        let (connections, per_uid) = (live.max_connections(), live.max_connections_per_uid());
        let (with_priority, uid) = (live.max_priority_connections(), peer.uid);
        if taken.all.connections >= connections {
            let text = format!("{connections} connections are open, the limit max_connections");
            let giver = taken.giver(peer, false, false, connections, "max_connections");
            return Err(NoPlace { text, giver });
        }
        if taken.of_user(uid, false) >= per_uid {
            let text = format!("user {uid} has {per_uid} connections open, the limit max_connections_per_uid");
            let giver = taken.giver(peer, false, true, per_uid, "max_connections_per_uid");
            return Err(NoPlace { text, giver });
        }
        if priority && taken.all.priority >= with_priority {
            let text = format!("{with_priority} connections have priority, the limit max_priority_connections");
            let giver = taken.giver(peer, true, false, with_priority, "max_priority_connections");
            return Err(NoPlace { text, giver });
        }
        taken.all.add(priority);
        taken.by_user.entry(uid).or_default().entry(peer.pid).or_default().add(priority);
        Ok(ConnectionSlot { limits: Arc::clone(self), peer, priority })
    }

    /// Places that are taken now.
    pub(crate) fn open(&self) -> u32 {
        self.lock().all.connections
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Giver {
    /// Whether a connection of this client, with priority or without, is one of those of which one is to go.
    pub(crate) fn may_be(&self, peer: PeerCredentials, priority: bool) -> bool {
        peer == self.peer && (priority || !self.priority)
    }
}

impl Taken {
    fn of_user(&self, uid: u32, priority: bool) -> u32 {
        self.by_user.get(&uid).into_iter().flatten().map(|(_, places)| places.of(priority)).sum()
    }

    /// Who is to give a place up for this newcomer: the process that has most, of the user who has most. Of the newcomer's
    /// own user if it is `within` that, or no other has more than that user would have.
    fn giver(
        &self,
        newcomer: PeerCredentials,
        priority: bool,
        within: bool,
        limit: u32,
        name: &'static str,
    ) -> Option<Giver> {
        let own = self.of_user(newcomer.uid, priority) + 1;
        let users = self.by_user.keys().map(|uid| (self.of_user(*uid, priority), *uid));
        let other = users.max().filter(|(held, uid)| !within && *uid != newcomer.uid && *held > own);
        let uid = other.map_or(newcomer.uid, |(_, uid)| uid);
        let processes = self.by_user.get(&uid)?;
        let (held, pid) = processes.iter().map(|(pid, places)| (places.of(priority), *pid)).max()?;
        let newcomers = processes.get(&newcomer.pid).map_or(0, |places| places.of(priority)) + 1;
        if held == 0 || other.is_none() && held <= newcomers {
            return None;
        }
        let most = other.map_or(held, |(of_user, _)| of_user);
        let has_most = most > limit / 2;
        Some(Giver { peer: PeerCredentials { pid, uid }, priority, held, limit, name, has_most })
    }
}

impl Places {
    fn of(self, priority: bool) -> u32 {
        if priority { self.priority } else { self.connections }
    }

    fn add(&mut self, priority: bool) {
        self.connections += 1;
        self.priority += u32::from(priority);
    }

    fn remove(&mut self, priority: bool) {
        self.connections -= 1;
        self.priority -= u32::from(priority);
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let (peer, priority) = (self.peer, self.priority);
        let mut taken = self.limits.lock();
        taken.all.remove(priority);
        let Some(processes) = taken.by_user.get_mut(&peer.uid) else { return };
        if let Some(places) = processes.get_mut(&peer.pid) {
            places.remove(priority);
            if places.connections == 0 {
                processes.remove(&peer.pid);
            }
        }
        if processes.is_empty() {
            taken.by_user.remove(&peer.uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::ServerConfig;

    fn of(uid: u32, pid: i32) -> PeerCredentials {
        PeerCredentials { pid, uid }
    }

    // Fault 20.
    #[test]
    fn each_limit_is_named_and_a_place_is_free_again_when_its_holder_goes() {
        let config = ServerConfig {
            max_connections: 4,
            max_connections_per_uid: 2,
            max_priority_connections: 1,
            ..ServerConfig::default()
        };
        let (limits, live) = (Arc::<ConnectionLimits>::default(), LiveSettings::new(&config));
        let take = |uid, priority| limits.take(&live, of(uid, 1), priority).map_err(|shortage| shortage.text);
        let first = take(1, true).unwrap();
        let _second = take(1, false).unwrap();
        assert!(take(1, false).unwrap_err().contains("user 1 has 2 connections open"));
        assert!(take(2, true).unwrap_err().contains("1 connections have priority, the limit"));
        let _others = [take(2, false).unwrap(), take(3, false).unwrap()];
        assert!(take(4, false).unwrap_err().contains("4 connections are open, the limit max_connections"));
        drop(first);
        let _again = take(1, true).unwrap();
        assert_eq!(limits.lock().by_user.len(), 3);
        live.change(&ServerConfig { max_connections: 2, ..config.clone() });
        assert!(take(4, false).unwrap_err().contains("2 connections are open, the limit max_connections"));
        live.change(&ServerConfig { max_connections: 5, ..config });
        let _one_more = take(4, false).unwrap();
    }

    /// Who gives a place up for a newcomer, as user and process, and whether it has more than half of all, where these
    /// have all there are.
    fn gives(held: &[(u32, i32)], newcomer: (u32, i32)) -> Option<(u32, i32, bool)> {
        let limits = Arc::<ConnectionLimits>::default();
        let live = LiveSettings::new(&ServerConfig {
            max_connections: held.len().try_into().unwrap(),
            ..ServerConfig::default()
        });
        let _slots: Vec<_> = held.iter().map(|(uid, pid)| limits.take(&live, of(*uid, *pid), false).unwrap()).collect();
        let shortage = limits.take(&live, of(newcomer.0, newcomer.1), false).unwrap_err();
        shortage.giver.map(|giver| (giver.peer.uid, giver.peer.pid, giver.has_most))
    }

    // Fault 62.
    #[test]
    fn the_process_that_has_most_gives_way_to_one_that_still_has_less_with_another() {
        assert_eq!(gives(&[(1, 10), (1, 10), (1, 10), (1, 11)], (1, 12)), Some((1, 10, true)));
        assert_eq!(gives(&[(1, 10), (1, 10), (1, 10), (1, 11)], (1, 11)), Some((1, 10, true)));
        assert_eq!(gives(&[(1, 10), (1, 10), (1, 11), (1, 11)], (1, 12)).map(|giver| giver.2), Some(false));
        // Nobody would have less than now, and nobody is put out for one that has as much.
        assert_eq!(gives(&[(1, 10), (1, 10), (1, 11), (1, 11)], (1, 11)), None);
        assert_eq!(gives(&[(1, 10), (1, 10), (1, 10), (1, 10)], (1, 10)), None, "for its own");
        assert_eq!(gives(&[(1, 10), (1, 11), (1, 12)], (1, 13)), None, "each has one");
        // Ever new processes do not help a user.
        assert_eq!(gives(&[(1, 10), (1, 11), (1, 12), (2, 20)], (2, 21)), Some((1, 12, true)));
        assert_eq!(gives(&[(1, 10), (1, 11), (2, 20), (2, 20)], (2, 21)), Some((2, 20, false)));
    }

    // Fault 62.
    #[test]
    fn each_limit_has_its_giver() {
        let config =
            ServerConfig { max_connections_per_uid: 3, max_priority_connections: 2, ..ServerConfig::default() };
        let (limits, live) = (Arc::<ConnectionLimits>::default(), LiveSettings::new(&config));
        let take = |peer, priority| limits.take(&live, peer, priority);
        let _slots: Vec<_> = [(of(1, 10), true), (of(1, 10), true), (of(1, 11), false)]
            .map(|(peer, priority)| take(peer, priority).unwrap())
            .into();
        let giver = take(of(1, 12), false).unwrap_err().giver.unwrap();
        assert_eq!((giver.peer, giver.name, giver.held), (of(1, 10), "max_connections_per_uid", 2));
        let giver = take(of(2, 20), true).unwrap_err().giver.unwrap();
        assert_eq!((giver.peer, giver.name, giver.priority), (of(1, 10), "max_priority_connections", true));
    }
}
