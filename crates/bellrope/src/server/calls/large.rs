//! Large requests: how they come in and lose their room again.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bellrope_proto::{
    Violation,
    connection::{Announced, Failure},
};

use super::{
    budget_claim::Reserve,
    failures::{draining, no_memory},
    heap, outcome,
};
use crate::{
    server::{core::Core, worker::session::Session},
    status::Shard,
};

/// The large requests of one worker's connections.
pub(crate) struct LargeRequests {
    core: Arc<Core>,
    counters: Arc<Shard>,
    /// Whether one may be on its way on some connection.
    unfinished: bool,
}

impl LargeRequests {
    pub(crate) fn new(core: &Arc<Core>, worker: usize) -> Self {
        Self { core: Arc::clone(core), counters: Arc::clone(core.metrics.shard(worker)), unfinished: false }
    }

    /// Lets a large request in if the budget has room for all of it. Answers `false` if it has to wait.
    pub(crate) fn let_in(&mut self, session: &mut Session, announced: &Announced) -> Result<bool, Violation> {
        let core = &*self.core;
        let limit = u64::from(core.fixed.terms.max_message);
        let refusal = if announced.size > limit {
            Some(Failure::too_large("request", announced.size, limit))
        } else if core.draining.load(Ordering::Relaxed) {
            Some(draining())
        } else {
            session.budget_claim.announced();
            // Its type is known when all of it is there.
            let room = core.room_for(announced.size, core.registry.largest_weight());
            match session.budget_claim.reserve(room, core.live.budget_wait()) {
                Reserve::Granted(reservation) => {
                    heap::granted(room, &core.budget);
                    match core.buffers.take(announced.size as usize) {
                        Some(buffer) => {
                            core.buffers.make_way();
                            session.connection.accept_large(announced, buffer, reservation);
                            session.budget_claim.began();
                            self.unfinished = true;
                            None
                        }
                        None => Some(no_memory(announced.size)),
                    }
                }
                Reserve::Wait { first } => {
                    core.waits_for_budget(first);
                    return Ok(false);
                }
                Reserve::Refused(failure) => Some(failure),
            }
        };
        if let Some(failure) = refusal {
            // Its last part, which will not be looked at, names the type.
            outcome::note(core, &self.counters, session, 0, Some(&failure));
            session.connection.refuse_large(announced, failure)?;
        }
        Ok(true)
    }

    /// Whether a large request may be on its way on some connection.
    pub(crate) fn has_unfinished(&self) -> bool {
        self.unfinished
    }

    /// Told, after a look at all connections, whether there is one.
    pub(crate) fn note_unfinished(&mut self, any: bool) {
        self.unfinished = any;
    }

    /// Looks after a request that is on its way, for the first time since `waited`: takes its room away if its client keeps
    /// us waiting for too long while others wait for room. Answers whether the connection still has one on its way.
    pub(crate) fn reclaim(&self, session: &mut Session, waited: Duration) -> Result<bool, Violation> {
        let Some(unfinished) = session.connection.unfinished() else { return Ok(false) };
        // What lies in the ring waits for us, unless we may not take it before the client takes its answers.
        if session.connection.is_ready() && !session.connection.is_stalled() {
            return Ok(true);
        }
        let (budget, grace) = (&self.core.budget, self.core.live.budget_grace());
        let Some(failure) = session.budget_claim.forfeit(budget, &unfinished, grace, waited) else { return Ok(true) };
        outcome::note(&self.core, &self.counters, session, 0, Some(&failure));
        session.connection.revoke_large(failure)?;
        session.commit();
        Ok(false)
    }
}
