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

use bellrope_proto::Violation;
use bellrope_shm::{
    socket::Drained,
    wait::{Event, Poller},
};

use super::{INBOX_KEY, MAX_RINGS, Worker, closing::Closing};
#[cfg(feature = "tokio")]
use crate::server::message::Message;
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
            Ok(events) => events.iter().for_each(|event| worker.hear(*event)),
            Err(error) => tracing::error!(%error, "waiting for doorbells failed"),
        }
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

    /// Does what doorbells, hang-ups and the inbox ask for that were not heard yet.
    pub(super) fn look_after_sleepers(&mut self) {
        let mut rung = std::mem::take(&mut self.rung);
        match self.poller.wait(Some(Duration::ZERO)) {
            Ok(events) => rung.extend_from_slice(events),
            Err(error) => tracing::error!(%error, "looking for doorbells failed"),
        }
        rung.drain(..).for_each(|event| self.hear(event));
        self.rung = rung;
    }

    /// Somebody rang or hung up, or has left something in the inbox.
    fn hear(&mut self, Event { key, hung_up }: Event) {
        if key == INBOX_KEY {
            return self.inbox.notifier().clear();
        }
        let index = key as usize;
        // One that is gone by now: its place goes to others after all that was seen has been heard.
        let Some(session) = self.sessions.get_mut(index).and_then(Option::as_mut) else { return };
        if session.carrier.is_some() {
            return self.hear_stream(index, hung_up);
        }
        match session.socket.drain(MAX_RINGS as usize + 1) {
            Ok(Drained::Rings(rings)) => {
                session.rings += rings as u32;
                if session.rings > MAX_RINGS {
                    let flood = Violation::DoorbellFlood(session.rings as usize);
                    self.close(index, &flood.into());
                } else if !session.hot {
                    session.resident = true;
                    // What the ring asked for may be room, which shows in no record.
                    session.connection.disarm();
                    self.heat(index);
                }
            }
            Ok(Drained::HungUp) => self.close(index, &Closing::HungUp),
            Err(error) => self.close(index, &Closing::Io(error)),
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
                Message::FromHandler { session, call, what } => self.told(session, call, what),
                other => self.left.push(other),
            }
        }
        if let Some(index) = self.told.pop() {
            self.stood_in = true;
            match self.deliver(index) {
                Ok(false) => {}
                Ok(true) => self.told.push(index),
                Err(violation) => self.close(index, &violation.into()),
            }
            if let Some(session) = &mut self.sessions[index] {
                session.resident = true;
            }
        }
        // What found no room, or is of several connections, is for whoever has all the turns; and who waits for the budget may
        // find some now.
        let lists = [&self.told, &self.hot, &self.priority, &self.starved];
        self.left.is_empty() && lists.iter().all(|list| list.is_empty())
    }

    /// Does what came while somebody stood in for us.
    pub(super) fn heed_what_was_left(&mut self) {
        if !self.left.is_empty() {
            let left = std::mem::take(&mut self.left);
            self.heed(left);
        }
    }
}
