//! One connection shared by many callers.
//!
//! Whoever holds the lock may send, and may take answers out of the response ring for everybody: it puts each into the
//! mailbox of its call and wakes who waits there. Nobody sleeps with the lock held. Who sleeps on the socket differs:
//! see [`blocking`](super::blocking) and [`asynchronous`](super::asynchronous).

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::{Duration, Instant},
};

use bellrope_proto::{
    connection::{AnswerKind, Expect},
    handshake::Style,
};

use super::{
    ClientConfig, MessageType, handshake,
    handshake::Established,
    link::{Link, Rest},
};
use crate::{CallError, ConnectError};

/// Between two tries to reach a server that went away: this long, and up to as much again at random.
const RETRY_PAUSE: Duration = Duration::from_millis(2);

/// The state that callers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: ClientConfig,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    /// `None` between the loss of a server and the next call.
    pub(crate) link: Option<Link>,
    /// Counts links, so that a call of a lost one is never mistaken for a call of the next.
    pub(crate) generation: u64,
    mailboxes: HashMap<Ticket, Mailbox>,
    /// Whether somebody watches the socket for all others.
    pub(crate) led: bool,
}

/// Names a call for as long as the client lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ticket {
    generation: u64,
    id: u64,
}

/// What has come for a call and who waits for it. Bounded by the credit of its stream.
#[derive(Debug, Default)]
struct Mailbox {
    events: VecDeque<Event>,
    waker: Option<Waker>,
    /// Whether the last event is in.
    ended: bool,
}

/// What can come for a call. All but a chunk are the last.
#[derive(Debug)]
pub(crate) enum Event {
    Response(Vec<u8>),
    Chunk(Vec<u8>),
    End,
    Failed(CallError),
}

impl Shared {
    pub(crate) fn new(config: ClientConfig) -> Self {
        Self { config, state: Mutex::default() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries to connect, again and again until `deadline` while nobody listens. Blocks; holds no lock.
    pub(crate) fn connect_until(&self, deadline: Instant) -> Result<Established, ConnectError> {
        loop {
            match handshake::connect(&self.config) {
                Err(error @ (ConnectError::NoServer { .. } | ConnectError::Io { .. })) => {
                    if Instant::now() + 2 * RETRY_PAUSE >= deadline {
                        return Err(error);
                    }
                    std::thread::sleep(RETRY_PAUSE + RETRY_PAUSE.mul_f64(jitter()));
                }
                other => return other,
            }
        }
    }
}

impl State {
    /// Installs a fresh link.
    pub(crate) fn install(&mut self, link: Link) {
        self.generation += 1;
        self.link = Some(link);
    }

    /// The message types on offer. Empty without a link.
    pub(crate) fn message_types(&self) -> Vec<(String, Style)> {
        let entries = self.link.iter().flat_map(|link| link.types.entries());
        entries.map(|entry| (entry.name.clone(), entry.style)).collect()
    }

    /// Sends a call. `None`: the ring is full. To be called with a link only.
    pub(crate) fn begin(
        &mut self,
        message_type: MessageType,
        expect: Expect,
        payload: &[u8],
        time_left: Option<Duration>,
    ) -> Result<Option<Ticket>, CallError> {
        let Some(link) = &mut self.link else { return Err(CallError::NotExecuted) };
        let submitted = link.submit(message_type, expect, payload, time_left);
        link.commit();
        let Some(id) = submitted? else { return Ok(None) };
        let ticket = Ticket { generation: self.generation, id };
        self.mailboxes.insert(ticket, Mailbox::default());
        Ok(Some(ticket))
    }

    /// Takes every answer that came and puts it where it belongs. If the link turns out to be broken, every call on it
    /// ends here.
    pub(crate) fn pump(&mut self) {
        let Some(link) = &mut self.link else { return };
        let violated = loop {
            match link.next_answer() {
                Ok(None) => break false,
                Err(_) => break true,
                Ok(Some(answer)) => {
                    let mut payload = vec![0; answer.len];
                    link.take(&answer, &mut payload);
                    let event = match answer.kind {
                        AnswerKind::Response => Event::Response(payload),
                        AnswerKind::Chunk => Event::Chunk(payload),
                        AnswerKind::End => Event::End,
                        AnswerKind::Error(code) => Event::Failed(CallError::Failed {
                            code,
                            text: String::from_utf8_lossy(&payload).into_owned(),
                        }),
                    };
                    if let Some(mailbox) =
                        self.mailboxes.get_mut(&Ticket { generation: self.generation, id: answer.id })
                    {
                        mailbox.deliver(event);
                    }
                }
            }
        };
        link.commit();
        if violated || link.broken.is_some() {
            self.lose();
        }
    }

    /// Ends every call of a broken link.
    fn lose(&mut self) {
        let Some(mut link) = self.link.take() else { return };
        for (ticket, mailbox) in &mut self.mailboxes {
            if ticket.generation == self.generation && !mailbox.ended {
                mailbox.deliver(Event::Failed(link.loss(ticket.id)));
            }
        }
    }

    /// Arms the ring. `Look`: something came in first.
    pub(crate) fn arm(&mut self, for_room: bool) -> Result<Rest, CallError> {
        match &mut self.link {
            Some(link) => link.arm(for_room),
            None => Ok(Rest::Look),
        }
    }

    /// What came for a call. After the last event the call is forgotten.
    pub(crate) fn take_event(&mut self, ticket: Ticket) -> Option<Event> {
        let mailbox = self.mailboxes.get_mut(&ticket)?;
        let event = mailbox.events.pop_front()?;
        if mailbox.ended && mailbox.events.is_empty() {
            self.mailboxes.remove(&ticket);
        }
        if let (Event::Chunk(chunk), Some(link)) = (&event, &mut self.link)
            && ticket.generation == self.generation
            && link.consumed(ticket.id, chunk.len()).is_err()
        {
            self.lose();
        }
        Some(event)
    }

    /// Says who is to be woken when something comes for a call.
    pub(crate) fn wait_for(&mut self, ticket: Ticket, waker: &Waker) {
        if let Some(mailbox) = self.mailboxes.get_mut(&ticket) {
            mailbox.waker = Some(waker.clone());
        }
    }

    /// Forgets a call, and tells the server if it was under way.
    pub(crate) fn abandon(&mut self, ticket: Ticket) {
        if let Some(mailbox) = self.mailboxes.remove(&ticket)
            && !mailbox.ended
            && ticket.generation == self.generation
            && let Some(link) = &mut self.link
        {
            link.cancel(ticket.id);
        }
    }

    /// Wakes one of those who wait for a leader.
    pub(crate) fn hand_over(&mut self) {
        self.led = false;
        if let Some(mailbox) = self.mailboxes.values_mut().find(|mailbox| mailbox.waker.is_some()) {
            mailbox.wake();
        }
    }
}

impl Mailbox {
    fn deliver(&mut self, event: Event) {
        self.ended |= !matches!(event, Event::Chunk(_));
        self.events.push_back(event);
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// A number from 0 to 1 that differs between clients and calls. Nothing secret hangs on it.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let bits = RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(bits >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}
