//! Streams written as async blocks.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use futures_core::Stream;

const MISUSED: &str = "a `Sender` sends in its own block, which is dropped with the stream; a task or thread of its own sends \
     through `sender.detach()`";

/// A stream of what an async block sends. The block goes on when an item was taken, and no earlier, so it works at the pace of
/// the reader; it is dropped with the stream. What another task or thread sends goes through [`Sender::detach`].
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
///
/// # Panics
/// The stream, when it is read and another task or thread has used a sender that is not detached.
pub fn produce<T, F>(work: impl FnOnce(Sender<T>) -> F) -> impl Stream<Item = T>
where
    F: Future<Output = ()>,
{
    let slot = Arc::new(Mutex::new(Slot::new()));
    let reader = Reader(Arc::clone(&slot));
    let mut work = Some(Box::pin(work(Sender(DetachedSender { slot }))));
    poll_items(move |context| {
        let mut slot = reader.lock();
        // What is sent while the block is polled here is seen below.
        let before = slot.reader.take();
        slot.polled_by = this_thread();
        drop(slot);
        drop(before);
        if work.as_mut().is_some_and(|work| work.as_mut().poll(context).is_ready()) {
            work = None;
        }
        let mut slot = reader.lock();
        slot.polled_by = 0;
        let Some(item) = slot.item.take() else {
            if slot.is_misused {
                drop(slot);
                panic!("{MISUSED}");
            }
            if work.is_none() && slot.is_ended {
                return Poll::Ready(None);
            }
            slot.reader = Some(context.waker().clone());
            return Poll::Pending;
        };
        // This task polls the block again with the next item that is wanted; others are told, in this task too.
        let waiting = std::mem::take(&mut slot.waiting);
        drop(slot);
        let is_told = |waiting: &Waiting| !(waiting.is_inside && waiting.waker.will_wake(context.waker()));
        waiting.into_iter().filter(is_told).for_each(|waiting| waiting.waker.wake());
        Poll::Ready(Some(item))
    })
}

/// An item on its way from a sender to the stream.
struct Slot<T> {
    item: Option<T>,
    /// Those who wait until it was taken.
    waiting: Vec<Waiting>,
    /// Who reads the stream, while that waits for an item.
    reader: Option<Waker>,
    /// The thread that polls the block, while it does.
    polled_by: usize,
    /// Whether the sender was dropped.
    is_ended: bool,
    /// Whether the stream was dropped.
    is_left: bool,
    /// Whether a sender that belongs to the block was used elsewhere.
    is_misused: bool,
}

/// Who waits until an item was taken.
struct Waiting {
    waker: Waker,
    /// Whether it waits in the block, which is polled with the next item that is wanted.
    is_inside: bool,
}

impl<T> Slot<T> {
    fn new() -> Self {
        let (item, waiting, reader) = (None, Vec::new(), None);
        Self { item, waiting, reader, polled_by: 0, is_ended: false, is_left: false, is_misused: false }
    }
}

/// A number that no two threads have that run. Never 0.
fn this_thread() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

/// The stream's side. Whoever waits to send is told when it is dropped.
struct Reader<T>(Arc<Mutex<Slot<T>>>);

impl<T> Reader<T> {
    fn lock(&self) -> MutexGuard<'_, Slot<T>> {
        lock(&self.0)
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        let mut slot = self.lock();
        slot.is_left = true;
        let (item, waiting, reader) = (slot.item.take(), std::mem::take(&mut slot.waiting), slot.reader.take());
        drop(slot);
        drop(reader);
        // An item is the author's: what it does at its end may take this lock.
        drop(item);
        waiting.into_iter().for_each(|waiting| waiting.waker.wake());
    }
}

fn lock<T>(slot: &Mutex<Slot<T>>) -> MutexGuard<'_, Slot<T>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a block that [produces](produce) a stream sends its items.
pub struct Sender<T>(DetachedSender<T>);

/// Where a task or thread that may outlive its block sends items of a stream: [`Sender::detach`]. The stream ends when the block
/// has ended and this is dropped.
pub struct DetachedSender<T> {
    slot: Arc<Mutex<Slot<T>>>,
}

/// Nobody reads the stream any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody reads the stream any more")]
#[non_exhaustive]
pub struct StreamLeft;

impl<T> Sender<T> {
    /// Sends an item; returns when it was taken and the next one is wanted. [Example](produce).
    ///
    /// # Panics
    /// In a task or thread of its own, which is not dropped with the stream and would wait for ever:
    /// [`detach`](Self::detach) is for those. `join!`, `select!` and the like inside the block are no tasks.
    pub async fn send(&self, item: T) {
        let mut item = Some(item);
        let sent = poll_fn(|context| {
            let mut slot = lock(&self.0.slot);
            if slot.polled_by != this_thread() {
                slot.is_misused = true;
                let reader = slot.reader.take();
                drop(slot);
                reader.into_iter().for_each(Waker::wake);
                panic!("{MISUSED}");
            }
            DetachedSender::poll_send(slot, &mut item, context)
        });
        // Where the stream is left, nobody polls this.
        let _ = sent.await;
    }

    /// The same for a task or thread of its own, which is told when the stream is left.
    ///
    /// ```
    /// use bellrope::service::{Stream, produce};
    ///
    /// fn numbers() -> impl Stream<Item = u64> {
    ///     produce(async move |sender| {
    ///         let sender = sender.detach();
    ///         tokio::spawn(async move {
    ///             let mut number = 0;
    ///             while sender.send(number).await.is_ok() {
    ///                 number += 1;
    ///             }
    ///         });
    ///     })
    /// }
    /// ```
    #[must_use]
    pub fn detach(self) -> DetachedSender<T> {
        self.0
    }
}

impl<T> DetachedSender<T> {
    /// Sends an item; returns when it was taken and the next one is wanted. [Example](Sender::detach).
    ///
    /// # Errors
    /// [`StreamLeft`] when nobody reads the stream any more.
    pub async fn send(&self, item: T) -> Result<(), StreamLeft> {
        let mut item = Some(item);
        poll_fn(|context| Self::poll_send(lock(&self.slot), &mut item, context)).await
    }

    fn poll_send(
        mut slot: MutexGuard<'_, Slot<T>>,
        item: &mut Option<T>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), StreamLeft>> {
        if slot.is_left {
            return Poll::Ready(Err(StreamLeft));
        }
        let mut reader = None;
        if slot.item.is_none() {
            if item.is_none() {
                return Poll::Ready(Ok(()));
            }
            slot.item = item.take();
            reader = slot.reader.take();
        }
        let is_inside = slot.polled_by == this_thread();
        let is_known = |waiting: &Waiting| waiting.is_inside == is_inside && waiting.waker.will_wake(context.waker());
        if !slot.waiting.iter().any(is_known) {
            slot.waiting.push(Waiting { waker: context.waker().clone(), is_inside });
        }
        drop(slot);
        reader.into_iter().for_each(Waker::wake);
        Poll::Pending
    }
}

impl<T> Drop for DetachedSender<T> {
    fn drop(&mut self) {
        let mut slot = lock(&self.slot);
        slot.is_ended = true;
        let reader = slot.reader.take();
        drop(slot);
        reader.into_iter().for_each(Waker::wake);
    }
}

impl<T> fmt::Debug for DetachedSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DetachedSender").finish_non_exhaustive()
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
