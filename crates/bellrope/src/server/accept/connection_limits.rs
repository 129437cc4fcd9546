//! How many may be connected: in all, of one user, and with priority.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::server::limits::LiveSettings;

/// The connections that are open, counted for their limits.
#[derive(Debug, Default)]
pub(crate) struct ConnectionLimits(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    connections: u32,
    priority: u32,
    by_uid: HashMap<u32, u32>,
}

/// One connection's place, free again when this is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    limits: Arc<ConnectionLimits>,
    uid: u32,
    /// Whether it is one of those with priority.
    pub(crate) priority: bool,
}

impl ConnectionLimits {
    /// Takes a place for a connection of this user, or says which limit is in the way. A limit that is lowered later
    /// takes nobody's place away.
    pub(crate) fn take(
        self: &Arc<Self>,
        live: &LiveSettings,
        uid: u32,
        priority: bool,
    ) -> Result<ConnectionSlot, String> {
        let mut taken = self.lock();
        let of_uid = taken.by_uid.get(&uid).copied().unwrap_or(0);
        let (connections, per_uid) = (live.max_connections(), live.max_connections_per_uid());
        let with_priority = live.max_priority_connections();
        if taken.connections >= connections {
            return Err(format!("{connections} connections are open, the limit max_connections"));
        }
        if of_uid >= per_uid {
            return Err(format!("user {uid} has {per_uid} connections open, the limit max_connections_per_uid"));
        }
        if priority && taken.priority >= with_priority {
            return Err(format!("{with_priority} connections have priority, the limit max_priority_connections"));
        }
        taken.connections += 1;
        taken.priority += u32::from(priority);
        taken.by_uid.insert(uid, of_uid + 1);
        Ok(ConnectionSlot { limits: Arc::clone(self), uid, priority })
    }

    /// Places that are taken now.
    pub(crate) fn open(&self) -> u32 {
        self.lock().connections
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut taken = self.limits.lock();
        taken.connections -= 1;
        taken.priority -= u32::from(self.priority);
        // A user without connections is forgotten, so that the map holds no more users than there are connections.
        if let Some(count) = taken.by_uid.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                taken.by_uid.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::ServerConfig;

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
        let take = |uid, priority| limits.take(&live, uid, priority);
        let first = take(1, true).unwrap();
        let _second = take(1, false).unwrap();
        assert!(take(1, false).unwrap_err().contains("user 1 has 2 connections open"));
        assert!(take(2, true).unwrap_err().contains("1 connections have priority, the limit"));
        let _others = [take(2, false).unwrap(), take(3, false).unwrap()];
        assert!(take(4, false).unwrap_err().contains("4 connections are open, the limit max_connections"));
        drop(first);
        let _again = take(1, true).unwrap();
        assert_eq!(limits.lock().by_uid.len(), 3);
        live.change(&ServerConfig { max_connections: 2, ..config.clone() });
        assert!(take(4, false).unwrap_err().contains("2 connections are open, the limit max_connections"));
        live.change(&ServerConfig { max_connections: 5, ..config });
        let _one_more = take(4, false).unwrap();
    }
}
