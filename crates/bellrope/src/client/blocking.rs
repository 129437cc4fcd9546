//! The blocking client. One of the callers that wait leads: it alone watches the socket and takes answers for all, and
//! hands that role on when it has its own. A lone caller always leads, so it pays no hop between threads.

use std::{
    path::PathBuf,
    sync::{Arc, MutexGuard, PoisonError},
    task::{Wake, Waker},
    thread::Thread,
    time::{Duration, Instant},
};

use bellrope_proto::{connection::Sending, handshake::Style};
use bellrope_shm::wait;

use super::{
    CallOptions, ChunkSink, ChunkStream, ClientConfig, ConnectionState, MessageType, Retry, SWEEP, Upload, handshake,
    left,
    link::{Link, Rest},
    shared::{Begun, Event, Role, Sent, Shared, State, Ticket, settle_permit},
};
use crate::{CallError, ConnectError};

/// How long a wait may last between two looks at a cancel token.
const TOKEN_PAUSE: Duration = Duration::from_millis(5);
/// The same for room in the request ring: whoever leads may take the ring that was meant for us.
const ROOM_PAUSE: Duration = Duration::from_millis(1);

/// A client for any number of threads. Clones share one connection, which is made anew, by itself, when the server was
/// away and comes back.
///
/// See the [crate's example](crate).
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

