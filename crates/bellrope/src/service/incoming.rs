//! The stream of items that a method takes from its caller.

use std::{
    cell::Cell,
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
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
/// An item that cannot be read ends the call: its caller is told which, and the method is dropped where it waits. So it is
/// when the caller cancels or goes away. A task of its own is not dropped with the method, so it reads what
/// [`detach`](Self::detach) makes of this, which tells a whole stream from one that was cut.
pub struct Incoming<T> {
    items: DetachedIncoming<T>,
    /// Which method's future may read it.
    call: u64,
}

/// What a caller sends, for a task that may live longer than the method that began it: [`Incoming::detach`].
pub struct DetachedIncoming<T> {
    chunks: ChunkReceiver,
    method: &'static str,
    /// Items taken.
    taken: usize,
    decode: fn(&[u8]) -> Result<T, CodecError>,
    /// To whom it is told that an item cannot be read.
    refusing: Option<oneshot::Sender<HandlerError>>,
    /// Whether the call ended before its stream did.
    is_cut: bool,
}

/// The call ended before its stream did, so that not all of it came: its caller cancelled or went away, the method has
/// answered, or an item could not be read, which its caller is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the call ended before its stream did, so that not all of it came")]
#[non_exhaustive]
pub struct StreamCut;

impl From<StreamCut> for HandlerError {
    fn from(cut: StreamCut) -> Self {
        Self::invalid_request(cut.to_string())
    }
}

/// Ends a call whose caller sends what cannot be read.
#[doc(hidden)]
#[derive(Debug)]
pub struct StreamRefusal {
    refused: oneshot::Receiver<HandlerError>,
    call: u64,
}

impl<T: DeserializeOwned> Incoming<T> {
    pub(super) fn new<C: Codec>(method: &'static str, chunks: ChunkReceiver) -> (Self, StreamRefusal) {
        static CALLS: AtomicU64 = AtomicU64::new(1);
        let (call, (refusing, refused)) = (CALLS.fetch_add(1, Relaxed), oneshot::channel());
        let decode = |bytes: &[u8]| C::decode(bytes);
        let items = DetachedIncoming { chunks, method, taken: 0, decode, refusing: Some(refusing), is_cut: false };
        (Self { items, call }, StreamRefusal { refused, call })
    }
}

impl<T> Incoming<T> {
    /// The next item. `None` when the caller has ended the stream, so that all of it was there. When the caller cancels or
    /// goes away instead, the method is dropped where it waits.
    ///
    /// # Panics
    /// In a task or thread of its own, which is not dropped with the method and would wait for ever:
    /// [`detach`](Self::detach) is for those. `join!`, `select!` and the like inside of the method are no tasks.
    pub async fn next(&mut self) -> Option<T> {
        poll_fn(|context| self.poll_item(context)).await
    }

    /// The same for a task of its own, which may live longer than the call. It is told when the call ends before its stream
    /// does.
    ///
    /// ```
    /// use bellrope::service::{Incoming, StreamCut};
    ///
    /// #[bellrope::service]
    /// trait Sums {
    ///     async fn sum(&self, numbers: Incoming<u32>) -> Option<u32>;
    /// }
    ///
    /// struct Host;
    ///
    /// #[bellrope::service]
    /// impl Sums for Host {
    ///     async fn sum(&self, numbers: Incoming<u32>) -> Option<u32> {
    ///         let mut numbers = numbers.detach();
    ///         let task = tokio::spawn(async move {
    ///             let mut sum = 0;
    ///             while let Some(number) = numbers.next().await {
    ///                 sum += number?;
    ///             }
    ///             Ok::<_, StreamCut>(sum) // only when all of them were there
    ///         });
    ///         task.await.ok()?.ok()
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn detach(self) -> DetachedIncoming<T> {
        self.items
    }

    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        assert!(
            POLLED.get() == self.call,
            "{}: an `Incoming` is read in its own method, which is dropped when the call ends; a task of its own reads \
             `incoming.detach()`",
            self.items.method
        );
        // The method is about to be dropped. To let it go on would show it half a stream as a whole one.
        if self.items.is_cut {
            return Poll::Pending;
        }
        match ready!(self.items.poll_item(context)) {
            Some(Ok(item)) => Poll::Ready(Some(item)),
            Some(Err(StreamCut)) => Poll::Pending,
            None => Poll::Ready(None),
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
        self.items.debug(f, "Incoming")
    }
}

impl<T> DetachedIncoming<T> {
    /// The next item. `None` when the caller has ended the stream, so that all of it was there, and after an error.
    /// [Example](Incoming::detach).
    ///
    /// # Errors
    /// [`StreamCut`] when the call ended before that.
    pub async fn next(&mut self) -> Option<Result<T, StreamCut>> {
        poll_fn(|context| self.poll_item(context)).await
    }

    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<T, StreamCut>>> {
        if self.is_cut {
            return Poll::Ready(None);
        }
        let chunk = match ready!(self.chunks.poll_or_gone(context)) {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Poll::Ready(None),
            Err(_gone) => {
                self.is_cut = true;
                return Poll::Ready(Some(Err(StreamCut)));
            }
        };
        Poll::Ready(Some(match (self.decode)(&chunk) {
            Ok(item) => {
                self.taken += 1;
                Ok(item)
            }
            Err(error) => {
                self.is_cut = true;
                let what = format!("item {} of the stream", self.taken);
                // Whoever gets this drops the method; if it is gone already, so is its caller.
                let _ = self.refusing.take().map(|refusing| refusing.send(unreadable(self.method, what, &error)));
                Err(StreamCut)
            }
        }))
    }

    fn debug(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        f.debug_struct(name).field("method", &self.method).field("taken", &self.taken).finish_non_exhaustive()
    }
}

impl<T> Stream for DetachedIncoming<T> {
    type Item = Result<T, StreamCut>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_item(context)
    }
}

impl<T> fmt::Debug for DetachedIncoming<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.debug(f, "DetachedIncoming")
    }
}

thread_local! {
    /// The call whose method runs on this thread now.
    static POLLED: Cell<u64> = const { Cell::new(0) };
}

/// Until it is dropped, a method runs on this thread. Methods may poll one another.
struct Polling {
    before: u64,
}

impl Polling {
    fn of(call: u64) -> Self {
        Self { before: POLLED.replace(call) }
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        POLLED.set(self.before);
    }
}

impl StreamRefusal {
    /// Calls a method that answers with a stream, and may look at what has come already.
    pub fn begin<T>(&self, method: impl FnOnce() -> T) -> T {
        let _polling = Polling::of(self.call);
        method()
    }

    /// What the method does, or why it was not let go on.
    pub async fn or<T>(self, work: impl Future<Output = T>) -> Result<T, HandlerError> {
        let (mut work, mut refused) = (pin!(work), Some(self.refused));
        poll_fn(|context| {
            let done = {
                let _polling = Polling::of(self.call);
                work.as_mut().poll(context)
            };
            // First of all, what a task of the method's could not read: it may have ended the method by now.
            if let Some(receiver) = &mut refused {
                match pin!(receiver).poll(context) {
                    Poll::Ready(Ok(error)) => return Poll::Ready(Err(error)),
                    // The method has dropped its stream: nothing can be refused any more.
                    Poll::Ready(Err(_)) => refused = None,
                    Poll::Pending => {}
                }
            }
            done.map(Ok)
        })
        .await
    }
}
