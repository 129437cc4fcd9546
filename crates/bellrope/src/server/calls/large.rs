//! Large requests: how they come in, lose their room and are answered.

use std::{sync::atomic::Ordering, time::Duration};

use bellrope_proto::{
    Violation,
    connection::{Announced, Failure, Request},
};

use super::{
    super::{claim::Reserve, link::Link},
    Service, draining,
};
use crate::registry::Handler;

impl Service {
    /// Lets a large request in if the budget has room for all of it. Answers `false` if it has to wait.
    pub(super) fn let_in(&mut self, link: &mut Link, announced: &Announced) -> Result<bool, Violation> {
        let limit = u64::from(self.shared.terms.max_message);
        let refusal = if announced.size > limit {
            Some(Failure::too_large("request", announced.size, limit))
        } else if self.shared.draining.load(Ordering::Relaxed) {
            Some(draining())
        } else {
            link.claim.announced();
            match self.reserve(link, announced.size) {
                Reserve::Granted(reservation) => {
                    let buffer = self.shared.buffers.take(announced.size as usize);
                    link.connection.accept_large(announced, buffer, reservation);
                    link.claim.began();
                    self.unfinished = true;
                    None
                }
                Reserve::Wait => return Ok(false),
                Reserve::Refused(failure) => Some(failure),
            }
        };
        if let Some(failure) = refusal {
            // Which type it is for is told by its last part, which will not be looked at.
            self.desk.note(&self.shared, 0, link, Some(&failure));
            link.connection.refuse_large(announced, failure)?;
        }
        Ok(true)
    }

    /// Reserves memory for a connection's request, which otherwise waits in its ring, and not for ever.
    pub(super) fn reserve(&self, link: &mut Link, bytes: u64) -> Reserve {
        link.claim.reserve(&self.shared.budget, bytes, self.shared.limits.budget_wait())
    }

    /// Whether a large request may be on its way on some connection.
    pub(in crate::server) fn has_unfinished(&self) -> bool {
        self.unfinished
    }

    /// Told, after a look at all connections, whether there is one.
    pub(in crate::server) fn note_unfinished(&mut self, any: bool) {
        self.unfinished = any;
    }

    /// Looks after a request that is on its way, for the first time since `waited`: takes its room away if its client keeps
    /// us waiting for too long while others wait for room. Answers whether the connection still has one on its way.
    pub(in crate::server) fn reclaim(&self, link: &mut Link, waited: Duration) -> Result<bool, Violation> {
        let Some(unfinished) = link.connection.unfinished() else { return Ok(false) };
        // What lies in the ring waits for us, unless we may not take it before the client takes its answers.
        if link.connection.is_ready() && !link.connection.is_stalled() {
            return Ok(true);
        }
        let (budget, grace) = (&self.shared.budget, self.shared.limits.budget_grace());
        let Some(failure) = link.claim.forfeit(budget, &unfinished, grace, waited) else { return Ok(true) };
        self.desk.note(&self.shared, 0, link, Some(&failure));
        link.connection.revoke_large(failure)?;
        link.commit();
        Ok(false)
    }

    /// Answers a call whose request came in parts.
    #[cold]
    pub(super) fn serve_large(
        &mut self,
        link: &mut Link,
        handler: Option<&Handler>,
        request: &Request,
        first: bool,
    ) -> Result<(), Violation> {
        let (mut message, reservation) = link.connection.take_large(request)?;
        link.claim.came_whole();
        let served = match handler {
            Some(handler) => {
                self.desk.serve_large(&self.shared, link, handler, request, &mut message, reservation, first)
            }
            None => self.refuse_unknown(link, request, message.len()),
        };
        // A handler may have made more of it than any message is: that is not kept.
        if message.capacity() <= 2 * self.shared.terms.max_message as usize {
            self.shared.buffers.put(message);
        }
        served
    }
}
