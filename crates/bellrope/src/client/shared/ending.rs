//! How a call ends before its answer has come.

use super::{State, Ticket};

impl State {
    /// Forgets a call, and tells the server if it was under way.
    pub(crate) fn abandon(&mut self, ticket: Ticket) {
        if self.mailboxes.forget(ticket) {
            if let Some(link) = self.link_of(ticket) {
                link.cancel(ticket.id);
            }
        }
    }

    /// The same, as if the connection had gone.
    #[cfg(feature = "tokio")]
    pub(crate) fn leave_call(&mut self, ticket: Ticket) {
        if self.mailboxes.forget(ticket) {
            if let Some(link) = self.link_of(ticket) {
                link.leave(ticket.id);
            }
        }
    }

    /// Ends a call as cancelled. Answers whether it was under way.
    pub(super) fn cancel(&mut self, ticket: Ticket) -> bool {
        if !self.mailboxes.cancel(ticket) {
            return false;
        }
        if let Some(link) = self.link_of(ticket) {
            link.cancel(ticket.id);
        }
        true
    }
}
