//! How a worker does what async handlers ask for: connections have their turns at this as at their requests, so that a
//! thousand answers to one do not stand before the first to another.

use bellrope_proto::Violation;
use bellrope_shm::clock;

use super::{Worker, backlog::looked_after};
use crate::{
    kill_points::KillPoint,
    server::message::{FromHandler, SessionId},
};

/// What is done for one connection before the next has its turn.
const BATCH_MESSAGES: usize = 64;
const BATCH_BYTES: usize = 16 * 1024;

impl Worker {
    /// A handler has said something, which is done when its connection has its turn.
    pub(super) fn told(&mut self, id: SessionId, call: u64, what: FromHandler) {
        let Some(session) = self.sessions.get_mut(id.index).and_then(looked_after) else { return };
        if session.serial != id.serial {
            return;
        }
        if matches!(what, FromHandler::Chunk(_) | FromHandler::Chunks(_)) {
            self.spinner.told_chunks();
        }
        if session.said.is_empty() {
            self.told.push_back(id.index);
        }
        session.said.push(call, what);
    }

    /// Gives every connection whose handlers have said something its turn, or as many as there is time for. Answers whether
    /// there was one.
    #[inline]
    pub(super) fn deliver_in_turns(&mut self) -> bool {
        if self.told.is_empty() {
            return false;
        }
        if self.cut_short.deliveries {
            self.put_deliveries_in_turns();
        }
        let began = clock::ticks();
        for _ in 0..self.told.len() {
            // Nobody takes the place of one that is done but who stands behind it.
            let Some(index) = self.told.pop_front() else { break };
            match self.deliver(index) {
                Ok(true) => self.told.push_back(index),
                Ok(false) => {}
                Err(violation) => self.end(index, violation.into()),
            }
            self.visit_priority();
            if self.visitor.is_long_since(began) {
                self.cut_short.deliveries = true;
                break;
            }
        }
        true
    }

    /// One connection's turn. Answers whether more is left.
    pub(super) fn deliver(&mut self, index: usize) -> Result<bool, Violation> {
        let Some(session) = &mut self.sessions[index] else { return Ok(false) };
        let (mut messages, mut bytes) = (0, 0);
        while messages < BATCH_MESSAGES && bytes < BATCH_BYTES {
            let Some((call, what)) = session.said.pop() else { break };
            KillPoint::Delivered.reached();
            let before = messages;
            messages += what.count();
            bytes += what.len();
            self.visitor.asynchronous.deliver(session, call, what)?;
            // The first goes out at once; the others go in growing batches.
            if [1, 4, 16].iter().any(|few| (before + 1..=messages).contains(few)) {
                session.commit();
            }
        }
        session.commit();
        let more = !session.said.is_empty();
        // What found no room waits for it on the hot list, where it is armed before we sleep.
        if session.wants_care() {
            self.heat(index);
        }
        Ok(more)
    }
}

#[cfg(test)]
mod tests;
