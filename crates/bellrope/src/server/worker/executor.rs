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
    connection::{Failure, Reply, Request},
    frame::ErrorCode,
};

use super::{Shared, is_handlers_fault, open_breaker, panic_failure};
use crate::{
    Call, CallInPlace, HandlerError, KillPoint,
    metrics::Shard,
    registry::Handler,
    server::{link::Link, span::CallSpan},
};

/// One call in this many is timed.
const TIME_EVERY: u32 = 32;
/// A handler that takes less than this may have its answers committed together with others'.
const QUICK: Duration = Duration::from_micros(2);

/// What a worker answers calls with.
pub(super) struct Desk {
    /// The worker's own.
    counters: Arc<Shard>,
    /// Where a reply goes that finds no room in its ring.
    spill: Vec<u8>,
    pace: Pace,
}

/// Which handlers are quick, from a sample of timed calls.
struct Pace {
    /// Calls until the next one that is timed.
    until_timed: u32,
    /// By message type: whether its handler took less than [`QUICK`] when last timed.
    quick: Vec<bool>,
}

impl Desk {
    pub(super) fn new(shared: &Shared, worker: usize) -> Self {
        let types = shared.registry.names().len();
        Self {
            counters: Arc::clone(shared.metrics.shard(worker)),
            spill: Vec::new(),
            pace: Pace { until_timed: 0, quick: vec![false; types + 1] },
        }
    }

    /// Answers a call that was taken.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "a struct of them would be built in memory for every call")]
    pub(super) fn serve(
        &mut self,
        shared: &Shared,
        link: &mut Link,
        handler: &Handler,
        request: &Request,
        message: &mut Vec<u8>,
        reservation: Option<Reservation>,
        first: bool,
    ) -> Result<(), Violation> {
        let &Request { id, message_type, deadline_us, .. } = request;
        let size = message.len();
        if !shared.may_run(deadline_us, size) {
            return self.refuse(shared, link, id, message_type, shared.refusal(size));
        }
        let permit = match shared.breaker(message_type).acquire(Instant::now) {
            Ok(permit) => permit,
            Err(rejected) => return self.refuse(shared, link, id, message_type, open_breaker(&rejected)),
        };
        // Answers to quick calls go out together; nobody's waits for a slow handler to end.
        if !self.pace.is_quick(message_type) {
            link.commit();
        }
        let span = CallSpan::new(shared, message_type, link.serial);
        let entered = span.span().enter();
        let started = self.pace.start();
        let connection = link.serial;
        let kept = Cell::new(false);
        let keep = |reply| {
            kept.set(true);
            shared.keep(reply, reservation, true)
        };
        let failed =
            link.connection.answer(id, size, &mut self.spill, keep, |reply| {
                match std::panic::catch_unwind(AssertUnwindSafe(|| {
                    run(handler, message, connection, deadline_us, reply)
                })) {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(error)) => Err(Box::new(Failure::from(error))),
                    Err(panic) => Err(Box::new(panic_failure(panic))),
                }
            })?;
        KillPoint::Ran.reached();
        if kept.get() {
            self.spill = shared.buffers.take_small();
        }
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
        self.note(shared, message_type, link, failed.as_deref());
        if let Some(started) = started {
            self.timed(message_type, started.elapsed());
        }
        Ok(())
    }

    /// As [`Self::serve`], for whoever has other things to do as well.
    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "as for what it calls")]
    pub(super) fn serve_apart(
        &mut self,
        shared: &Shared,
        link: &mut Link,
        handler: &Handler,
        request: &Request,
        message: &mut Vec<u8>,
        reservation: Option<Reservation>,
        first: bool,
    ) -> Result<(), Violation> {
        self.serve(shared, link, handler, request, message, reservation, first)
    }

    /// As [`Self::serve`], for a call whose request came in parts. A reply that is made beside it has as much room.
    #[expect(clippy::too_many_arguments, reason = "as for what it calls")]
    pub(super) fn serve_large(
        &mut self,
        shared: &Shared,
        link: &mut Link,
        handler: &Handler,
        request: &Request,
        message: &mut Vec<u8>,
        reservation: Reservation,
        first: bool,
    ) -> Result<(), Violation> {
        let spill = match handler {
            Handler::InPlace(_) => Vec::new(),
            _ => shared.buffers.take_empty(message.len()),
        };
        let small = std::mem::replace(&mut self.spill, spill);
        let served = self.serve_apart(shared, link, handler, request, message, Some(reservation), first);
        shared.buffers.put(std::mem::replace(&mut self.spill, small));
        served
    }

    /// Refuses a call that was taken.
    #[cold]
    #[inline(never)]
    pub(super) fn refuse(
        &self,
        shared: &Shared,
        link: &mut Link,
        id: u64,
        message_type: u16,
        failure: Failure,
    ) -> Result<(), Violation> {
        self.note(shared, message_type, link, Some(&failure));
        link.connection.fail(id, failure)
    }

    /// Counts how a call ended, and logs it by blame.
    #[inline]
    pub(super) fn note(&self, shared: &Shared, message_type: u16, link: &Link, failed: Option<&Failure>) {
        self.counters.count(message_type, failed.map(|failure| failure.code));
        if let Some(failure) = failed {
            log_failure(shared, message_type, link, failure);
        }
    }

    #[inline(never)]
    fn timed(&mut self, message_type: u16, elapsed: Duration) {
        self.pace.note(message_type, elapsed);
        let micros = elapsed.as_micros() as u64;
        self.counters.time(message_type, micros, TIME_EVERY.into());
    }
}

/// Has a call answered by its handler.
#[inline(always)]
fn run(
    handler: &Handler,
    message: &mut Vec<u8>,
    connection: u64,
    deadline_us: Option<u64>,
    reply: &mut Reply<'_>,
) -> Result<(), HandlerError> {
    match handler {
        Handler::Unary(handler) => handler(&Call { payload: message, connection, deadline_us }, reply),
        Handler::InPlace(handler) => {
            handler(&mut CallInPlace { message, connection, deadline_us })?;
            reply.adopt(message);
            Ok(())
        }
        #[cfg(feature = "tokio")]
        _ => unreachable!("async handlers do not run on the worker"),
    }
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

#[cold]
fn log_failure(shared: &Shared, message_type: u16, link: &Link, failure: &Failure) {
    if !shared.may_log(link.peer.pid) {
        return;
    }
    let name = shared.registry.name(message_type);
    let (connection, pid) = (link.serial, link.peer.pid);
    let text = failure.bounded_text().escape_debug().to_string();
    match failure.code {
        ErrorCode::Handler | ErrorCode::HandlerPanic | ErrorCode::DeadlineExceeded => {
            tracing::error!(connection, pid, message_type = name, outcome = failure.code.name(), "{text}");
        }
        _ => tracing::warn!(connection, pid, message_type = name, outcome = failure.code.name(), "{text}"),
    }
}
