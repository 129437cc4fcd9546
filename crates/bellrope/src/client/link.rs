//! One connection to a server, and how to wait on it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bellrope_proto::{
    Violation,
    connection::{Answer, AnswerKind, ClientConnection, Loss, Sending, SubmitError},
    handshake::Style,
    metadata::Metadata,
    ring::Armed,
};
use bellrope_shm::{
    clock,
    socket::{Drained, Socket},
    sync::spin_loop,
    wait::{self, Interest, Notifier},
};

use super::{
    config::{ClientConfig, Transport},
    handshake::Established,
    stream::LinkStream,
    types::{MessageType, TypeTable},
};
use crate::{error::CallError, kill_points::KillPoint, pump::PumpFault, spin::Spinner};

/// Most doorbell bytes read at once; far more than an honest server ever sends.
const RINGS: usize = 64 * 1024;
/// Looks at the header word between two rounds of everything else.
const LINGER_POLLS: u32 = 16;
/// The first step in which the buffer of a response in parts grows.
const MIN_STEP: usize = 1024 * 1024;
/// Fruitless polls between two looks for a hang-up, for a waiter that always spins.
const POLLS_PER_LOOK: u32 = 100_000;

/// Longest sleep between two looks, so that nothing is missed for ever.
pub(super) const SWEEP: Duration = Duration::from_secs(1);

/// One connection and how to wait on it.
#[derive(Debug)]
pub(crate) struct ClientLink {
    socket: Arc<Socket>,
    /// Where the records travel over the socket: what moves them.
    stream: Option<Box<LinkStream>>,
    pub(crate) connection: ClientConnection,
    pub(crate) types: TypeTable,
    spinner: Spinner,
    polls: u32,
    /// Fruitless polls between two looks at the socket.
    polls_per_look: u32,
    clock_offset_us: u64,
    /// What has come of a response in parts.
    partial: Vec<u8>,
    /// Set once the server is known to be gone, or to have broken the protocol.
    pub(crate) broken: Option<Broken>,
}

/// Why a link is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    HungUp,
    Violation(Violation),
}

impl From<PumpFault> for Broken {
    fn from(fault: PumpFault) -> Self {
        match fault {
            PumpFault::Violation(violation) => Self::Violation(violation),
            // A socket that fails has hung up, too.
            PumpFault::HungUp | PumpFault::Io(_) => Self::HungUp,
        }
    }
}

/// What a waiter should do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Look again.
    Look,
    /// Look at the deadline and for a hang-up, then look again.
    Check,
    /// Sleep on the socket: the ring is armed.
    Sleep,
}

impl ClientLink {
    pub(crate) fn new(established: Established, config: &ClientConfig) -> Self {
        let Established { socket, connection, stream, types, clock_offset_us } = established;
        let mut link = Self {
            socket,
            // Whatever comes over the socket is to be read there.
            polls_per_look: if stream.is_some() { 1 } else { POLLS_PER_LOOK },
            stream: stream.map(|end| Box::new(LinkStream::new(end))),
            connection,
            types,
            clock_offset_us,
            partial: Vec::new(),
            spinner: Spinner::new(config.spin, config.spin_cap),
            polls: 0,
            broken: None,
        };
        if link.stream.is_some() {
            // From now on the ring says when there is something to be moved.
            link.ring();
        }
        link
    }

    /// What carries its records.
    pub(crate) fn transport(&self) -> Transport {
        if self.stream.is_some() { Transport::Stream } else { Transport::Shm }
    }

    /// Has somebody woken who sleeps on the socket alone, when the socket takes no more.
    pub(crate) fn wake_when_blocked(&mut self, sleeper: &Arc<Notifier>) {
        if let Some(stream) = &mut self.stream {
            stream.wake_when_blocked(sleeper);
        }
    }

    /// What whoever sleeps on the socket waits for.
    pub(crate) fn interest(&self) -> Interest {
        self.stream.as_ref().map_or(Interest::Bytes, |stream| stream.interest())
    }

    pub(crate) fn socket(&self) -> Arc<Socket> {
        Arc::clone(&self.socket)
    }

    /// A moment from now, as the server's clock will show it.
    pub(crate) fn deadline_us(&self, time_left: Duration) -> u64 {
        let left = u64::try_from(time_left.as_micros()).unwrap_or(u64::MAX);
        clock::monotonic_us().saturating_add(left).wrapping_add(self.clock_offset_us)
    }

