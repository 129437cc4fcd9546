//! What a worker does with one connection's turn: takes a bounded batch of its requests and answers them.

#[cfg(feature = "tokio")]
mod asynchronous;
mod desk;
mod large;

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
};

use bellrope_proto::{
    Reservation, Violation,
    connection::{Failure, Inbound, Request},
    frame::{ErrorCode, Rejection},
};
use bellrope_shm::clock;
use desk::Desk;

#[cfg(feature = "tokio")]
use super::inbox::Inbox;
use super::{Shared, body::Body, link::Link};
use crate::{Breaker, Rejected};

/// Messages and payload bytes taken from one connection before the next has its turn.
const BATCH_MESSAGES: u32 = 64;
const BATCH_BYTES: usize = 16 * 1024;
/// A worker's means to answer calls: buffers that all its connections share, one at a time.
pub(super) struct Service {
    shared: Arc<Shared>,
    /// The worker's number.
    worker: usize,
    #[cfg(feature = "tokio")]
    inbox: Arc<Inbox>,
    /// A small request, and in place of it the reply of a handler that answers so.
    message: Vec<u8>,
    desk: Desk,
    /// Whether a large request may be on its way on some connection.
    unfinished: bool,
    /// Requests found since the round over all connections began.
    found: u64,
}

/// What has been taken of one connection's turn.
#[derive(Debug, Default)]
pub(super) struct Turn {
    messages: u32,
    bytes: usize,
}

/// What came of a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Visit {
    /// There was nothing to do.
    Nothing,
    /// The turn is over: nothing is left, or all was taken that is due.
    Done,
    /// There may be more for this turn.
    More,
}

impl Service {
    pub(super) fn new(shared: Arc<Shared>, worker: usize, #[cfg(feature = "tokio")] inbox: Arc<Inbox>) -> Self {
        Self {
            worker,
            #[cfg(feature = "tokio")]
            inbox,
            // Mapped, not touched: only what payloads use becomes resident.
            message: Vec::with_capacity(shared.terms.geometry.max_payload() as usize),
            unfinished: false,
            desk: Desk::new(&shared, worker),
            found: 0,
            shared,
        }
    }

    /// A part of a connection's turn, of at most `slice` messages.
    #[inline]
    pub(super) fn visit(&mut self, link: &mut Link, turn: &mut Turn, slice: u32) -> Result<Visit, Violation> {
        let mut worked = false;
        if link.connection.wants_room() {
            worked = link.connection.flush()?;
            link.commit();
        }
        let until = turn.messages.saturating_add(slice).min(BATCH_MESSAGES);
        let began_with = turn.messages;
        let mut more = true;
        while turn.messages < until && turn.bytes < BATCH_BYTES {
            let first = turn.messages == 0;
            if let Some(request) = link.connection.next_call()
                && let Some(handler) = self.shared.registry.find(request.message_type)
                && handler.runs_on_worker()
            {
                self.message.resize(request.len, 0);
                link.connection.take(&request, &mut self.message);
                self.desk.serve(&self.shared, link, handler, &request, &mut self.message, None, first)?;
                self.bound_message();
                turn.bytes += request.len;
            } else if !self.visit_rarer(link, turn, first)? {
                more = false;
                break;
            }
            turn.messages += 1;
            // The first answer went out at once; the others go in growing batches.
            if turn.messages == 4 || turn.messages == 16 {
                link.commit();
            }
        }
        link.commit();
        self.found += u64::from(turn.messages - began_with);
        let more = more && turn.messages < BATCH_MESSAGES && turn.bytes < BATCH_BYTES;
        Ok(match worked || turn.messages > began_with {
            false => Visit::Nothing,
            true if more => Visit::More,
            true => Visit::Done,
        })
    }

    /// Handles what is no call that can be answered on the spot. Answers `false` if nothing is there, or if it has to
    /// wait.
    #[inline(never)]
    fn visit_rarer(&mut self, link: &mut Link, turn: &mut Turn, first: bool) -> Result<bool, Violation> {
        match link.connection.next_inbound()? {
            None => Ok(false),
            Some(Inbound::Call(request)) => {
                turn.bytes += request.len;
                self.serve(link, &request, first)
            }
            Some(inbound) => self.handle(link, &inbound, turn),
        }
    }

    /// Handles what is no call. Answers `false` if it has to wait for the budget.
    fn handle(&mut self, link: &mut Link, inbound: &Inbound, turn: &mut Turn) -> Result<bool, Violation> {
        match inbound {
            Inbound::Large(announced) => return self.let_in(link, announced),
            Inbound::Part(len) => turn.bytes += len,
            #[cfg(feature = "tokio")]
            Inbound::Chunk(chunk) => {
                turn.bytes += chunk.len;
                let mut payload = vec![0; chunk.len];
                link.connection.take_chunk(chunk, &mut payload);
                link.open.chunk(chunk.id, payload);
            }
            #[cfg(feature = "tokio")]
            Inbound::Ended(call) => link.open.end_upload(*call),
            #[cfg(feature = "tokio")]
            Inbound::Cancelled(call) => self.cancelled(link, *call),
            _ => {}
        }
        Ok(true)
    }

