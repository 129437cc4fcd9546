//! What a worker looks after now and then, by the clock: clients that leave something half done, room that others wait
//! for, memory that nobody uses.

use std::{
    cmp::Reverse,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::{Worker, backlog::looked_after, closing::Closing, patience::longest_sleep};
use crate::server::accept::newcomers::GiveWay;

impl Worker {
    /// How long there is nothing to look after, unless somebody rings.
    pub(super) fn longest_sleep(&self) -> Duration {
        let reclaims = self.visitor.large.has_unfinished() || self.core.budget.is_wanted();
        longest_sleep(!self.starved.is_empty(), reclaims, self.core.live.budget_grace())
    }

    /// Now and then, while large requests are on their way or others wait for room: takes room away from clients that
    /// keep us waiting.
    pub(super) fn reclaim(&mut self, now: Instant) {
        let wanted = self.core.budget.is_wanted();
        if !wanted && !self.visitor.large.has_unfinished() {
            return;
        }
        let grace = self.core.live.budget_grace();
        let Some(waited) = self.patience.is_time_to_reclaim(now, grace) else { return };
        self.reclaim_unfinished(waited);
        if wanted {
            self.put_out_heaviest(now, waited, grace);
        }
    }

    /// Takes the room of large requests that come too slowly away, if others wait for it.
    fn reclaim_unfinished(&mut self, waited: Duration) {
        if !self.visitor.large.has_unfinished() {
            return;
        }
        let mut any = false;
        for index in 0..self.sessions.len() {
            let Some(session) = looked_after(&mut self.sessions[index]) else { continue };
            match self.visitor.large.reclaim(session, waited) {
                Ok(unfinished) => {
                    any |= unfinished;
                    self.look_after_stream(index);
                }
                Err(violation) => self.end(index, violation.into()),
            }
        }
        self.visitor.large.note_unfinished(any);
    }

    /// While others wait for the buffer budget: closes connections that hold more than their share of it and do not read or
    /// send what we wait for. Of all workers' the one that holds most goes first, and no more than have to.
    fn put_out_heaviest(&mut self, now: Instant, waited: Duration, grace: Duration) {
        let core = Arc::clone(&self.core);
        let mut found = Vec::new();
        for index in 0..self.sessions.len() {
            let Some(session) = looked_after(&mut self.sessions[index]) else { continue };
            match session.lets_others_wait(now, waited, grace) {
                Ok(false) => {}
                Ok(true) => {
                    let holder = session.budget_claim.holder();
                    found.extend(holder.exceeds_share().map(|share| (holder.held(), share, index)));
                }
                Err(violation) => self.end(index, violation.into()),
            }
        }
        found.sort_unstable_by(|one, other| other.cmp(one));
        let own = &core.heaviest[self.visitor.worker()];
        for (held, share, index) in found {
            own.store(held, Relaxed);
            if core.budget.lacking() == 0 || core.heaviest.iter().any(|other| other.load(Relaxed) > held) {
                return;
            }
            // At once: what it held shows how much is still lacking.
            self.close(index, &Closing::LetOthersWait { held, share });
        }
        own.store(0, Relaxed);
    }

    /// Every second: closes the connections of clients that have left something half done for too long.
    pub(super) fn sweep(&mut self, now: Instant) {
        if !self.patience.is_time_to_sweep(now) {
            return;
        }
        if self.types_untold {
            self.tell_types();
        }
        let patience = self.core.live.stall_timeout();
        let mut unread = 0;
        for index in 0..self.sessions.len() {
            let Some(session) = looked_after(&mut self.sessions[index]) else { continue };
            session.note_quiet();
            match session.is_stuck(now, patience) {
                Ok(true) => self.end(index, Closing::Stalled),
                Ok(false) => {
                    unread += u64::from(session.is_unread());
                    #[cfg(feature = "tokio")]
                    self.end_unread(index, patience);
                }
                Err(violation) => self.end(index, violation.into()),
            }
        }
        self.visitor.note_unread(unread);
    }

    /// Closes one connection of a process that is to give a place up: one that ends anyway, else an idle one, that which has been idle for longest. If
    /// it may be a busy one, that with the fewest calls.
    pub(super) fn give_way(&mut self, way: &GiveWay) {
        if self.close_one_of(&way.giver, || way.claim()) {
            return self.gave_way(way);
        }
        let asked =
            self.sessions.iter_mut().enumerate().filter_map(|(index, session)| Some((index, looked_after(session)?)));
        let asked = asked.filter(|(_, session)| way.giver.may_be(session.peer, session.slot.priority));
        let found = asked.map(|(index, session)| (session.load(), Reverse(session.quiet_for()), session.serial, index));
        let goes = found.filter(|(load, ..)| *load == 0 || way.busy_too).min();
        if let Some((.., index)) = goes.filter(|_| way.claim()) {
            // At once: the newcomer waits for its place.
            self.close(index, &Closing::GivesWay(way.giver));
        }
        self.gave_way(way);
    }

    /// Has the acceptor look for a place, if we are the last that was asked for one.
    fn gave_way(&self, way: &GiveWay) {
        if way.answered() {
            self.core.metrics.liveness().wake(self.core.fixed.workers);
        }
    }

    /// Ends streams that nobody has read for too long, on a connection that may be read otherwise.
    #[cfg(feature = "tokio")]
    fn end_unread(&mut self, index: usize, patience: Duration) {
        let Some(session) = &mut self.sessions[index] else { return };
        match self.visitor.asynchronous.end_unread(session, patience) {
            Ok(false) => {}
            Ok(true) => {
                session.commit();
                if session.wants_care() {
                    self.heat(index);
                }
            }
            Err(violation) => self.end(index, violation.into()),
        }
    }

    /// After an idle second: lets go of the memory of every connection that is left to its doorbell, so that resident
    /// memory follows the active connections.
    pub(super) fn give_back(&mut self) {
        self.core.buffers.clear();
        for session in self.sessions.iter_mut().flatten() {
            if !session.hot && session.resident {
                session.connection.give_back();
                session.resident = false;
            }
        }
    }
}
