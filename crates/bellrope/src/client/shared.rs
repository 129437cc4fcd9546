//! One connection shared by many callers.
//!
//! A caller that holds the lock may send, and may take answers out of the response ring for all: it puts each into the
//! [mailbox](super::mailboxes) of its call and wakes who waits there. No caller sleeps with the lock held. Who sleeps on
//! the socket differs: see [`blocking`](super::blocking) and [`asynchronous`](super::asynchronous). When the server is
//! lost, the [reconnector](super::reconnector) finds it again, and callers without a link wait for that.

mod ending;
pub(crate) mod held;

use std::{
    io,
    sync::{Arc, Condvar, Mutex},
    task::Waker,
    time::{Duration, Instant},
};

use bellrope_proto::{
    connection::{AnswerKind, ClientConnection, Sending},
    frame::Rejection,
    handshake::Style,
    metadata::Metadata,
};
use bellrope_shm::{socket::Socket, wait::Notifier};

#[cfg(feature = "tokio")]
use super::waiters::Waiters;
use super::{
    config::{ClientConfig, ConnectionState, Transport},
    free_list::FreeList,
    handshake::{self, Established},
    leave::Leave,
    link::{ClientLink, Rest},
    mailboxes::{Arrival, Mailboxes, Ticket, Waiter},
    reconnector::{Reconnector, Watched, Watcher},
    spawn::{self, Spawn, SpawnError},
    types::MessageType,
};
use crate::{
    breaker::Breaker,
    error::{CallError, ConnectError},
};

/// The state that callers share.
#[derive(Debug)]
pub(crate) struct SharedClient {
    pub(crate) config: ClientConfig,
    state: Mutex<State>,
    /// Signalled when there is a link again, or never will be.
    pub(crate) changed: Condvar,
    /// Ends the sleep of the leader when something happened that its socket does not report.
    pub(crate) leader: Arc<Notifier>,
    reconnector: &'static Reconnector,
    breaker: Option<Arc<Breaker>>,
    #[cfg(feature = "tokio")]
    pub(crate) watch: tokio::sync::watch::Sender<ConnectionState>,
}

/// What an async client does with each new link, given the number of the link.
pub(crate) type OnLink = Box<dyn Fn(&Arc<SharedClient>, &Arc<Socket>, u64) + Send + Sync>;

pub(crate) struct State {
    /// `None` while the server is lost, and after closing.
    pub(crate) link: Option<ClientLink>,
    /// Counts links, so that a call of a lost one is never mistaken for a call of the next.
    pub(crate) generation: u64,
    mailboxes: Mailboxes,
    pub(crate) free_list: FreeList<Arrival>,
    /// Whether one caller, the leader, watches the socket for all others.
    pub(crate) led: bool,
    /// Whether the leader sleeps, so that it must be woken by hand.
    pub(crate) leader_sleeps: bool,
    /// Async callers that wait for a link.
    #[cfg(feature = "tokio")]
    pub(crate) link_waiters: Waiters,
    /// Async callers that wait for room in the request ring.
    #[cfg(feature = "tokio")]
    pub(crate) room_waiters: Waiters,
    /// Whether those who watch the state of the connection are to be told when the lock is free.
    #[cfg(feature = "tokio")]
    has_changed: bool,
    pub(crate) closed: bool,
    pub(crate) on_link: Option<OnLink>,
    watchers: Vec<Watcher>,
    reconnector: &'static Reconnector,
}

/// How far a call has got.
pub(crate) enum Begun {
    /// Its request is on its way.
    Whole(Ticket),
    /// Its request travels in parts, which are to be [pushed](State::push).
    Partly(Ticket, Sending),
    /// There was no room for it.
    NoRoom,
}

/// What came of sending a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    Done,
    /// The call has ended: nobody wants more.
    Ended,
    NoRoom,
    NoCredit,
}

