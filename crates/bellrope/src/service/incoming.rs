//! The stream of items that a method takes from its caller.

use std::{
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::{
    codec::{Codec, CodecError},
    refusals::unreadable,
};
use crate::server::{ChunkReceiver, HandlerError};

/// What a caller sends while a method is at work. It may be ahead by its credit; taking items gives credit back.
///
/// An item that cannot be read ends the call: its caller is told which, and the method is dropped where it waits.
pub struct Incoming<T> {
    chunks: ChunkReceiver,
    method: &'static str,
    /// Items taken.
    taken: usize,
    decode: fn(&[u8]) -> Result<T, CodecError>,
    /// To whom it is told that an item cannot be read; `None` when that has happened.
    refusing: Option<oneshot::Sender<HandlerError>>,
}

/// Ends a call whose caller sends what cannot be read.
#[doc(hidden)]
#[derive(Debug)]
pub struct StreamRefusal(oneshot::Receiver<HandlerError>);

impl<T: DeserializeOwned> Incoming<T> {
    pub(super) fn new<C: Codec>(method: &'static str, chunks: ChunkReceiver) -> (Self, StreamRefusal) {
        let (refusing, refused) = oneshot::channel();
        let incoming = Self { chunks, method, taken: 0, decode: |bytes| C::decode(bytes), refusing: Some(refusing) };
        (incoming, StreamRefusal(refused))
    }
}

impl<T> Incoming<T> {
    /// The next item. `None` when the caller has ended the stream, so that all of it was there. When the caller cancels or
    /// goes away instead, the method is dropped where it waits.
    pub async fn next(&mut self) -> Option<T> {
        poll_fn(|context| self.poll_item(context)).await
    }

    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        if self.refusing.is_none() {
            return Poll::Pending;
        }
        let Some(chunk) = ready!(self.chunks.poll_next(context)) else { return Poll::Ready(None) };
        match (self.decode)(&chunk) {
            Ok(item) => {
                self.taken += 1;
                Poll::Ready(Some(item))
            }
            Err(error) => {
                let what = format!("item {} of the stream", self.taken);
                // Whoever gets this drops the method; if it is gone already, so is its caller.
                let _ = self.refusing.take().map(|refusing| refusing.send(unreadable(self.method, what, &error)));
                Poll::Pending
            }
        }
    }
}

impl<T> Stream for Incoming<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.poll_item(context)
    }
}

impl<T> fmt::Debug for Incoming<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("method", &self.method).field("taken", &self.taken).finish_non_exhaustive()
    }
}

impl StreamRefusal {
    /// What the method does, or why it was not let go on.
    pub async fn or<T>(self, work: impl Future<Output = T>) -> Result<T, HandlerError> {
        let (mut work, mut refused) = (pin!(work), Some(self.0));
        poll_fn(|context| {
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(Ok(done));
            }
            if let Some(receiver) = &mut refused {
                match pin!(receiver).poll(context) {
                    Poll::Ready(Ok(error)) => return Poll::Ready(Err(error)),
                    // The method has dropped its stream: nothing can be refused any more.
                    Poll::Ready(Err(_)) => refused = None,
                    Poll::Pending => {}
                }
            }
            Poll::Pending
        })
        .await
    }
}
