//! Calls with metadata, as the server reads them.

use super::{Inbound, InboundRequest, ServerConnection};
use crate::{
    Violation,
    frame::Kind,
    metadata::{MAX_METADATA, Metadata},
};

impl<B: AsRef<[u8]>> ServerConnection<B> {
    /// The same, of a server that agreed to read metadata of calls.
    #[must_use]
    pub fn hearing_metadata(mut self) -> Self {
        self.hears_metadata = true;
        self
    }

    /// The same, of a server that agreed to tell callers that leave from others.
    #[must_use]
    pub fn hearing_leaving(mut self) -> Self {
        self.hears_leaving = true;
        self
    }

    /// What a call at the front is, by its kind.
    pub(super) fn call(&self, request: InboundRequest) -> Result<Inbound, Violation> {
        let kind = request.record.header.kind;
        if kind == Kind::Request {
            return Ok(Inbound::Call(request));
        }
        if !self.hears_metadata {
            return Err(Violation::Direction(kind as u8));
        }
        // The length is read once: what follows goes by the copy.
        let mut block = [0; MAX_METADATA];
        let (head, entries) = block.split_first_chunk_mut::<2>().expect("a block is longer than its length");
        if request.len < head.len() {
            return Err(Violation::Metadata("length"));
        }
        self.requests.read(&request.record, 0, head);
        let size = Metadata::size_of(*head, request.len)?;
        let entries = &mut entries[..size - head.len()];
        self.requests.read(&request.record, head.len(), entries);
        Ok(Inbound::Described(request.behind(size), Metadata::decode(entries)?))
    }
}
