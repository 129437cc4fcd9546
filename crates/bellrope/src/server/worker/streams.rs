//! Connections over transport 1: their records travel over the socket, and the worker moves them to and from private rings.
//!
//! The rings make the worker do it: what is committed wakes the other end of a ring, and that is here. So a connection is
//! visited, answered, limited and closed as any other, and costs those over shared memory nothing.

use super::{Worker, backlog::looked_after, closing::Closing};

impl Worker {
    /// The socket of a connection over transport 1 has something to say.
    pub(super) fn hear_stream(&mut self, index: usize, hung_up: bool) {
        let Some(session) = self.sessions.get_mut(index).and_then(looked_after) else { return };
        let Some(carrier) = &mut session.carrier else { return };
        if hung_up {
            // Whoever hung up wants no answers, and nobody is left to read them.
            return self.end(index, Closing::HungUp);
        }
        session.resident = true;
        carrier.hear(&session.socket);
        self.look_after_stream(index);
    }

    /// After something was done to a connection apart from its turns: gives it one, or ends it.
    pub(super) fn look_after_stream(&mut self, index: usize) {
        let Some(session) = self.sessions.get_mut(index).and_then(looked_after) else { return };
        let Some(carrier) = &mut session.carrier else { return };
        // One that has something to do learns of an end when it has done it.
        if !session.hot {
            match carrier.moved() {
                Ok(false) => {}
                Ok(true) => {
                    session.connection.disarm();
                    self.heat(index);
                }
                Err(fault) => self.end(index, fault.into()),
            }
        }
    }
}
