//! One connection as its worker owns it.

#[cfg(feature = "tokio")]
use std::collections::VecDeque;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bellrope_proto::{Holder, Violation, connection::ServerConnection, keeps_for, ring::Armed};
use bellrope_shm::socket::{PeerCredentials, Socket};

use super::carrier::Carrier;
#[cfg(feature = "tokio")]
use crate::server::{calls::dispatch::OpenCalls, message::FromHandler};
use crate::{
    breaker::Caller as BreakerCaller,
    pump::PumpFault,
    server::{
        accept::connection_limits::ConnectionSlot,
        calls::{body::Body, budget_claim::BudgetClaim, caller_id::CallerId},
        message::{NewConnection, ToldTypes},
    },
};

/// One connection as its worker owns it. What a visit to answer a small call needs comes first, and fills few cache lines:
/// where there are many connections, each of these is fetched anew.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Session {
    /// The server's number for it, never used again.
    pub(crate) serial: u64,
    /// Where its records travel over the socket: what moves them.
    pub(crate) carrier: Option<Box<Carrier>>,
    /// Visits in a row that found nothing.
    pub(crate) idle_visits: u32,
    /// Whether its worker polls it instead of waiting for its doorbell.
    pub(crate) hot: bool,
    /// Whether its rings may have been used since their memory was last given back.
    pub(crate) resident: bool,
    /// Whether it is only waiting to be closed.
    pub(crate) ending: bool,
    pub(crate) connection: ServerConnection<Body>,
    pub(crate) socket: Socket,
    pub(crate) peer: PeerCredentials,
    /// Who calls, for breakers.
    pub(crate) caller: CallerId,
    /// Its place among the connections that there may be.
    pub(crate) slot: ConnectionSlot,
    /// The name its client gave, free of control characters.
    pub(crate) name: Box<str>,
    /// What its client knows of the message types that come and go, if it has asked for that.
    pub(crate) told: Option<ToldTypes>,
    /// Its place among its worker's connections.
    #[cfg(feature = "tokio")]
    pub(crate) index: u32,
    /// Calls that async handlers are working on.
    #[cfg(feature = "tokio")]
    pub(crate) open: OpenCalls,
    /// What these handlers have said and was not yet done, by call.
    #[cfg(feature = "tokio")]
    pub(crate) said: Said,
    /// Doorbell rings since it was last armed.
    pub(crate) rings: u32,
    /// What it wants or has of the buffer budget.
    pub(crate) budget_claim: BudgetClaim,
    /// Up to where requests were taken at the last sweep, cut to what this holds, and sweeps since that was another place.
    quiet: (u32, u32),
    /// What its client was found to keep us waiting with, since it first was.
    delays: Option<Box<Delays>>,
}

/// What handlers have said to one connection, by call. Most connections never hear from any, so there is a word for it until
/// then.
#[cfg(feature = "tokio")]
#[derive(Debug, Default)]
#[expect(clippy::box_collection, reason = "a queue has four words, and most connections have none")]
pub(crate) struct Said(Option<Box<VecDeque<(u64, FromHandler)>>>);

/// What a client keeps us waiting with. Most never do.
#[derive(Debug, Default)]
struct Delays {
    /// Answers and chunks that it does not read.
    unread: HalfDone,
    /// A large request of which nothing more comes.
    unfinished: HalfDone,
    /// How long it has kept us waiting while others waited for the budget.
    idle: Option<Idle>,
}

/// Something that its client has begun, by how far it is, and since when it has been as far as that.
#[derive(Debug, Default)]
struct HalfDone(Option<(u64, Instant)>);

/// A time in which we waited for a client to read or to send.
#[derive(Debug)]
struct Idle {
    /// How far it was at the beginning.
    began_at: u64,
    waited: Duration,
    looked: Instant,
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
    /// The session of a new connection, at this place among its worker's. `carrier` is there if its records travel over the
    /// socket.
    pub(crate) fn new(
        connection: NewConnection,
        holder: Arc<Holder>,
        carrier: Option<Box<Carrier>>,
        #[cfg(feature = "tokio")] index: usize,
    ) -> Self {
        let NewConnection { socket, connection, serial, peer, slot, name, told, .. } = connection;
        Self {
            socket,
            connection,
            carrier,
            serial,
            caller: CallerId::named(peer.pid, &name),
            peer,
            slot,
            name: name.into(),
            told,
            #[cfg(feature = "tokio")]
            index: u32::try_from(index).expect("each has a descriptor of its own, and those are numbers of 31 bits"),
            #[cfg(feature = "tokio")]
            open: OpenCalls::default(),
            #[cfg(feature = "tokio")]
            said: Said::default(),
            hot: false,
            resident: true,
            ending: false,
            rings: 0,
            idle_visits: 0,
            budget_claim: BudgetClaim::new(holder),
            quiet: (0, 0),
            delays: None,
        }
    }

    /// Who calls, as breakers tell callers apart.
    pub(crate) fn caller(&self) -> BreakerCaller {
        self.caller.of(self.peer.pid, self.serial)
    }

    /// Commits what was sent, and rings if the client sleeps.
    #[inline]
    pub(crate) fn commit(&mut self) {
        self.resident = true;
        if self.connection.commit().needed() {
            self.ring();
        }
    }

    /// Wakes who reads and writes the other ends of the rings: the client, or what moves the records to it.
    #[inline(never)]
    fn ring(&mut self) {
        match &mut self.carrier {
            None => self.socket.ring(),
            Some(carrier) => carrier.turn(&self.socket),
        }
    }

