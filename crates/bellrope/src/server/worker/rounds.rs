//! What a worker does in each round of what was put off: a few things of each kind, and it visits everybody in between. So an honest
//! call waits for a few of them, however many come at once. The worker does not sleep as long as there is anything.

use std::time::Duration;

use bellrope_proto::Violation;
use bellrope_shm::{socket::Drained, wait::PollEvent};

use super::{
    INBOX_KEY, MAX_RINGS, TURNS_PER_LOOK, WORKED, Worker,
    backlog::{Newcomer, key},
    closing::Closing,
};
use crate::server::accept::connection_limits::Giver;

/// Events that one round hears: each costs a system call or two.
pub(super) const EVENTS_A_ROUND: usize = 64;
/// Connections that one round takes over, or is asked to close for others.
const NEWCOMERS_A_ROUND: usize = 4;
/// Connections that one round closes: no fewer than it takes over, so that those that end do not pile up. The kernel takes
/// their memory apart, and that is most of what it costs.
const CLOSINGS_A_ROUND: usize = 4;

impl Worker {
    /// Does a few things of each kind that were put off. Answers whether there was any.
    #[inline]
    pub(super) fn catch_up(&mut self) -> bool {
        !self.backlog.is_empty() && self.catch_up_some()
    }

    #[inline(never)]
    fn catch_up_some(&mut self) -> bool {
        if self.backlog.events.is_empty() && self.backlog.more_events {
            self.look_for_events();
        }
        self.hear_some();
        self.welcome(NEWCOMERS_A_ROUND);
        self.close_some(CLOSINGS_A_ROUND);
        // That took a while, so others may have rung.
        self.worked += TURNS_PER_LOOK / WORKED;
        true
    }

    /// Takes over all newcomers, and closes all connections that end.
    pub(super) fn catch_up_all(&mut self) {
        self.welcome(usize::MAX);
        self.close_some(usize::MAX);
    }

    fn welcome(&mut self, most: usize) {
        for _ in 0..most {
            match self.backlog.newcomers.pop() {
                None => return,
                Some((_, Newcomer::Connection(connection))) => self.adopt(*connection),
                Some((_, Newcomer::Wants(way))) => self.give_way(&way),
            }
        }
    }

    fn close_some(&mut self, most: usize) {
        for _ in 0..most {
            let Some((index, why)) = self.backlog.ending.pop_front() else { return };
            self.close(index, &why);
        }
    }

    /// Closes, before its turn, a connection that ends and is one of those that are to give a place up. Answers whether there
    /// was one; `claim` says whether it may.
    pub(super) fn close_one_of(&mut self, giver: &Giver, claim: impl FnOnce() -> bool) -> bool {
        let (ending, sessions) = (&mut self.backlog.ending, &self.sessions);
        let gives = |(index, _): &(usize, Closing)| {
            sessions[*index].as_ref().is_some_and(|session| giver.may_be(session.peer, session.slot.priority))
        };
        let Some(place) = ending.iter().position(gives) else { return false };
        if claim() {
            if let Some((index, why)) = ending.remove(place) {
                self.close(index, &why);
            }
        }
        true
    }

    /// Does what doorbells, hang-ups and the inbox ask for that were not heard yet, as far as it is due in one round.
    pub(super) fn look_after_sleepers(&mut self) {
        // As long as there are events that were not heard, those that come stay with the kernel.
        if self.backlog.events.is_empty() {
            self.look_for_events();
        }
        self.hear_some();
    }

    fn look_for_events(&mut self) {
        match self.poller.wait(Some(Duration::ZERO)) {
            Ok(events) => self.backlog.note(events),
            Err(error) => tracing::error!(%error, "looking for doorbells failed"),
        }
        self.put_events_in_turns();
    }

    /// Hears as many events as are due in one round.
    pub(super) fn hear_some(&mut self) {
        for _ in 0..EVENTS_A_ROUND {
            let Some(event) = self.backlog.events.pop_front() else { return };
            self.hear(event);
        }
    }

    /// Somebody rang or hung up, or has left something in the inbox.
    pub(super) fn hear(&mut self, PollEvent { key: of, hung_up }: PollEvent) {
        if of == INBOX_KEY {
            return self.inbox.notifier().clear();
        }
        let index = of as u32 as usize;
        let Some(session) = self.sessions.get_mut(index).and_then(Option::as_mut) else { return };
        if session.ending || key(index, session.serial) != of {
            return;
        }
        if session.carrier.is_some() {
            return self.hear_stream(index, hung_up);
        }
        match session.socket.drain(MAX_RINGS as usize + 1) {
            Ok(Drained::Rings(rings)) => {
                session.rings += rings as u32;
                if session.rings > MAX_RINGS {
                    let flood = Violation::DoorbellFlood(session.rings as usize);
                    self.end(index, flood.into());
                } else if !session.hot {
                    session.resident = true;
                    // What the ring asked for may be room, which shows in no record.
                    session.connection.disarm();
                    self.heat(index);
                }
            }
            Ok(Drained::HungUp) => self.end(index, Closing::HungUp),
            Err(error) => self.end(index, Closing::Io(error)),
        }
    }

    /// Ends a connection: from now on it is neither visited nor heard, and it is closed when its turn has come.
    pub(super) fn end(&mut self, index: usize, why: Closing) {
        let Some(session) = self.sessions.get_mut(index).and_then(Option::as_mut).filter(|session| !session.ending)
        else {
            return;
        };
        session.ending = true;
        // It may ring on without end. One over the socket is reported once for each thing, and its watch is still changed.
        if session.carrier.is_none() {
            let _ = self.poller.remove(&session.socket);
        }
        self.leave_alone(index);
        self.backlog.ending.push_back((index, why));
    }

    /// Takes a connection off every list.
    pub(super) fn leave_alone(&mut self, index: usize) {
        for list in [&mut self.hot, &mut self.priority, &mut self.armed_priority, &mut self.starved] {
            list.retain(|listed| *listed != index);
        }
        #[cfg(feature = "tokio")]
        self.told.retain(|listed| *listed != index);
    }
}

#[cfg(test)]
mod tests;
