//! Connections to the local server, one for each caller of other machines that is known, as far as there may be so many: the
//! server takes connections in turn, and its breakers tell the callers apart by them.
//!
//! A server may invent callers. So it has a few connections, and one more for all the callers beyond those. Calls of nobody
//! who is known share the connection of the fleet.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bellrope::{AsyncClient, breaker::Caller, client::ClientConfig};
use tokio::sync::OnceCell;

/// Most connections for callers that are known.
const MOST: usize = 64;
/// Most for the callers of one server, besides the one for the rest of them.
const MOST_OF_ONE: usize = 16;
/// The caller that stands for the rest of a server's.
const REST: u64 = 0;
/// How long a call takes at most that has no deadline.
const CALL: Duration = Duration::from_secs(3600);

/// A caller on another machine: the number of the key of its server, and the one by which that knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Guest {
    pub(super) server: u64,
    pub(super) caller: u64,
}

/// The connections that there are.
#[derive(Debug)]
pub(crate) struct Guests {
    socket: PathBuf,
    fleet: AsyncClient,
    places: Mutex<Places>,
}

type Connection = Arc<OnceCell<AsyncClient>>;

#[derive(Debug, Default)]
struct Places {
    connections: HashMap<Guest, Place>,
    /// Grows with each use.
    uses: u64,
}

#[derive(Debug)]
struct Place {
    connection: Connection,
    used: u64,
}

/// A connection, as long as a call needs it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) client: AsyncClient,
    _place: Option<Connection>,
}

/// The settings of a client of this process by this name.
fn client_config(socket: &PathBuf, name: String) -> ClientConfig {
    ClientConfig::new(socket).name(name).call_timeout(CALL)
}

impl Guests {
    /// Connects to the server at this socket, for all that is done there for the fleet.
    pub(crate) async fn open(socket: PathBuf) -> Result<Self, bellrope::client::ConnectError> {
        let fleet = AsyncClient::with(client_config(&socket, "fleet".to_owned())).await?;
        Ok(Self { socket, fleet, places: Mutex::default() })
    }

    /// The connection that calls of nobody in particular go by.
    pub(crate) fn fleet(&self) -> &AsyncClient {
        &self.fleet
    }

    /// A connection for the call of a guest; for nobody who is known, that of the fleet.
    pub(super) async fn hold(&self, guest: Option<Guest>) -> Held {
        let place = guest.and_then(|guest| self.places.lock().unwrap_or_else(PoisonError::into_inner).of(guest));
        if let Some((guest, connection)) = place {
            let remote = Caller::Remote { server: guest.server, caller: guest.caller };
            let name = remote.acting_name().unwrap_or_default();
            let connecting = || AsyncClient::with(client_config(&self.socket, name));
            // Where there is no further connection, the fleet's does.
            if let Ok(client) = connection.get_or_try_init(connecting).await {
                return Held { client: client.clone(), _place: Some(connection) };
            }
        }
        Held { client: self.fleet.clone(), _place: None }
    }
}

impl Places {
    /// The place of a guest, or the one for the rest of its server's. `None`: all are taken.
    fn of(&mut self, guest: Guest) -> Option<(Guest, Connection)> {
        self.uses += 1;
        if let Some(place) = self.connections.get_mut(&guest) {
            place.used = self.uses;
            return Some((guest, Arc::clone(&place.connection)));
        }
        let is_own = |other: &Guest| other.server == guest.server && other.caller != REST;
        let own = self.connections.keys().filter(|other| is_own(other)).count();
        if own >= MOST_OF_ONE && guest.caller != REST && !self.make_room(is_own) {
            return self.of(Guest { caller: REST, ..guest });
        }
        if self.connections.len() >= MOST && !self.make_room(|_| true) {
            return None;
        }
        let connection = Connection::default();
        self.connections.insert(guest, Place { connection: Arc::clone(&connection), used: self.uses });
        Some((guest, connection))
    }

    /// Gives up the connection of one of these that has not called for longest. `false`: all of them are at it.
    fn make_room(&mut self, is_one: impl Fn(&Guest) -> bool) -> bool {
        let idle = |(guest, place): &(&Guest, &Place)| is_one(guest) && Arc::strong_count(&place.connection) == 1;
        let idle = self.connections.iter().filter(idle).min_by_key(|(_, place)| place.used).map(|(guest, _)| *guest);
        idle.is_some_and(|guest| self.connections.remove(&guest).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_invents_callers_has_a_few_connections_and_leaves_the_others_theirs() {
        let mut places = Places::default();
        let honest = Guest { server: 1, caller: 7 };
        let (_, kept) = places.of(honest).unwrap();
        let mut held = Vec::new();
        for caller in 1..10_000 {
            held.extend(places.of(Guest { server: 2, caller }));
        }
        assert_eq!(places.connections.len(), 1 + MOST_OF_ONE + 1);
        assert!(held[MOST_OF_ONE..].iter().all(|(guest, _)| *guest == Guest { server: 2, caller: REST }));
        // Nobody is taken for somebody else, and who comes later finds a place.
        assert!(held[..MOST_OF_ONE].iter().zip(1..).all(|((guest, _), caller)| guest.caller == caller));
        assert!(Arc::ptr_eq(&places.of(honest).unwrap().1, &kept));
        held.clear();
        let (late, _) = places.of(Guest { server: 2, caller: 20_000 }).unwrap();
        assert_eq!(late.caller, 20_000, "one that rests makes room");
        assert_eq!(places.connections.len(), 1 + MOST_OF_ONE + 1);
        for server in 3..1000 {
            held.extend(places.of(Guest { server, caller: 1 }));
        }
        assert!(places.connections.len() <= MOST);
        assert!(Arc::ptr_eq(&places.of(honest).unwrap().1, &kept), "who is at it keeps its place");
    }
}
