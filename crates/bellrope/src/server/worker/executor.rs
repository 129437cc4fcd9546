//! How a call is answered on the spot, on its worker. Every call comes through here, so what a call hardly ever needs
//! stands apart, and a failure travels in a box: what is large would be moved about piece by piece where there is none.

use std::{
    cell::Cell,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use bellrope_proto::{
    Reservation, Violation,
    connection::{Failure, InboundRequest, Reply, Unsent},
    metadata::Metadata,
    ring::PlainRecord,
};

use super::session::Session;
use crate::{
    breaker::{Breaker, Permit},
    kill_points::KillPoint,
    server::error::HandlerError,
    server::{
        calls::{
            failures::{is_of_service, no_memory, open_breaker, panic_failure},
            outcome,
        },
        core::Core,
        handler::{
            call::{Call, CallInPlace},
            context::CallContext,
            registry::Handler,
        },
        span::CallSpan,
    },
    status::{LONGEST_HOLD, Shard},
};

/// One call in this many of a quick handler is timed; those of others all are.
const TIME_EVERY: u32 = 32;
/// A handler that takes less than this may have its answers committed together with others'.
const QUICK: Duration = Duration::from_micros(2);

/// Runs the handlers of a worker's calls, one after another, and answers with what they return.
pub(crate) struct Executor {
    /// The worker's own.
    pub(crate) counters: Arc<Shard>,
    /// Where a reply goes that finds no room in its ring.
    spill: Vec<u8>,
    /// The types that are there from the start, in the order of their numbers, from 1.
    types: Vec<KnownType>,
    /// Calls up to the next one that is timed, with that.
    until_timed: u32,
    /// Bytes of the largest small request.
    max_payload: usize,
    /// Whether all handlers are taken for quick, however long they take.
    #[cfg(test)]
    all_quick: bool,
}

/// What every call of a type asks for, in one place. Its size makes finding it a shift.
#[repr(align(32))]
struct KnownType {
    handler: Arc<Handler>,
    breaker: Arc<Breaker>,
    /// Whether its handler took less than [`QUICK`] when last timed. None that does not run on the worker ever is.
    quick: bool,
}

impl Executor {
    pub(crate) fn new(core: &Core, worker: usize) -> Self {
        let known = |(handler, breaker): (&Arc<Handler>, &Arc<Breaker>)| KnownType {
            handler: Arc::clone(handler),
            breaker: Arc::clone(breaker),
            quick: false,
        };
        Self {
            counters: Arc::clone(core.metrics.shard(worker)),
            spill: Vec::new(),
            types: core.registry.handlers().zip(&core.breakers).map(known).collect(),
            until_timed: 0,
            max_payload: core.fixed.terms.geometry.max_payload() as usize,
            #[cfg(test)]
            all_quick: false,
        }
    }

    /// Takes the call at the front and answers it, if it is like nearly all others: nothing stands against it, its handler is
    /// quick, nobody listens for spans, and its breaker is closed for all. Answers
    /// `false`, and has done nothing, if it is another: then it goes the way of those that are looked at more closely. All
    /// that there is to be done for a call like nearly all others stands here. Calls with a deadline have code of their own, so
    /// that others do not carry that there is none, and so have those that are timed, and `LONG` ones, which let their ring start over.
    #[inline(always)]
    pub(crate) fn serve_straight<const DEADLINE: bool, const TIMED: bool, const LONG: bool>(
        &mut self,
        core: &Core,
        session: &mut Session,
        call: PlainRecord,
        message: &mut Vec<u8>,
        first: bool,
    ) -> Result<bool, Violation> {
        let PlainRecord { id, message_type, len, extension, .. } = call;
        let deadline_us = if DEADLINE { Some(extension) } else { None };
        let Self { counters, spill, types, until_timed, max_payload, .. } = self;
        let Some(known) = types.get(usize::from(message_type).wrapping_sub(1)) else { return Ok(false) };
        if !known.quick || CallSpan::is_heard() || (!TIMED && *until_timed <= 1) || !core.may_run(deadline_us, len) {
            return Ok(false);
        }
        let Some(permit) = known.breaker.acquire_at_once() else { return Ok(false) };
        *until_timed = if TIMED { TIME_EVERY } else { *until_timed - 1 };
        let started = TIMED.then(Instant::now);
        if message.len() != len {
            resize(message, len);
        }
        session.connection.take_plain(&call, message);
        let context = CallContext { connection: session.serial, deadline_us };
        let unsent = session.connection.answer_at_once(id, len, spill, |reply| {
            guarded::<true, DEADLINE, TIMED, LONG>(&known.handler, message, *max_payload, context, None, reply)
        })?;
        KillPoint::Ran.reached();
        if let Some(unsent) = unsent {
            bound(message, *max_payload);
            let failed = answer_late(core, session, spill, id, unsent, None)?;
            if first {
                session.commit();
            }
            settle(core, counters, session, message_type, deadline_us, permit, failed.as_deref());
        } else {
            if first {
                session.commit();
            }
            permit.succeed_for(|| session.caller(), Instant::now);
            counters.count(message_type, None);
        }
        if let Some(started) = started {
            self.timed(core, message_type, started.elapsed(), true);
        }
        Ok(true)
    }

    /// Whether the next call of a quick handler is one to be timed.
    #[inline]
    pub(crate) fn times_next(&self) -> bool {
        self.until_timed <= 1
    }

    /// Answers a call that was taken, and is looked at more closely than others or is not like them.
    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "a struct of them would be built in memory for every call")]
    fn serve_with_care(
        &mut self,
        core: &Core,
        session: &mut Session,
        handler: &Handler,
        request: &InboundRequest,
        message: &mut Vec<u8>,
        reservation: Option<Reservation>,
        first: bool,
        quick: bool,
        metadata: Option<&Metadata>,
    ) -> Result<(), Violation> {
        let &InboundRequest { id, message_type, deadline_us, .. } = request;
        let size = message.len();
        if !core.may_run(deadline_us, size) {
            return outcome::refuse(core, &self.counters, session, id, message_type, core.refusal(size));
        }
        let permit = match core.breaker(message_type).acquire_for(|| session.caller(), Instant::now) {
            Ok(permit) => permit,
            Err(rejected) => {
                return outcome::refuse(core, &self.counters, session, id, message_type, open_breaker(&rejected));
            }
        };
        let started = if quick {
            self.start()
        } else {
            // Answers to quick calls go out together; nobody's waits for a slow handler to end.
            session.commit();
            Some(Instant::now())
        };
        let span = CallSpan::new(core, message_type, session.serial, metadata);
        let entered = span.span().enter();
        let context = CallContext { connection: session.serial, deadline_us };
        // A large one has a buffer of its own.
        let keeps = if reservation.is_some() { usize::MAX } else { self.max_payload };
        let unsent = session.connection.answer_at_once(id, size, &mut self.spill, |reply| {
            guarded::<false, false, false, false>(handler, message, keeps, context, metadata, reply)
        })?;
        KillPoint::Ran.reached();
        if unsent.is_some() {
            bound(message, keeps);
        }
        let failed = match unsent {
            None => {
                // Before its caller can know: what it asks for next may need the room.
                drop(reservation);
                None
            }
            Some(unsent) => answer_late(core, session, &mut self.spill, id, unsent, reservation)?,
        };
        drop(entered);
        span.ended(failed.as_ref().map_or("ok", |failure| failure.code.name()));
        if first {
            session.commit();
        }
        settle(core, &self.counters, session, message_type, deadline_us, permit, failed.as_deref());
        if let Some(started) = started {
            self.timed(core, message_type, started.elapsed(), quick);
        }
        Ok(())
    }

    /// Answers a call that was taken.
    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "as for what it calls")]
    pub(crate) fn serve_apart(
        &mut self,
        core: &Core,
        session: &mut Session,
        handler: &Handler,
        request: &InboundRequest,
        message: &mut Vec<u8>,
        reservation: Option<Reservation>,
        first: bool,
        metadata: Option<&Metadata>,
    ) -> Result<(), Violation> {
        let quick = self.is_quick(request.message_type);
        self.serve_with_care(core, session, handler, request, message, reservation, first, quick, metadata)
    }

    /// As [`Self::serve_apart`], for a call whose request came in parts. A reply that is made beside it has as much room.
    #[expect(clippy::too_many_arguments, reason = "as for what it calls")]
    pub(crate) fn serve_large(
        &mut self,
        core: &Core,
        session: &mut Session,
        handler: &Handler,
        request: &InboundRequest,
        message: &mut Vec<u8>,
        reservation: Reservation,
        first: bool,
        metadata: Option<&Metadata>,
    ) -> Result<(), Violation> {
        let spill = match handler {
            Handler::InPlace(_) => Some(Vec::new()),
            _ => core.buffers.take_empty(message.len()),
        };
        let Some(spill) = spill else {
            let failure = no_memory(message.len() as u64);
            return outcome::refuse(core, &self.counters, session, request.id, request.message_type, failure);
        };
        let small = std::mem::replace(&mut self.spill, spill);
        let served = self.serve_apart(core, session, handler, request, message, Some(reservation), first, metadata);
        core.buffers.put(std::mem::replace(&mut self.spill, small));
        served
    }

    /// Takes all handlers for quick, for what counts instructions: there all time is long.
    #[cfg(test)]
    pub(crate) fn take_all_for_quick(&mut self) {
        self.all_quick = true;
        self.types.iter_mut().for_each(|known| known.quick = known.handler.runs_on_worker());
    }

    /// Whether the handler of this type was quick when last timed.
    #[inline]
    pub(crate) fn is_quick(&self, message_type: u16) -> bool {
        self.types.get(usize::from(message_type).wrapping_sub(1)).is_some_and(|known| known.quick)
    }

    /// The start of a call of a quick handler, if it is one to be timed.
    #[inline]
    fn start(&mut self) -> Option<Instant> {
        if self.until_timed > 1 {
            self.until_timed -= 1;
            return None;
        }
        self.until_timed = TIME_EVERY;
        Some(Instant::now())
    }

    #[inline(never)]
    fn timed(&mut self, core: &Core, message_type: u16, elapsed: Duration, quick: bool) {
        self.note(message_type, elapsed);
        let micros = elapsed.as_micros() as u64;
        self.counters.time(message_type, micros, if quick { TIME_EVERY.into() } else { 1 });
        if elapsed >= LONGEST_HOLD {
            core.held_thread(message_type, elapsed);
        }
    }

    fn note(&mut self, message_type: u16, elapsed: Duration) {
        if let Some(known) = self.types.get_mut(usize::from(message_type).wrapping_sub(1)) {
            known.quick = elapsed < QUICK;
            #[cfg(test)]
            {
                known.quick |= self.all_quick;
            }
        }
    }
}

