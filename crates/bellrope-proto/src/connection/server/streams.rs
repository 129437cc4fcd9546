//! Streams to the client, as their server sends them.

use super::ServerConnection;
use crate::Violation;

impl<B: AsRef<[u8]>> ServerConnection<B> {
    /// Sends a chunk of an open stream, or parks it until there is credit and room. A chunk of a stream that was
    /// cancelled meanwhile, or that is larger than [`Self::max_record`], is dropped; the caller checks sizes.
    ///
    /// # Errors
    /// The peer's [`Violation`]; the connection must be closed.
    pub fn chunk(&mut self, id: u64, body: B) -> Result<(), Violation> {
        self.chunks(id, [body])
    }

    /// As [`Self::chunk`], for several in their order.
    ///
    /// # Errors
    /// As there.
    pub fn chunks(&mut self, id: u64, bodies: impl IntoIterator<Item = B>) -> Result<(), Violation> {
        self.outbox.chunks(id, bodies)
    }
}
