use std::time::{Duration, Instant};

use bellrope_proto::{
    connection::{Answer, AnswerKind, Expect},
    handshake::Style,
};

use super::{
    ClientConfig, MessageType, SWEEP, handshake,
    link::{Link, Rest},
};
use crate::{CallError, ConnectError};

/// A connection of one owner: no lock, no thread, the shortest way there is.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("echo.sock");
/// # let server = bellrope::Server::builder()
/// #     .unary("echo", |call, reply| { reply.write(call.payload()); Ok(()) }).bind(&path)?;
/// let mut connection = bellrope::Connection::connect(&path)?;
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
    link: Link,
    call_timeout: Duration,
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
        let link = Link::new(handshake::connect(config)?, config);
        Ok(Self { link, call_timeout: config.call_timeout })
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

    /// Largest payload of one message, in bytes.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.link.connection.max_payload()
    }

    /// Calls under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.link.connection.in_flight()
    }

    /// Calls and waits for the answer, which replaces what is in `reply`. Waits at most as long as the configuration's
    /// `call_timeout`.
    ///
    /// # Errors
    /// [`CallError`]; after one that is about the connection every further call fails, and a new connection is due.
    #[inline]
    pub fn call(&mut self, message_type: MessageType, payload: &[u8], reply: &mut Vec<u8>) -> Result<(), CallError> {
        let id = self.submit(message_type, payload)?;
        let mut deadline = None;
        loop {
            while let Some(answer) = self.link.next_answer()? {
                let outcome = self.accept(&answer, reply);
                if answer.id == id.0 {
                    return outcome;
                }
            }
            if let Err(error) = self.rest(Some(id.0), false, &mut deadline) {
                if matches!(error, CallError::DeadlineExceeded) {
                    self.link.cancel(id.0);
                }
                return Err(error);
            }
        }
    }

    /// Sends a call without waiting for its answer. Waits for room in the ring if there is none, but reads no answers
    /// meanwhile: one who submits much must [poll](Self::poll) in between, or this fails when its deadline passes.
    ///
    /// # Errors
    /// [`CallError`]; nothing was sent.
    #[inline]
    pub fn submit(&mut self, message_type: MessageType, payload: &[u8]) -> Result<CallId, CallError> {
        let mut deadline = None;
        loop {
            if let Some(id) = self.queue(message_type, payload)? {
                self.link.commit();
                return Ok(id);
            }
            self.rest(Some(0), true, &mut deadline)?;
        }
    }

    /// Queues a call, to be sent together with others by the next [`Self::flush`], [`Self::poll`] or [`Self::wait`]:
    /// many calls at once cost less than one by one. `None` if there is no room in the ring right now.
    ///
    /// # Errors
    /// [`CallError`]; nothing was queued.
    #[inline(always)]
    pub fn queue(&mut self, message_type: MessageType, payload: &[u8]) -> Result<Option<CallId>, CallError> {
        Ok(self.link.submit(message_type, Expect::Response, payload, None)?.map(CallId))
    }

    /// Sends what was queued.
    #[inline]
    pub fn flush(&mut self) {
        self.link.commit();
    }

    /// Takes an answer if one is there, without waiting. The reply replaces what is in `reply`.
    ///
    /// # Errors
    /// [`CallError`] if the connection is of no more use.
    #[inline(always)]
    pub fn poll(&mut self, reply: &mut Vec<u8>) -> Result<Option<Completion>, CallError> {
        self.link.commit();
        match self.link.next_answer()? {
            Some(answer) => Ok(Some(Completion { id: CallId(answer.id), outcome: self.accept(&answer, reply) })),
            None if self.link.idle()? == Rest::Check && self.link.broken.is_some() => Err(self.loss(None)),
            None => Ok(None),
        }
    }

    /// Waits for an answer to any call under way, at most `call_timeout`.
    ///
    /// # Errors
    /// [`CallError`] if the connection is of no more use, or nothing came in time.
    #[inline]
    pub fn wait(&mut self, reply: &mut Vec<u8>) -> Result<Completion, CallError> {
        let mut deadline = None;
        loop {
            if let Some(completion) = self.poll(reply)? {
                return Ok(completion);
            }
            self.rest(None, false, &mut deadline)?;
        }
    }

    /// Takes an answer and says how its call ended.
    #[inline(always)]
    fn accept(&mut self, answer: &Answer, reply: &mut Vec<u8>) -> Result<(), CallError> {
        reply.resize(answer.len, 0);
        self.link.take(answer, reply);
        match answer.kind {
            AnswerKind::Error(code) => {
                Err(CallError::Failed { code, text: String::from_utf8_lossy(reply).into_owned() })
            }
            AnswerKind::Response | AnswerKind::Chunk | AnswerKind::End => Ok(()),
        }
    }

    /// Waits for the next thing to happen: spins, or sleeps until the server rings.
    #[inline]
    fn rest(&mut self, id: Option<u64>, for_room: bool, deadline: &mut Option<Instant>) -> Result<(), CallError> {
        match self.link.rest(for_room)? {
            Rest::Look => Ok(()),
            Rest::Check => self.check(id, deadline).map(drop),
            Rest::Sleep => {
                let left = self.check(id, deadline)?;
                self.link.sleep(left.min(SWEEP))
            }
        }
    }

    /// Time left until the deadline, which is set when this is first asked.
    #[cold]
    fn check(&mut self, id: Option<u64>, deadline: &mut Option<Instant>) -> Result<Duration, CallError> {
        if self.link.broken.is_some() {
            return Err(self.loss(id));
        }
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
