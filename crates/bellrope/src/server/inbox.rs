#[cfg(feature = "tokio")]
use std::sync::OnceLock;
use std::{io, sync::Arc};

use bellrope_shm::wait::Notifier;

use crate::sync::{AtomicBool, Mutex, Ordering, PoisonError};

/// What other threads have for a worker: messages of any kind. The inbox knows nothing of them.
///
/// Bounded by what bounds its senders: connections by their limit, answers by the calls in flight, chunks by the
/// permits of their streams.
pub(crate) struct Inbox<M> {
    /// `None` once the worker has ended.
    messages: Mutex<Option<Vec<M>>>,
    /// Set while there may be something in `messages`, so that a busy worker need not take the lock to know.
    filled: AtomicBool,
    /// Set by the worker before it sleeps; whoever clears it must wake it.
    asleep: AtomicBool,
    wake: Notifier,
    #[cfg(feature = "tokio")]
    stand_in: OnceLock<StandIn>,
}

/// Does what is in the inbox in place of the worker that sleeps. Answers `false` if the worker has to be woken.
#[cfg(feature = "tokio")]
type StandIn = Box<dyn Fn() -> bool + Send + Sync>;

/// Wakes the worker when it is dropped: also if what stands in panics, so that the worker learns of that at once.
struct WakeOnDrop<'inbox, M>(&'inbox Inbox<M>);

impl<M> Drop for WakeOnDrop<'_, M> {
    fn drop(&mut self) {
        self.0.wake();
    }
}

impl<M> std::fmt::Debug for Inbox<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").field("wake", &self.wake).finish_non_exhaustive()
    }
}

impl<M> Inbox<M> {
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            messages: Mutex::new(Some(Vec::new())),
            filled: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            wake: Notifier::new()?,
            #[cfg(feature = "tokio")]
            stand_in: OnceLock::new(),
        }))
    }

    /// Says what stands in for the worker while it sleeps, where there is something. To be said once.
    #[cfg(feature = "tokio")]
    pub(crate) fn stand_in_with(&self, stand_in: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.stand_in.set(Box::new(stand_in));
    }

    /// Answers whether the worker will take it. One that has ended takes nothing, and the message is dropped.
    pub(crate) fn send(&self, message: M) -> bool {
        self.leave(message, || false)
    }

    /// As [`Self::send`], by a thread that may as well do what it asks for itself: so a worker that sleeps sleeps on.
    #[cfg(feature = "tokio")]
    pub(crate) fn send_or_stand_in(&self, message: M) -> bool {
        self.leave(message, || self.stand_in.get().is_some_and(|stand_in| stand_in()))
    }

    /// Puts a message in, and wakes the worker if it sleeps and `done` answers that nobody did its work.
    fn leave(&self, message: M, done: impl FnOnce() -> bool) -> bool {
        match &mut *self.messages.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(messages) => messages.push(message),
            None => return false,
        }
        // Pairs with `prepare_sleep`: either we see that the worker sleeps, or it sees that the inbox is filled.
        self.filled.store(true, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) {
            let waking = WakeOnDrop(self);
            if done() {
                std::mem::forget(waking);
            }
        }
        true
    }

    /// Wakes the worker, or keeps it from falling asleep.
    pub(crate) fn wake(&self) {
        self.asleep.store(false, Ordering::SeqCst);
        self.wake.wake();
    }

    /// Takes everything, if there is anything.
    #[inline]
    pub(crate) fn take(&self) -> Vec<M> {
        if !self.filled.load(Ordering::Relaxed) {
            return Vec::new();
        }
        self.filled.store(false, Ordering::SeqCst);
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Takes everything that is there; nothing comes in any more.
    pub(crate) fn close(&self) -> Vec<M> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
    }

    /// Announces that the worker is about to sleep. Answers `false` if there is something to do first.
    pub(crate) fn prepare_sleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        !self.filled.load(Ordering::SeqCst)
    }

    pub(crate) fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// To be watched while asleep.
    pub(crate) fn notifier(&self) -> &Notifier {
        &self.wake
    }
}
