//! Calls that async handlers work on: started on tokio, answered through the worker's inbox, dropped when nobody wants
//! the answer any more.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use bellrope_proto::{connection::Failure, frame::ErrorCode};
use tokio::{runtime::Handle, sync::Semaphore, task::AbortHandle};

use super::{
    body::Body,
    inbox::{Inbox, LinkId, Message},
};
use crate::registry::{Answering, ChunkSender, Handler, OwnedCall};

/// What an async handler says.
#[derive(Debug)]
pub(crate) enum FromHandler {
    Answered(Result<Body, Failure>),
    Chunk(Body),
    Finished(Result<(), Failure>),
}

/// Where one async call says what it has to say.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) link: LinkId,
    pub(crate) call: u64,
    /// Largest chunk that one record holds.
    pub(crate) max_chunk: usize,
}

impl Port {
    pub(crate) fn chunk(&self, body: Body) {
        self.send(FromHandler::Chunk(body));
    }

    fn send(&self, what: FromHandler) {
        self.inbox.send(Message::FromHandler { link: self.link, call: self.call, what });
    }
}

/// The open calls of one connection. Dropping them drops their handlers.
#[derive(Debug, Default)]
pub(crate) struct OpenCalls(HashMap<u64, OpenCall>);

/// A call that an async handler works on.
#[derive(Debug)]
pub(crate) struct OpenCall {
    pub(crate) message_type: u16,
    pub(crate) started: Instant,
    task: AbortHandle,
    /// Of a stream: closed with it, so that whoever still sends learns of the end.
    permits: Option<Arc<Semaphore>>,
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
        self.0.remove(&call)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &OpenCall> {
        self.0.values()
    }

    /// Starts the handler of a call.
    pub(crate) fn start(
        &mut self,
        runtime: &Handle,
        handler: &Handler,
        message_type: u16,
        call: OwnedCall,
        port: Port,
    ) {
        let id = port.call;
        let deadline = call.time_left;
        let mut permits = None;
        let task = match handler {
            Handler::Unary(_) => unreachable!("unary handlers run on the worker"),
            Handler::UnaryAsync(handler) => match guarded(|| handler(call)) {
                Ok(answering) => runtime.spawn(async move {
                    port.send(FromHandler::Answered(bounded(answering, deadline).await.map(Body::from)));
                }),
                Err(failure) => runtime.spawn(async move { port.send(FromHandler::Answered(Err(failure))) }),
            },
            Handler::ServerStream(handler) => {
                let ahead = permits.insert(Arc::new(Semaphore::new(ChunkSender::AHEAD)));
                let sender = ChunkSender { port: port.clone(), permits: Arc::clone(ahead) };
                match guarded(|| handler(call, sender)) {
                    Ok(answering) => runtime.spawn(async move {
                        port.send(FromHandler::Finished(bounded(answering, deadline).await));
                    }),
                    Err(failure) => runtime.spawn(async move { port.send(FromHandler::Finished(Err(failure))) }),
                }
            }
        };
        self.0.insert(id, OpenCall { message_type, started: Instant::now(), task: task.abort_handle(), permits });
    }
}

/// Drives a handler to its end, its deadline or its panic.
async fn bounded<T>(mut answering: Answering<T>, deadline: Option<Duration>) -> Result<T, Failure> {
    let panics_are_caught = std::future::poll_fn(|context| match guarded(|| answering.as_mut().poll(context)) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(outcome)) => Poll::Ready(outcome.map_err(Failure::from)),
        Err(failure) => Poll::Ready(Err(failure)),
    });
    match deadline {
        None => panics_are_caught.await,
        Some(left) => tokio::time::timeout(left, panics_are_caught).await.unwrap_or_else(|_| {
            Err(Failure::new(ErrorCode::DeadlineExceeded, "the deadline passed while the handler was at work"))
        }),
    }
}

/// Runs a handler's code; a panic becomes a failure.
fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, Failure> {
    std::panic::catch_unwind(AssertUnwindSafe(run)).map_err(super::service::panic_failure)
}
