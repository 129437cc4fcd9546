//! Connections to the server: one for each runtime that asks, as one of another runtime would be driven by that one's thread.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bellrope::AsyncClient;
use bellrope::client::ClientConfig;
use tokio::runtime::{Handle, Id};

use super::errors::unreachable;
use crate::error::ProviderError;

/// After how long one that is not used is closed. A server that ends when nobody is connected is not to be kept by this.
const IDLE: Duration = Duration::from_secs(10);
/// The most runtimes that have one: the threads of the API port, and the runtime of handlers. One more connects each time.
const MOST: usize = 16;

#[derive(Debug)]
pub(super) struct Connections {
    socket: PathBuf,
    by_runtime: Arc<Mutex<Vec<Place>>>,
}

#[derive(Debug)]
struct Place {
    runtime: Id,
    client: AsyncClient,
    /// How often it was taken.
    uses: u64,
}

impl Connections {
    pub(super) fn to(socket: PathBuf) -> Self {
        Self { socket, by_runtime: Arc::default() }
    }

    /// The one of the runtime that this is asked on.
    pub(super) async fn get(&self) -> Result<AsyncClient, ProviderError> {
        let own = Handle::current().id();
        if let Some(client) = self.take(own) {
            return Ok(client);
        }
        let config = ClientConfig::new(&self.socket).name("API port");
        let client = AsyncClient::with(config).await.map_err(|error| unreachable(&error))?;
        // Another request may have been quicker.
        if let Some(earlier) = self.take(own) {
            return Ok(earlier);
        }
        let mut places = self.by_runtime.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() < MOST {
            places.push(Place { runtime: own, client: client.clone(), uses: 0 });
            // Made out here: what is spawned may never run.
            let kept = Kept { by_runtime: Arc::clone(&self.by_runtime), own };
            tokio::spawn(close_when_idle(kept));
        }
        Ok(client)
    }

    fn take(&self, own: Id) -> Option<AsyncClient> {
        let mut places = self.by_runtime.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.iter_mut().find(|place| place.runtime == own)?;
        place.uses += 1;
        Some(place.client.clone())
    }
}

/// Gives the runtime's connection up once nobody has taken it for a while. Calls under way keep it to their end.
async fn close_when_idle(kept: Kept) {
    let mut seen = None;
    loop {
        tokio::time::sleep(IDLE).await;
        let uses = kept.uses();
        if uses.is_none() || seen.replace(uses) == Some(uses) {
            return;
        }
    }
}

/// The place of a runtime, given up when this is dropped: with the runtime's tasks, if that ends sooner.
struct Kept {
    by_runtime: Arc<Mutex<Vec<Place>>>,
    own: Id,
}

impl Kept {
    fn uses(&self) -> Option<u64> {
        let places = self.by_runtime.lock().unwrap_or_else(PoisonError::into_inner);
        places.iter().find(|place| place.runtime == self.own).map(|place| place.uses)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut places = self.by_runtime.lock().unwrap_or_else(PoisonError::into_inner);
        let at = places.iter().position(|place| place.runtime == self.own);
        let place = at.map(|at| places.swap_remove(at));
        drop(places);
        // Its connection closes now, with nobody else waiting.
        drop(place);
    }
}

#[cfg(test)]
mod tests {
    use bellrope::Server;

    use super::*;

    #[test]
    fn a_runtime_that_ends_leaves_no_connection_behind() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("private").join("echo.sock");
        let server = Server::builder().in_place("echo", |_| Ok(())).bind(&path).unwrap();
        let connections = Connections::to(path);
        for _ in 0..3 * MOST {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let client = runtime.block_on(connections.get()).unwrap();
            assert_eq!(connections.by_runtime.lock().unwrap().len(), 1);
            drop((runtime, client));
            assert_eq!(connections.by_runtime.lock().unwrap().len(), 0);
        }
        drop(server);
    }
}