impl SharedClient {
    pub(crate) fn new(config: ClientConfig) -> io::Result<Arc<Self>> {
        let reconnector = Reconnector::running()?;
        let breaker = config.breaker.clone().map(Breaker::new).transpose();
        let breaker = breaker.map_err(|setting| io::Error::new(io::ErrorKind::InvalidInput, setting))?.map(Arc::new);
        let state = State {
            link: None,
            generation: 0,
            mailboxes: Mailboxes::default(),
            free_list: FreeList::default(),
            led: false,
            leader_sleeps: false,
            #[cfg(feature = "tokio")]
            link_waiters: Waiters::default(),
            #[cfg(feature = "tokio")]
            room_waiters: Waiters::default(),
            #[cfg(feature = "tokio")]
            has_changed: false,
            closed: false,
            on_link: None,
            watchers: Vec::new(),
            reconnector,
        };
        Ok(Arc::new(Self {
            config,
            state: Mutex::new(state),
            changed: Condvar::new(),
            leader: Arc::new(Notifier::new()?),
            reconnector,
            breaker,
            #[cfg(feature = "tokio")]
            watch: tokio::sync::watch::Sender::new(ConnectionState::Reconnecting),
        }))
    }

    /// The state of a client that is about to connect.
    pub(crate) fn checked(config: ClientConfig) -> Result<Arc<Self>, ConnectError> {
        let path = config.path.clone();
        Self::new(config).map_err(|source| ConnectError::Io { path, source })
    }

    /// Asks the client's own breaker for leave to make a call.
    pub(crate) fn admit(&self) -> Result<Leave, CallError> {
        let Some(breaker) = &self.breaker else { return Ok(None) };
        let since = Instant::now();
        let permit = breaker.acquire_owned(since).map(|permit| Some((permit, since)));
        permit.map_err(|rejected| CallError::Rejected {
            reason: Rejection::Breaker,
            retry_after: rejected.retry_after,
            text: format!("{rejected}; it is the client's own, and nothing was sent"),
        })
    }

    /// Connects, and installs the link unless another one came first. Blocks, at most as long as a handshake may take.
    pub(crate) fn connect(self: &Arc<Self>) -> Result<(), ConnectError> {
        self.install_link(handshake::connect(&self.config)?);
        Ok(())
    }

    /// The same with a server that is started if there is none. Blocks longer, as that may take.
    pub(crate) fn connect_or_spawn(self: &Arc<Self>, spawn: &Spawn) -> Result<(), SpawnError> {
        self.install_link(spawn::find_or_start(&self.config, spawn)?);
        Ok(())
    }

    /// Installs a fresh link, which the reconnector watches from now on, and returns its generation. `None`: there is a
    /// link already, or the client is closed.
    fn install_link(self: &Arc<Self>, established: Established) -> Option<u64> {
        let mut link = ClientLink::new(established, &self.config);
        link.wake_when_blocked(&self.leader);
        let mut state = self.lock();
        if state.link.is_some() || state.closed {
            return None;
        }
        state.generation += 1;
        let (socket, generation) = (link.socket(), state.generation);
        state.link = Some(link);
        self.reconnector.watch(self, Arc::clone(&socket), generation);
        if let Some(on_link) = state.on_link.take() {
            on_link(self, &socket, generation);
            state.on_link = Some(on_link);
        }
        state.announce(self, ConnectionState::Connected);
        Some(generation)
    }

    /// Takes every answer that came and puts it where it belongs. If the link turns out to be broken, every call on it
    /// ends here.
    pub(crate) fn pump(&self, state: &mut State) {
        if state.pump() {
            self.lose(state);
        }
    }

    /// Takes what has come over the socket as well, before a look into the table of message types or after one in vain: the
    /// server may have changed it while nobody read.
    pub(crate) fn catch_up(&self, state: &mut State) {
        if let Some(link) = &mut state.link {
            // What is wrong with the link, the next who uses it finds out.
            let _ = link.hear();
        }
        self.pump(state);
        // What was taken from the socket may have been meant for the leader.
        if state.leader_sleeps {
            self.leader.wake();
        }
    }

    /// Ends every call of a broken link.
    pub(crate) fn lose(&self, state: &mut State) {
        if state.lose() {
            state.announce(self, ConnectionState::Reconnecting);
        }
    }

    /// Ends a call as cancelled, and tells the server.
    pub(crate) fn cancel(&self, ticket: Ticket) {
        let mut state = self.lock();
        if state.cancel(ticket) && state.leader_sleeps {
            self.leader.wake();
        }
    }

