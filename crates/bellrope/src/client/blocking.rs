//! The blocking client. One of the callers that wait leads: it alone watches the socket and takes answers for all, and
//! hands that role on when it has its own. A lone caller always leads, so it pays no hop between threads.

use std::{
    path::PathBuf,
    sync::{Arc, MutexGuard},
    task::{Wake, Waker},
    thread::Thread,
    time::{Duration, Instant},
};

use bellrope_proto::{connection::Expect, handshake::Style};

use super::{
    ClientConfig, SWEEP,
    link::{self, Link, Rest},
    shared::{Event, Shared, State, Ticket},
};
use crate::{CallError, ConnectError};

/// A client for any number of threads. Clones share one connection, which is made anew when the server comes back.
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
        let shared = Arc::new(Shared::new(config));
        let established = super::handshake::connect(&shared.config)?;
        let link = Link::new(established, &shared.config);
        shared.lock().install(link);
        Ok(Self { shared })
    }

    /// The message types that the server offers: name and style. Empty while there is no connection.
    #[must_use]
    pub fn message_types(&self) -> Vec<(String, Style)> {
        self.shared.lock().message_types()
    }

    /// Calls a message type by name and waits for the answer, at most as long as the configuration's `call_timeout`.
    ///
    /// # Errors
    /// [`CallError`] says what happened, and whether it is safe to send the call again.
    pub fn call(&self, name: &str, payload: &[u8]) -> Result<Vec<u8>, CallError> {
        self.call_within(name, payload, self.shared.config.call_timeout)
    }

    /// As [`Self::call`], with a deadline of its own.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn call_within(&self, name: &str, payload: &[u8], timeout: Duration) -> Result<Vec<u8>, CallError> {
        let deadline = Instant::now() + timeout;
        let ticket = self.start(name, Style::Unary, payload, Some(deadline))?;
        match self.next_event(ticket, Some(deadline)) {
            Ok(Event::Response(payload)) => Ok(payload),
            Ok(Event::Failed(error)) => Err(error),
            Ok(Event::Chunk(_) | Event::End) => unreachable!("the connection checks the style of every answer"),
            Err(error) => {
                self.shared.lock().abandon(ticket);
                Err(error)
            }
        }
    }

    /// Calls a message type that is answered with a stream. Dropping the stream cancels it at the server.
    ///
    /// # Errors
    /// [`CallError`] if the call could not be sent. What happens later is told by the stream.
    pub fn stream(&self, name: &str, payload: &[u8]) -> Result<ChunkStream, CallError> {
        let ticket = self.start(name, Style::ServerStream, payload, None)?;
        Ok(ChunkStream { client: self.clone(), ticket: Some(ticket) })
    }

    /// Sends a call, over a new connection if the old one is lost.
    fn start(&self, name: &str, style: Style, payload: &[u8], deadline: Option<Instant>) -> Result<Ticket, CallError> {
        let expect = if style == Style::Unary { Expect::Response } else { Expect::Stream };
        let room_deadline = deadline.unwrap_or_else(|| Instant::now() + self.shared.config.call_timeout);
        let mut state = self.shared.lock();
        loop {
            let Some(link) = &state.link else {
                state = self.reconnect(state, room_deadline)?;
                continue;
            };
            let message_type = link.types.find_styled(name, style)?;
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            match state.begin(message_type, expect, payload, left) {
                Ok(Some(ticket)) => return Ok(ticket),
                // The ring is full. Answers are what keeps the server from taking requests.
                Ok(None) => state = self.wait_for_room(state, room_deadline)?,
                Err(error @ CallError::Violation(_)) => {
                    state.pump();
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn reconnect<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        deadline: Instant,
    ) -> Result<MutexGuard<'a, State>, CallError> {
        drop(state);
        let deadline = deadline.min(Instant::now() + self.shared.config.reconnect_timeout);
        let established = self.shared.connect_until(deadline)?;
        let mut state = self.shared.lock();
        // Somebody else may have been faster; then theirs is as good as ours.
        if state.link.is_none() {
            state.install(Link::new(established, &self.shared.config));
        }
        Ok(state)
    }

    /// Waits until the server has taken requests.
    fn wait_for_room<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        deadline: Instant,
    ) -> Result<MutexGuard<'a, State>, CallError> {
        state.pump();
        let now = Instant::now();
        if now >= deadline {
            return Err(CallError::DeadlineExceeded);
        }
        if state.arm(true)? == Rest::Sleep
            && let Some(socket) = state.link.as_ref().map(Link::socket)
        {
            drop(state);
            // A leader may take the ring that was meant for us, so the sleep is short.
            link::sleep(&socket, (deadline - now).min(Duration::from_millis(1)))?;
            state = self.shared.lock();
        }
        Ok(state)
    }

    /// Waits for what comes next for a call.
    fn next_event(&self, ticket: Ticket, deadline: Option<Instant>) -> Result<Event, CallError> {
        let mut state = self.shared.lock();
        let mut leading = false;
        loop {
            if leading || !state.led {
                state.led = true;
                leading = true;
                state.pump();
            }
            if let Some(event) = state.take_event(ticket) {
                if leading {
                    state.hand_over();
                }
                return Ok(event);
            }
            let waited = if leading { self.lead(state, deadline) } else { self.follow(state, ticket, deadline) };
            state = match waited {
                Ok(state) => state,
                Err(error) => {
                    if leading {
                        self.shared.lock().hand_over();
                    }
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
        drop(state);
        let since = Instant::now();
        link::sleep(&socket, left)?;
        let mut state = self.shared.lock();
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
        deadline: Option<Instant>,
    ) -> Result<MutexGuard<'a, State>, CallError> {
        let left = time_left(deadline)?;
        state.wait_for(ticket, &Waker::from(Arc::new(Unpark(std::thread::current()))));
        drop(state);
        std::thread::park_timeout(left);
        Ok(self.shared.lock())
    }
}

/// Time to wait at the most until something else must be looked at.
fn time_left(deadline: Option<Instant>) -> Result<Duration, CallError> {
    let Some(deadline) = deadline else { return Ok(SWEEP) };
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(CallError::DeadlineExceeded) } else { Ok(left.min(SWEEP)) }
}

/// Wakes a parked thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The chunks of a stream, as they come. Ends after the last one, or after one error.
///
/// Dropping it before its end cancels the stream at the server.
#[derive(Debug)]
pub struct ChunkStream {
    client: Client,
    /// `None` once the stream has ended.
    ticket: Option<Ticket>,
}

impl Iterator for ChunkStream {
    type Item = Result<Vec<u8>, CallError>;

    fn next(&mut self) -> Option<Self::Item> {
        let ticket = self.ticket?;
        match self.client.next_event(ticket, None) {
            Ok(Event::Chunk(chunk)) => return Some(Ok(chunk)),
            Ok(Event::End) => self.ticket = None,
            Ok(Event::Failed(error)) => {
                self.ticket = None;
                return Some(Err(error));
            }
            Ok(Event::Response(_)) => unreachable!("the connection checks the style of every answer"),
            Err(error) => {
                self.client.shared.lock().abandon(ticket);
                self.ticket = None;
                return Some(Err(error));
            }
        }
        None
    }
}

impl Drop for ChunkStream {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.client.shared.lock().abandon(ticket);
        }
    }
}
