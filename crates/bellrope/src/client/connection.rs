//! A connection with one owner: no lock, no thread.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bellrope_proto::{
    connection::{Answer, AnswerKind},
    handshake::Style,
};

use super::{
    config::ClientConfig,
    handshake,
    link::{ClientLink, Rest, SWEEP},
    types::MessageType,
};
use crate::error::{CallError, ConnectError};

/// A connection of one owner: no lock, no thread, the shortest way there is.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("echo.sock");
/// # let server = bellrope::Server::builder()
/// #     .unary("echo", |call, reply| { reply.put(call.payload()); Ok(()) }).bind(&path)?;
/// let mut connection = bellrope::client::Connection::connect(&path)?;
/// let echo = connection.message_type("echo")?;
///
/// let mut reply = Vec::new();
/// connection.call(echo, b"ding", &mut reply)?;
/// assert_eq!(reply, b"ding");
///
/// // Many at once: send them all, then take the answers as they come.
/// let ids: Vec<_> = (0..10).map(|n: u8| connection.submit(echo, &[n])).collect::<Result<_, _>>()?;
/// for id in ids {
///     let completion = connection.wait(&mut reply)?;
///     assert_eq!(completion.id, id);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Connection {
    link: ClientLink,
    call_timeout: Duration,
    /// Calls that ended while a request waited for room, with their replies. No more than may be under way.
    early: VecDeque<(Completion, Vec<u8>)>,
}

/// Names a call under way on a [`Connection`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallId(u64);

/// A call that has ended.
#[derive(Debug)]
pub struct Completion {
    /// Which one.
    pub id: CallId,
    /// How: the reply is in the buffer that was given, or this is what went wrong.
    pub outcome: Result<(), CallError>,
}

