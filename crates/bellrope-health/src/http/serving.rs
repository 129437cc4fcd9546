//! What serves a connection, on whichever thread of a listener.

use tokio::{net::TcpStream, sync::watch};

use super::{answering::Answerer, config::ListenerConfig, conversation::converse, phase::Phase, places::Place};

/// What every thread of a listener needs to serve a connection.
#[derive(Clone)]
pub(super) struct Serving {
    pub(super) config: ListenerConfig,
    pub(super) answerer: Answerer,
    pub(super) phases: watch::Receiver<Phase>,
}

impl Serving {
    /// Serves a connection on the runtime of the thread that calls this. `held`: what is let go when it ends.
    pub(super) fn converse(&self, stream: TcpStream, place: Place, held: impl Send + 'static) {
        let Self { config, answerer, phases } = self.clone();
        tokio::spawn(async move {
            converse(stream, config, answerer, phases, place).await;
            drop(held);
        });
    }
}

/// Keeps a timer that is due before those of connections that wait for their next request. The runtime writes to wake its own
/// thread for every timer that becomes the earliest of all, which each of theirs would be.
pub(super) async fn be_the_earliest(config: &ListenerConfig) {
    if !config.keep_alive {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(config.head_time / 2).await;
    }
}
