//! How a worker sleeps, what wakes it, and what others do for it meanwhile.
//!
//! A chunk of a stream comes from a thread of the async runtime, which something has woken already. If the worker sleeps, that
//! thread does what the chunk takes itself: puts it into the ring and rings for its client. So a chunk wakes one thread of the
//! server and not two. A handler's code never runs so: whoever stands in delivers what handlers say, and visits nobody.

#[cfg(feature = "tokio")]
use std::sync::{
    Arc,
    atomic::Ordering::{Acquire, Relaxed},
};
use std::time::Duration;

use bellrope_shm::wait::Poller;

use super::Worker;
#[cfg(feature = "tokio")]
use crate::server::message::WorkerMessage;
use crate::server::{core::SWEEP, parked::Parked};

impl Worker {
    /// Sleeps until a doorbell rings, somebody hangs up, or the inbox has something for this thread; at most for as long as
    /// there is nothing to look after. `poller` is another of the worker's.
    pub(super) fn sleep(self: Box<Self>, parked: &Parked<Self>, poller: &mut Poller) -> Box<Self> {
        let longest = self.longest_sleep();
        parked.park(self);
        let seen = poller.wait(Some(longest));
        let mut worker = parked.take();
        worker.inbox.awake();
        match seen {
            Ok(events) => worker.backlog.note(events),
            Err(error) => tracing::error!(%error, "waiting for doorbells failed"),
        }
        worker.put_events_in_turns();
        worker.hear_some();
        worker
    }

    /// After a sleep of this length.
    pub(super) fn slept(&mut self, length: Duration) {
        self.spinner.slept(length);
        #[cfg(feature = "tokio")]
        let was_idle = !std::mem::take(&mut self.stood_in);
        #[cfg(not(feature = "tokio"))]
        let was_idle = true;
        if was_idle && length >= SWEEP {
            self.give_back();
        }
    }
}

#[cfg(feature = "tokio")]
impl Worker {
    /// From now on, whoever speaks for a handler while this worker is parked there does what that asks for.
    pub(super) fn lets_others_stand_in(&self, parked: &Arc<Parked<Self>>) {
        let parked = Arc::clone(parked);
        // The worker has taken itself out of there when it ends, so this keeps nothing of it.
        self.inbox.stand_in_with(move || parked.stand_in(Self::stand_in).unwrap_or(false));
    }

    /// On a thread of the runtime, while our own sleeps: does what handlers have said to one connection. Answers `false` if our
    /// own thread is needed.
    pub(super) fn stand_in(&mut self) -> bool {
        // Who ends looks whether that was the last thing to be done.
        if self.core.stopping.load(Acquire) || self.core.draining.load(Relaxed) {
            return false;
        }
        for message in self.inbox.take() {
            match message {
                WorkerMessage::FromHandler { session, call, what } => self.told(session, call, what),
                other => self.left.push(other),
            }
        }
        if let Some(index) = self.told.pop_front() {
            self.stood_in = true;
            match self.deliver(index) {
                Ok(false) => {}
                Ok(true) => self.told.push_back(index),
                Err(violation) => self.end(index, violation.into()),
            }
            if let Some(session) = &mut self.sessions[index] {
                session.resident = true;
            }
        }
        // What found no room, or is of several connections, is for whoever has all the turns; and who waits for the budget may
        // find some now.
        let lists = [&self.hot, &self.priority, &self.starved];
        let is_all = self.left.is_empty() && self.backlog.is_empty() && self.told.is_empty();
        is_all && lists.iter().all(|list| list.is_empty())
    }

    /// Does what came while somebody stood in for us.
    pub(super) fn heed_what_was_left(&mut self) {
        if !self.left.is_empty() {
            let left = std::mem::take(&mut self.left);
            self.heed(left);
        }
    }
}