impl Connection {
    /// Connects to the server at `path` with default settings.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(path: impl Into<std::path::PathBuf>) -> Result<Self, ConnectError> {
        Self::with(&ClientConfig::new(path))
    }

    /// Connects.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn with(config: &ClientConfig) -> Result<Self, ConnectError> {
        let link = ClientLink::new(handshake::connect(config)?, config);
        Ok(Self { link, call_timeout: config.call_timeout, early: VecDeque::new() })
    }

    /// The message types that the server offers: name and style.
    pub fn message_types(&self) -> impl Iterator<Item = (&str, Style)> {
        self.link.types.entries().iter().map(|entry| (entry.name.as_str(), entry.style))
    }

    /// Looks up a message type that is answered with one response.
    ///
    /// # Errors
    /// [`CallError::UnknownMessageType`] with the nearest known names, or [`CallError::WrongStyle`].
    pub fn message_type(&self, name: &str) -> Result<MessageType, CallError> {
        self.link.types.find_styled(name, Style::Unary)
    }

    /// Bytes of the largest message.
    #[must_use]
    pub fn max_message(&self) -> usize {
        self.link.connection.max_message()
    }

    /// Calls of which the end was not yet [polled](Self::poll) or [waited](Self::wait) for.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.link.connection.in_flight() + self.early.len()
    }

    pub(super) fn is_broken(&self) -> bool {
        self.link.broken.is_some()
    }

    /// Calls and waits for the answer, which replaces what is in `reply`. Waits at most as long as the configuration's
    /// `call_timeout`.
    ///
    /// # Errors
    /// [`CallError`]; after one that is about the connection every further call fails, and a new connection is due.
    #[inline]
    pub fn call(&mut self, message_type: MessageType, payload: &[u8], reply: &mut Vec<u8>) -> Result<(), CallError> {
        let id = self.submit(message_type, payload)?;
        self.answer_to(id, reply).map_err(|error| self.ended(id, error))
    }

    /// Waits for the answer to one call.
    #[inline(always)]
    fn answer_to(&mut self, id: CallId, reply: &mut Vec<u8>) -> Result<(), CallError> {
        // A large request may have been refused before it was sent whole.
        if let Some(at) = self.early.iter().position(|(completion, _)| completion.id == id)
            && let Some((completion, early)) = self.early.remove(at)
        {
            *reply = early;
            return completion.outcome;
        }
        let mut deadline = None;
        loop {
            while let Some(answered) = self.link.take_response(reply) {
                if answered == id.0 {
                    return Ok(());
                }
            }
            while let Some(answer) = self.link.next_answer()? {
                if let Some(outcome) = self.accept(&answer, reply)
                    && answer.id == id.0
                {
                    return outcome;
                }
            }
            self.rest(Some(id.0), false, &mut deadline)?;
        }
    }

    /// A call has ended with this error: it is under way no longer.
    #[cold]
    fn ended(&mut self, id: CallId, error: CallError) -> CallError {
        if self.link.broken.is_some() {
            self.link.connection.forget(id.0);
        } else {
            self.link.cancel(id.0); // does nothing if it was the server that ended it
        }
        error
    }

    /// Sends a call without waiting for its answer. Waits for room in the ring if there is none. Answers that come
    /// meanwhile are kept until they are [polled](Self::poll) or [waited](Self::wait) for, so that two sides which both
    /// send much never wait for each other. They are held in memory, as many as calls may be under way; beyond that this
    /// fails as [`CallError::Rejected`].
    ///
    /// # Errors
    /// [`CallError`]; the call was not sent, and will not run.
    #[inline]
    pub fn submit(&mut self, message_type: MessageType, payload: &[u8]) -> Result<CallId, CallError> {
        if payload.len() > self.link.connection.max_record() {
            return self.submit_large(message_type, payload);
        }
        let mut deadline = None;
        loop {
            if let Some(id) = self.queue(message_type, payload)? {
                self.link.commit();
                return Ok(id);
            }
            self.wait_for_room(&mut deadline)?;
        }
    }

    /// Sends a request in parts.
    fn submit_large(&mut self, message_type: MessageType, payload: &[u8]) -> Result<CallId, CallError> {
        let mut deadline = None;
        let mut sending = loop {
            match self.link.begin_large(message_type.style, payload.len())? {
                Some(sending) => break sending,
                None => self.wait_for_room(&mut deadline)?,
            }
        };
        let id = CallId(sending.id);
        loop {
            let pushed = self.link.push_large(&mut sending, message_type, payload, None);
            match pushed.and_then(|all| if all { Ok(true) } else { self.wait_for_room(&mut deadline).map(|()| false) })
            {
                Ok(true) => return Ok(id),
                Ok(false) => {}
                Err(error) => return Err(self.ended(id, error)),
            }
        }
    }

    /// Waits until there may be room, and takes the answers that come meanwhile: until they are taken, the server may
    /// have nowhere to put the next one, and takes no request before that.
    fn wait_for_room(&mut self, deadline: &mut Option<Instant>) -> Result<(), CallError> {
        let mut came = false;
        let limit = self.link.connection.max_in_flight();
        while self.early.len() < limit as usize
            && let Some(answer) = self.link.next_answer()?
        {
            came = true;
            let mut reply = Vec::new();
            if let Some(outcome) = self.accept(&answer, &mut reply) {
                self.early.push_back((Completion { id: CallId(answer.id), outcome }, reply));
            }
        }
        if came {
            self.link.commit();
            return self.check(deadline).map(drop).map_err(unsent);
        }
        // To wait while an answer is there that must not be taken would be to look at it for ever.
        if self.early.len() >= limit as usize && self.link.connection.is_ready() {
            return Err(CallError::too_many_in_flight(limit));
        }
        self.rest(None, true, deadline).map_err(unsent)
    }

    /// Queues a call, to be sent together with others by the next [`Self::flush`], [`Self::poll`] or [`Self::wait`]:
    /// many calls at once cost less than one by one. `None` if there is no room in the ring right now. A message that
    /// is too large for one record, a quarter of the ring, cannot be queued.
    ///
    /// # Errors
    /// [`CallError`]; nothing was queued.
    #[inline(always)]
    pub fn queue(&mut self, message_type: MessageType, payload: &[u8]) -> Result<Option<CallId>, CallError> {
        Ok(self.link.submit(message_type, payload, None)?.map(CallId))
    }

    /// Gives up a call: its answer will be dropped, and the server told. Answers whether it was under way.
    pub fn cancel(&mut self, call: CallId) -> bool {
        if let Some(at) = self.early.iter().position(|(completion, _)| completion.id == call) {
            return self.early.remove(at).is_some();
        }
        self.link.cancel(call.0)
    }

    /// Whether the server is still there and keeps to the protocol, as far as can be told without a call. Takes a
    /// system call.
    pub fn is_healthy(&mut self) -> bool {
        self.link.hear().is_ok() && self.link.broken.is_none()
    }

    /// Sends what was queued.
    #[inline]
    pub fn flush(&mut self) {
        self.link.commit();
    }

    /// Takes an answer if one is there, without waiting. The reply replaces what is in `reply`. Where the server was lost,
    /// each call that was under way still ends once, as one that has not run or of which nothing is known.
    ///
    /// # Errors
    /// [`CallError`] if the connection is of no more use and no call is under way.
    #[inline(always)]
    pub fn poll(&mut self, reply: &mut Vec<u8>) -> Result<Option<Completion>, CallError> {
        self.link.commit();
        if self.early.is_empty()
            && let Some(id) = self.link.take_response(reply)
        {
            return Ok(Some(Completion { id: CallId(id), outcome: Ok(()) }));
        }
        self.poll_rarer(reply)
    }

    /// Takes an answer that came early, or is no response in one piece, if one is there.
    #[inline(never)]
    fn poll_rarer(&mut self, reply: &mut Vec<u8>) -> Result<Option<Completion>, CallError> {
        if let Some((completion, early)) = self.early.pop_front() {
            *reply = early;
            return Ok(Some(completion));
        }
        loop {
            // Known before the look, or an answer that came in between would be missed.
            let broken = self.link.broken.is_some();
            // An answer that breaks the protocol is none, and the end of all that came.
            while let Ok(Some(answer)) = self.link.next_answer() {
                if let Some(outcome) = self.accept(&answer, reply) {
                    return Ok(Some(Completion { id: CallId(answer.id), outcome }));
                }
            }
            if broken {
                return self.lost().map(Some);
            }
            if self.link.broken.is_none() {
                self.link.idle()?;
            }
            if self.link.broken.is_none() {
                return Ok(None);
            }
        }
    }

    /// Ends one of the calls that were under way when the server was lost.
    #[cold]
    fn lost(&mut self) -> Result<Completion, CallError> {
        match self.link.lose() {
            Some((id, error)) => Ok(Completion { id: CallId(id), outcome: Err(error) }),
            None => Err(self.loss(None)),
        }
    }

    /// Waits for an answer to any call under way, at most `call_timeout`. Where the server was lost, as [`Self::poll`].
    ///
    /// # Errors
    /// [`CallError`] if the connection is of no more use and no call is under way, or nothing came in time.
    #[inline]
    pub fn wait(&mut self, reply: &mut Vec<u8>) -> Result<Completion, CallError> {
        let mut deadline = None;
        loop {
            if let Some(completion) = self.poll(reply)? {
                return Ok(completion);
            }
            let rested = self.rest(None, false, &mut deadline);
            // What is broken has an end for each call.
            if self.link.broken.is_none() {
                rested?;
            }
        }
    }

    /// Takes an answer and says how its call ended, if it has.
    fn accept(&mut self, answer: &Answer, reply: &mut Vec<u8>) -> Option<Result<(), CallError>> {
        if !self.link.take(answer, reply) {
            return None;
        }
        match answer.kind {
            AnswerKind::Error { code, detail } => {
                Some(Err(CallError::from_server(code, detail, reply, self.link.connection.max_message())))
            }
            _ => Some(Ok(())),
        }
    }

    /// After a look that found nothing, waits for the next thing to happen: spins, or sleeps until the server rings.
    #[inline]
    fn rest(&mut self, id: Option<u64>, for_room: bool, deadline: &mut Option<Instant>) -> Result<(), CallError> {
        if self.link.broken.is_some() {
            return Err(self.loss(id));
        }
        match self.link.rest(for_room)? {
            Rest::Look => Ok(()),
            Rest::Check => self.check(deadline).map(drop),
            Rest::Sleep => {
                let left = self.check(deadline)?;
                self.link.sleep(left.min(SWEEP))
            }
        }
    }

    /// Time left until the deadline, which is set when this is first asked.
    #[cold]
    fn check(&mut self, deadline: &mut Option<Instant>) -> Result<Duration, CallError> {
        let now = Instant::now();
        let deadline = *deadline.get_or_insert(now + self.call_timeout);
        if now >= deadline {
            return Err(CallError::DeadlineExceeded);
        }
        Ok(deadline - now)
    }

    /// How this call, or without one the first under way, ends on a broken link.
    fn loss(&mut self, id: Option<u64>) -> CallError {
        let id = id.or_else(|| self.link.connection.calls().next()).unwrap_or(0);
        self.link.loss(id)
    }
}

/// How a call ends that was not sent whole: it has not run, however the link ends.
fn unsent(error: CallError) -> CallError {
    match error {
        CallError::Unknown => CallError::NotExecuted,
        error => error,
    }
}
