//! A worker: one thread that owns its connections outright.
//!
//! It polls the connections that lately had traffic (the hot list), a bounded batch each in turn; the others have armed
//! their rings and are left to epoll. Connections with priority are looked at again after every few messages of the
//! others. When nothing is left to do it spins for as long as that pays, then arms everything and sleeps.

mod patience;

use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use bellrope_proto::Violation;
use bellrope_shm::{
    socket::Drained,
    sync::{Ordering, spin_loop},
    wait::Epoll,
};

#[cfg(feature = "tokio")]
use super::inbox::LinkId;
use super::{
    SWEEP, Shared,
    inbox::{Inbox, Message},
    link::{Link, Rests},
    service::{Service, Turn, Visit},
};
use crate::{KillPoint, spin::Spinner};

/// Fruitless visits after which a connection is left to its doorbell, if the worker stays awake for others.
const QUIET_VISITS: u32 = 4096;
/// Looks at the header word of a lone hot connection between two rounds of everything else.
const LINGER_POLLS: u32 = 16;
/// A busy worker looks after doorbells, hang-ups and newcomers this often.
const LOOK_AFTER_SLEEPERS: Duration = Duration::from_micros(50);
/// Turns of an awake worker between two looks at the clock; a turn that found work counts for more.
const TURNS_PER_LOOK: u32 = 1024;
const WORKED: u32 = 64;
/// More rings than this between two sleeps make no sense: an honest peer rings once or twice for each.
const MAX_RINGS: usize = 64;
/// Messages of one connection between two looks at those with priority, where there are any.
const SLICE: u32 = 4;
/// The inbox's key in the epoll set; connections have their index.
const INBOX_KEY: u64 = u64::MAX;

pub(crate) struct Worker {
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    epoll: Epoll,
    links: Vec<Option<Box<Link>>>,
    free: Vec<usize>,
    hot: Vec<usize>,
    /// The connections with priority; they are not in `hot`. They are polled whenever the worker is awake.
    priority: Vec<usize>,
    /// Those of them that are armed while the worker sleeps.
    armed_priority: Vec<usize>,
    /// Connections that wait for the buffer budget while we sleep.
    starved: Vec<usize>,
    /// When we last looked for clients that let us wait.
    swept: Instant,
    /// When we last looked for large requests that come too slowly.
    reclaimed: Instant,
    spinner: Spinner,
    service: Service,
    /// Keys that epoll reported, kept to save an allocation a sleep.
    rung: Vec<u64>,
}

/// Why a connection ended.
enum Closing {
    HungUp,
    Violation(Violation),
    /// It left something half done for too long.
    Stalled,
    Io(io::Error),
}