/// Makes room for a payload that has another length than the last one. Not inlined: what it takes would be set aside for it
/// in every call.
#[inline(never)]
fn resize(message: &mut Vec<u8>, len: usize) {
    message.resize(len, 0);
}

/// Answers a call whose reply was not sent at once. Returns the failure that its caller gets instead, if any.
#[cold]
#[inline(never)]
fn answer_late(
    core: &Core,
    session: &mut Session,
    spill: &mut Vec<u8>,
    id: u64,
    unsent: Unsent,
    reservation: Option<Reservation>,
) -> Result<Option<Box<Failure>>, Violation> {
    let kept = Cell::new(false);
    let keep = |reply| {
        kept.set(true);
        core.keep(reply, reservation, true, session.budget_claim.holder())
    };
    let failed = session.connection.answer_late(id, unsent, spill, keep)?;
    if kept.get() {
        *spill = core.buffers.take_small();
    } else if failed.is_some() && spill.capacity() > core.fixed.terms.geometry.max_payload() as usize {
        // Of a reply that was too large, or that its handler thought better of.
        *spill = Vec::new();
    }
    Ok(failed)
}

/// Tells the breaker and the counters how a call ended.
fn settle(
    core: &Core,
    counters: &Shard,
    session: &Session,
    message_type: u16,
    deadline_us: Option<u64>,
    permit: Permit<&Breaker>,
    failed: Option<&Failure>,
) {
    match failed {
        None => permit.succeed_for(|| session.caller(), Instant::now),
        Some(failure) if is_of_service(failure, deadline_us) => permit.fail_for(session.caller(), Instant::now),
        Some(_) => drop(permit),
    }
    outcome::note(core, counters, session, message_type, failed);
}

