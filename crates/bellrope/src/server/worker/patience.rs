//! How long a worker lets clients take that leave something half done.

use std::time::{Duration, Instant};

use super::{Closing, Worker};
use crate::server::SWEEP;

/// How often a worker looks after large requests that are on their way, at the most.
const LOOK_AFTER_UNFINISHED: Duration = Duration::from_millis(10);
/// How long a worker sleeps at the most while requests wait for the buffer budget.
const STARVED_PAUSE: Duration = Duration::from_millis(1);

impl Worker {
    /// How long there is nothing to look after, unless somebody rings.
    pub(super) fn longest_sleep(&self) -> Duration {
        match (self.starved.is_empty(), self.service.has_unfinished()) {
            (false, _) => STARVED_PAUSE,
            (true, true) => self.between_looks(),
            (true, false) => SWEEP,
        }
    }

    /// How long a worker that has nothing to do leaves large requests alone that are on their way.
    fn between_looks(&self) -> Duration {
        LOOK_AFTER_UNFINISHED.max(self.shared.limits.budget_grace() / 4)
    }

    /// Now and then, while large requests are on their way: takes the room of those that come too slowly away, if
    /// others wait for it.
    pub(super) fn reclaim(&mut self, now: Instant) {
        if !self.service.has_unfinished() || now - self.reclaimed < LOOK_AFTER_UNFINISHED {
            return;
        }
        // If we were kept from looking for longer than that, so may clients have been from sending.
        let waited = (now - self.reclaimed).min(self.between_looks());
        self.reclaimed = now;
        let mut any = false;
        for index in 0..self.links.len() {
            let Some(link) = &mut self.links[index] else { continue };
            match self.service.reclaim(link, waited) {
                Ok(unfinished) => any |= unfinished,
                Err(violation) => self.close(index, &violation.into()),
            }
        }
        self.service.note_unfinished(any);
    }

    /// Every second: closes the connections of clients that have left something half done for too long.
    pub(super) fn sweep(&mut self, now: Instant) {
        if now - self.swept < SWEEP {
            return;
        }
        self.swept = now;
        let patience = self.shared.limits.stall_timeout();
        for index in 0..self.links.len() {
            let Some(link) = &mut self.links[index] else { continue };
            let half_done = link.connection.is_stalled() || link.connection.is_assembling();
            let progress = link.connection.progress();
            link.stuck = match link.stuck {
                _ if !half_done => None,
                Some((before, since)) if before == progress => Some((before, since)),
                _ => Some((progress, now)),
            };
            if link.stuck.is_some_and(|(_, since)| now - since >= patience) {
                self.close(index, &Closing::Stalled);
            }
        }
    }
}