    /// Ends everything: there will be no link any more.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        state.closed = true;
        state.lose();
        if state.leader_sleeps {
            self.leader.wake();
        }
        state.announce(self, ConnectionState::Closed);
    }

    /// Has changes of the connection told.
    pub(crate) fn on_change(&self, watcher: Watcher) {
        self.lock().watchers.push(watcher);
    }
}

impl Watched for SharedClient {
    fn config(&self) -> &ClientConfig {
        &self.config
    }

    fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn check_link(&self, generation: u64) {
        let mut state = self.lock();
        if state.generation != generation {
            return;
        }
        if let Some(link) = &mut state.link {
            link.hung_up();
        }
        self.pump(&mut state);
    }

    fn install(self: Arc<Self>, established: Established) -> Option<u64> {
        self.install_link(established)
    }
}

impl State {
    pub(crate) fn connection_state(&self) -> ConnectionState {
        match &self.link {
            _ if self.closed => ConnectionState::Closed,
            Some(_) => ConnectionState::Connected,
            None => ConnectionState::Reconnecting,
        }
    }

    /// Tells everybody who waits for a change of the connection. The reconnector calls the watchers, without our lock.
    fn announce(&mut self, shared: &SharedClient, now: ConnectionState) {
        shared.changed.notify_all();
        #[cfg(feature = "tokio")]
        {
            self.has_changed = true;
            self.link_waiters.wake(&mut self.mailboxes.told);
        }
        if !self.watchers.is_empty() {
            self.reconnector.tell(self.watchers.clone(), now);
        }
    }

    /// What carries the records of the link, if there is one.
    pub(crate) fn transport(&self) -> Option<Transport> {
        self.link.as_ref().map(ClientLink::transport)
    }

    /// The message types on offer. Empty without a link.
    pub(crate) fn message_types(&self) -> Vec<(String, Style)> {
        let entries = self.link.iter().flat_map(|link| link.types.entries());
        entries.map(|entry| (entry.name.clone(), entry.style)).collect()
    }

    /// Sends a call, or the beginning of one. To be called with a link only.
    pub(crate) fn begin(
        &mut self,
        message_type: MessageType,
        payload: &[u8],
        time_left: Option<Duration>,
        metadata: Option<&Metadata>,
    ) -> Result<Begun, CallError> {
        let Some(link) = &mut self.link else { return Err(CallError::NotExecuted) };
        let begun = if payload.len() > link.connection.max_record_with(metadata) {
            link.begin_large(message_type.style, payload.len())?.map(|sending| (sending.id, Some(sending)))
        } else {
            let submitted = link.submit_with(message_type, payload, time_left, metadata);
            link.commit();
            submitted?.map(|id| (id, None))
        };
        let Some((id, sending)) = begun else { return Ok(Begun::NoRoom) };
        let place = ClientConnection::place_of(id);
        let ticket = self.mailboxes.open(self.generation, id, place, self.free_list.events());
        Ok(match sending {
            None => Begun::Whole(ticket),
            Some(sending) => Begun::Partly(ticket, sending),
        })
    }

    /// Sends further parts of a request. Answers whether that was all; it is, too, when the call has ended.
    pub(crate) fn push(
        &mut self,
        ticket: Ticket,
        sending: &mut Sending,
        message_type: MessageType,
        payload: &[u8],
        time_left: Option<Duration>,
        metadata: Option<&Metadata>,
    ) -> Result<bool, CallError> {
        match &mut self.link {
            Some(link) if ticket.generation == self.generation => {
                link.push_large(sending, message_type, payload, time_left, metadata)
            }
            _ => Ok(true),
        }
    }

    /// Sends a chunk of a stream to the server.
    pub(crate) fn send_chunk(&mut self, ticket: Ticket, payload: &[u8]) -> Result<Sent, CallError> {
        let Some(link) = self.link_of(ticket) else { return Ok(Sent::Ended) };
        Ok(match link.send_chunk(ticket.id, payload)? {
            Some(true) => Sent::Done,
            Some(false) => Sent::Ended,
            None if link.connection.lacks_credit(ticket.id) => Sent::NoCredit,
            None => Sent::NoRoom,
        })
    }

    /// Says that no more chunks will come.
    pub(crate) fn end_upload(&mut self, ticket: Ticket) {
        if let Some(link) = self.link_of(ticket) {
            link.end_upload(ticket.id);
        }
    }