impl Client {
    /// Connects to the server at `path` with default settings.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(path: impl Into<PathBuf>) -> Result<Self, ConnectError> {
        Self::with(ClientConfig::new(path))
    }

    /// Connects.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn with(config: ClientConfig) -> Result<Self, ConnectError> {
        let path = config.path.clone();
        let shared = Shared::new(config).map_err(|source| ConnectError::Io { path, source })?;
        shared.install(Link::new(handshake::connect(&shared.config)?, &shared.config));
        Ok(Self { shared })
    }

    /// The message types that the server offers: name and style. Empty while there is no connection.
    #[must_use]
    pub fn message_types(&self) -> Vec<(String, Style)> {
        self.shared.lock().message_types()
    }

    /// Whether there is a connection now.
    #[must_use]
    pub fn state(&self) -> ConnectionState {
        self.shared.lock().connection_state()
    }

    /// Has `watcher` called whenever the connection is lost, made anew or closed. It runs on a thread that all clients of
    /// the process share, so it must not block.
    pub fn on_state_change(&self, watcher: impl Fn(ConnectionState) + Send + Sync + 'static) {
        self.shared.on_change(Arc::new(watcher));
    }

    /// Closes the connection for all clones. Calls under way, and all later ones, end as [`CallError::Closed`].
    pub fn close(&self) {
        self.shared.close();
    }

    /// Calls a message type by name and waits for the answer, at most as long as the configuration's `call_timeout`.
    ///
    /// # Errors
    /// [`CallError`] says what happened, and whether it is safe to send the call again.
    pub fn call(&self, name: &str, payload: &[u8]) -> Result<Vec<u8>, CallError> {
        self.call_with(name, payload, &CallOptions::new())
    }

    /// As [`Self::call`], but the answer replaces what is in `reply`, whose memory is used for the answer of a later
    /// call: then calls of up to 64 KiB allocate nothing. What is in `reply` after an error means nothing.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn call_into(&self, name: &str, payload: &[u8], reply: &mut Vec<u8>) -> Result<(), CallError> {
        let used = std::mem::replace(reply, self.call(name, payload)?);
        self.shared.lock().spares.keep_reply(used);
        Ok(())
    }

    /// As [`Self::call`], with a deadline of its own.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn call_within(&self, name: &str, payload: &[u8], timeout: Duration) -> Result<Vec<u8>, CallError> {
        self.call_with(name, payload, &CallOptions::new().timeout(timeout))
    }

    /// As [`Self::call`], with options.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn call_with(&self, name: &str, payload: &[u8], options: &CallOptions) -> Result<Vec<u8>, CallError> {
        let permit = self.shared.admit()?;
        let outcome = self.call_until(name, payload, self.deadline(options), options);
        settle_permit(permit, &outcome);
        outcome
    }

    /// Calls, again and again if that is allowed.
    fn call_until(
        &self,
        name: &str,
        payload: &[u8],
        deadline: Instant,
        options: &CallOptions,
    ) -> Result<Vec<u8>, CallError> {
        loop {
            match self.call_once(name, payload, deadline, options) {
                Err(CallError::NotExecuted) if options.retry != Retry::Never && Instant::now() < deadline => {}
                Err(CallError::Unknown) if options.retry == Retry::Idempotent && Instant::now() < deadline => {}
                other => return other,
            }
        }
    }

    fn call_once(
        &self,
        name: &str,
        payload: &[u8],
        deadline: Instant,
        options: &CallOptions,
    ) -> Result<Vec<u8>, CallError> {
        let ticket = self.start(name, Style::Unary, payload, Some(deadline), options)?;
        self.response(ticket, Some(deadline), options)
    }

    /// When a call with these options has to be answered.
    pub(super) fn deadline(&self, options: &CallOptions) -> Instant {
        Instant::now() + options.timeout.unwrap_or(self.shared.config.call_timeout)
    }

    /// Waits for the response to a call.
    pub(super) fn response(
        &self,
        ticket: Ticket,
        deadline: Option<Instant>,
        options: &CallOptions,
    ) -> Result<Vec<u8>, CallError> {
        let _registration = options.cancel.as_ref().map(|token| token.register(&self.shared, ticket));
        match self.next_event(ticket, deadline) {
            Ok(Event::Response(payload)) => Ok(payload),
            Ok(Event::Failed(error)) => Err(error),
            Ok(Event::Chunk(_) | Event::End) => unreachable!("the connection checks the style of every answer"),
            Err(error) => {
                self.abandon(ticket);
                Err(error)
            }
        }
    }

    /// Calls a message type that is answered with a stream. Dropping the stream cancels it at the server.
    ///
    /// # Errors
    /// [`CallError`] if the call could not be sent. What happens later is told by the stream.
    pub fn stream(&self, name: &str, payload: &[u8]) -> Result<ChunkStream, CallError> {
        self.stream_with(name, payload, &CallOptions::new())
    }

    /// As [`Self::stream`], with options. A time-out is for the whole stream.
    ///
    /// # Errors
    /// As [`Self::stream`].
    pub fn stream_with(&self, name: &str, payload: &[u8], options: &CallOptions) -> Result<ChunkStream, CallError> {
        let deadline = options.timeout.map(|timeout| Instant::now() + timeout);
        let ticket = self.start(name, Style::ServerStream, payload, deadline, options)?;
        let registration = options.cancel.as_ref().map(|token| token.register(&self.shared, ticket));
        Ok(ChunkStream::new(self.clone(), ticket, deadline, registration))
    }

    /// Calls a message type that takes a stream of chunks and answers once.
    ///
    /// # Errors
    /// As [`Self::stream`].
    pub fn client_stream(&self, name: &str, payload: &[u8]) -> Result<Upload, CallError> {
        let ticket = self.start(name, Style::ClientStream, payload, None, &CallOptions::new())?;
        Ok(Upload::new(ChunkSink::new(self.clone(), ticket)))
    }

    /// Calls a message type that has streams both ways: what is returned first sends, what is returned second receives.
    /// Each may go to a thread of its own. Dropping the receiving half cancels the call at the server.
    ///
    /// # Errors
    /// As [`Self::stream`].
    pub fn duplex(&self, name: &str, payload: &[u8]) -> Result<(ChunkSink, ChunkStream), CallError> {
        let ticket = self.start(name, Style::Duplex, payload, None, &CallOptions::new())?;
        Ok((ChunkSink::new(self.clone(), ticket), ChunkStream::new(self.clone(), ticket, None, None)))
    }

    /// Sends a call, over a new connection if the old one is lost.
    fn start(
        &self,
        name: &str,
        style: Style,
        payload: &[u8],
        deadline: Option<Instant>,
        options: &CallOptions,
    ) -> Result<Ticket, CallError> {
        let room_deadline = deadline.unwrap_or_else(|| Instant::now() + self.shared.config.call_timeout);
        let mut state = self.shared.lock();
        loop {
            if options.is_cancelled() {
                return Err(CallError::Cancelled);
            }
            let Some(link) = &state.link else {
                state = self.await_link(state, room_deadline, options)?;
                continue;
            };
            let message_type = link.types.find_styled(name, style)?;
            match state.begin(message_type, payload, left(deadline)) {
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
            match state.push(ticket, &mut sending, message_type, payload, left(deadline)) {
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

    /// Waits for the keeper to find the server again.
    fn await_link<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        deadline: Instant,
        options: &CallOptions,
    ) -> Result<MutexGuard<'a, State>, CallError> {
        let deadline = deadline.min(Instant::now() + self.shared.config.reconnect_timeout);
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
                // Why not, or after all.
                let established = handshake::connect(&self.shared.config)?;
                self.shared.install(Link::new(established, &self.shared.config));
                return Ok(self.shared.lock());
            }
            let most = if options.cancel.is_some() { left.min(TOKEN_PAUSE) } else { left };
            let waited = self.shared.changed.wait_timeout(state, most);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the server has taken requests.
    fn wait_for_room<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        deadline: Instant,
    ) -> Result<MutexGuard<'a, State>, CallError> {
        self.shared.pump(&mut state);
        let now = Instant::now();
        if now >= deadline {
            return Err(CallError::DeadlineExceeded);
        }
        if state.arm(true)? == Rest::Sleep
            && let Some(socket) = state.link.as_ref().map(Link::socket)
        {
            drop(state);
            wait::readable(&*socket, Some((deadline - now).min(ROOM_PAUSE)))?;
            state = self.shared.lock();
            if let Some(link) = &mut state.link {
                link.hear()?;
            }
            // The ring that we took may have been the leader's, who would sleep on over what it announced.
            if state.leader_sleeps {
                self.shared.leader.wake();
            }
        }
        Ok(state)
    }

    /// Waits for what comes next for a call.
    pub(super) fn next_event(&self, ticket: Ticket, deadline: Option<Instant>) -> Result<Event, CallError> {
        self.wait_until(ticket, Role::Reader, deadline, |state| Ok(state.take_event(ticket)))
    }

    /// Sends a chunk, as soon as there is credit and room. Answers `false` if the call has ended.
    pub(super) fn send_chunk(&self, ticket: Ticket, chunk: &[u8]) -> Result<bool, CallError> {
        let deadline = Instant::now() + self.shared.config.call_timeout;
        loop {
            let send = |state: &mut State| match state.send_chunk(ticket, chunk)? {
                Sent::NoCredit => Ok(None),
                sent => Ok(Some(sent)),
            };
            match self.wait_until(ticket, Role::Writer, Some(deadline), send)? {
                Sent::Done => return Ok(true),
                Sent::NoRoom => drop(self.wait_for_room(self.shared.lock(), deadline)?),
                Sent::Ended | Sent::NoCredit => return Ok(false),
            }
        }
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
        role: Role,
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
    fn lead<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        deadline: Option<Instant>,
    ) -> Result<MutexGuard<'a, State>, CallError> {
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
        let socket = link.socket();
        let generation = state.generation;
        let left = time_left(deadline)?;
        state.leader_sleeps = true;
        drop(state);
        let since = Instant::now();
        let woken = wait::either_readable(&*socket, &self.shared.leader, Some(left));
        let mut state = self.shared.lock();
        state.leader_sleeps = false;
        if woken? {
            self.shared.leader.clear();
        }
        if state.generation == generation
            && let Some(link) = &mut state.link
        {
            link.woke(since.elapsed())?;
        }
        Ok(state)
    }

    /// Waits until the leader has something for us, or hands the lead over to us.
    fn follow<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        ticket: Ticket,
        role: Role,
        deadline: Option<Instant>,
    ) -> Result<MutexGuard<'a, State>, CallError> {
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
