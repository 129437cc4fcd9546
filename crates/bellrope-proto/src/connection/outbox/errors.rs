//! Errors on their way to the client, and what is said of the connection as a whole.

use super::{Outbox, backlog::Ending};
use crate::{
    Reservation, Violation,
    failure::Failure,
    frame::{ErrorCode, Kind, WHOLE_CONNECTION},
    ring::RecordClass,
};

impl<B: AsRef<[u8]>> Outbox<B> {
    /// Ends a call with an error, for whose text there is room in the budget.
    pub(in crate::connection) fn fail(
        &mut self,
        id: u64,
        failure: Failure,
        held: Option<Reservation>,
    ) -> Result<(), Violation> {
        self.send_ending(id, Ending::Failed { failure: failure.bounded(), _held: held })
    }

    /// Says why the connection is about to be closed, if there is room for that. It may use what is kept for credit: nothing
    /// else will be sent.
    pub(in crate::connection) fn say_why(&mut self, failure: &Failure) {
        let (code, text) = (failure.code.to_bits(), failure.bounded_text().as_bytes());
        // Who has broken the rules of the ring learns nothing by it.
        let _ = self.responses.push(RecordClass::Control, Kind::Error, code, WHOLE_CONNECTION, None, text);
        self.wake |= self.responses.publish();
    }

    /// Ends a stream at once, without what is parked.
    pub(in crate::connection) fn abort(&mut self, id: u64, failure: Failure) -> Result<(), Violation> {
        let held = self.stream(id).and_then(|stream| stream.held.take());
        if self.forget(id) { self.fail(id, failure, held) } else { Ok(()) }
    }

    /// Tells the caller that its cancel was heard.
    pub(in crate::connection) fn cancelled(&mut self, id: u64) -> Result<(), Violation> {
        self.fail(id, Failure::new(ErrorCode::Cancelled, "cancelled by the caller"), None)
    }
}
