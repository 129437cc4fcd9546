//! A worker: one thread that owns its connections outright.
//!
//! It polls the connections that lately had traffic (the hot list), a bounded batch each in turn; the others have armed
//! their rings and are left to epoll. Connections with priority are looked at again after every few messages of the
//! others. What many bring at once (rings, hang-ups, new connections) it does a few of in each round. When nothing is left
//! to do it spins for as long as that pays, then arms everything and sleeps. While it sleeps,
//! threads of async handlers may do what these ask of it.

mod backlog;
mod care;
mod carrier;
mod closing;
#[cfg(feature = "tokio")]
mod deliveries;
mod executor;
mod fairness;
mod patience;
mod processes;
mod rounds;
pub(crate) mod session;
mod sleep;
mod streams;
mod types;
pub(crate) mod visit;

#[cfg(feature = "tokio")]
use std::collections::VecDeque;
use std::{
    io,
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use bellrope_proto::{Violation, stream::Scratch};
use bellrope_shm::{
    sync::{Ordering, spin_loop},
    wait::{EVENTS, PollEvent, Poller},
};

use self::{
    backlog::{Backlog, CutShort, Newcomer, looked_after},
    carrier::Carrier,
    closing::Closing,
    patience::Patience,
    processes::Processes,
    session::{Rests, Session},
    visit::{Turn, Visit, Visitor},
};
use super::{
    core::Core,
    inbox::Inbox,
    message::{NewConnection, WorkerMessage},
    parked::Parked,
};
use crate::{kill_points::KillPoint, spin::Spinner};

/// Fruitless visits after which a connection is left to its doorbell, if the worker stays awake for others.
const IDLE_VISITS: u32 = 4096;
/// Looks at the header word of a lone hot connection between two rounds of everything else.
const LINGER_POLLS: u32 = 16;
/// A busy worker looks after doorbells, hang-ups and newcomers this often.
const LOOK_AFTER_SLEEPERS: Duration = Duration::from_micros(50);
/// Turns of an awake worker between two looks at the clock; a turn that found work counts for more.
const TURNS_PER_LOOK: u32 = 1024;
const WORKED: u32 = 64;
/// Visits that found work between two looks at the clock, to see whether one round over all connections takes long.
const VISITS_PER_LOOK: u32 = 16;
/// More rings than this between two sleeps make no sense: an honest peer rings once or twice for each.
const MAX_RINGS: u32 = 64;
/// Messages of one connection between two looks at those with priority, where there are any.
const SLICE: u32 = 4;
/// The inbox's key in the epoll set; connections have [others](backlog::key).
const INBOX_KEY: u64 = u64::MAX;

pub(crate) struct Worker {
    core: Arc<Core>,
    inbox: Arc<Inbox<WorkerMessage>>,
    poller: Poller,
    sessions: Vec<Option<Box<Session>>>,
    free: Vec<usize>,
    hot: Vec<usize>,
    /// The connections with priority; they are not in `hot`. They are polled whenever the worker is awake.
    priority: Vec<usize>,
    /// When they may have a turn again, in ticks, because others have waited for them. 0: at once.
    priority_rests: u64,
    /// Those of them that are armed while the worker sleeps.
    armed_priority: Vec<usize>,
    /// Connections that wait for the buffer budget while we sleep.
    starved: Vec<usize>,
    /// Those whose handlers have said what was not yet done, whoever is next in front.
    #[cfg(feature = "tokio")]
    told: VecDeque<usize>,
    /// Whether the last round over `hot`, and over `told`, was cut short: then the next goes by process.
    cut_short: CutShort,
    /// Whether some client has not been told yet of all changes of the message types.
    types_untold: bool,
    /// What was in the inbox while we slept and is only for our own thread.
    #[cfg(feature = "tokio")]
    left: Vec<WorkerMessage>,
    /// Whether somebody has stood in for us during this sleep.
    #[cfg(feature = "tokio")]
    stood_in: bool,
    patience: Patience,
    spinner: Spinner,
    /// Visits that found work since that was last asked; one that took too long counts for as many as make us look.
    worked: u32,
    visitor: Visitor,
    /// How often a connection came onto the hot list.
    heated: u64,
    /// What each round does a few of.
    backlog: Backlog,
    /// Whose connections they are.
    processes: Processes,
    /// Where bytes lie for a moment that travel over sockets, since there was a connection that has some.
    scratch: Option<Arc<Mutex<Scratch>>>,
}

impl Worker {
    pub(crate) fn new(core: Arc<Core>, index: usize) -> io::Result<(Arc<Inbox<WorkerMessage>>, Box<Self>)> {
        let inbox = Inbox::new()?;
        let poller = Poller::new()?;
        poller.add(inbox.notifier(), INBOX_KEY)?;
        let worker = Box::new(Self {
            inbox: Arc::clone(&inbox),
            poller,
            sessions: Vec::new(),
            free: Vec::new(),
            hot: Vec::new(),
            priority: Vec::new(),
            priority_rests: 0,
            armed_priority: Vec::new(),
            starved: Vec::new(),
            #[cfg(feature = "tokio")]
            told: VecDeque::new(),
            cut_short: CutShort::default(),
            types_untold: false,
            #[cfg(feature = "tokio")]
            left: Vec::new(),
            #[cfg(feature = "tokio")]
            stood_in: false,
            patience: Patience::new(Instant::now()),
            spinner: Spinner::new(core.fixed.spin, core.fixed.spin_cap),
            worked: 0,
            visitor: Visitor::new(
                Arc::clone(&core),
                index,
                #[cfg(feature = "tokio")]
                Arc::clone(&inbox),
            ),
            heated: 0,
            backlog: Backlog::default(),
            processes: Processes::default(),
            scratch: None,
            core,
        });
        Ok((inbox, worker))
    }

    pub(crate) fn run(mut self: Box<Self>) {
        let (parked, mut sleeper) = (Arc::new(Parked::new()), self.poller.another());
        #[cfg(feature = "tokio")]
        self.lets_others_stand_in(&parked);
        let mut turns = 0_u32;
        let mut looked_after = Instant::now();
        while !self.core.stopping.load(Ordering::Acquire) {
            let worked = self.round();
            self.spinner.heard_calls(self.visitor.round_ended());
            if self.core.draining.load(Relaxed) && self.is_drained() {
                break;
            }
            if worked {
                self.spinner.found();
                // So that many busy connections, or slow ones, do not keep us from looking.
                turns = turns.saturating_add(WORKED * std::mem::take(&mut self.worked).max(1));
            } else if !(self.hot.is_empty() && self.priority.is_empty()) && self.spinner.keep_on() {
                turns += 1;
                // What was seen is served at once, and everything else is looked at after that.
                if self.linger() && self.visit_hot() {
                    self.spinner.found();
                    turns = turns.saturating_add(WORKED * std::mem::take(&mut self.worked).max(1));
                }
            } else if self.arm_all() && self.inbox.prepare_sleep() {
                let asleep_since = Instant::now();
                self = self.sleep(&parked, &mut sleeper);
                looked_after = Instant::now();
                self.slept(looked_after - asleep_since);
                self.sweep(looked_after);
                self.reclaim(looked_after);
            } else {
                self.inbox.awake();
            }
            self.wake_others();
            if turns >= TURNS_PER_LOOK {
                turns = 0;
                if looked_after.elapsed() > LOOK_AFTER_SLEEPERS {
                    self.look_after_sleepers();
                    looked_after = Instant::now();
                    self.sweep(looked_after);
                    self.reclaim(looked_after);
                }
            }
        }
        // Connections that came in meanwhile are closed with the others, and those that are still on their way by whoever
        // sends them.
        let last = self.inbox.close();
        #[cfg(feature = "tokio")]
        self.heed_what_was_left();
        self.heed(last);
        #[cfg(feature = "tokio")]
        while self.deliver_in_turns() {}
        self.catch_up_all();
        for index in 0..self.sessions.len() {
            self.close(index, &Closing::HungUp);
        }
        self.visitor.loop_ended();
    }

    /// Does what others ask for, a few things of what was put off, and gives every hot connection its turn. Answers whether
    /// there was anything to do.
    fn round(&mut self) -> bool {
        let worked = self.read_inbox() | self.catch_up();
        self.visit_hot() | worked
    }

    /// Waits a moment. Where there is but one hot connection, watches its header word as closely as can be. Answers whether
    /// something was seen there.
    fn linger(&self) -> bool {
        let lone = match (&self.hot[..], &self.priority[..]) {
            ([index], []) | ([], [index]) => self.sessions[*index].as_deref(),
            _ => None,
        };
        match lone {
            Some(session) => {
                // Without a pause in between: it costs a tenth of a round trip.
                for _ in 0..LINGER_POLLS {
                    if session.connection.is_ready() {
                        return true;
                    }
                }
            }
            None => spin_loop(),
        }
        false
    }

    /// Whether every call that was taken has been answered in full.
    fn is_drained(&self) -> bool {
        let mut connections = self.sessions.iter().flatten().map(|session| &session.connection);
        self.backlog.has_no_newcomers()
            && connections.all(|connection| connection.open_calls() == 0 && !connection.wants_room())
            && !self.sessions.iter().flatten().flat_map(|session| &session.carrier).any(|carrier| carrier.is_blocked())
    }

    /// Does what other threads ask for.
    fn read_inbox(&mut self) -> bool {
        #[cfg(feature = "tokio")]
        self.heed_what_was_left();
        let messages = self.inbox.take();
        let worked = !messages.is_empty();
        self.heed(messages);
        #[cfg(feature = "tokio")]
        let worked = worked | self.deliver_in_turns();
        worked
    }

    fn heed(&mut self, messages: Vec<WorkerMessage>) {
        for message in messages {
            match message {
                WorkerMessage::Connected(connection) => self.backlog.newcomer(Newcomer::Connection(connection)),
                WorkerMessage::TypesChanged => self.tell_types(),
                WorkerMessage::GiveWay(way) => self.backlog.newcomer(Newcomer::Wants(way)),
                #[cfg(feature = "tokio")]
                WorkerMessage::FromHandler { session, call, what } => self.told(session, call, what),
            }
        }
    }

    /// Takes a new connection over.
    fn adopt(&mut self, mut connection: NewConnection) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.sessions.push(None);
            self.sessions.len() - 1
        });
        let key = backlog::key(index, connection.serial);
        let added = match connection.stream.take() {
            None => self.poller.add(&connection.socket, key).map(|()| None),
            Some(end) => self.poller.add_edges(&connection.socket, key).map(|watch| {
                let scratch = self.scratch.get_or_insert_default();
                Some(Box::new(Carrier::new(end, watch, Arc::clone(scratch))))
            }),
        };
        KillPoint::Adopted.reached();
        let holder = self.core.holder_for(connection.peer);
        self.processes.came(index, connection.peer);
        let (carrier, added) = added.map_or_else(|error| (None, Err(error)), |carrier| (carrier, Ok(())));
        let session = Session::new(
            connection,
            holder,
            carrier,
            #[cfg(feature = "tokio")]
            index,
        );
        self.sessions[index] = Some(Box::new(session));
        match added {
            Ok(()) => {
                if self.sessions[index].as_ref().is_some_and(|session| session.carrier.is_some()) {
                    self.heat(index);
                }
                // It is visited next, unless its client is gone already: what that has left behind nobody wants.
                self.hear(PollEvent { key, hung_up: false });
            }
            Err(error) => self.end(index, Closing::Io(error)),
        }
        // They may have changed since its handshake.
        self.tell_types_to(index);
    }

    /// Puts a connection on the list of those that are polled, unless it is there.
    fn heat(&mut self, index: usize) {
        let Some(session) = self.sessions.get_mut(index).and_then(looked_after) else { return };
        if !session.hot {
            session.hot = true;
            session.idle_visits = 0;
            self.heated += u64::from(!session.slot.priority);
            if session.slot.priority { &mut self.priority } else { &mut self.hot }.push(index);
        }
    }

    /// Gives every hot connection its turn, or as many as there is time for.
    fn visit_hot(&mut self) -> bool {
        if self.cut_short.visits.is_some() {
            self.put_visits_in_turns();
        }
        let (mut worked, mut others_worked) = (self.visit_priority(), false);
        let (mut place, mut next_look) = (0, self.worked + VISITS_PER_LOOK);
        // Those that come in meanwhile again and again do not keep the round from ending.
        let mut left = 2 * self.hot.len() + EVENTS;
        self.visitor.round_begins();
        while let Some(&index) = self.hot.get(place) {
            if left == 0 {
                // Whoever was not visited is the first in the next round.
                self.hot.rotate_left(place);
                break;
            }
            left -= 1;
            // What this one's neighbour sent travels here while this one is served.
            if let Some(next) = self.hot.get(place + 1).and_then(|next| self.sessions[*next].as_deref()) {
                next.connection.prefetch();
            }
            match self.visit(index) {
                Ok(Visit::Nothing) => {
                    let Some(session) = &mut self.sessions[index] else { continue };
                    session.idle_visits += 1;
                    let has_others = self.hot.len() + self.priority.len() > 1;
                    // Whoever comes over a socket rings for everything: to poll its ring would be in vain.
                    if session.idle_visits > IDLE_VISITS && has_others || session.carrier.is_some() {
                        match session.rest() {
                            Ok(Rests::Armed) => {
                                // Those behind it keep their order: none passes those before it.
                                self.hot.remove(place);
                                continue;
                            }
                            Ok(Rests::Ready | Rests::Starved) => {
                                session.idle_visits = 0;
                                // It stays on the list, so that its doorbell does not put it there once more.
                                session.hot = true;
                            }
                            Err(fault) => {
                                self.end(index, fault.into());
                                continue;
                            }
                        }
                    }
                }
                Ok(_) => {
                    (worked, others_worked) = (true, true);
                    self.worked += 1;
                }
                // That takes it off the list, so that another stands at this place now.
                Err(violation) => {
                    self.end(index, violation.into());
                    continue;
                }
            }
            place += 1;
            worked |= self.visit_priority();
            let is_long = self.visitor.overran() || self.visitor.was_long_round();
            if is_long || self.worked >= next_look && self.visitor.is_long_round() {
                self.cut_visits_short(place);
                break;
            }
            if self.worked >= next_look {
                next_look = self.worked + VISITS_PER_LOOK;
            }
        }
        // Nobody wanted their time, so they have it.
        if !others_worked && std::mem::take(&mut self.priority_rests) != 0 {
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
            let Some(session) = &mut self.sessions[index] else { return Ok(Visit::Done) };
            let visit = self.visitor.visit(session, &mut turn, slice)?;
            if visit != Visit::Nothing {
                session.idle_visits = 0;
                worked = true;
            }
            if visit != Visit::More {
                return Ok(if worked { Visit::Done } else { Visit::Nothing });
            }
            self.visit_priority();
        }
    }

    /// Prepares every hot connection for our sleep. Answers `false` if one of them has something to do after all.
    fn arm_all(&mut self) -> bool {
        while let Some(&index) = self.hot.last().or(self.priority.last()) {
            if let Some(session) = &mut self.sessions[index] {
                match session.rest() {
                    Ok(Rests::Armed) => {}
                    Ok(Rests::Starved) => self.starved.push(index),
                    Ok(Rests::Ready) => return false,
                    Err(fault) => {
                        self.end(index, fault.into());
                        continue;
                    }
                }
            }
            if self.hot.pop().is_none() {
                self.armed_priority.extend(self.priority.pop());
            }
        }
        // Who broke the protocol is closed first.
        self.backlog.is_empty()
    }

    /// After a sleep: whoever waits for the buffer budget may ask again, and those with priority are polled again,
    /// because a busy worker looks after doorbells only now and then.
    fn wake_others(&mut self) {
        while let Some(index) = self.starved.pop() {
            self.heat(index);
        }
        while let Some(index) = self.armed_priority.pop() {
            if let Some(session) = &self.sessions[index] {
                session.connection.disarm();
            }
            self.heat(index);
        }
    }

    /// Closes a connection now: its descriptor, mapping and handlers are gone when this returns. Most [end](Self::end), and
    /// are closed when their turn has come.
    fn close(&mut self, index: usize, why: &Closing) {
        let Some(mut session) = self.sessions[index].take() else { return };
        if let Some(why) = why.told(&self.core) {
            session.connection.say_why(&why);
        }
        session.say_farewell();
        KillPoint::ServerClosing.reached();
        #[cfg(feature = "tokio")]
        self.visitor.asynchronous.abandoned(&session);
        let _ = self.poller.remove(&session.socket);
        KillPoint::ServerClosed.reached();
        self.free.push(index);
        self.processes.left(session.peer);
        if !session.ending {
            self.leave_alone(index);
        }
        why.log(&self.core, &session);
        drop(session);
        // Whoever sees it counted may rely on it that nothing of it is left.
        why.count(&self.core.metrics);
    }
}
