//! The straight way to a call that is like nearly all others.

use super::ServerConnection;
use crate::{
    frame::Kind,
    ring::{Front, PlainRecord},
};

impl<B: AsRef<[u8]>> ServerConnection<B> {
    /// The straight way to a call, where calls [are admitted](Self::admits_calls): one look at the front.
    /// [`Self::plain_call`] says whether a call is there that goes this way, [`Self::saw_nothing`] whether nothing is. In this
    /// order: to a call the second question is none.
    #[inline(always)]
    pub fn front(&mut self) -> Front {
        self.requests.front()
    }

    /// Whether a look saw nothing. Then the client gets the room that it may wait for.
    #[inline(always)]
    pub fn saw_nothing(&mut self, front: Front) -> bool {
        if !front.is_nothing() {
            return false;
        }
        self.wake |= self.requests.note_drained();
        true
    }

    /// The call that a look saw, whole, if nothing is said of it but its [deadline](PlainRecord::extension), where it is asked for
    /// one that has that. To whatever else is there, [`Self::next_inbound`] has an answer.
    #[inline(always)]
    pub fn plain_call(&mut self, front: Front, has_deadline: bool) -> Option<PlainRecord> {
        self.requests.plain(front, Kind::Request, has_deadline)
    }

    /// As [`Self::plain_call`], of a call without a deadline that lets the ring start over behind it: one that is so large that a
    /// second one would not fit the [front](crate::layout) of a compact ring.
    #[inline(always)]
    pub fn plain_call_that_starts_over(&mut self, front: Front) -> Option<PlainRecord> {
        let front = self.requests.starting_over(front)?;
        self.plain_call(front, false)
    }

    /// Takes the call that [`Self::plain_call`] found, as [`Self::take`] does.
    ///
    /// # Panics
    /// If `into` is not exactly `call.len` bytes long.
    #[inline(always)]
    pub fn take_plain(&mut self, call: &PlainRecord, into: &mut [u8]) {
        self.wake |= self.requests.take(call, into);
        self.requests.admit();
    }
}
