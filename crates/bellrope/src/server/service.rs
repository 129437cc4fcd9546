//! What a worker does with one connection's turn: takes a bounded batch of its requests and answers them.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bellrope_proto::{
    Violation,
    connection::{Failure, Inbound, Request},
    frame::ErrorCode,
};

#[cfg(feature = "tokio")]
use super::inbox::Inbox;
use super::{Shared, link::Link};
use crate::{Call, registry::Handler};

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

    /// One turn of a connection. Answers whether there was anything to do.
    #[inline]
    pub(super) fn visit(&mut self, link: &mut Link) -> Result<bool, Violation> {
        let mut worked = false;
        if link.connection.wants_room() {
            link.connection.flush()?;
            worked |= !link.connection.wants_room();
            link.commit();
        }
        let (mut messages, mut bytes) = (0, 0);
        while messages < BATCH_MESSAGES && bytes < BATCH_BYTES {
            match link.connection.next_inbound()? {
                None => break,
                Some(Inbound::Call(request)) => {
                    bytes += request.len;
                    self.serve(link, &request, messages == 0)?;
                }
                #[cfg(feature = "tokio")]
                Some(Inbound::Cancelled(call)) => self.cancelled(link, call),
                #[cfg(not(feature = "tokio"))]
                Some(Inbound::Cancelled(_)) => {}
            }
            messages += 1;
            // The first answer went out at once; the others go in growing batches.
            if messages == 4 || messages == 16 {
                link.commit();
            }
        }
        link.commit();
        self.found += u64::from(messages);
        Ok(worked || messages > 0)
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

    /// Notes how an open call ended that was answered through the inbox.
    #[cfg(feature = "tokio")]
    pub(super) fn ended(&self, link: &Link, call: &super::dispatch::OpenCall, failed: Option<&Failure>) {
        note(&self.shared, self.worker, call.message_type, link, failed);
        self.shared.metrics.shard(self.worker).ended(call.message_type);
        let micros = call.started.elapsed().as_micros() as u64;
        self.shared.metrics.shard(self.worker).time(call.message_type, micros, 1);
    }

    /// Answers one call, or hands it to its async handler.
    #[inline]
    fn serve(&mut self, link: &mut Link, request: &Request, first: bool) -> Result<(), Violation> {
        let message_type = request.message_type;
        let payload = &mut self.payload[..request.len];
        link.connection.take(request, payload);
        if self.shared.draining.load(Ordering::Relaxed) {
            let failure = Failure::new(ErrorCode::Rejected, "the server is going away; the call has not run");
            note(&self.shared, self.worker, message_type, link, Some(&failure));
            return link.connection.fail(request.id, failure);
        }
        match self.shared.registry.find(message_type) {
            Some(Handler::Unary(handler)) => {
                // Answers to quick calls go out together; nobody's waits for a slow handler to end.
                if !self.pace.is_quick(message_type) {
                    link.commit();
                }
                let started = self.pace.start();
                let call = Call { payload, connection: link.serial };
                let failed = link.connection.answer(request.id, request.len, &mut self.spill, |reply| {
                    match std::panic::catch_unwind(AssertUnwindSafe(|| handler(&call, reply))) {
                        Ok(outcome) => outcome.map_err(Failure::from),
                        Err(panic) => Err(panic_failure(panic)),
                    }
                })?;
                if first {
                    link.commit();
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
            #[cfg(feature = "tokio")]
            Some(_) => self.start(link, request),
            None => {
                let failure = self.shared.registry.unknown(message_type);
                note(&self.shared, self.worker, message_type, link, Some(&failure));
                link.connection.fail(request.id, failure)
            }
        }
    }

    /// Hands a call to its async handler, unless too many are open.
    #[cfg(feature = "tokio")]
    fn start(&self, link: &mut Link, request: &Request) -> Result<(), Violation> {
        use super::{dispatch::Port, inbox::LinkId};

        let Self { shared, .. } = self;
        let Some(handler) = shared.registry.find(request.message_type) else { return Ok(()) };
        if !link.connection.open(request.id, matches!(handler, Handler::ServerStream(_)))? {
            let limit = shared.terms.max_in_flight;
            let text = format!("{limit} calls are open on this connection, the limit max_in_flight");
            let failure = Failure::new(ErrorCode::Rejected, text);
            note(shared, self.worker, request.message_type, link, Some(&failure));
            return link.connection.fail(request.id, failure);
        }
        let runtime = shared.runtime.as_ref().expect("a server with async handlers has a runtime");
        let call = crate::OwnedCall {
            payload: self.payload[..request.len].to_vec(),
            connection: link.serial,
            time_left: request.time_left_us.map(Duration::from_micros),
        };
        let port = Port {
            inbox: Arc::clone(&self.inbox),
            link: LinkId { index: link.index, serial: link.serial },
            call: request.id,
            max_chunk: link.connection.max_payload(),
        };
        shared.metrics.shard(self.worker).began(request.message_type);
        link.open.start(runtime, handler, request.message_type, call, port);
        Ok(())
    }

    /// Drops the handler of a call that its caller no longer wants.
    #[cfg(feature = "tokio")]
    fn cancelled(&self, link: &mut Link, call: u64) {
        if let Some(open) = link.open.close(call) {
            self.shared.metrics.shard(self.worker).ended(open.message_type);
            self.shared.metrics.shard(self.worker).count(open.message_type, Some(ErrorCode::Cancelled));
        }
    }

    /// Counts the calls of a client that is gone; their handlers go with its link.
    #[cfg(feature = "tokio")]
    pub(super) fn abandoned(&self, link: &Link) {
        for open in link.open.iter() {
            self.shared.metrics.shard(self.worker).ended(open.message_type);
            self.shared.metrics.shard(self.worker).count(open.message_type, Some(ErrorCode::Cancelled));
        }
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
    let name = usize::from(message_type).checked_sub(1).and_then(|index| shared.registry.names().nth(index));
    let name = name.unwrap_or("unknown");
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
