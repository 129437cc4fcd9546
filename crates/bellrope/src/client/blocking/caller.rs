//! What a thread does to make a call and to wait for what comes. One of the threads that wait leads: it alone watches
//! the socket and takes answers for all, and hands the lead on when it has its own answer. A lone caller always leads,
//! so it pays no hop between threads.

use std::{
    sync::Arc,
    task::{Wake, Waker},
    thread::Thread,
    time::{Duration, Instant},
};

use bellrope_proto::{connection::Sending, handshake::Style};
use bellrope_shm::wait;

use super::super::{
    config::{ClientConfig, ConnectionState},
    deadline::{from_now, left},
    leave::settle_permit,
    link::{Rest, SWEEP},
    mailboxes::{Arrival, Ticket, Waiter},
    options::{CallOptions, Registration},
    shared::{Begun, Sent, SharedClient, State, held::HeldState},
    spawn::{Spawn, SpawnError},
    types::{MessageType, Target, TypeTable},
};
use crate::error::{CallError, ConnectError};

/// How long a wait may last between two looks at a cancel token.
const TOKEN_PAUSE: Duration = Duration::from_millis(5);
/// The same for room in the request ring: whoever leads may take the ring that was meant for us.
const ROOM_PAUSE: Duration = Duration::from_millis(1);

/// Bytes of the largest chunk where rings are as small as they may be.
const LEAST_CHUNK: usize = 1024;

/// Calls over a shared connection and waits on the thread that asks. Clones share the connection.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    shared: Arc<SharedClient>,
}

impl Caller {
    /// Connects.
    pub(super) fn connect(config: ClientConfig) -> Result<Self, ConnectError> {
        let shared = SharedClient::checked(config)?;
        shared.connect()?;
        Ok(Self { shared })
    }

    /// The same with a server that is started if there is none.
    pub(super) fn connect_or_spawn(config: ClientConfig, spawn: &Spawn) -> Result<Self, SpawnError> {
        let shared = SharedClient::checked(config).map_err(SpawnError::Connect)?;
        shared.connect_or_spawn(spawn)?;
        Ok(Self { shared })
    }

    /// What all callers share.
    pub(super) fn shared(&self) -> &SharedClient {
        &self.shared
    }

    /// Calls and waits for the response.
    pub(super) fn call(&self, target: Target<'_>, payload: &[u8], options: &CallOptions) -> Result<Vec<u8>, CallError> {
        let permit = self.shared.admit()?;
        let outcome = self.call_until(target, payload, self.deadline(options), options);
        settle_permit(permit, &outcome);
        outcome
    }

    /// Calls, again and again if that is allowed.
    fn call_until(
        &self,
        target: Target<'_>,
        payload: &[u8],
        deadline: Instant,
        options: &CallOptions,
    ) -> Result<Vec<u8>, CallError> {
        loop {
            match self.call_once(target, payload, deadline, options) {
                Err(error) if options.retry.allows(&error) && Instant::now() < deadline => {}
                other => return other,
            }
        }
    }

    fn call_once(
        &self,
        target: Target<'_>,
        payload: &[u8],
        deadline: Instant,
        options: &CallOptions,
    ) -> Result<Vec<u8>, CallError> {
        let ticket = self.start(target, Style::Unary, payload, Some(deadline), options)?;
        self.response(ticket, Some(deadline), options)
    }

    /// When a call with these options has to be answered.
    pub(super) fn deadline(&self, options: &CallOptions) -> Instant {
        from_now(options.timeout.unwrap_or(self.shared.config.call_timeout))
    }

    /// Until when something is waited for that has no deadline of its own.
    pub(super) fn patience(&self) -> Instant {
        from_now(self.shared.config.call_timeout)
    }

    /// Looks a name up.
    pub(super) fn message_type(&self, name: &str) -> Result<MessageType, CallError> {
        self.in_table(|types| types.find(name))
    }

    /// Looks into the table of the server that is there, for which it waits.
    pub(super) fn in_table<T>(&self, look: impl FnOnce(&TypeTable) -> Result<T, CallError>) -> Result<T, CallError> {
        let (deadline, options) = (self.patience(), CallOptions::new());
        let mut state = self.shared.lock();
        loop {
            self.shared.catch_up(&mut state);
            match &state.link {
                Some(link) => return look(&link.types),
                None => state = self.await_link(state, deadline, &options)?,
            }
        }
    }

    /// Waits for the response to a call.
    pub(super) fn response(
        &self,
        ticket: Ticket,
        deadline: Option<Instant>,
        options: &CallOptions,
    ) -> Result<Vec<u8>, CallError> {
        let _registration = self.register(ticket, options);
        match self.next_event(ticket, deadline) {
            Ok(Arrival::Response(payload)) => Ok(payload),
            Ok(Arrival::Failed(error)) => Err(error),
            Ok(Arrival::Chunk(_) | Arrival::End) => unreachable!("the connection checks the style of every answer"),
            Err(error) => {
                self.abandon(ticket);
                Err(error)
            }
        }
    }