    /// Sends a call whose request fits a record, with the next [commit](Self::commit). `None`: there is no room.
    #[inline(always)]
    pub(crate) fn submit(
        &mut self,
        message_type: MessageType,
        payload: &[u8],
        time_left: Option<Duration>,
    ) -> Result<Option<u64>, CallError> {
        let deadline_us = time_left.map(|left| self.deadline_us(left));
        let submitted = self.connection.submit(message_type.number, message_type.style, payload, deadline_us);
        self.room(submitted)
    }

    /// As [`Self::submit`], with what its caller says of the call, if the server reads that.
    #[inline(always)]
    pub(crate) fn submit_with(
        &mut self,
        message_type: MessageType,
        payload: &[u8],
        time_left: Option<Duration>,
        metadata: Option<&Metadata>,
    ) -> Result<Option<u64>, CallError> {
        match metadata {
            None => self.submit(message_type, payload, time_left),
            Some(metadata) => self.submit_described(message_type, payload, time_left, metadata),
        }
    }

    #[cold]
    fn submit_described(
        &mut self,
        MessageType { number, style, .. }: MessageType,
        payload: &[u8],
        time_left: Option<Duration>,
        metadata: &Metadata,
    ) -> Result<Option<u64>, CallError> {
        let deadline_us = time_left.map(|left| self.deadline_us(left));
        let submitted = self.connection.submit_described(number, style, metadata, payload, deadline_us);
        self.room(submitted)
    }

    /// Begins a call whose request may travel in parts. `None`: another one does.
    pub(crate) fn begin_large(&mut self, style: Style, size: usize) -> Result<Option<Sending>, CallError> {
        let begun = self.connection.begin_large(style, size);
        self.room(begun)
    }

    /// Sends further parts. Answers whether that was all.
    pub(crate) fn push_large(
        &mut self,
        sending: &mut Sending,
        message_type: MessageType,
        payload: &[u8],
        time_left: Option<Duration>,
        metadata: Option<&Metadata>,
    ) -> Result<bool, CallError> {
        let deadline_us = time_left.map(|left| self.deadline_us(left));
        let number = message_type.number;
        loop {
            let before = *sending;
            let pushed = self.connection.push_large_described(sending, number, metadata, payload, deadline_us);
            self.commit();
            match pushed {
                // It stopped to wake the server, or for want of room: the next try tells.
                Ok(false) if *sending != before => self.spinner.found(),
                pushed => return pushed.map_err(|violation| self.violated(violation)),
            }
        }
    }

    /// Sends a chunk. `None`: there is no room or no credit; `false`: the call has ended.
    pub(crate) fn send_chunk(&mut self, id: u64, payload: &[u8]) -> Result<Option<bool>, CallError> {
        let sent = self.connection.send_chunk(id, payload);
        self.commit();
        self.room(sent)
    }

    pub(crate) fn end_upload(&mut self, id: u64) {
        let ended = self.connection.end_upload(id);
        self.commit();
        if let Err(violation) = ended {
            self.violated(violation);
        }
    }

    /// Makes of a failure to send what it is to a caller. `None`: there is no room.
    #[inline(always)]
    fn room<T>(&mut self, sent: Result<T, SubmitError>) -> Result<Option<T>, CallError> {
        match sent {
            Ok(sent) => Ok(Some(sent)),
            Err(SubmitError::Full) => Ok(None),
            Err(error) => Err(self.not_sent(error)),
        }
    }

    #[cold]
    fn not_sent(&mut self, error: SubmitError) -> CallError {
        match error {
            SubmitError::TooManyInFlight { limit } => CallError::too_many_in_flight(limit),
            SubmitError::TooLarge { size, limit } => {
                CallError::MessageTooLarge { size: size as u64, limit: limit as u64 }
            }
            SubmitError::ChunkTooLarge { size, limit } => CallError::ChunkTooLarge { size, limit },
            SubmitError::Violation(violation) => self.violated(violation),
            SubmitError::Full => unreachable!("told apart by the caller"),
        }
    }

    /// Takes what came next if it is a response in one piece, as nearly all are, and says whose. To whatever else is
    /// there, [`Self::next_answer`] has an answer.
    #[inline(always)]
    pub(crate) fn take_response(&mut self, into: &mut Vec<u8>) -> Option<u64> {
        let answered = self.connection.take_response(|len| {
            into.resize(len, 0);
            into
        })?;
        self.spinner.found();
        Some(answered)
    }

