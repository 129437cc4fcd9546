use std::{io, sync::Arc};

use bellrope_shm::wait::WakeFd;

use super::link::Link;
use crate::sync::{AtomicBool, Mutex, Ordering, PoisonError};

/// What other threads have for a worker.
///
/// Bounded by what bounds its senders: connections by their limit, answers by the calls in flight, chunks by the
/// permits of their streams.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// `None` once the worker has ended.
    messages: Mutex<Option<Vec<Message>>>,
    /// Set while there may be something in `messages`, so that a busy worker need not take the lock to know.
    filled: AtomicBool,
    /// Set by the worker before it sleeps; whoever clears it must wake it.
    asleep: AtomicBool,
    wake: WakeFd,
}

/// One thing for a worker to do.
#[derive(Debug)]
pub(crate) enum Message {
    /// A new connection.
    Connected(Box<Link>),
    /// Something from an async handler.
    #[cfg(feature = "tokio")]
    FromHandler { link: LinkId, call: u64, what: super::dispatch::FromHandler },
}

/// Names a connection of a worker. The serial number keeps a late message from reaching another connection.
#[cfg(feature = "tokio")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkId {
    pub(crate) index: usize,
    pub(crate) serial: u64,
}

impl Inbox {
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            messages: Mutex::new(Some(Vec::new())),
            filled: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            wake: WakeFd::new()?,
        }))
    }

    /// Answers whether the worker will take it. One that has ended takes nothing, and the message is dropped.
    pub(crate) fn send(&self, message: Message) -> bool {
        match &mut *self.messages.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(messages) => messages.push(message),
            None => return false,
        }
        // Pairs with `prepare_sleep`: either we see that the worker sleeps, or it sees that the inbox is filled.
        self.filled.store(true, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) {
            self.wake();
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
    pub(crate) fn take(&self) -> Vec<Message> {
        if !self.filled.load(Ordering::Relaxed) {
            return Vec::new();
        }
        self.filled.store(false, Ordering::SeqCst);
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Takes everything that is there; nothing comes in any more.
    pub(crate) fn close(&self) -> Vec<Message> {
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
    pub(crate) fn wake_fd(&self) -> &WakeFd {
        &self.wake
    }
}
