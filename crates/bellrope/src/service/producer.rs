//! Streams written as async blocks.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use futures_core::Stream;

/// A stream of what an async block sends. The block goes on when an item was taken, and no earlier, so it works at the pace of
/// the reader; it is dropped with the stream.
///
/// ```
/// use bellrope::service::{Stream, produce};
///
/// fn count(to: u32) -> impl Stream<Item = u32> {
///     produce(async move |sender| {
///         for number in 1..=to {
///             sender.send(number).await;
///         }
///     })
/// }
/// ```
pub fn produce<T, F>(work: impl FnOnce(Sender<T>) -> F) -> impl Stream<Item = T>
where
    F: Future<Output = ()>,
{
    let slot = Arc::new(Mutex::new(Slot { item: None, waiting: Vec::new() }));
    let mut work = Some(Box::pin(work(Sender { slot: Arc::clone(&slot) })));
    poll_items(move |context| {
        let done = match &mut work {
            None => return Poll::Ready(None),
            Some(work) => work.as_mut().poll(context).is_ready(),
        };
        if done {
            work = None;
        }
        let mut slot = lock(&slot);
        let Some(item) = slot.item.take() else { return if done { Poll::Ready(None) } else { Poll::Pending } };
        // This task polls the block again with the next item that is wanted; others are told.
        let others = std::mem::take(&mut slot.waiting).into_iter().filter(|waker| !waker.will_wake(context.waker()));
        others.for_each(Waker::wake);
        Poll::Ready(Some(item))
    })
}

/// An item on its way from a block to the stream that polls it.
struct Slot<T> {
    item: Option<T>,
    /// Those who wait until it was taken.
    waiting: Vec<Waker>,
}

fn lock<T>(slot: &Mutex<Slot<T>>) -> MutexGuard<'_, Slot<T>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a block that [produces](produce) a stream sends its items.
pub struct Sender<T> {
    slot: Arc<Mutex<Slot<T>>>,
}

impl<T> Sender<T> {
    /// Sends an item; returns when it was taken and the next one is wanted.
    pub async fn send(&self, item: T) {
        let mut item = Some(item);
        poll_fn(|context| {
            let mut slot = lock(&self.slot);
            if slot.item.is_none() {
                if item.is_none() {
                    return Poll::Ready(());
                }
                slot.item = item.take();
            }
            if !slot.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                slot.waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

/// A stream of what a function finds when it is polled.
pub(super) fn poll_items<T>(poll: impl FnMut(&mut Context<'_>) -> Poll<Option<T>>) -> impl Stream<Item = T> {
    Polled(poll)
}

struct Polled<F>(F);

// Nothing of it is ever pinned.
impl<F> Unpin for Polled<F> {}

impl<T, F: FnMut(&mut Context<'_>) -> Poll<Option<T>>> Stream for Polled<F> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        (self.0)(context)
    }
}
