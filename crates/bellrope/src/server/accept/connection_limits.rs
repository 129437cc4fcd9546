//! How many may be connected: in all, of one user, and with priority.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::ServerConfig;

/// The connections that are open, counted for their limits.
#[derive(Debug)]
pub(crate) struct Seats {
    taken: Mutex<Taken>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    connections: u32,
    per_uid: u32,
    priority: u32,
}

#[derive(Debug)]
struct Taken {
    limits: Limits,
    connections: u32,
    priority: u32,
    by_uid: HashMap<u32, u32>,
}

/// One connection's place, free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    uid: u32,
    /// Whether it is one of those with priority.
    pub(crate) priority: bool,
}

impl Seats {
    pub(crate) fn new(config: &ServerConfig) -> Arc<Self> {
        let taken = Taken { limits: Limits::of(config), connections: 0, priority: 0, by_uid: HashMap::new() };
        Arc::new(Self { taken: Mutex::new(taken) })
    }

    /// Changes the limits. Nobody who has a place loses it.
    pub(crate) fn change(&self, config: &ServerConfig) {
        self.lock().limits = Limits::of(config);
    }

    /// Takes a place for a connection of this user, or says which limit is in the way.
    pub(crate) fn take(self: &Arc<Self>, uid: u32, priority: bool) -> Result<Seat, String> {
        let mut taken = self.lock();
        let of_uid = taken.by_uid.get(&uid).copied().unwrap_or(0);
        let Limits { connections, per_uid, priority: with_priority } = taken.limits;
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
        Ok(Seat { seats: Arc::clone(self), uid, priority })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Limits {
    fn of(config: &ServerConfig) -> Self {
        Self {
            connections: config.max_connections,
            per_uid: config.max_connections_per_uid,
            priority: config.max_priority_connections,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
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

    // Fault 20.
    #[test]
    fn each_limit_is_named_and_a_place_is_free_again_when_its_holder_goes() {
        let config = ServerConfig {
            max_connections: 4,
            max_connections_per_uid: 2,
            max_priority_connections: 1,
            ..ServerConfig::default()
        };
        let seats = Seats::new(&config);
        let first = seats.take(1, true).unwrap();
        let _second = seats.take(1, false).unwrap();
        assert!(seats.take(1, false).unwrap_err().contains("user 1 has 2 connections open"));
        assert!(seats.take(2, true).unwrap_err().contains("1 connections have priority, the limit"));
        let _others = [seats.take(2, false).unwrap(), seats.take(3, false).unwrap()];
        assert!(seats.take(4, false).unwrap_err().contains("4 connections are open, the limit max_connections"));
        drop(first);
        let _again = seats.take(1, true).unwrap();
        assert_eq!(seats.lock().by_uid.len(), 3);
        seats.change(&ServerConfig { max_connections: 2, ..config.clone() });
        assert!(seats.take(4, false).unwrap_err().contains("2 connections are open, the limit max_connections"));
        seats.change(&ServerConfig { max_connections: 5, ..config });
        let _one_more = seats.take(4, false).unwrap();
    }
}