    /// Has a call cancelled with the options' token, if there is one.
    pub(super) fn register(&self, ticket: Ticket, options: &CallOptions) -> Option<Registration> {
        options.cancel.as_ref().map(|token| token.register(&self.shared, ticket))
    }

    /// Sends a call, over a new connection if the old one is lost.
    pub(super) fn start(
        &self,
        target: Target<'_>,
        style: Style,
        payload: &[u8],
        deadline: Option<Instant>,
        options: &CallOptions,
    ) -> Result<Ticket, CallError> {
        let room_deadline = deadline.unwrap_or_else(|| self.patience());
        let mut state = self.shared.lock();
        let mut caught_up = false;
        loop {
            if options.is_cancelled() {
                return Err(CallError::Cancelled);
            }
            let Some(link) = &state.link else {
                state = self.await_link(state, room_deadline, options)?;
                continue;
            };
            let message_type = match link.types.find_styled(target, style) {
                Ok(found) => found,
                Err(_) if !caught_up => {
                    self.shared.catch_up(&mut state);
                    caught_up = true;
                    continue;
                }
                Err(error) => return Err(error),
            };
            match state.begin(message_type, payload, left(deadline), options.said()) {
                Ok(Begun::Whole(ticket)) => return Ok(ticket),
                Ok(Begun::Partly(ticket, sending)) => {
                    drop(state);
                    return self.send_parts(ticket, sending, message_type, payload, deadline, room_deadline, options);
                }
                // The ring is full. Answers are what keeps the server from taking requests.
                Ok(Begun::NoRoom) => state = self.wait_for_room(state, room_deadline)?,
                Err(error) => {
                    self.shared.pump(&mut state);
                    return Err(error);
                }
            }
        }
    }

    /// Sends a request that is too large for a record.
    #[expect(clippy::too_many_arguments, reason = "all of it is what `start` knows of the call")]
    fn send_parts(
        &self,
        ticket: Ticket,
        mut sending: Sending,
        message_type: MessageType,
        payload: &[u8],
        deadline: Option<Instant>,
        room_deadline: Instant,
        options: &CallOptions,
    ) -> Result<Ticket, CallError> {
        let mut state = self.shared.lock();
        loop {
            if options.is_cancelled() {
                state.abandon(ticket);
                return Err(CallError::Cancelled);
            }
            match state.push(ticket, &mut sending, message_type, payload, left(deadline), options.said()) {
                Ok(true) => return Ok(ticket),
                Ok(false) => {}
                Err(error) => {
                    state.abandon(ticket);
                    self.shared.pump(&mut state);
                    return Err(error);
                }
            }
            state = match self.wait_for_room(state, room_deadline) {
                Ok(state) => state,
                Err(error) => {
                    self.abandon(ticket);
                    return Err(error);
                }
            };
        }
    }

