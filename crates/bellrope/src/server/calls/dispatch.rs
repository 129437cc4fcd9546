//! Calls that async handlers work on: started on tokio, answered through the worker's inbox, dropped when nobody wants
//! the answer any more.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Weak},
    task::Poll,
    time::Instant,
};

use bellrope_proto::{Holder, Reservation, connection::Failure, frame::ErrorCode};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
};
use tracing::{Instrument, Span};

use crate::{
    breaker::{Breaker, Caller as BreakerCaller, Permit},
    server::{
        calls::{
            body::fitted,
            failures::{no_room_for_reply, panic_failure},
            turns::{TaskHandle, Turns},
        },
        handler::{
            context::CallContext,
            owned_call::{Cancelled, OwnedCall},
            port::Port,
            registry::{Answering, Handler},
            streams::{ChunkReceiver, ChunkSender, FromCaller},
        },
        message::{AsyncReply, FromHandler},
        span::CallSpan,
    },
    status::LONGEST_HOLD,
};

/// A reply that waits for its worker without room of its own in the budget, if there is none. In bytes; a call counts for
/// as many there anyway.
const SMALL_REPLY: u64 = 1024;

/// The open calls of one connection. Dropping them drops their handlers. Most connections never have any, so there is a word
/// for them until then.
#[derive(Debug, Default)]
pub(crate) struct OpenCalls(Option<Box<Table>>);

#[derive(Debug, Default)]
struct Table {
    calls: HashMap<u64, OpenCall>,
    /// Which of their handlers are polled next.
    turns: Turns,
}

/// A call that an async handler works on.
#[derive(Debug)]
pub(crate) struct OpenCall {
    pub(crate) message_type: u16,
    pub(crate) started: Instant,
    pub(crate) deadline_us: Option<u64>,
    pub(crate) held: Held,
    task: TaskHandle,
    cancelled: Cancelled,
    /// Of a stream: closed with it, so that whoever still sends learns of the end.
    permits: Option<Arc<Semaphore>>,
    /// Of a stream from the caller, until that is done.
    upload: Option<mpsc::UnboundedSender<FromCaller>>,
}

/// What a call holds besides its task, until it has ended.
#[derive(Debug)]
pub(crate) struct Held {
    /// For the payload and the reply, which takes it. The call that the handler got shares it: where a handler has given work
    /// to others, the payload is there until they are done.
    pub(crate) room: Option<Arc<Reservation>>,
    /// For the chunks that a stream may have waiting, until its end was sent.
    pub(crate) ahead: Option<Reservation>,
    /// Its breaker's. Taken when its handler has answered, or begun to.
    pub(crate) permit: Option<Permit<Arc<Breaker>>>,
    /// Its own, held with the others.
    pub(crate) span: CallSpan,
}

impl OpenCall {
    /// Tells whatever the handler has started elsewhere that its caller does not want the answer any more.
    pub(crate) fn withdraw(&self) {
        self.cancelled.withdraw();
        self.held.span.ended(ErrorCode::Cancelled.name());
    }

    /// Tells whatever the handler has started elsewhere that nobody is there for the answer any more.
    pub(crate) fn cancel(&self) {
        self.cancelled.set();
        self.held.span.ended(ErrorCode::Cancelled.name());
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(permits) = &self.permits {
            permits.close();
        }
    }
}