    /// As [`Self::take_response`], of a response after which the ring starts over: one of more than a few hundred bytes, where
    /// calls come one at a time.
    #[inline(always)]
    pub(crate) fn take_long_response(&mut self, into: &mut Vec<u8>) -> Option<u64> {
        let answered = self.connection.take_long_response(|len| {
            into.resize(len, 0);
            into
        })?;
        self.spinner.found();
        Some(answered)
    }

    /// The next answer, if one came.
    pub(crate) fn next_answer(&mut self) -> Result<Option<Answer>, CallError> {
        self.connection.next_answer().map_err(|violation| self.violated(violation))
    }

    /// Takes an answer that [`Self::next_answer`] gave. Its message replaces what is in `into` as soon as all parts of
    /// it are there; answers whether they are.
    pub(crate) fn take(&mut self, answer: &Answer, into: &mut Vec<u8>) -> bool {
        self.spinner.found();
        if answer.at > 0 || matches!(answer.kind, AnswerKind::Part { .. } | AnswerKind::Types { .. }) {
            return self.take_rarer(answer, into);
        }
        into.resize(answer.len, 0);
        self.connection.take(answer, into);
        true
    }

    #[cold]
    fn take_rarer(&mut self, answer: &Answer, into: &mut Vec<u8>) -> bool {
        if let AnswerKind::Types { entries } = answer.kind {
            let mut change = vec![0; answer.len];
            self.connection.take(answer, &mut change);
            if let Err(fault) = self.types.change(&change, entries) {
                self.violated(fault.into());
            }
            return false;
        }
        self.take_part(answer, into)
    }

    fn take_part(&mut self, answer: &Answer, into: &mut Vec<u8>) -> bool {
        let end = answer.at + answer.len;
        if answer.at == 0 {
            // Into the memory that the caller gave for the last one: it is as large as that was, and in the cache.
            std::mem::swap(&mut self.partial, into);
        }
        if self.partial.len() < end {
            // Grows with what has really come, in steps, so that a large message is not moved for every part of it.
            let size = if let AnswerKind::Part { size } = answer.kind { size } else { end };
            self.partial.reserve_exact(size.min(2 * end.max(MIN_STEP)).saturating_sub(self.partial.len()));
            self.partial.resize(end, 0);
        }
        self.connection.take(answer, &mut self.partial[answer.at..end]);
        let whole = answer.kind == AnswerKind::Response;
        if whole {
            self.partial.truncate(end);
            std::mem::swap(&mut self.partial, into);
        }
        whole
    }

    pub(crate) fn consumed(&mut self, id: u64, len: usize) -> Result<(), CallError> {
        let consumed = self.connection.consumed(id, len);
        self.commit();
        consumed.map_err(|violation| self.violated(violation))
    }

    /// Gives up a call. Answers whether it was under way.
    pub(crate) fn cancel(&mut self, id: u64) -> bool {
        let cancelled = self.connection.cancel(id);
        self.given_up(cancelled)
    }

    /// The same, of a caller that may come back for what is kept for it.
    #[cfg(feature = "tokio")]
    pub(crate) fn leave(&mut self, id: u64) -> bool {
        let left = self.connection.leave(id);
        self.given_up(left)
    }

    fn given_up(&mut self, cancelled: Result<bool, Violation>) -> bool {
        self.commit();
        cancelled.map_err(|violation| self.violated(violation)).unwrap_or(true)
    }

    /// After a look that found nothing: spins a little, or arms the ring for sleep.
    #[inline]
    pub(crate) fn rest(&mut self, for_room: bool) -> Result<Rest, CallError> {
        if self.spinner.keep_on() && self.stream.is_none() {
            for _ in 0..LINGER_POLLS {
                if self.connection.is_ready() {
                    return Ok(Rest::Look);
                }
                spin_loop();
            }
            return self.idle();
        }
        self.arm(for_room)
    }

    /// Counts a fruitless poll; now and then looks for a hang-up.
    #[inline]
    pub(crate) fn idle(&mut self) -> Result<Rest, CallError> {
        self.polls += 1;
        if self.polls < self.polls_per_look {
            return Ok(Rest::Look);
        }
        self.polls = 0;
        self.hear()?;
        Ok(Rest::Check)
    }

