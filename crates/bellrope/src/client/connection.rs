//! A connection with one owner: no lock, no thread.

mod deadlines;
mod limit;
mod sending;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

#[cfg(feature = "service")]
use bellrope_proto::handshake::SchemaMark;
use bellrope_proto::{
    connection::{Answer, AnswerKind},
    handshake::Style,
};

use deadlines::Deadlines;
use limit::Limit;

use super::{
    config::{ClientConfig, Transport},
    free_list::FreeList,
    handshake::{self, Established},
    link::{ClientLink, Rest, SWEEP},
    options::CallOptions,
    spawn::{self, Spawn, SpawnError},
    types::{MessageType, Target},
};
use crate::error::{CallError, ConnectError};

/// Why a connection never sends a call again.
const NO_OTHER_SERVER: &str = "a Connection does not reconnect; use a Client, or make a new Connection and call again";

/// A connection of one owner: no lock, no thread, the shortest way there is.
///
/// Each form of call takes a name, or a [`MessageType`] that was looked up before, and has a `_with` form that takes
/// [`CallOptions`].
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("echo.sock");
/// # let server = bellrope::Server::builder()
/// #     .unary("echo", |call, reply| { reply.put(call.payload()); Ok(()) }).bind(&path)?;
/// use std::time::Duration;
/// use bellrope::client::{CallOptions, ClientConfig, Connection, Style, Transport};
/// use bellrope::CallError;
///
/// let mut connection = Connection::with(&ClientConfig::new(&path))?; // or Connection::connect(&path)
/// assert!(connection.is_healthy() && connection.max_message() == 10 << 20);
/// assert_eq!(connection.transport(), Transport::Shm);
/// assert_eq!(connection.message_types().next(), Some(("echo", Style::Unary)));
/// let echo = connection.message_type("echo")?;
///
/// let mut reply = Vec::new();
/// connection.call(echo, b"ding", &mut reply)?;
/// assert_eq!(reply, b"ding");
/// let soon = CallOptions::new().timeout(Duration::from_secs(5));
/// connection.call_with("echo", b"dong", &mut reply, &soon)?;
/// assert_eq!(reply, b"dong");
///
/// // Many at once: send them all, then take the answers as they come.
/// let ids: Vec<_> = (0..10).map(|n: u8| connection.submit(echo, &[n])).collect::<Result<_, _>>()?;
/// for id in ids {
///     let completion = connection.wait(&mut reply)?;
///     assert_eq!(completion.id, id);
/// }
///
/// // Or have many sent with one commit, and look for answers without waiting.
/// assert!(connection.queue(echo, b"first")?.is_some(), "there is room");
/// assert!(connection.queue_with(echo, b"second", &soon)?.is_some());
/// let third = connection.submit_with(echo, b"third", &soon)?;
/// connection.flush();
/// assert!(connection.cancel(third) && connection.in_flight() == 2);
/// while connection.in_flight() > 0 {
///     if let Some(completion) = connection.poll(&mut reply)? {
///         completion.outcome?;
///     }
/// }
/// assert_eq!(reply, b"second");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Connection {
    link: ClientLink,
    call_timeout: Duration,
    /// Calls that ended while a request waited for room, or another call for its answer, with their replies. No more than
    /// twice as many as may be under way.
    early: VecDeque<(Completion, Vec<u8>)>,
    /// Of the calls that were submitted or queued with a time-out.
    deadlines: Deadlines,
    /// Buffers of replies that came early, and that their callers have had.
    free_list: FreeList<()>,
    /// Payload bytes queued since the last time that they came to `SEND_EVERY`.
    queued: usize,
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
    /// Connects to the server at `path` with default settings. [Example](Self).
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(path: impl Into<std::path::PathBuf>) -> Result<Self, ConnectError> {
        Self::with(&ClientConfig::new(path))
    }

    /// Connects. [Example](Self).
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn with(config: &ClientConfig) -> Result<Self, ConnectError> {
        Ok(Self::over(handshake::connect(config)?, config))
    }

    /// Connects, or starts the server first if there is none: [`Client::connect_or_spawn`](crate::Client::connect_or_spawn).
    /// [Example](crate::Client::connect_or_spawn).
    ///
    /// # Errors
    /// [`SpawnError`].
    pub fn connect_or_spawn(config: &ClientConfig, spawn: &Spawn) -> Result<Self, SpawnError> {
        Ok(Self::over(spawn::find_or_start(config, spawn)?, config))
    }

    fn over(established: Established, config: &ClientConfig) -> Self {
        let link = ClientLink::new(established, config);
        Self {
            link,
            call_timeout: config.call_timeout,
            early: VecDeque::new(),
            deadlines: Deadlines::new(),
            free_list: FreeList::default(),
            queued: 0,
        }
    }

    /// The message types that the server offers: name and style. Where it adds some or takes some out later, that shows after
    /// the next call or [poll](Self::poll). [Example](Self).
    pub fn message_types(&self) -> impl Iterator<Item = (&str, Style)> {
        self.link.types.entries().iter().map(|entry| (entry.name.as_str(), entry.style))
    }

    /// Looks up a message type that is answered with one response. [Example](Self).
    ///
    /// # Errors
    /// [`CallError::UnknownMessageType`] with the nearest known names, or [`CallError::WrongStyle`].
    pub fn message_type(&self, name: &str) -> Result<MessageType, CallError> {
        self.link.types.find_styled(Target::Name(name), Style::Unary)
    }

    /// As [`Self::message_type`], of whatever style, with what its payloads are.
    #[cfg(feature = "service")]
    pub(crate) fn marked_type(&self, name: &str) -> Result<(MessageType, SchemaMark), CallError> {
        self.link.types.find_marked(name)
    }

    /// What carries its calls: [`Transport::Shm`] or [`Transport::Stream`]. [Example](Self).
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.link.transport()
    }

    /// Bytes of the largest message. [Example](Self).
    #[must_use]
    pub fn max_message(&self) -> usize {
        self.link.connection.max_message()
    }

    /// Calls of which the end was not yet [polled](Self::poll) or [waited](Self::wait) for. [Example](Self).
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.link.connection.in_flight() + self.early.len()
    }

    pub(super) fn is_broken(&self) -> bool {
        self.link.broken.is_some()
    }

    /// Calls and waits for the answer, which replaces what is in `reply`. Waits at most as long as the configuration's
    /// `call_timeout`. Answers to other calls that come meanwhile are kept until they are [polled](Self::poll) or
    /// [waited](Self::wait) for. [Example](Self).
    ///
    /// # Errors
    /// [`CallError`]; after one that is about the connection every further call fails, and a new connection is due.
    #[inline]
    pub fn call<'a>(
        &mut self,
        message_type: impl Into<Target<'a>>,
        payload: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<(), CallError> {
        self.call_until(message_type.into(), payload, reply, Limit::default())
    }

    /// As [`Self::call`], with options: a time-out, which the server keeps to as well, and a token, which is looked at every
    /// few milliseconds while the call waits. [Example](Self).
    ///
    /// # Errors
    /// As [`Self::call`]; [`CallError::UnusableOption`] for a retry, since a connection does not reconnect.
    pub fn call_with<'a>(
        &mut self,
        message_type: impl Into<Target<'a>>,
        payload: &[u8],
        reply: &mut Vec<u8>,
        options: &CallOptions,
    ) -> Result<(), CallError> {
        options.without_retry("call of a Connection", NO_OTHER_SERVER)?;
        if options.is_cancelled() {
            return Err(CallError::Cancelled);
        }
        self.call_until(message_type.into(), payload, reply, Limit::of(options))
    }

    #[inline(always)]
    fn call_until(
        &mut self,
        target: Target<'_>,
        payload: &[u8],
        reply: &mut Vec<u8>,
        mut limit: Limit<'_>,
    ) -> Result<(), CallError> {
        let message_type = self.find(target)?;
        if !self.early.is_empty() {
            self.check_early()?;
        }
        let id = self.send(message_type, payload, &mut limit)?;
        self.answer_to(id, reply, &mut limit).map_err(|error| self.ended(id, error))
    }

    /// Waits for the answer to one call.
    #[inline(always)]
    fn answer_to(&mut self, id: CallId, reply: &mut Vec<u8>, limit: &mut Limit<'_>) -> Result<(), CallError> {
        // A large request may have been refused before it was sent whole.
        if let Some(at) = self.early.iter().position(|(completion, _)| completion.id == id) {
            if let Some((completion, early)) = self.early.remove(at) {
                *reply = early;
                return completion.outcome;
            }
        }
        loop {
            while let Some(answered) = self.link.take_response(reply) {
                if answered == id.0 {
                    return Ok(());
                }
                self.keep(answered, Ok(()), reply);
            }
            if !self.link.connection.is_drained() {
                if let Some(outcome) = self.take_rarer(id, reply)? {
                    return outcome;
                }
            }
            self.rest(Some(id.0), false, limit)?;
        }
    }

    /// Takes what came that is no response in one piece, until the call that is waited for has ended by it.
    #[inline(never)]
    fn take_rarer(&mut self, id: CallId, reply: &mut Vec<u8>) -> Result<Option<Result<(), CallError>>, CallError> {
        while let Some(answered) = self.link.take_long_response(reply) {
            if answered == id.0 {
                return Ok(Some(Ok(())));
            }
            self.keep(answered, Ok(()), reply);
        }
        while let Some(answer) = self.link.next_answer()? {
            match self.accept(&answer, reply) {
                Some(outcome) if answer.id == id.0 => return Ok(Some(outcome)),
                Some(outcome) => self.keep(answer.id, outcome, reply),
                None => {}
            }
        }
        Ok(None)
    }

    /// Keeps the end of another call than the one that is waited for.
    #[cold]
    fn keep(&mut self, id: u64, outcome: Result<(), CallError>, reply: &mut Vec<u8>) {
        self.early.push_back((Completion { id: CallId(id), outcome }, std::mem::take(reply)));
    }

    /// Whether there is room for more ends that nobody has asked for. While there is none, nothing more is called.
    #[cold]
    fn check_early(&self) -> Result<(), CallError> {
        let most = self.link.connection.max_in_flight();
        if self.early.len() < most as usize { Ok(()) } else { Err(CallError::too_many_in_flight(most)) }
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

    /// Gives up a call: its answer will be dropped, and the server told. Answers whether it was under way. [Example](Self).
    pub fn cancel(&mut self, call: CallId) -> bool {
        if let Some(at) = self.early.iter().position(|(completion, _)| completion.id == call) {
            return self.early.remove(at).is_some();
        }
        self.link.cancel(call.0)
    }

    /// Whether the server is still there and keeps to the protocol, as far as can be told without a call. Takes a
    /// system call. [Example](Self).
    pub fn is_healthy(&mut self) -> bool {
        self.link.hear().is_ok() && self.link.broken.is_none()
    }

    /// Sends what was queued. [Example](Self).
    #[inline]
    pub fn flush(&mut self) {
        self.link.commit();
    }

    /// Takes an answer if one is there, without waiting. The reply replaces what is in `reply`. Where the server was lost,
    /// each call that was under way still ends once, as one that has not run or of which nothing is known. [Example](Self).
    ///
    /// # Errors
    /// [`CallError`] if the connection is of no more use and no call is under way.
    #[inline(always)]
    pub fn poll(&mut self, reply: &mut Vec<u8>) -> Result<Option<Completion>, CallError> {
        self.link.commit();
        if self.early.is_empty() {
            if let Some(id) = self.link.take_response(reply) {
                return Ok(Some(Completion { id: CallId(id), outcome: Ok(()) }));
            }
        }
        self.poll_rarer(reply)
    }

    /// Takes an answer that came early, or is no response in one piece, if one is there.
    #[inline(never)]
    fn poll_rarer(&mut self, reply: &mut Vec<u8>) -> Result<Option<Completion>, CallError> {
        if let Some((completion, early)) = self.early.pop_front() {
            self.free_list.keep_reply(std::mem::replace(reply, early));
            return Ok(Some(completion));
        }
        if let Some(id) = self.link.take_long_response(reply) {
            return Ok(Some(Completion { id: CallId(id), outcome: Ok(()) }));
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
                return Ok(self.end_late());
            }
        }
    }

    /// Ends one of the calls whose time is over.
    fn end_late(&mut self) -> Option<Completion> {
        if self.deadlines.is_empty() {
            return None;
        }
        let now = Instant::now();
        while let Some(id) = self.deadlines.take_late(now) {
            if self.link.cancel(id) {
                return Some(Completion { id: CallId(id), outcome: Err(CallError::DeadlineExceeded) });
            }
        }
        None
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
    /// [Example](Self).
    ///
    /// # Errors
    /// [`CallError`] if the connection is of no more use and no call is under way, or nothing came in time.
    #[inline]
    pub fn wait(&mut self, reply: &mut Vec<u8>) -> Result<Completion, CallError> {
        let mut limit = Limit::default();
        loop {
            if let Some(completion) = self.poll(reply)? {
                return Ok(completion);
            }
            let rested = self.rest(None, false, &mut limit);
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
    fn rest(&mut self, id: Option<u64>, for_room: bool, limit: &mut Limit<'_>) -> Result<(), CallError> {
        if self.link.broken.is_some() {
            return Err(self.loss(id));
        }
        match self.link.rest(for_room)? {
            Rest::Look if limit.token.is_none() => Ok(()),
            Rest::Look | Rest::Check => self.check(limit).map(drop),
            Rest::Sleep => {
                // Whoever waits for one call, or for room, ends no other.
                let next = if id.is_none() && !for_room { self.deadlines.next() } else { None };
                let left = limit.left(self.call_timeout, next)?;
                self.link.sleep(left.min(SWEEP))
            }
        }
    }

    /// Time left until something else must be looked at.
    #[cold]
    fn check(&mut self, limit: &mut Limit<'_>) -> Result<Duration, CallError> {
        limit.left(self.call_timeout, None)
    }

    /// How this call, or without one the first under way, ends on a broken link.
    fn loss(&mut self, id: Option<u64>) -> CallError {
        let id = id.or_else(|| self.link.connection.calls().next()).unwrap_or(0);
        self.link.loss(id)
    }
}
