use std::time::Instant;

use bellrope_proto::{Violation, connection::ServerConnection, ring::Armed};
use bellrope_shm::socket::{PeerCredentials, Socket};

use super::{body::Body, claim::Claim, seats::Seat};

/// One connection as its worker owns it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) socket: Socket,
    pub(crate) connection: ServerConnection<Body>,
    /// The server's number for it, never used again.
    pub(crate) serial: u64,
    pub(crate) peer: PeerCredentials,
    /// Its place among the connections that there may be.
    pub(crate) seat: Seat,
    /// The name its client gave, free of control characters.
    pub(crate) name: String,
    /// Its place among its worker's connections.
    #[cfg(feature = "tokio")]
    pub(crate) index: usize,
    /// Calls that async handlers are working on.
    #[cfg(feature = "tokio")]
    pub(crate) open: super::dispatch::OpenCalls,
    /// Whether its worker polls it instead of waiting for its doorbell.
    pub(crate) hot: bool,
    /// Whether its rings may have been used since their memory was last given back.
    pub(crate) resident: bool,
    /// Doorbell rings since it was last armed.
    pub(crate) rings: usize,
    /// Visits in a row that found nothing.
    pub(crate) quiet: u32,
    /// What it wants or has of the buffer budget.
    pub(crate) claim: Claim,
    /// Its progress when it was last looked at while something of it was half done, and since when it has been that.
    pub(crate) stuck: Option<(u64, Instant)>,
}

/// Whether a connection lets its worker sleep.
pub(crate) enum Rests {
    /// Yes: its client will ring.
    Armed,
    /// Yes, but only for a moment: it waits for the buffer budget, and nobody will ring.
    Starved,
    /// No: it has something to do.
    Ready,
}

impl Link {
    /// Commits what was sent, and rings if the client sleeps.
    #[inline]
    pub(crate) fn commit(&mut self) {
        self.resident = true;
        if self.connection.commit().needed() {
            self.socket.ring();
        }
    }

    /// Prepares for the worker's sleep.
    pub(crate) fn rest(&mut self) -> Result<Rests, Violation> {
        let armed = self.connection.arm()?;
        self.commit();
        let rests = match armed {
            Armed::Asleep => Rests::Armed,
            Armed::Ready if self.claim.is_starved() => Rests::Starved,
            Armed::Ready => Rests::Ready,
        };
        self.hot = matches!(rests, Rests::Ready);
        if !self.hot {
            self.rings = 0;
        }
        Ok(rests)
    }
}