    /// Arms the ring, so that the server will ring for what comes next.
    pub(crate) fn arm(&mut self, for_room: bool) -> Result<Rest, CallError> {
        if let Some(stream) = &mut self.stream {
            // What was moved before is seen by the rings themselves.
            stream.moved();
        }
        let armed = self.connection.arm(for_room);
        self.commit();
        match armed.map_err(|violation| self.violated(violation))? {
            Armed::Ready => Ok(Rest::Look),
            Armed::Asleep if self.has_moved() => Ok(Rest::Look),
            Armed::Asleep => Ok(Rest::Sleep),
        }
    }

    /// After a sleep: takes the rings, notes a hang-up, and prepares to look again.
    pub(crate) fn woke(&mut self, slept: Duration) -> Result<(), CallError> {
        self.spinner.slept(slept);
        self.hear()?;
        self.connection.disarm();
        self.connection.flush().map_err(|violation| self.violated(violation))?;
        self.commit();
        Ok(())
    }

    /// Takes the rings and notes a hang-up.
    pub(crate) fn hear(&mut self) -> Result<(), CallError> {
        if let Some(stream) = &mut self.stream {
            let heard = stream.hear(&self.socket);
            self.broken = self.broken.or(stream.fault().map(Into::into));
            return Ok(heard?);
        }
        if self.socket.drain(RINGS)? == Drained::HungUp {
            self.broken.get_or_insert(Broken::HungUp);
        }
        Ok(())
    }

    /// How a call under way ends now that the link is broken and every answer that came was taken.
    pub(crate) fn loss(&mut self, id: u64) -> CallError {
        let loss = self.connection.loss(id);
        match (self.broken, self.connection.closed_because(), loss) {
            (Some(Broken::Violation(violation)), ..) => CallError::Violation(violation),
            (_, Some(reason), _) => {
                CallError::ClosedByServer { reason: reason.to_owned(), may_have_run: loss == Loss::Unknown }
            }
            (_, None, Loss::NotExecuted) => CallError::NotExecuted,
            (_, None, Loss::Unknown) => CallError::Unknown,
        }
    }

    /// Ends one of the calls under way, as [`Self::loss`] says. `None`: none is left.
    pub(crate) fn lose(&mut self) -> Option<(u64, CallError)> {
        let id = self.connection.calls().next()?;
        let error = self.loss(id);
        self.connection.forget(id);
        Some((id, error))
    }

    /// The server has hung up: notes it, unless there is something to take that it sent before.
    pub(crate) fn hung_up(&mut self) {
        match &mut self.stream {
            None => drop(self.broken.get_or_insert(Broken::HungUp)),
            Some(stream) => {
                stream.hear_hang_up(&self.socket);
                self.broken = self.broken.or(stream.fault().map(Into::into));
            }
        }
    }

    /// Whether there is more to take after a commit: what found no room in the ring before.
    pub(crate) fn has_more(&self) -> bool {
        self.stream.is_some() && self.connection.is_ready()
    }

    /// Sleeps until the server rings, at most `timeout`.
    pub(crate) fn sleep(&mut self, timeout: Duration) -> Result<(), CallError> {
        let since = Instant::now();
        wait::ready(&*self.socket, self.interest(), Some(timeout))?;
        self.woke(since.elapsed())
    }

    /// Commits what was sent, and rings if the server sleeps.
    #[inline(always)]
    pub(crate) fn commit(&mut self) {
        if self.connection.commit().needed() {
            self.ring();
        }
    }

    /// Wakes who reads and writes the other ends of the rings: the server, or what moves the records to it.
    #[inline(never)]
    fn ring(&mut self) {
        match &mut self.stream {
            None => self.socket.ring(),
            Some(stream) => {
                stream.turn(&self.socket);
                self.broken = self.broken.or(stream.fault().map(Into::into));
            }
        }
    }

    /// Whether the rings are to be looked at again, because of what was moved since they were armed.
    fn has_moved(&mut self) -> bool {
        self.stream.as_mut().is_some_and(|stream| stream.moved()) || self.broken.is_some()
    }

    #[cold]
    fn violated(&mut self, violation: Violation) -> CallError {
        self.broken = Some(Broken::Violation(violation));
        CallError::Violation(violation)
    }
}

impl Drop for ClientLink {
    fn drop(&mut self) {
        // Others may hold the socket to sleep on it; they and the server are to learn of the end at once.
        KillPoint::ClientClosing.reached();
        self.socket.shutdown();
        KillPoint::ClientClosed.reached();
    }
}