    /// Waits for the reconnector to find the server again.
    fn await_link<'a>(
        &'a self,
        mut state: HeldState<'a>,
        deadline: Instant,
        options: &CallOptions,
    ) -> Result<HeldState<'a>, CallError> {
        let deadline = deadline.min(from_now(self.shared.config.reconnect_timeout));
        loop {
            match state.connection_state() {
                ConnectionState::Closed => return Err(CallError::Closed),
                ConnectionState::Connected => return Ok(state),
                ConnectionState::Reconnecting => {}
            }
            if options.is_cancelled() {
                return Err(CallError::Cancelled);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(state);
                // Either this succeeds after all, or its error says why not.
                self.shared.connect()?;
                return Ok(self.shared.lock());
            }
            let most = if options.cancel.is_some() { left.min(TOKEN_PAUSE) } else { left };
            state = state.wait(most);
        }
    }

    /// Waits until the server has taken requests.
    fn wait_for_room<'a>(&'a self, mut state: HeldState<'a>, deadline: Instant) -> Result<HeldState<'a>, CallError> {
        self.shared.pump(&mut state);
        let now = Instant::now();
        if now >= deadline {
            return Err(CallError::DeadlineExceeded);
        }
        if state.arm(true)? == Rest::Sleep {
            if let Some((socket, interest)) = state.link.as_ref().map(|link| (link.socket(), link.interest())) {
                drop(state);
                wait::ready(&*socket, interest, Some((deadline - now).min(ROOM_PAUSE)))?;
                state = self.shared.lock();
                if let Some(link) = &mut state.link {
                    link.hear()?;
                }
                // The ring that we took may have been the leader's, who would sleep on over what it announced.
                if state.leader_sleeps {
                    self.shared.leader.wake();
                }
            }
        }
        Ok(state)
    }

    /// Waits for what comes next for a call.
    pub(super) fn next_event(&self, ticket: Ticket, deadline: Option<Instant>) -> Result<Arrival, CallError> {
        self.wait_until(ticket, Waiter::Reader, deadline, |state| Ok(state.take_event(ticket)))
    }

    /// Sends a chunk, as soon as there is credit and room. `deadline` is that of the whole call. Answers `false` if the call
    /// has ended.
    pub(super) fn send_chunk(
        &self,
        ticket: Ticket,
        chunk: &[u8],
        deadline: Option<Instant>,
    ) -> Result<bool, CallError> {
        let patience = self.patience();
        let deadline = deadline.map_or(patience, |deadline| deadline.min(patience));
        loop {
            let send = |state: &mut State| match state.send_chunk(ticket, chunk)? {
                Sent::NoCredit => Ok(None),
                sent => Ok(Some(sent)),
            };
            match self.wait_until(ticket, Waiter::Writer, Some(deadline), send)? {
                Sent::Done => return Ok(true),
                Sent::NoRoom => drop(self.wait_for_room(self.shared.lock(), deadline)?),
                Sent::Ended | Sent::NoCredit => return Ok(false),
            }
        }
    }

    /// Bytes of the largest chunk; the least that there is, while there is no connection.
    pub(super) fn max_chunk(&self) -> usize {
        self.shared.lock().link.as_ref().map_or(LEAST_CHUNK, |link| link.connection.max_record())
    }

    pub(super) fn end_upload(&self, ticket: Ticket) {
        self.shared.lock().end_upload(ticket);
    }

    pub(super) fn abandon(&self, ticket: Ticket) {
        self.shared.lock().abandon(ticket);
    }

    /// Waits until `check` has something. Leads, if nobody else does.
    fn wait_until<T>(
        &self,
        ticket: Ticket,
        role: Waiter,
        deadline: Option<Instant>,
        mut check: impl FnMut(&mut State) -> Result<Option<T>, CallError>,
    ) -> Result<T, CallError> {
        let mut state = self.shared.lock();
        let mut leading = false;
        loop {
            if leading || !state.led {
                state.led = true;
                leading = true;
                self.shared.pump(&mut state);
            }
            let checked = check(&mut state);
            if let Some(checked) = checked.transpose() {
                state.leave(ticket, role, leading);
                return checked;
            }
            let waited = if leading { self.lead(state, deadline) } else { self.follow(state, ticket, role, deadline) };
            state = match waited {
                Ok(state) => state,
                Err(error) => {
                    self.shared.lock().leave(ticket, role, leading);
                    return Err(error);
                }
            };
        }
    }

    /// Watches the socket for everybody, once.
    fn lead<'a>(&'a self, mut state: HeldState<'a>, deadline: Option<Instant>) -> Result<HeldState<'a>, CallError> {
        // Without a link every call has ended, ours as well.
        let Some(link) = &mut state.link else { return Ok(state) };
        match link.rest(false)? {
            Rest::Look => {
                drop(state);
                return Ok(self.shared.lock());
            }
            Rest::Check => {
                time_left(deadline)?;
                return Ok(state);
            }
            Rest::Sleep => {}
        }
        let (socket, interest) = (link.socket(), link.interest());
        let generation = state.generation;
        let left = time_left(deadline)?;
        state.leader_sleeps = true;
        drop(state);
        let since = Instant::now();
        let woken = wait::either_ready(&*socket, interest, &self.shared.leader, Some(left));
        let mut state = self.shared.lock();
        state.leader_sleeps = false;
        if woken? {
            self.shared.leader.clear();
        }
        if state.generation == generation {
            if let Some(link) = &mut state.link {
                link.woke(since.elapsed())?;
            }
        }
        Ok(state)
    }

    /// Waits until the leader has something for us, or hands the lead over to us.
    fn follow<'a>(
        &'a self,
        mut state: HeldState<'a>,
        ticket: Ticket,
        role: Waiter,
        deadline: Option<Instant>,
    ) -> Result<HeldState<'a>, CallError> {
        let left = time_left(deadline)?;
        if state.wait_for(ticket, role, &Waker::from(Arc::new(Unpark(std::thread::current())))) {
            drop(state);
            std::thread::park_timeout(left);
            state = self.shared.lock();
        }
        Ok(state)
    }
}

/// Time to wait at the most until something else must be looked at.
fn time_left(deadline: Option<Instant>) -> Result<Duration, CallError> {
    match left(deadline) {
        None => Ok(SWEEP),
        Some(Duration::ZERO) => Err(CallError::DeadlineExceeded),
        Some(left) => Ok(left.min(SWEEP)),
    }
}

/// Wakes a parked thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
