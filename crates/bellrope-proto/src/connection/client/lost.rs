//! What is known of a connection that ends, and of its calls.

use super::{ClientConnection, Loss};
use crate::{
    failure::MAX_ERROR_TEXT,
    ring::{Record, admitted},
};

impl ClientConnection {
    /// Why the server closes the connection on this client's account, in its words, if it said so.
    #[must_use]
    pub fn closed_because(&self) -> Option<&str> {
        self.closed_because.as_deref()
    }

    #[cold]
    pub(super) fn hear_why(&mut self, record: &Record) {
        let mut text = vec![0; (record.header.len as usize).min(MAX_ERROR_TEXT)];
        self.responses.read(record, 0, &mut text);
        self.closed_because = Some(String::from_utf8_lossy(&text).into());
    }

    /// What can be said of a call under way after the server has died and every answer it left was taken.
    #[must_use]
    pub fn loss(&self, id: u64) -> Loss {
        let admitted = admitted(&self.request_view);
        match self.calls.find(id) {
            Some(slot) if slot.end > admitted => Loss::NotExecuted,
            _ => Loss::Unknown,
        }
    }
}