/// What a handler that answers in place may have made larger than small requests are is not kept.
#[inline(always)]
fn bound(message: &mut Vec<u8>, max_payload: usize) {
    if message.capacity() > max_payload {
        *message = Vec::new();
    }
}

/// As [`run`]; a panic becomes a failure. Each place that guards has code of its own, or the compiler would have one function
/// for all, and every call would go through it.
#[inline(always)]
fn guarded<const STRAIGHT: bool, const DEADLINE: bool, const TIMED: bool, const LONG: bool>(
    handler: &Handler,
    message: &mut Vec<u8>,
    max_payload: usize,
    context: CallContext,
    metadata: Option<&Metadata>,
    reply: &mut Reply<'_>,
) -> Result<(), Box<Failure>> {
    match std::panic::catch_unwind(AssertUnwindSafe(|| run(handler, message, max_payload, context, metadata, reply))) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Box::new(Failure::from(error))),
        Err(panic) => Err(Box::new(panic_failure(panic))),
    }
}

/// Has a call answered by its handler.
#[inline(always)]
fn run(
    handler: &Handler,
    message: &mut Vec<u8>,
    max_payload: usize,
    context: CallContext,
    metadata: Option<&Metadata>,
    reply: &mut Reply<'_>,
) -> Result<(), HandlerError> {
    match handler {
        Handler::Unary(handler) => handler(&Call { payload: message, context, metadata }, reply),
        Handler::InPlace(handler) => {
            handler(&mut CallInPlace { message, context, metadata })?;
            reply.adopt(message);
            bound(message, max_payload);
            Ok(())
        }
        #[cfg(feature = "tokio")]
        _ => unreachable!("async handlers do not run on the worker"),
    }
}