impl From<Violation> for Closing {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, index: usize) -> io::Result<(Arc<Inbox>, Self)> {
        let inbox = Inbox::new()?;
        let epoll = Epoll::new()?;
        epoll.add(inbox.wake_fd(), INBOX_KEY)?;
        let spin_cap = Duration::from_micros(shared.config.spin_cap_us.into());
        let worker = Self {
            inbox: Arc::clone(&inbox),
            epoll,
            links: Vec::new(),
            free: Vec::new(),
            hot: Vec::new(),
            priority: Vec::new(),
            armed_priority: Vec::new(),
            starved: Vec::new(),
            swept: Instant::now(),
            reclaimed: Instant::now(),
            spinner: Spinner::new(shared.config.spin, spin_cap),
            service: Service::new(
                Arc::clone(&shared),
                index,
                #[cfg(feature = "tokio")]
                Arc::clone(&inbox),
            ),
            rung: Vec::new(),
            shared,
        };
        Ok((inbox, worker))
    }

    pub(crate) fn run(mut self) {
        let mut turns = 0_u32;
        let mut looked_after = Instant::now();
        while !self.shared.stopping.load(Ordering::Acquire) {
            let mut worked = self.read_inbox();
            worked |= self.visit_hot();
            self.service.round_ended();
            if self.shared.draining.load(Relaxed) && self.is_drained() {
                break;
            }
            if worked {
                self.spinner.found();
                turns += WORKED;
            } else if !(self.hot.is_empty() && self.priority.is_empty()) && self.spinner.keep_on() {
                self.linger();
                turns += 1;
            } else if self.arm_all() && self.inbox.prepare_sleep() {
                let asleep_since = Instant::now();
                self.look_after_sleepers(Some(self.longest_sleep()));
                self.inbox.awake();
                looked_after = Instant::now();
                let slept = looked_after - asleep_since;
                self.spinner.slept(slept);
                if slept >= SWEEP {
                    self.give_back();
                }
                self.sweep(looked_after);
                self.reclaim(looked_after);
            } else {
                self.inbox.awake();
            }
            self.wake_others();
            if turns >= TURNS_PER_LOOK {
                turns = 0;
                if looked_after.elapsed() > LOOK_AFTER_SLEEPERS {
                    self.look_after_sleepers(Some(Duration::ZERO));
                    looked_after = Instant::now();
                    self.sweep(looked_after);
                    self.reclaim(looked_after);
                }
            }
        }
        // Connections that came in meanwhile are closed with the others, and those that are still on their way by whoever
        // sends them.
        let last = self.inbox.close();
        self.heed(last);
        for index in 0..self.links.len() {
            self.close(index, &Closing::HungUp);
        }
        self.service.loop_ended();
    }

    /// Waits a moment. Where there is but one hot connection, watches its header word as closely as can be.
    fn linger(&self) {
        let lone = match (&self.hot[..], &self.priority[..]) {
            ([index], []) | ([], [index]) => self.links[*index].as_deref(),
            _ => None,
        };
        match lone {
            Some(link) => {
                // Without a pause in between: it costs a tenth of a round trip.
                for _ in 0..LINGER_POLLS {
                    if link.connection.is_ready() {
                        return;
                    }
                }
            }
            None => spin_loop(),
        }
    }

    /// Whether every call that was taken has been answered in full.
    fn is_drained(&self) -> bool {
        let mut connections = self.links.iter().flatten().map(|link| &link.connection);
        connections.all(|connection| connection.open_calls() == 0 && !connection.wants_room())
    }

    /// Does what other threads ask for.
    fn read_inbox(&mut self) -> bool {
        let messages = self.inbox.take();
        let worked = !messages.is_empty();
        self.heed(messages);
        worked
    }

    fn heed(&mut self, messages: Vec<Message>) {
        for message in messages {
            match message {
                Message::Connected(link) => self.adopt(link),
                #[cfg(feature = "tokio")]
                Message::FromHandler { link, call, what } => self.send_for_handler(link, call, what),
            }
        }
    }

    /// Takes a new connection over.
    fn adopt(&mut self, link: Box<Link>) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.links.push(None);
            self.links.len() - 1
        });
        let added = self.epoll.add(&link.socket, index as u64);
        KillPoint::Adopted.reached();
        let place = &mut self.links[index];
        *place = Some(link);
        #[cfg(feature = "tokio")]
        if let Some(link) = place {
            link.index = index;
        }
        match added {
            Ok(()) => self.heat(index),
            Err(error) => self.close(index, &Closing::Io(error)),
        }
    }

    /// Puts a connection on the list of those that are polled, unless it is there.
    fn heat(&mut self, index: usize) {
        let Some(link) = self.links.get_mut(index).and_then(Option::as_mut) else { return };
        if !link.hot {
            link.hot = true;
            link.quiet = 0;
            let list = if link.seat.priority { &mut self.priority } else { &mut self.hot };
            list.push(index);
        }
    }

    /// Gives every hot connection its turn.
    fn visit_hot(&mut self) -> bool {
        let mut worked = self.visit_priority();
        let mut place = 0;
        while let Some(&index) = self.hot.get(place) {
            // What this one's neighbour sent travels here while this one is served.
            if let Some(next) = self.hot.get(place + 1).and_then(|next| self.links[*next].as_deref()) {
                next.connection.prefetch();
            }
            match self.visit(index) {
                Ok(Visit::Nothing) => {
                    let Some(link) = &mut self.links[index] else { continue };
                    link.quiet += 1;
                    if link.quiet > QUIET_VISITS && self.hot.len() + self.priority.len() > 1 {
                        match link.rest() {
                            Ok(Rests::Armed) => {
                                self.hot.swap_remove(place);
                                continue;
                            }
                            Ok(Rests::Ready | Rests::Starved) => link.quiet = 0,
                            Err(violation) => self.close(index, &violation.into()),
                        }
                    }
                }
                Ok(_) => worked = true,
                // Closing takes it off the list, so that another stands at this place now.
                Err(violation) => self.close(index, &violation.into()),
            }
            place += 1;
            worked |= self.visit_priority();
        }
        worked
    }

    /// One connection's turn. Where there are others with priority, they are looked at now and then meanwhile.
    #[inline]
    fn visit(&mut self, index: usize) -> Result<Visit, Violation> {
        let slice = if self.priority.is_empty() { u32::MAX } else { SLICE };
        let (mut turn, mut worked) = (Turn::default(), false);
        loop {
            let Some(link) = &mut self.links[index] else { return Ok(Visit::Done) };
            let visit = self.service.visit(link, &mut turn, slice)?;
            if visit != Visit::Nothing {
                link.quiet = 0;
                worked = true;
            }
            if visit != Visit::More {
                return Ok(if worked { Visit::Done } else { Visit::Nothing });
            }
            self.visit_priority();
        }
    }

    /// Gives every connection with priority a turn.
    #[inline]
    fn visit_priority(&mut self) -> bool {
        let mut worked = false;
        let mut place = 0;
        while let Some(&index) = self.priority.get(place) {
            place += 1;
            let Some(link) = &mut self.links[index] else { continue };
            if !link.connection.is_ready() && !link.connection.wants_room() {
                continue;
            }
            match self.service.visit(link, &mut Turn::default(), u32::MAX) {
                Ok(visit) => worked |= visit != Visit::Nothing,
                Err(violation) => self.close(index, &violation.into()),
            }
        }
        worked
    }

    /// Prepares every hot connection for our sleep. Answers `false` if one of them has something to do after all.
    fn arm_all(&mut self) -> bool {
        while let Some(&index) = self.hot.last().or(self.priority.last()) {
            if let Some(link) = &mut self.links[index] {
                match link.rest() {
                    Ok(Rests::Armed) => {}
                    Ok(Rests::Starved) => self.starved.push(index),
                    Ok(Rests::Ready) => return false,
                    Err(violation) => {
                        self.close(index, &violation.into());
                        continue;
                    }
                }
            }
            if self.hot.pop().is_none() {
                self.armed_priority.extend(self.priority.pop());
            }
        }
        true
    }

    /// After a sleep: whoever waits for the buffer budget may ask again, and those with priority are polled again,
    /// because a busy worker looks after doorbells only now and then.
    fn wake_others(&mut self) {
        while let Some(index) = self.starved.pop() {
            self.heat(index);
        }
        while let Some(index) = self.armed_priority.pop() {
            if let Some(link) = &self.links[index] {
                link.connection.disarm();
            }
            self.heat(index);
        }
    }

    /// Waits until a doorbell rings, somebody hangs up or the inbox has something, at most `timeout`.
    fn look_after_sleepers(&mut self, timeout: Option<Duration>) {
        let mut rung = std::mem::take(&mut self.rung);
        match self.epoll.wait(timeout) {
            Ok(events) => rung.extend(events.iter().map(|event| event.key)),
            Err(error) => tracing::error!(%error, "waiting for doorbells failed"),
        }
        for key in rung.drain(..) {
            if key == INBOX_KEY {
                self.inbox.wake_fd().clear();
                continue;
            }
            let index = key as usize;
            let Some(link) = self.links.get_mut(index).and_then(Option::as_mut) else { continue };
            match link.socket.drain(MAX_RINGS + 1) {
                Ok(Drained::Rings(rings)) => {
                    link.rings += rings;
                    if link.rings > MAX_RINGS {
                        let flood = Violation::DoorbellFlood(link.rings);
                        self.close(index, &flood.into());
                    } else if !link.hot {
                        link.resident = true;
                        // What the ring asked for may be room, which shows in no record.
                        link.connection.disarm();
                        self.heat(index);
                    }
                }
                Ok(Drained::HungUp) => self.close(index, &Closing::HungUp),
                Err(error) => self.close(index, &Closing::Io(error)),
            }
        }
        self.rung = rung;
    }

    #[cfg(feature = "tokio")]
    fn send_for_handler(&mut self, id: LinkId, call: u64, what: super::dispatch::FromHandler) {
        use super::dispatch::FromHandler;

        let Some(link) = self.links.get_mut(id.index).and_then(Option::as_mut) else { return };
        if link.serial != id.serial {
            return;
        }
        KillPoint::Delivered.reached();
        let sent = match what {
            FromHandler::Chunk(body) => {
                link.open.began_to_answer(call);
                link.connection.chunk(call, body)
            }
            FromHandler::Consumed(sizes) => sizes.into_iter().try_for_each(|len| link.connection.consumed(call, len)),
            FromHandler::Answered(outcome) => {
                let mut open = link.open.close(call);
                let reservation = open.as_mut().and_then(|open| open.held.reservation.take());
                let alone = !link.connection.is_stalled();
                let outcome = outcome.and_then(|reply| self.shared.keep(reply, reservation, alone));
                if let Some(open) = open {
                    self.service.ended(link, open, outcome.as_ref().err());
                }
                link.connection.respond(call, outcome)
            }
            FromHandler::Finished(outcome) => {
                if let Some(open) = link.open.close(call) {
                    self.service.ended(link, open, outcome.as_ref().err());
                }
                link.connection.finish(call, outcome)
            }
        };
        if let Err(violation) = sent {
            self.close(id.index, &violation.into());
            return;
        }
        link.commit();
        // What found no room waits for it on the hot list, where it is armed before we sleep.
        if link.connection.wants_room() {
            self.heat(id.index);
        }
    }

    /// After a quiet second: lets go of the memory of every connection that is left to its doorbell, so that resident
    /// memory follows the active connections.
    fn give_back(&mut self) {
        self.shared.buffers.clear();
        for link in self.links.iter_mut().flatten() {
            if !link.hot && link.resident {
                link.connection.release_pages();
                link.resident = false;
            }
        }
    }

    /// Ends a connection: its descriptor, mapping and handlers are gone when this returns.
    fn close(&mut self, index: usize, why: &Closing) {
        let Some(link) = self.links[index].take() else { return };
        KillPoint::ServerClosing.reached();
        #[cfg(feature = "tokio")]
        self.service.abandoned(&link);
        let _ = self.epoll.remove(&link.socket);
        KillPoint::ServerClosed.reached();
        self.free.push(index);
        for list in [&mut self.hot, &mut self.priority, &mut self.armed_priority, &mut self.starved] {
            list.retain(|listed| *listed != index);
        }
        let (connection, pid) = (link.serial, link.peer.pid);
        match why {
            Closing::HungUp => tracing::debug!(connection, pid, client = link.name, "client disconnected"),
            Closing::Violation(violation) => {
                self.shared.charge(pid);
                let reason = violation.name();
                if self.shared.may_log(pid) {
                    tracing::warn!(connection, pid, client = link.name, reason, "connection closed: {violation}");
                }
            }
            Closing::Stalled => {
                let limit = self.shared.limits.stall_timeout().as_millis();
                if self.shared.may_log(pid) {
                    tracing::warn!(
                        connection,
                        pid,
                        client = link.name,
                        "connection closed: nothing was read or finished for {limit} ms, the limit stall_timeout_ms"
                    );
                }
            }
            Closing::Io(error) => {
                tracing::error!(connection, pid, client = link.name, %error, "connection closed by a system error");
            }
        }
        drop(link);
        // Whoever sees it counted may rely on it that nothing of it is left.
        let metrics = &self.shared.metrics;
        metrics.closed.fetch_add(1, Relaxed);
        match why {
            Closing::Violation(_) => metrics.violations.fetch_add(1, Relaxed),
            Closing::Stalled => metrics.stalled.fetch_add(1, Relaxed),
            Closing::HungUp | Closing::Io(_) => 0,
        };
    }
}
