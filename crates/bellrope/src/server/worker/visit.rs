//! What a worker does with one connection's turn: takes a bounded batch of its requests and answers them.

use std::sync::Arc;

use bellrope_proto::{
    Violation,
    connection::{Inbound, InboundRequest},
    metadata::Metadata,
    ring::Front,
};
use bellrope_shm::clock;

use super::{executor::Executor, session::Session};
#[cfg(feature = "tokio")]
use crate::server::{calls::asynchronous::AsyncCalls, inbox::Inbox, message::WorkerMessage};
use crate::server::{
    calls::{large::LargeRequests, outcome},
    core::Core,
    handler::registry::Handler,
};

/// Messages and payload bytes taken from one connection before the next has its turn.
const BATCH_MESSAGES: u32 = 64;
const BATCH_BYTES: usize = 16 * 1024;
/// Ticks of the clock after which a turn is over, whatever has been taken: half a millisecond to two on any machine. Each
/// further message is looked at if its handler may be slow, else one in [`LOOK_EVERY`].
const TURN_TICKS: u64 = 2_000_000;
const LOOK_EVERY: u32 = 4;
/// Of that time, what a round over all connections takes before the next goes by process.
const ROUND: u64 = 4;
/// Messages after which answers are committed, beside the first and the last. Both are multiples of [`LOOK_EVERY`].
const FEW: u32 = 4;
const SOME: u32 = 16;

/// A worker's means to answer calls: buffers that all its connections share, one at a time.
pub(crate) struct Visitor {
    core: Arc<Core>,
    /// The worker's number.
    worker: usize,
    #[cfg(feature = "tokio")]
    pub(crate) asynchronous: AsyncCalls,
    pub(crate) large: LargeRequests,
    /// A small request, and in place of it the reply of a handler that answers so.
    message: Vec<u8>,
    executor: Executor,
    /// Requests found since the round over all connections began.
    found: u64,
    /// Whether a turn took longer than it should since that was last asked.
    overran: bool,
    /// Ticks after which a turn is over.
    turn_ticks: u64,
    /// When somebody first looked at the clock in this round over all connections, and last, in ticks. 0: nobody has.
    round_began: u64,
    looked: u64,
}

/// What has been taken of one connection's turn.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    messages: u32,
    bytes: usize,
    /// When it began, in ticks; 0 as long as nobody has looked.
    began: u64,
}

/// What came of a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visit {
    /// There was nothing to do.
    Nothing,
    /// The turn is over: nothing is left, or all was taken that is due.
    Done,
    /// There may be more for this turn.
    More,
}

impl Turn {
    /// Notes when it began, unless that is known.
    #[inline]
    fn begin(&mut self) {
        if self.began == 0 {
            self.began = clock::ticks();
        }
    }

    /// Whether its time, so many ticks, is over now. The first look is its beginning, where nobody has looked before.
    #[inline]
    fn is_over(&mut self, now: u64, ticks: u64) -> bool {
        if self.began == 0 {
            self.began = now;
        }
        now.wrapping_sub(self.began) >= ticks
    }
}

impl Visitor {
    pub(crate) fn new(
        core: Arc<Core>,
        worker: usize,
        #[cfg(feature = "tokio")] inbox: Arc<Inbox<WorkerMessage>>,
    ) -> Self {
        let max_payload = core.fixed.terms.geometry.max_payload() as usize;
        Self {
            worker,
            #[cfg(feature = "tokio")]
            asynchronous: AsyncCalls::new(&core, worker, inbox),
            large: LargeRequests::new(&core, worker),
            // Mapped, not touched: only what payloads use becomes resident.
            message: Vec::with_capacity(max_payload),
            executor: Executor::new(&core, worker),
            found: 0,
            overran: false,
            turn_ticks: TURN_TICKS,
            round_began: 0,
            looked: 0,
            core,
        }
    }

    /// The same, but no clock ends a turn or says that a handler is slow. For what counts instructions: there all time is
    /// long, and how long differs from run to run.
    #[cfg(test)]
    pub(crate) fn without_clock(mut self) -> Self {
        self.turn_ticks = u64::MAX;
        self.executor.take_all_for_quick();
        self
    }

