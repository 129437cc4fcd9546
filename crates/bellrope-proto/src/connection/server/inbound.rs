//! What a client sent, as its server sees it.

use crate::{metadata::Metadata, ring::Record};

/// A call at the front of the request ring, or the last part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboundRequest {
    /// Call id, the client's choice.
    pub id: u64,
    /// Message type.
    pub message_type: u16,
    /// Payload bytes in the ring: all of them, unless the request is `large`.
    pub len: usize,
    /// The moment on the server's clock, in microseconds, at which nobody wants the answer any more, if the caller set
    /// one.
    pub deadline_us: Option<u64>,
    /// Whether it came in parts. Then it is to be taken with `ServerConnection::take_large`, else with `take`.
    pub large: bool,
    /// Bytes of the record's payload before those of the request.
    pub(super) skip: usize,
    pub(super) record: Record,
}

impl InboundRequest {
    #[inline(always)]
    pub(super) fn new(record: Record, large: bool) -> Self {
        let Record { header, id, extension, .. } = record;
        Self {
            id,
            message_type: header.message_type,
            len: header.len as usize,
            deadline_us: header.extended.then_some(extension),
            large,
            skip: 0,
            record,
        }
    }

    /// The same, of which the first so many bytes are metadata.
    pub(super) fn behind(self, skip: usize) -> Self {
        Self { len: self.len - skip, skip, ..self }
    }
}

/// What came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inbound {
    /// A call. It stays where it is until it is taken.
    Call(InboundRequest),
    /// The same, and what its caller says of it.
    Described(InboundRequest, Metadata),
    /// A large request begins. It stays where it is, and with it all that follows, until it is
    /// accepted or refused: `ServerConnection::accept_large`, `refuse_large`.
    Large(Announced),
    /// This many bytes of a large request were put to the others.
    Part(usize),
    /// A chunk of a stream from the client. It stays where it is until `ServerConnection::take_chunk`.
    Chunk(InboundChunk),
    /// The stream from the client to this open call is done.
    Ended(u64),
    /// The caller no longer wants the answer to this open call, which is closed by now.
    Cancelled(u64),
    /// The caller of this open call, which is closed by now, has left. It may come back for what was kept for it.
    Left(u64),
}

/// The first part of a request that is too large for a record, at the front of the request ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    /// Call id, the client's choice.
    pub id: u64,
    /// Bytes of the whole: the client's word, unchecked.
    pub size: u64,
}

/// A chunk at the front of the request ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboundChunk {
    /// The call it belongs to.
    pub id: u64,
    /// Payload bytes.
    pub len: usize,
    pub(super) record: Record,
}
