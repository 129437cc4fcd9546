//! What a worker does with one connection's turn: takes a bounded batch of its requests and answers them.

#[cfg(feature = "tokio")]
mod asynchronous;

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bellrope_proto::{
    Reservation, Violation,
    connection::{Announced, Failure, Inbound, Request},
    frame::{ErrorCode, Rejection},
};
use bellrope_shm::clock;

#[cfg(feature = "tokio")]
use super::inbox::Inbox;
use super::{Shared, body::Body, link::Link, span::CallSpan};
use crate::{Breaker, Call, Rejected, registry::Handler};

/// Messages and payload bytes taken from one connection before the next has its turn.
const BATCH_MESSAGES: u32 = 64;
const BATCH_BYTES: usize = 16 * 1024;
/// One call in this many is timed.
const TIME_EVERY: u32 = 32;
/// A handler that takes less than this may have its answers committed together with others'.
const QUICK: Duration = Duration::from_micros(2);

/// A worker's means to answer calls: buffers that all its connections share, one at a time.
pub(super) struct Service {
    shared: Arc<Shared>,
    /// The worker's number.
    worker: usize,
    #[cfg(feature = "tokio")]
    inbox: Arc<Inbox>,
    payload: Box<[u8]>,
    spill: Vec<u8>,
    pace: Pace,
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

/// Which handlers are quick, from a sample of timed calls.
struct Pace {
    /// Calls until the next one that is timed.
    until_timed: u32,
    /// By message type: whether its handler took less than [`QUICK`] when last timed.
    quick: Vec<bool>,
}

impl Service {
    pub(super) fn new(shared: Arc<Shared>, worker: usize, #[cfg(feature = "tokio")] inbox: Arc<Inbox>) -> Self {
        let types = shared.registry.names().len();
        Self {
            worker,
            #[cfg(feature = "tokio")]
            inbox,
            // Zeroed memory of this size is mapped, not touched: only what payloads use becomes resident.
            payload: vec![0; shared.terms.geometry.max_payload() as usize].into_boxed_slice(),
            spill: Vec::new(),
            found: 0,
            pace: Pace { until_timed: 0, quick: vec![false; types + 1] },
            shared,
        }
    }