impl OpenCalls {
    /// Takes a call that has ended off the list. Its handler is dropped with what this returns.
    pub(crate) fn close(&mut self, call: u64) -> Option<OpenCall> {
        self.0.as_mut()?.calls.remove(&call)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &OpenCall> {
        self.0.iter().flat_map(|table| table.calls.values())
    }

    /// A stream has its first chunk, or a further one. The first tells its breaker that all is well: a stream may go on
    /// for as long as it likes, which a probe may not.
    pub(crate) fn began_to_answer(&mut self, call: u64, caller: impl FnOnce() -> BreakerCaller) {
        if let Some(permit) = self.open(call).and_then(|open| open.held.permit.take()) {
            permit.succeed_for(caller, Instant::now);
        }
    }

    /// Hands a chunk of the caller's to its handler.
    pub(crate) fn chunk(&self, call: u64, chunk: Vec<u8>) {
        let Some(table) = &self.0 else { return };
        if let Some(OpenCall { upload: Some(upload), .. }) = table.calls.get(&call) {
            // A handler that no longer listens gives no credit back: its caller stops by itself.
            let _ = upload.send(FromCaller::Chunk(chunk));
        }
    }

    /// Tells the handler that its caller's stream is done.
    pub(crate) fn end_upload(&mut self, call: u64) {
        if let Some(upload) = self.open(call).and_then(|open| open.upload.take()) {
            let _ = upload.send(FromCaller::End);
        }
    }

    /// Puts a call on the list whose handler was started.
    pub(crate) fn insert(&mut self, call: u64, open: OpenCall) {
        self.0.get_or_insert_default().calls.insert(call, open);
    }

    /// The turns that their handlers take.
    pub(crate) fn turns(&mut self) -> &Turns {
        &self.0.get_or_insert_default().turns
    }

    fn open(&mut self, call: u64) -> Option<&mut OpenCall> {
        self.0.as_mut()?.calls.get_mut(&call)
    }
}

/// Starts the handler of a call, which is polled in turn with those of its connection.
pub(crate) fn start(
    runtime: (&Handle, &Turns),
    handler: &Handler,
    message_type: u16,
    call: OwnedCall,
    port: &Port,
    held: Held,
) -> OpenCall {
    // Before the handler does anything: what is noted here when its task is on its way may be noted late.
    let started = Instant::now();
    let (runtime, handler) = match handler {
        Handler::Elsewhere(elsewhere) => ((&elsewhere.0, runtime.1), &*elsewhere.1),
        handler => (runtime, handler),
    };
    let deadline_us = call.context.deadline_us;
    let until = Until { message_type, context: call.context, cancelled: call.cancelled.clone() };
    let cancelled = call.cancelled.clone();
    let span = held.span.span();
    let room = (held.room.as_ref().map(Arc::downgrade).unwrap_or_default(), Arc::clone(&call.holder));
    let (mut permits, mut upload) = (None, None);
    let mut sender = || {
        let ahead = permits.insert(Arc::new(Semaphore::new(ChunkSender::AHEAD)));
        ChunkSender { port: port.clone(), permits: Arc::clone(ahead) }
    };
    let mut receiver = || {
        let (sender, chunks) = mpsc::unbounded_channel();
        upload = Some(sender);
        ChunkReceiver::new(port.clone(), chunks)
    };
    let task = match handler {
        Handler::Unary(_) | Handler::InPlace(_) => unreachable!("these run on the worker"),
        Handler::Elsewhere(..) => unreachable!("a handler is registered once"),
        Handler::UnaryAsync(handler) => answer(runtime, port, until, room, span, || handler(call)),
        Handler::ClientStream(handler) => {
            let chunks = receiver();
            answer(runtime, port, until, room, span, || handler(call, chunks))
        }
        Handler::ServerStream(handler) => {
            let chunks = sender();
            stream(runtime, port, until, span, || handler(call, chunks))
        }
        Handler::Duplex(handler) => {
            let (incoming, outgoing) = (receiver(), sender());
            stream(runtime, port, until, span, || handler(call, incoming, outgoing))
        }
    };
    OpenCall { message_type, started, deadline_us, held, task, cancelled, permits, upload }
}

/// How long a handler may run.
struct Until {
    message_type: u16,
    context: CallContext,
    cancelled: Cancelled,
}

/// A reply with room for it in the budget, if it is larger than what its call holds there: what waits for its worker or
/// for its ring has a bound. Where the payload lives on elsewhere, the room of the call is that one's.
fn roomy(reply: Vec<u8>, room: &Weak<Reservation>, holder: &Arc<Holder>) -> Result<AsyncReply, Failure> {
    let reply = fitted(reply);
    let size = reply.len() as u64;
    let held = room.upgrade().filter(|room| Arc::strong_count(room) == 2).map_or(0, |room| room.bytes());
    let reservation = if size > held { holder.reserve_more(size - held) } else { None };
    if size > held.max(SMALL_REPLY) && reservation.is_none() {
        return Err(no_room_for_reply(size, holder.budget().limit()));
    }
    Ok(AsyncReply { bytes: reply, reservation })
}

/// Runs a handler that answers once.
fn answer(
    (runtime, turns): (&Handle, &Turns),
    port: &Port,
    until: Until,
    (room, holder): (Weak<Reservation>, Arc<Holder>),
    span: &Span,
    begin: impl FnOnce() -> Answering<Vec<u8>>,
) -> TaskHandle {
    let (port, begun) = (port.clone(), span.in_scope(|| guarded(begin)));
    let run = async move {
        let answered = bounded(begun, until, &port).await.and_then(|reply| roomy(reply, &room, &holder));
        port.send(FromHandler::Answered(answered));
    };
    turns.spawn(runtime, run.instrument(span.clone()))
}

/// Runs a handler that answers with a stream.
fn stream(
    (runtime, turns): (&Handle, &Turns),
    port: &Port,
    until: Until,
    span: &Span,
    begin: impl FnOnce() -> Answering<()>,
) -> TaskHandle {
    let (port, begun) = (port.clone(), span.in_scope(|| guarded(begin)));
    let run = async move { port.send(FromHandler::Finished(bounded(begun, until, &port).await)) };
    turns.spawn(runtime, run.instrument(span.clone()))
}

/// Drives a handler to its end, its deadline or its panic.
async fn bounded<T>(begun: Result<Answering<T>, Failure>, until: Until, port: &Port) -> Result<T, Failure> {
    let mut answering = begun?;
    let panics_are_caught = std::future::poll_fn(|context| {
        let began = Instant::now();
        let polled = guarded(|| answering.as_mut().poll(context));
        let held = began.elapsed();
        if held >= LONGEST_HOLD {
            port.send(FromHandler::Held(until.message_type, held));
        }
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            // What a handler says of a large request may be large, and waits for the worker.
            Ok(Poll::Ready(outcome)) => Poll::Ready(outcome.map_err(|error| Failure::from(error).bounded())),
            Err(failure) => Poll::Ready(Err(failure)),
        }
    });
    match until.context.time_left() {
        None => panics_are_caught.await,
        Some(left) => tokio::time::timeout(left, panics_are_caught).await.unwrap_or_else(|_| {
            until.cancelled.set();
            Err(Failure::new(ErrorCode::DeadlineExceeded, "the deadline passed while the handler was at work"))
        }),
    }
}

/// Runs a handler's code; a panic becomes a failure.
fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, Failure> {
    std::panic::catch_unwind(AssertUnwindSafe(run)).map_err(|panic| panic_failure(panic).bounded())
}