    fn link_of(&mut self, ticket: Ticket) -> Option<&mut ClientLink> {
        self.link.as_mut().filter(|_| ticket.generation == self.generation)
    }

    /// Takes every answer that came and puts it where it belongs. Answers whether the link is broken.
    fn pump(&mut self) -> bool {
        let Some(link) = &mut self.link else { return false };
        // Most looks of whoever spins are in vain.
        if link.connection.is_drained() {
            link.commit();
            if !link.has_more() {
                return link.broken.is_some();
            }
        }
        let mut payload = self.free_list.reply();
        let violated = loop {
            match link.next_answer() {
                Ok(None) => {
                    link.commit();
                    if link.has_more() {
                        continue;
                    }
                    break false;
                }
                Err(_) => break true,
                Ok(Some(answer)) => {
                    match answer.kind {
                        AnswerKind::Part { size } if answer.at == 0 => self.free_list.exchange(&mut payload, size),
                        _ => {}
                    }
                    if !link.take(&answer, &mut payload) {
                        continue;
                    }
                    let place = ClientConnection::place_of(answer.id);
                    let Some(ticket) = self.mailboxes.find(self.generation, answer.id, place) else { continue };
                    if answer.kind == AnswerKind::Credit {
                        self.mailboxes.wake(ticket, Waiter::Writer);
                        continue;
                    }
                    let payload = std::mem::replace(&mut payload, self.free_list.reply());
                    let event = match answer.kind {
                        AnswerKind::Chunk => Arrival::Chunk(payload),
                        AnswerKind::End => Arrival::End,
                        AnswerKind::Error { code, detail } => {
                            let limit = link.connection.max_message();
                            Arrival::Failed(CallError::from_server(code, detail, &payload, limit))
                        }
                        AnswerKind::Response => Arrival::Response(payload),
                        AnswerKind::Credit | AnswerKind::Part { .. } | AnswerKind::Types { .. } => {
                            unreachable!("neither is whole, or it was handled above")
                        }
                    };
                    self.mailboxes.deliver(ticket, event);
                }
            }
        };
        self.free_list.keep_reply(payload);
        violated || link.broken.is_some()
    }

    /// Ends every call of the link, if there is one.
    fn lose(&mut self) -> bool {
        let Some(mut link) = self.link.take() else { return false };
        let closed = self.closed;
        self.mailboxes.end_all(self.generation, |id| if closed { CallError::Closed } else { link.loss(id) });
        #[cfg(feature = "tokio")]
        self.wake_for_room();
        true
    }

    /// Arms the ring. `Look`: something came in first.
    pub(crate) fn arm(&mut self, for_room: bool) -> Result<Rest, CallError> {
        match &mut self.link {
            Some(link) => link.arm(for_room),
            None => Ok(Rest::Look),
        }
    }

    /// What came for a call. After the last event the call is forgotten.
    pub(crate) fn take_event(&mut self, ticket: Ticket) -> Option<Arrival> {
        let event = self.mailboxes.take(ticket, &mut self.free_list)?;
        if let Arrival::Chunk(chunk) = &event {
            if let Some(link) = self.link_of(ticket) {
                // A violation is noted in the link; the next pump ends every call.
                let _ = link.consumed(ticket.id, chunk.len());
            }
        }
        Some(event)
    }

    /// Says who is to be woken when something comes for a call. Answers `false` if the call has ended: then a writer
    /// has nothing to wait for.
    pub(crate) fn wait_for(&mut self, ticket: Ticket, role: Waiter, waker: &Waker) -> bool {
        self.mailboxes.wait_for(ticket, role, waker)
    }

    /// A caller waits no longer, so others cannot count on it to lead. If it led, or was woken to lead, another one is
    /// woken for that.
    pub(crate) fn leave(&mut self, ticket: Ticket, role: Waiter, leading: bool) {
        self.mailboxes.stop_waiting(ticket, role);
        if leading || !self.led {
            self.hand_over();
        }
    }

    /// Wakes one of those who wait for a leader.
    fn hand_over(&mut self) {
        self.led = false;
        self.mailboxes.wake_one();
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.connection_state();
        f.debug_struct("State").field("state", &state).field("calls", &self.mailboxes.len()).finish_non_exhaustive()
    }
}