    /// A part of a connection's turn, of at most `slice` messages.
    #[inline]
    pub(super) fn visit(&mut self, link: &mut Link, turn: &mut Turn, slice: u32) -> Result<Visit, Violation> {
        let mut worked = false;
        if link.connection.wants_room() {
            link.connection.flush()?;
            worked |= !link.connection.wants_room();
            link.commit();
        }
        let until = turn.messages.saturating_add(slice).min(BATCH_MESSAGES);
        let began_with = turn.messages;
        let mut more = true;
        while turn.messages < until && turn.bytes < BATCH_BYTES {
            let Some(inbound) = link.connection.next_inbound()? else {
                more = false;
                break;
            };
            if let Inbound::Call(request) = inbound {
                if !self.serve(link, &request, turn.messages == 0)? {
                    more = false;
                    break;
                }
                turn.bytes += request.len;
            } else if !self.handle(link, &inbound, turn)? {
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

    /// Lets a large request in if the budget has room for all of it. Answers `false` if it has to wait.
    fn let_in(&self, link: &mut Link, announced: &Announced) -> Result<bool, Violation> {
        let limit = u64::from(self.shared.terms.max_message);
        let refusal = if announced.size > limit {
            Some(Failure::too_large("request", announced.size, limit))
        } else if self.shared.draining.load(Ordering::Relaxed) {
            Some(draining())
        } else {
            match self.reserve(link, announced.size) {
                Reserve::Granted(reservation) => {
                    let buffer = self.shared.buffers.take(announced.size as usize);
                    link.connection.accept_large(announced, buffer, reservation);
                    None
                }
                Reserve::Wait => return Ok(false),
                Reserve::Refused(failure) => Some(failure),
            }
        };
        if let Some(failure) = refusal {
            // Which type it is for is told by its last part, which will not be looked at.
            note(&self.shared, self.worker, 0, link, Some(&failure));
            link.connection.refuse_large(announced, failure)?;
        }
        Ok(true)
    }

    /// Reserves memory for a connection's request, which otherwise waits in its ring, and not for ever.
    fn reserve(&self, link: &mut Link, bytes: u64) -> Reserve {
        let budget = &self.shared.budget;
        if let Some(reservation) = budget.reserve(bytes) {
            link.starved_since = None;
            return Reserve::Granted(reservation);
        }
        let since = *link.starved_since.get_or_insert_with(Instant::now);
        let patience = Duration::from_millis(self.shared.config.budget_wait_ms.into());
        if bytes <= budget.limit() && since.elapsed() < patience {
            return Reserve::Wait;
        }
        link.starved_since = None;
        let text = format!(
            "{bytes} bytes found no room in the buffer budget of {} bytes (buffer_budget_bytes) for {patience:?}",
            budget.limit()
        );
        Reserve::Refused(Failure::rejected(Rejection::Busy, text))
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
    #[inline]
    fn serve(&mut self, link: &mut Link, request: &Request, first: bool) -> Result<bool, Violation> {
        #[cfg(feature = "tokio")]
        if let Some(handler) = self.shared.registry.find(request.message_type)
            && !matches!(handler, Handler::Unary(_))
        {
            return self.start(link, request);
        }
        if request.large {
            self.serve_large(link, request, first)?;
        } else {
            let mut payload = std::mem::take(&mut self.payload);
            link.connection.take(request, &mut payload[..request.len]);
            let served = self.serve_taken(link, request, &payload[..request.len], None, first);
            self.payload = payload;
            served?;
        }
        Ok(true)
    }

    /// Answers a call whose request came in parts.
    #[cold]
    fn serve_large(&mut self, link: &mut Link, request: &Request, first: bool) -> Result<(), Violation> {
        let (payload, reservation) = link.connection.take_large(request)?;
        let small = std::mem::replace(&mut self.spill, self.shared.buffers.take_empty(payload.len()));
        let served = self.serve_taken(link, request, &payload, Some(reservation), first);
        let spill = std::mem::replace(&mut self.spill, small);
        self.shared.buffers.put(payload);
        self.shared.buffers.put(spill);
        served
    }

    /// Answers a call that was taken.
    #[inline]
    fn serve_taken(
        &mut self,
        link: &mut Link,
        request: &Request,
        payload: &[u8],
        reservation: Option<Reservation>,
        first: bool,
    ) -> Result<(), Violation> {
        let message_type = request.message_type;
        if let Some(failure) = self.refusal(request, payload.len()) {
            note(&self.shared, self.worker, message_type, link, Some(&failure));
            return link.connection.fail(request.id, failure);
        }
        let Some(Handler::Unary(handler)) = self.shared.registry.find(message_type) else {
            let failure = self.shared.registry.unknown(message_type);
            note(&self.shared, self.worker, message_type, link, Some(&failure));
            return link.connection.fail(request.id, failure);
        };
        let permit = match self.shared.breaker(message_type).acquire(Instant::now) {
            Ok(permit) => permit,
            Err(rejected) => {
                let failure = open_breaker(&rejected);
                note(&self.shared, self.worker, message_type, link, Some(&failure));
                return link.connection.fail(request.id, failure);
            }
        };
        // Answers to quick calls go out together; nobody's waits for a slow handler to end.
        if !self.pace.is_quick(message_type) {
            link.commit();
        }
        let span = CallSpan::new(&self.shared, message_type, link.serial);
        let entered = span.span().enter();
        let started = self.pace.start();
        let call = Call { payload, connection: link.serial, deadline_us: request.deadline_us };
        let shared = &self.shared;
        let keep = |reply| shared.keep(reply, reservation, true);
        let failed = link.connection.answer(request.id, request.len, &mut self.spill, keep, |reply| {
            match std::panic::catch_unwind(AssertUnwindSafe(|| handler(&call, reply))) {
                Ok(outcome) => outcome.map_err(Failure::from),
                Err(panic) => Err(panic_failure(panic)),
            }
        })?;
        drop(entered);
        span.ended(failed.as_ref().map_or("ok", |failure| failure.code.name()));
        if first {
            link.commit();
        }
        match &failed {
            None => permit.succeed(Instant::now),
            Some(failure) if is_handlers_fault(failure) => permit.fail(Instant::now),
            Some(_) => drop(permit),
        }
        note(&self.shared, self.worker, message_type, link, failed.as_ref());
        if let Some(started) = started {
            let elapsed = started.elapsed();
            self.pace.note(message_type, elapsed);
            let micros = elapsed.as_micros() as u64;
            self.shared.metrics.shard(self.worker).time(message_type, micros, TIME_EVERY.into());
        }
        Ok(())
    }

    /// Why a call is not to be run, if it is not.
    #[inline]
    fn refusal(&self, request: &Request, size: usize) -> Option<Failure> {
        let limit = self.shared.terms.max_message as usize;
        if self.shared.draining.load(Ordering::Relaxed) {
            return Some(draining());
        }
        if size > limit {
            return Some(Failure::too_large("request", size as u64, limit as u64));
        }
        let late = request.deadline_us.is_some_and(|deadline| clock::monotonic_us() >= deadline);
        late.then(|| Failure::new(ErrorCode::DeadlineExceeded, "the deadline passed before the call was taken"))
    }
}

/// What came of asking the budget.
enum Reserve {
    Granted(Reservation),
    Wait,
    Refused(Failure),
}

impl Shared {
    /// The breaker of a message type that is registered.
    #[inline]
    fn breaker(&self, message_type: u16) -> &Arc<Breaker> {
        &self.breakers[usize::from(message_type) - 1]
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

impl Pace {
    #[inline]
    fn is_quick(&self, message_type: u16) -> bool {
        self.quick.get(usize::from(message_type)).copied().unwrap_or(false)
    }

    /// The start of a call, if it is one to be timed.
    #[inline]
    fn start(&mut self) -> Option<Instant> {
        self.until_timed = self.until_timed.checked_sub(1).unwrap_or(TIME_EVERY - 1);
        (self.until_timed == 0).then(Instant::now)
    }

    fn note(&mut self, message_type: u16, elapsed: Duration) {
        if let Some(quick) = self.quick.get_mut(usize::from(message_type)) {
            *quick = elapsed < QUICK;
        }
    }
}

/// Counts how a call ended, and logs it by blame.
#[inline]
fn note(shared: &Shared, worker: usize, message_type: u16, link: &Link, failed: Option<&Failure>) {
    shared.metrics.shard(worker).count(message_type, failed.map(|failure| failure.code));
    if let Some(failure) = failed {
        log_failure(shared, message_type, link, failure);
    }
}

#[cold]
fn log_failure(shared: &Shared, message_type: u16, link: &Link, failure: &Failure) {
    if failure.code != ErrorCode::Cancelled && !shared.may_log(link.peer.pid) {
        return;
    }
    let name = shared.registry.name(message_type);
    let (connection, pid) = (link.serial, link.peer.pid);
    let text = failure.bounded_text().escape_debug().to_string();
    match failure.code {
        ErrorCode::Handler | ErrorCode::HandlerPanic | ErrorCode::DeadlineExceeded => {
            tracing::error!(connection, pid, message_type = name, outcome = failure.code.name(), "{text}");
        }
        ErrorCode::Cancelled => tracing::debug!(connection, pid, message_type = name, "call cancelled"),
        _ => tracing::warn!(connection, pid, message_type = name, outcome = failure.code.name(), "{text}"),
    }
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