    /// A round over all connections has ended: notes what it found, and answers whoever asks if the loop turns.
    #[inline]
    pub(super) fn round_ended(&mut self) {
        self.shared.metrics.shard(self.worker).round(std::mem::take(&mut self.found));
        self.shared.metrics.pulse().beat(self.worker);
    }

    /// The loop ends as it should.
    pub(super) fn loop_ended(&self) {
        self.shared.metrics.shard(self.worker).round(0);
        self.shared.metrics.pulse().end(self.worker);
    }

    /// Answers one call, or hands it to its async handler. Answers `false` if it has to wait for the budget.
    fn serve(&mut self, link: &mut Link, request: &Request, first: bool) -> Result<bool, Violation> {
        let shared = Arc::clone(&self.shared);
        match shared.registry.find(request.message_type) {
            #[cfg(feature = "tokio")]
            Some(handler) if !handler.runs_on_worker() => return self.start(link, request),
            handler if request.large => self.serve_large(link, handler, request, first)?,
            Some(handler) => {
                self.message.resize(request.len, 0);
                link.connection.take(request, &mut self.message);
                self.desk.serve_apart(&shared, link, handler, request, &mut self.message, None, first)?;
                self.bound_message();
            }
            None => {
                self.message.resize(request.len, 0);
                link.connection.take(request, &mut self.message);
                self.refuse_unknown(link, request, request.len)?;
            }
        }
        Ok(true)
    }

    /// Refuses a call that was taken and that no handler has.
    fn refuse_unknown(&self, link: &mut Link, request: &Request, size: usize) -> Result<(), Violation> {
        let failure = if self.shared.may_run(request.deadline_us, size) {
            self.shared.registry.unknown(request.message_type)
        } else {
            self.shared.refusal(size)
        };
        self.desk.refuse(&self.shared, link, request.id, request.message_type, failure)
    }

    /// What a handler that answers in place may have made larger than small requests are is not kept.
    #[inline(always)]
    fn bound_message(&mut self) {
        if self.message.capacity() > self.shared.terms.geometry.max_payload() as usize {
            self.message = Vec::new();
        }
    }
}

impl Shared {
    /// The breaker of a message type that is registered.
    #[inline]
    fn breaker(&self, message_type: u16) -> &Arc<Breaker> {
        &self.breakers[usize::from(message_type) - 1]
    }

    /// Whether a call is to be run, by what is known before its handler is asked.
    #[inline]
    fn may_run(&self, deadline_us: Option<u64>, size: usize) -> bool {
        !self.draining.load(Ordering::Relaxed)
            && size <= self.terms.max_message as usize
            && deadline_us.is_none_or(|deadline| clock::monotonic_us() < deadline)
    }

    /// Why not.
    #[cold]
    fn refusal(&self, size: usize) -> Failure {
        let limit = self.terms.max_message as usize;
        if self.draining.load(Ordering::Relaxed) {
            draining()
        } else if size > limit {
            Failure::too_large("request", size as u64, limit as u64)
        } else {
            Failure::new(ErrorCode::DeadlineExceeded, "the deadline passed before the call was taken")
        }
    }

    /// Makes a body that may wait of a reply, with the reservation of its call if that is enough. A small reply that
    /// will be its connection's only one needs none: rings of that size count as used anyway.
    pub(super) fn keep(&self, reply: Vec<u8>, held: Option<Reservation>, alone: bool) -> Result<Body, Failure> {
        let size = reply.len() as u64;
        let reservation = match held {
            Some(mut held) if held.bytes() >= size => {
                held.shrink_to(size);
                Some(held)
            }
            _ => self.budget.reserve(size),
        };
        if reservation.is_none() && !(alone && reply.len() <= self.terms.max_record()) {
            let limit = self.budget.limit();
            let text = format!(
                "the reply of {size} bytes found no room in the buffer budget of {limit} bytes (buffer_budget_bytes); \
                 the handler has run"
            );
            return Err(Failure::new(ErrorCode::Exhausted, text));
        }
        Ok(Body::new(reply, reservation, &self.buffers))
    }
}

/// Whether a failure counts against the handler. Bad input does not, nor what its caller took back.
fn is_handlers_fault(failure: &Failure) -> bool {
    matches!(failure.code, ErrorCode::Handler | ErrorCode::HandlerPanic)
}

#[cold]
fn open_breaker(rejected: &Rejected) -> Failure {
    let retry_after_ms = rejected.retry_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1));
    let detail = Rejection::Breaker.to_detail(retry_after_ms);
    let text = format!("{rejected}; the call has not run");
    Failure { code: ErrorCode::Rejected, detail, text: text.into() }
}

#[cold]
fn draining() -> Failure {
    Failure::rejected(Rejection::Draining, "the server is going away; the call has not run")
}

/// What a caller learns of a panic.
pub(super) fn panic_failure(panic: Box<dyn Any + Send>) -> Failure {
    let text = panic
        .downcast_ref::<&'static str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "the handler panicked".to_owned());
    // A payload may panic when it is dropped, and what comes of that as well: the first is caught, the second leaked.
    if let Err(again) = std::panic::catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
    Failure::new(ErrorCode::HandlerPanic, text)
}
