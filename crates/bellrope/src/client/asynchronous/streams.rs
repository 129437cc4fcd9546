//! Calls under way of the async client, and their streams.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;

use super::{
    super::{
        mailboxes::{Event, Role, Ticket},
        options::Registration,
        shared::{Sent, SharedClient},
    },
    driver::settle,
};
use crate::error::CallError;

/// A call under way. Dropping it cancels the call.
#[derive(Debug)]
pub(super) struct Pending {
    shared: Arc<SharedClient>,
    /// `None` once the call has ended.
    ticket: Option<Ticket>,
    _registration: Option<Registration>,
}

impl Pending {
    pub(super) fn new(shared: &Arc<SharedClient>, ticket: Ticket, registration: Option<Registration>) -> Self {
        Self { shared: Arc::clone(shared), ticket: Some(ticket), _registration: registration }
    }

    pub(super) async fn response(&mut self) -> Result<Vec<u8>, CallError> {
        match poll_fn(|context| self.poll_event(context)).await {
            Event::Response(payload) => Ok(payload),
            Event::Failed(error) => Err(error),
            Event::Chunk(_) | Event::End => unreachable!("the connection checks the style of every answer"),
        }
    }

    fn poll_event(&mut self, context: &Context<'_>) -> Poll<Event> {
        let Some(ticket) = self.ticket else { return Poll::Ready(Event::End) };
        let mut state = self.shared.lock();
        let mut event = state.take_event(ticket);
        if event.is_none() {
            settle(&self.shared, &mut state);
            event = state.take_event(ticket);
        }
        match event {
            Some(event) => {
                if !matches!(event, Event::Chunk(_)) {
                    self.ticket = None;
                }
                Poll::Ready(event)
            }
            None => {
                state.wait_for(ticket, Role::Reader, context.waker());
                Poll::Pending
            }
        }
    }

    /// The sending half of the same call.
    pub(super) fn sink(&self) -> AsyncChunkSink {
        let ticket = self.ticket.expect("a call that has just been sent has not ended");
        AsyncChunkSink { shared: Arc::clone(&self.shared), ticket }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.shared.lock().abandon(ticket);
        }
    }
}

/// The chunks of a stream, as they come. Ends after the last one, or after one error.
///
/// Dropping it before its end cancels the stream at the server.
#[derive(Debug)]
pub struct AsyncStream {
    pub(super) pending: Pending,
}

impl AsyncStream {
    /// The next chunk. `None` after the last one, or after an error.
    pub async fn next(&mut self) -> Option<Result<Vec<u8>, CallError>> {
        poll_fn(|context| self.poll_chunk(context)).await
    }

    fn poll_chunk(&mut self, context: &Context<'_>) -> Poll<Option<Result<Vec<u8>, CallError>>> {
        self.pending.poll_event(context).map(|event| match event {
            Event::Chunk(chunk) => Some(Ok(chunk)),
            Event::Failed(error) => Some(Err(error)),
            Event::End | Event::Response(_) => None,
        })
    }
}

impl Stream for AsyncStream {
    type Item = Result<Vec<u8>, CallError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_chunk(context)
    }
}

/// The sending half of a call with streams both ways. Dropping it, or [`finish`](Self::finish), ends the stream; the
/// call goes on until its receiving half has ended.
#[derive(Debug)]
pub struct AsyncChunkSink {
    shared: Arc<SharedClient>,
    ticket: Ticket,
}

impl AsyncChunkSink {
    /// Sends a chunk. Waits while the server is slow. Answers `false` if the call has ended, so that no more is wanted;
    /// the receiving half tells how.
    ///
    /// # Errors
    /// [`CallError::MessageTooLarge`] if the chunk is larger than a quarter of the ring; an error of the connection.
    pub async fn send(&mut self, chunk: &[u8]) -> Result<bool, CallError> {
        poll_fn(|context| self.poll_send(context, chunk)).await
    }

    /// Ends the stream.
    pub fn finish(self) {}

    fn poll_send(&mut self, context: &Context<'_>, chunk: &[u8]) -> Poll<Result<bool, CallError>> {
        let (shared, ticket) = (&self.shared, self.ticket);
        let mut state = shared.lock();
        let waits = match state.send_chunk(ticket, chunk) {
            Ok(Sent::Done) => return Poll::Ready(Ok(true)),
            Ok(Sent::Ended) => return Poll::Ready(Ok(false)),
            Ok(Sent::NoCredit) => state.wait_for(ticket, Role::Writer, context.waker()),
            Ok(Sent::NoRoom) => {
                state.room_waiters.push(context.waker().clone());
                true
            }
            Err(error) => {
                settle(shared, &mut state);
                return Poll::Ready(Err(error));
            }
        };
        settle(shared, &mut state);
        if waits { Poll::Pending } else { Poll::Ready(Ok(false)) }
    }
}

impl Drop for AsyncChunkSink {
    fn drop(&mut self) {
        self.shared.lock().end_upload(self.ticket);
    }
}

/// A call that takes a stream of chunks and is answered once. Dropping it before [`finish`](Self::finish) has answered
/// cancels it.
#[derive(Debug)]
pub struct AsyncUpload {
    // Dropped first: a cancelled call needs no end of its stream.
    pub(super) pending: Pending,
    pub(super) sink: AsyncChunkSink,
}

impl AsyncUpload {
    /// Sends a chunk: see [`AsyncChunkSink::send`]. After a `false`, [`finish`](Self::finish) has the answer.
    ///
    /// # Errors
    /// As there.
    pub async fn send(&mut self, chunk: &[u8]) -> Result<bool, CallError> {
        self.sink.send(chunk).await
    }

    /// Ends the stream and waits for the answer.
    ///
    /// # Errors
    /// [`CallError`] says how the call ended.
    pub async fn finish(mut self) -> Result<Vec<u8>, CallError> {
        self.sink.shared.lock().end_upload(self.sink.ticket);
        self.pending.response().await
    }
}
