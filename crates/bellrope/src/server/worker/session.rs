//! One connection as its worker owns it.

use std::time::{Duration, Instant};

use bellrope_proto::{Violation, connection::ServerConnection, ring::Armed};
use bellrope_shm::socket::{PeerCredentials, Socket};

#[cfg(feature = "tokio")]
use crate::server::calls::dispatch::OpenCalls;
use crate::{
    breaker::Caller as BreakerCaller,
    server::{
        accept::connection_limits::ConnectionSlot,
        calls::{body::Body, budget_claim::BudgetClaim, caller_id::CallerId},
        message::NewConnection,
    },
};

/// One connection as its worker owns it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) socket: Socket,
    pub(crate) connection: ServerConnection<Body>,
    /// The server's number for it, never used again.
    pub(crate) serial: u64,
    pub(crate) peer: PeerCredentials,
    /// Who calls, for breakers.
    pub(crate) caller: CallerId,
    /// Its place among the connections that there may be.
    pub(crate) slot: ConnectionSlot,
    /// The name its client gave, free of control characters.
    pub(crate) name: String,
    /// Its place among its worker's connections.
    #[cfg(feature = "tokio")]
    pub(crate) index: usize,
    /// Calls that async handlers are working on.
    #[cfg(feature = "tokio")]
    pub(crate) open: OpenCalls,
    /// Whether its worker polls it instead of waiting for its doorbell.
    pub(crate) hot: bool,
    /// Whether its rings may have been used since their memory was last given back.
    pub(crate) resident: bool,
    /// Doorbell rings since it was last armed.
    pub(crate) rings: usize,
    /// Visits in a row that found nothing.
    pub(crate) idle_visits: u32,
    /// What it wants or has of the buffer budget.
    pub(crate) budget_claim: BudgetClaim,
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

impl Session {
    /// The session of a new connection, at this place among its worker's.
    pub(crate) fn new(connection: NewConnection, #[cfg(feature = "tokio")] index: usize) -> Self {
        let NewConnection { socket, connection, serial, peer, slot, name } = connection;
        Self {
            socket,
            connection,
            serial,
            caller: CallerId::new(peer.pid, serial),
            peer,
            slot,
            name,
            #[cfg(feature = "tokio")]
            index,
            #[cfg(feature = "tokio")]
            open: OpenCalls::default(),
            hot: false,
            resident: true,
            rings: 0,
            idle_visits: 0,
            budget_claim: BudgetClaim::default(),
            stuck: None,
        }
    }

    /// Who calls, as breakers tell callers apart.
    pub(crate) fn caller(&self) -> BreakerCaller {
        self.caller.who()
    }

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
            Armed::Ready if self.budget_claim.is_starved() => Rests::Starved,
            Armed::Ready => Rests::Ready,
        };
        self.hot = matches!(rests, Rests::Ready);
        if !self.hot {
            self.rings = 0;
        }
        Ok(rests)
    }

    /// Whether the client has left something half done for `patience`, without any progress. To be asked now and then.
    pub(crate) fn is_stuck(&mut self, now: Instant, patience: Duration) -> bool {
        let half_done = self.connection.is_stalled() || self.connection.is_assembling();
        let progress = self.connection.progress();
        self.stuck = match self.stuck {
            _ if !half_done => None,
            Some((before, since)) if before == progress => Some((before, since)),
            _ => Some((progress, now)),
        };
        self.stuck.is_some_and(|(_, since)| now - since >= patience)
    }
}
