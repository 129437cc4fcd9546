#[cfg(feature = "tokio")]
use std::sync::TryLockError;

use crate::sync::{Mutex, PoisonError};

/// Where a worker leaves itself while it sleeps, so that a thread that has something for it can do that at once, instead of
/// waking it. It knows nothing of workers.
///
/// A worker has one owner at any time: its own thread, or whoever holds the lock of the place in which it is parked. So its
/// own thread takes no lock but around its sleep, and nobody else ever waits for the lock.
#[derive(Debug)]
pub(crate) struct Parked<W>(Mutex<Option<Box<W>>>);

impl<W> Parked<W> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Leaves the worker here.
    pub(crate) fn park(&self, worker: Box<W>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(worker);
    }

    /// Takes it back, when nobody stands in for it any more.
    ///
    /// # Panics
    /// If it is not here, or if what stood in for it panicked: then nobody knows what was left half done, as after a panic of
    /// the worker's own, and the worker is dropped.
    pub(crate) fn take(&self) -> Box<W> {
        let (worker, is_whole) = match self.0.lock() {
            Ok(mut place) => (place.take(), true),
            Err(poisoned) => (poisoned.into_inner().take(), false),
        };
        assert!(is_whole, "what stood in for this worker panicked");
        worker.expect("a worker that was parked")
    }

    /// Has something done with the worker, if it is here and nobody else is at it. Never waits.
    #[cfg(feature = "tokio")]
    pub(crate) fn stand_in<R>(&self, act: impl FnOnce(&mut W) -> R) -> Option<R> {
        match self.0.try_lock() {
            Ok(mut place) => place.as_deref_mut().map(act),
            // Its own thread is to find that.
            Err(TryLockError::Poisoned(_) | TryLockError::WouldBlock) => None,
        }
    }
}
