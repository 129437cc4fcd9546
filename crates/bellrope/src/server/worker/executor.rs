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
    connection::{Failure, Reply, Request, Unsent},
    metadata::Metadata,
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
    timing: Timing,
}

/// Which handlers are quick, from a sample of timed calls.
struct Timing {
    /// Calls until the next one that is timed.
    until_timed: u32,
    /// By message type: whether its handler took less than [`QUICK`] when last timed.
    quick: Vec<bool>,
    /// Whether all are taken for quick, however long they take.
    #[cfg(test)]
    all_quick: bool,
}

impl Executor {
    pub(crate) fn new(core: &Core, worker: usize) -> Self {
        let types = core.registry.names().len();
        Self {
            counters: Arc::clone(core.metrics.shard(worker)),
            spill: Vec::new(),
            timing: Timing {
                until_timed: 0,
                quick: vec![false; types + 1],
                #[cfg(test)]
                all_quick: false,
            },
        }
    }

    /// Answers a call that was taken. `quick`: whether its handler [is](Self::is_quick).
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "a struct of them would be built in memory for every call")]
    pub(crate) fn serve(
        &mut self,
        core: &Core,
        session: &mut Session,
        handler: &Handler,
        request: &Request,
        message: &mut Vec<u8>,
        first: bool,
        quick: bool,
    ) -> Result<(), Violation> {
        // Nobody looks at this call more closely than at others: all that there is to be done for it stands here.
        if !quick || CallSpan::is_heard() || !self.timing.pass_untimed() {
            return self.serve_with_care(core, session, handler, request, message, None, first, quick, None);
        }
        let &Request { id, message_type, deadline_us, .. } = request;
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
        let context = CallContext { connection: session.serial, deadline_us };
        let unsent = session
            .connection
            .answer_at_once(id, size, &mut self.spill, |reply| guarded(handler, message, context, None, reply))?;
        KillPoint::Ran.reached();
        if let Some(unsent) = unsent {
            let failed = self.answer_late(core, session, id, unsent, None)?;
            if first {
                session.commit();
            }
            self.settle(core, session, message_type, deadline_us, permit, failed.as_deref());
            return Ok(());
        }
        if first {
            session.commit();
        }
        permit.succeed_for(|| session.caller(), Instant::now);
        self.counters.count(message_type, None);
        Ok(())
    }

    /// As [`Self::serve`], where the call is looked at more closely, or is not like others.
    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "a struct of them would be built in memory for every call")]
    fn serve_with_care(
        &mut self,
        core: &Core,
        session: &mut Session,
        handler: &Handler,
        request: &Request,
        message: &mut Vec<u8>,
        reservation: Option<Reservation>,
        first: bool,
        quick: bool,
        metadata: Option<&Metadata>,
    ) -> Result<(), Violation> {
        let &Request { id, message_type, deadline_us, .. } = request;
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
            self.timing.start()
        } else {
            // Answers to quick calls go out together; nobody's waits for a slow handler to end.
            session.commit();
            Some(Instant::now())
        };
        let span = CallSpan::new(core, message_type, session.serial, metadata);
        let entered = span.span().enter();
        let context = CallContext { connection: session.serial, deadline_us };
        let unsent = session
            .connection
            .answer_at_once(id, size, &mut self.spill, |reply| guarded(handler, message, context, metadata, reply))?;
        KillPoint::Ran.reached();
        let failed = match unsent {
            None => {
                // Before its caller can know: what it asks for next may need the room.
                drop(reservation);
                None
            }
            Some(unsent) => self.answer_late(core, session, id, unsent, reservation)?,
        };
        drop(entered);
        span.ended(failed.as_ref().map_or("ok", |failure| failure.code.name()));
        if first {
            session.commit();
        }
        self.settle(core, session, message_type, deadline_us, permit, failed.as_deref());
        if let Some(started) = started {
            self.timed(core, message_type, started.elapsed(), quick);
        }
        Ok(())
    }

    /// Answers a call whose reply was not sent at once. Returns the failure that its caller gets instead, if any.
    #[cold]
    #[inline(never)]
    fn answer_late(
        &mut self,
        core: &Core,
        session: &mut Session,
        id: u64,
        unsent: Unsent,
        reservation: Option<Reservation>,
    ) -> Result<Option<Box<Failure>>, Violation> {
        let kept = Cell::new(false);
        let keep = |reply| {
            kept.set(true);
            core.keep(reply, reservation, true, session.budget_claim.holder())
        };
        let failed = session.connection.answer_late(id, unsent, &mut self.spill, keep)?;
        if kept.get() {
            self.spill = core.buffers.take_small();
        } else if failed.is_some() && self.spill.capacity() > core.fixed.terms.geometry.max_payload() as usize {
            // Of a reply that was too large, or that its handler thought better of.
            self.spill = Vec::new();
        }
        Ok(failed)
    }

    /// Tells the breaker and the counters how a call ended.
    fn settle(
        &self,
        core: &Core,
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
        outcome::note(core, &self.counters, session, message_type, failed);
    }

    /// As [`Self::serve`], for whoever has other things to do as well.
    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "as for what it calls")]
    pub(crate) fn serve_apart(
        &mut self,
        core: &Core,
        session: &mut Session,
        handler: &Handler,
        request: &Request,
        message: &mut Vec<u8>,
        reservation: Option<Reservation>,
        first: bool,
        metadata: Option<&Metadata>,
    ) -> Result<(), Violation> {
        let quick = self.is_quick(request.message_type);
        self.serve_with_care(core, session, handler, request, message, reservation, first, quick, metadata)
    }

    /// As [`Self::serve`], for a call whose request came in parts. A reply that is made beside it has as much room.
    #[expect(clippy::too_many_arguments, reason = "as for what it calls")]
    pub(crate) fn serve_large(
        &mut self,
        core: &Core,
        session: &mut Session,
        handler: &Handler,
        request: &Request,
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
        self.timing.quick.fill(true);
        self.timing.all_quick = true;
    }

    /// Whether the handler of this type was quick when last timed.
    #[inline(always)]
    pub(crate) fn is_quick(&self, message_type: u16) -> bool {
        self.timing.is_quick(message_type)
    }

    #[inline(never)]
    fn timed(&mut self, core: &Core, message_type: u16, elapsed: Duration, quick: bool) {
        self.timing.note(message_type, elapsed);
        let micros = elapsed.as_micros() as u64;
        self.counters.time(message_type, micros, if quick { TIME_EVERY.into() } else { 1 });
        if elapsed >= LONGEST_HOLD {
            core.held_thread(message_type, elapsed);
        }
    }
}