    /// The same, but every look at the clock ends a turn or a round, as where all takes long.
    #[cfg(test)]
    pub(crate) fn without_time(mut self) -> Self {
        self.turn_ticks = 0;
        self.executor.take_all_for_quick();
        self
    }

    /// A part of a connection's turn, of at most `slice` messages.
    #[inline]
    pub(crate) fn visit(&mut self, session: &mut Session, turn: &mut Turn, slice: u32) -> Result<Visit, Violation> {
        let mut worked = false;
        if !session.connection.is_plain() && session.connection.wants_room() {
            worked = session.connection.flush()?;
            session.commit();
        }
        let until = turn.messages.saturating_add(slice).min(BATCH_MESSAGES);
        let began_with = turn.messages;
        // Not by the turn: what each call counts stays in registers.
        let (mut messages, mut bytes) = (began_with, turn.bytes);
        let mut more = true;
        'turn: while messages < until {
            let first = messages == 0;
            let slow = 'slow: {
                if session.connection.admits_calls() {
                    let front = session.connection.front();
                    if let Some(call) = session.connection.plain_call(front, false) {
                        let (core, message) = (&self.core, &mut self.message);
                        if self.executor.serve_straight::<false, false, false>(core, session, call, message, first)? {
                            bytes += call.len;
                            break 'slow false;
                        }
                        if let Some(len) = self.visit_timed(session, front, first)? {
                            bytes += len;
                            break 'slow false;
                        }
                    } else if session.connection.saw_nothing(front) {
                        more = false;
                        break 'turn;
                    } else if let Some(len) = self.visit_with_deadline(session, front, first)? {
                        bytes += len;
                        break 'slow false;
                    } else if let Some(len) = self.visit_long(session, front, first)? {
                        bytes += len;
                        break 'slow false;
                    }
                } else if session.connection.is_drained() {
                    more = false;
                    break 'turn;
                }
                turn.bytes = bytes;
                let slow = self.visit_with_care(session, turn, first)?;
                bytes = turn.bytes;
                match slow {
                    Some(slow) => slow,
                    None => {
                        more = false;
                        break 'turn;
                    }
                }
            };
            messages += 1;
            if slow || messages % LOOK_EVERY == 0 {
                self.looked = clock::ticks();
                if turn.is_over(self.looked, self.turn_ticks) {
                    self.overran = true;
                    more = false;
                    break 'turn;
                }
                // The first answer went out at once; the others go in growing batches.
                if messages == FEW || messages == SOME {
                    session.commit();
                }
            }
            if bytes >= BATCH_BYTES {
                more = false;
                break 'turn;
            }
        }
        (turn.messages, turn.bytes) = (messages, bytes);
        session.commit();
        self.found += u64::from(messages - began_with);
        let more = more && messages < BATCH_MESSAGES;
        Ok(match worked || messages > began_with {
            false => Visit::Nothing,
            true if more => Visit::More,
            true => Visit::Done,
        })
    }

    /// Takes and answers the call at the front the straight way, if it has a deadline and is otherwise like nearly all others.
    /// Answers with the bytes of its request if it did.
    #[inline(never)]
    fn visit_with_deadline(
        &mut self,
        session: &mut Session,
        front: Front,
        first: bool,
    ) -> Result<Option<usize>, Violation> {
        let Some(call) = session.connection.plain_call(front, true) else { return Ok(None) };
        let served =
            self.executor.serve_straight::<true, false, false>(&self.core, session, call, &mut self.message, first)?;
        Ok(served.then_some(call.len))
    }

    /// As [`Self::visit_with_deadline`], for a call without one that lets its ring start over.
    #[inline(never)]
    fn visit_long(&mut self, session: &mut Session, front: Front, first: bool) -> Result<Option<usize>, Violation> {
        let Some(call) = session.connection.plain_call_that_starts_over(front) else { return Ok(None) };
        let served =
            self.executor.serve_straight::<false, false, true>(&self.core, session, call, &mut self.message, first)?;
        Ok(served.then_some(call.len))
    }

    /// As [`Self::visit_with_deadline`], for a call without one that is to be timed.
    #[inline(never)]
    fn visit_timed(&mut self, session: &mut Session, front: Front, first: bool) -> Result<Option<usize>, Violation> {
        if !self.executor.times_next() {
            return Ok(None);
        }
        let Some(call) = session.connection.plain_call(front, false) else { return Ok(None) };
        let served =
            self.executor.serve_straight::<false, true, false>(&self.core, session, call, &mut self.message, first)?;
        Ok(served.then_some(call.len))
    }

    /// Handles what comes next and does not go the straight way. Answers `None` if nothing is there, or if it has to wait;
    /// else whether it may have taken long.
    #[inline(never)]
    fn visit_with_care(
        &mut self,
        session: &mut Session,
        turn: &mut Turn,
        first: bool,
    ) -> Result<Option<bool>, Violation> {
        if let Some(request) = session.connection.next_call() {
            if let Some(handler) = self.core.registry.find(request.message_type) {
                if handler.runs_on_worker() {
                    let slow = !self.executor.is_quick(request.message_type);
                    if slow {
                        turn.begin();
                    }
                    self.message.resize(request.len, 0);
                    session.connection.take(&request, &mut self.message);
                    let (core, message) = (&self.core, &mut self.message);
                    self.executor.serve_apart(core, session, handler, &request, message, None, first, None)?;
                    turn.bytes += request.len;
                    return Ok(Some(slow));
                }
            }
        }
        Ok(self.visit_rarer(session, turn, first)?.then_some(true))
    }

    /// Handles what is no call that can be answered on the spot. Answers `false` if nothing is there, or if it has to
    /// wait.
    #[inline(never)]
    fn visit_rarer(&mut self, session: &mut Session, turn: &mut Turn, first: bool) -> Result<bool, Violation> {
        match session.connection.next_inbound()? {
            None => Ok(false),
            Some(Inbound::Call(request)) => {
                turn.bytes += request.len;
                self.serve(session, &request, None, first)
            }
            Some(Inbound::Described(request, metadata)) => {
                turn.bytes += request.len;
                self.serve(session, &request, Some(metadata), first)
            }
            Some(inbound) => self.handle(session, &inbound, turn),
        }
    }

    /// Handles what is no call. Answers `false` if it has to wait for the budget.
    fn handle(&mut self, session: &mut Session, inbound: &Inbound, turn: &mut Turn) -> Result<bool, Violation> {
        match inbound {
            Inbound::Large(announced) => return self.large.let_in(session, announced),
            Inbound::Part(len) => turn.bytes += len,
            #[cfg(feature = "tokio")]
            Inbound::Chunk(chunk) => {
                turn.bytes += chunk.len;
                let mut payload = vec![0; chunk.len];
                session.connection.take_chunk(chunk, &mut payload);
                session.open.chunk(chunk.id, payload);
            }
            #[cfg(feature = "tokio")]
            Inbound::Ended(call) => session.open.end_upload(*call),
            #[cfg(feature = "tokio")]
            Inbound::Cancelled(call) => self.asynchronous.cancelled(session, *call, true),
            #[cfg(feature = "tokio")]
            Inbound::Left(call) => self.asynchronous.cancelled(session, *call, false),
            _ => {}
        }
        Ok(true)
    }

    /// Whether a turn took longer than it should since this was last asked.
    #[inline]
    pub(crate) fn overran(&mut self) -> bool {
        std::mem::take(&mut self.overran)
    }

    /// Whether a [round](Self::round_begins) has taken its time. Without a look at the clock, as far as turns have looked.
    #[inline]
    pub(crate) fn was_long_round(&mut self) -> bool {
        if self.round_began == 0 {
            self.round_began = self.looked;
        }
        self.looked.wrapping_sub(self.round_began) >= self.round_ticks()
    }

    /// The same, with one.
    pub(crate) fn is_long_round(&mut self) -> bool {
        self.looked = clock::ticks();
        self.was_long_round()
    }

    /// Whether the time of a round has passed since then.
    #[cfg(feature = "tokio")]
    pub(crate) fn is_long_since(&self, began: u64) -> bool {
        clock::ticks().wrapping_sub(began) >= self.round_ticks()
    }

    /// A round over all connections begins.
    #[inline]
    pub(crate) fn round_begins(&mut self) {
        (self.round_began, self.looked) = (0, 0);
    }

    pub(crate) fn round_ticks(&self) -> u64 {
        // At least one: a round in which nobody has looked at the clock is not long.
        (self.turn_ticks / ROUND).max(1)
    }

    /// A round over all connections has ended: notes what it found, and answers whoever asks if the loop turns. Answers whether
    /// callers sent anything, beside credit.
    #[inline]
    pub(crate) fn round_ended(&mut self) -> bool {
        let found = std::mem::take(&mut self.found);
        self.core.metrics.shard(self.worker).round(found);
        self.core.metrics.liveness().beat(self.worker);
        found > 0
    }

    /// The worker's number.
    pub(crate) fn worker(&self) -> usize {
        self.worker
    }

    /// Notes how many connections' clients do not read what waits for them.
    pub(crate) fn note_unread(&self, connections: u64) {
        self.core.metrics.shard(self.worker).unread(connections);
    }

    /// The loop ends as it should.
    pub(crate) fn loop_ended(&self) {
        self.core.metrics.shard(self.worker).round(0);
        self.note_unread(0);
        self.core.metrics.liveness().end(self.worker);
    }

    /// Answers one call, or hands it to its async handler. Answers `false` if it has to wait for the budget.
    fn serve(
        &mut self,
        session: &mut Session,
        request: &InboundRequest,
        metadata: Option<Metadata>,
        first: bool,
    ) -> Result<bool, Violation> {
        let core = Arc::clone(&self.core);
        let fixed = core.registry.find(request.message_type);
        // One that is taken out meanwhile answers the calls that it has.
        let added = if fixed.is_none() { core.registry.find_added(request.message_type) } else { None };
        match fixed.or(added.as_deref()) {
            #[cfg(feature = "tokio")]
            Some(handler) if !handler.runs_on_worker() => {
                return self.asynchronous.start(session, handler, request, metadata);
            }
            handler if request.large => self.serve_large(session, handler, request, metadata.as_ref(), first)?,
            Some(handler) => {
                self.message.resize(request.len, 0);
                session.connection.take(request, &mut self.message);
                let (message, metadata) = (&mut self.message, metadata.as_ref());
                self.executor.serve_apart(&core, session, handler, request, message, None, first, metadata)?;
            }
            None => {
                self.message.resize(request.len, 0);
                session.connection.take(request, &mut self.message);
                self.refuse_unknown(session, request, request.len)?;
            }
        }
        Ok(true)
    }

    /// Answers a call whose request came in parts.
    #[cold]
    fn serve_large(
        &mut self,
        session: &mut Session,
        handler: Option<&Handler>,
        request: &InboundRequest,
        metadata: Option<&Metadata>,
        first: bool,
    ) -> Result<(), Violation> {
        let (mut message, mut reservation) = session.connection.take_large(request)?;
        reservation.shrink_to(message.len() as u64);
        session.budget_claim.came_whole();
        let served = match handler {
            Some(handler) => {
                let core = &self.core;
                self.executor.serve_large(core, session, handler, request, &mut message, reservation, first, metadata)
            }
            None => self.refuse_unknown(session, request, message.len()),
        };
        // A handler may have made more of it than any message is: that is not kept.
        if message.capacity() <= 2 * self.core.fixed.terms.max_message as usize {
            self.core.buffers.put(message);
        }
        served
    }

    /// Refuses a call that was taken and that no handler has.
    fn refuse_unknown(&self, session: &mut Session, request: &InboundRequest, size: usize) -> Result<(), Violation> {
        let failure = if self.core.may_run(request.deadline_us, size) {
            self.core.registry.unknown(request.message_type)
        } else {
            self.core.refusal(size)
        };
        // Not under its number, which may be one that is kept for a type to come.
        outcome::refuse(&self.core, &self.executor.counters, session, request.id, 0, failure)
    }
}

#[cfg(test)]
mod tests;