    /// Prepares for the worker's sleep.
    pub(crate) fn rest(&mut self) -> Result<Rests, PumpFault> {
        let armed = self.connection.arm()?;
        self.commit();
        let moved = match &mut self.carrier {
            None => false,
            Some(carrier) => carrier.moved()?,
        };
        let rests = match armed {
            Armed::Asleep if moved => Rests::Ready,
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

    /// Whether it is to be looked at again, because of what was done to it apart from its turns.
    #[cfg(feature = "tokio")]
    pub(crate) fn wants_care(&self) -> bool {
        self.connection.wants_room() || self.carrier.as_ref().is_some_and(|carrier| carrier.wants_care())
    }

    /// Says what a server says last that ends a connection over the socket by itself: how many requests it took.
    pub(crate) fn say_farewell(&mut self) {
        if let Some(carrier) = &mut self.carrier {
            carrier.turn(&self.socket);
            carrier.say_farewell(&self.socket, self.connection.untaken_requests());
        }
    }

    /// Whether the client has left something half done for `patience`, without any progress in that: what it does
    /// otherwise is none. To be asked now and then.
    pub(crate) fn is_stuck(&mut self, now: Instant, patience: Duration) -> Result<bool, Violation> {
        let (unread, assembled) = (self.connection.unread()?, self.connection.assembled());
        let unfinished = assembled.or_else(|| self.carrier.as_mut().and_then(|carrier| carrier.unfinished()));
        if self.delays.is_none() && unread.is_none() && unfinished.is_none() {
            return Ok(false);
        }
        let delays = self.delays.get_or_insert_default();
        Ok(delays.unread.lasts(unread, now, patience) | delays.unfinished.lasts(unfinished, now, patience))
    }

    /// To be called every second: notes whether anything came since the last time.
    pub(crate) fn note_quiet(&mut self) {
        let (before, seconds) = self.quiet;
        // Only whether it is another place counts.
        let taken = self.connection.taken() as u32;
        self.quiet = (taken, if taken == before { seconds.saturating_add(1) } else { 0 });
    }

    /// Seconds in which nothing came.
    pub(crate) fn quiet_for(&self) -> u32 {
        self.quiet.1
    }

    /// Calls under way, one if it is busy otherwise. 0: it is idle, and nothing is lost with it.
    pub(crate) fn load(&mut self) -> usize {
        let is_busy = self.connection.is_ready()
            || self.connection.wants_room()
            || self.connection.is_assembling()
            || !matches!(self.connection.unread(), Ok(None))
            || self.carrier.as_mut().is_some_and(|carrier| carrier.is_blocked() || carrier.unfinished().is_some());
        self.connection.open_calls().max(usize::from(is_busy))
    }

    /// Whether the client had left something unread when that was last asked.
    pub(crate) fn is_unread(&self) -> bool {
        self.delays.as_ref().is_some_and(|delays| delays.unread.0.is_some())
    }

    /// Told while others wait for the buffer budget, for the first time since `waited`: whether the client has kept us
    /// waiting for too long, to read or to send, for what it holds of the budget.
    pub(crate) fn lets_others_wait(
        &mut self,
        now: Instant,
        waited: Duration,
        grace: Duration,
    ) -> Result<bool, Violation> {
        let Some(progress) = self.connection.awaited()? else {
            if let Some(delays) = &mut self.delays {
                delays.idle = None;
            }
            return Ok(false);
        };
        let delays = self.delays.get_or_insert_default();
        // What was long ago was for others.
        let idle = delays.idle.take().filter(|idle| now - idle.looked <= grace.max(2 * waited));
        let mut idle = idle.unwrap_or(Idle { began_at: progress, waited: Duration::ZERO, looked: now });
        idle.waited = idle.waited.saturating_add(waited);
        idle.looked = now;
        let too_long = idle.waited >= keeps_for(grace, progress.saturating_sub(idle.began_at));
        delays.idle = Some(idle);
        Ok(too_long)
    }
}

#[cfg(feature = "tokio")]
impl Said {
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |said| said.len())
    }

    pub(crate) fn push(&mut self, call: u64, what: FromHandler) {
        self.0.get_or_insert_default().push_back((call, what));
    }

    /// What was said first.
    pub(crate) fn pop(&mut self) -> Option<(u64, FromHandler)> {
        self.0.as_mut()?.pop_front()
    }
}

impl HalfDone {
    /// Whether it has been as far as this for `patience`. `None`: there is nothing.
    fn lasts(&mut self, progress: Option<u64>, now: Instant, patience: Duration) -> bool {
        self.0 = progress.map(|progress| match self.0 {
            Some((before, since)) if before == progress => (before, since),
            _ => (progress, now),
        });
        self.0.is_some_and(|(_, since)| now - since >= patience)
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    // A thousand connections that wait for their next call are to fit 3 MB with the program: what only calls of some kinds
    // need, or clients that misbehave, is made when it first is.
    #[test]
    fn a_connection_that_has_nothing_to_do_is_small() {
        assert!(size_of::<Session>() <= 640, "{} bytes", size_of::<Session>());
    }

    #[test]
    fn a_small_call_touches_five_cache_lines_of_its_connection() {
        // A visit looks at all before `connection`, and in there at what a small call touches.
        let connection = offset_of!(Session, connection);
        for before in [offset_of!(Session, serial), offset_of!(Session, idle_visits), offset_of!(Session, resident)] {
            assert!(before < connection);
        }
        let end = connection + ServerConnection::<Body>::SMALL_CALL.end;
        let lines = end.div_ceil(64);
        assert!(align_of::<Session>() >= 64 && lines <= 5, "{end} bytes are {lines} lines");
    }
}