/// As [`run`]; a panic becomes a failure.
#[inline(always)]
fn guarded(
    handler: &Handler,
    message: &mut Vec<u8>,
    context: CallContext,
    metadata: Option<&Metadata>,
    reply: &mut Reply<'_>,
) -> Result<(), Box<Failure>> {
    match std::panic::catch_unwind(AssertUnwindSafe(|| run(handler, message, context, metadata, reply))) {
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
    context: CallContext,
    metadata: Option<&Metadata>,
    reply: &mut Reply<'_>,
) -> Result<(), HandlerError> {
    match handler {
        Handler::Unary(handler) => handler(&Call { payload: message, context, metadata }, reply),
        Handler::InPlace(handler) => {
            handler(&mut CallInPlace { message, context, metadata })?;
            reply.adopt(message);
            Ok(())
        }
        #[cfg(feature = "tokio")]
        _ => unreachable!("async handlers do not run on the worker"),
    }
}

impl Timing {
    #[inline]
    fn is_quick(&self, message_type: u16) -> bool {
        self.quick.get(usize::from(message_type)).copied().unwrap_or(false)
    }

    /// Counts the next call if it is one that is not to be timed. Answers whether it is.
    #[inline(always)]
    fn pass_untimed(&mut self) -> bool {
        let untimed = self.until_timed > 1;
        self.until_timed -= u32::from(untimed);
        untimed
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
            #[cfg(test)]
            {
                *quick |= self.all_quick;
            }
        }
    }
}
