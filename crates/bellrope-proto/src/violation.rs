/// How a peer broke the protocol. The first violation closes its connection, and only that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A header word that no record of this protocol has.
    #[error("record header {0:#018x} is not valid")]
    Header(u64),
    /// A record that does not end inside the ring, or is longer than a record may be.
    #[error("record of {len} bytes at offset {offset} does not fit the ring")]
    RecordBeyondRing {
        /// Payload bytes its header claims.
        len: u32,
        /// Where in the ring it starts.
        offset: u64,
    },
    /// A record over a socket that is longer than a record may be.
    #[error("record of {len} bytes is longer than {limit} bytes")]
    RecordTooLong {
        /// Payload bytes its header claims.
        len: u32,
        /// The limit.
        limit: u64,
    },
    /// A pad record at the start of the ring, which leads nowhere.
    #[error("pad record at the start of the ring")]
    PadAtStart,
    /// A consumer position that goes back, runs ahead of the producer, or is not aligned.
    #[error("consumer position {found} is outside {from}..={to}")]
    Position {
        /// What the peer published.
        found: u64,
        /// The last position it published before.
        from: u64,
        /// Where our producer stands.
        to: u64,
    },
    /// A record that only the other side may send.
    #[error("record kind {0} does not travel in this direction")]
    Direction(u8),
    /// A record without the extension its kind needs, or with one it must not have.
    #[error("record kind {0} has the wrong form")]
    Form(u8),
    /// A call id that is still in use.
    #[error("call id {0} is already in use")]
    DuplicateCall(u64),
    /// A part of a message while another message of the same direction is not whole yet.
    #[error("a part of message {0} came before another message was whole")]
    Interleaved(u64),
    /// Parts that do not add up to the size they announced.
    #[error("the parts of message {id} do not add up to the {announced} bytes announced")]
    PartialSize {
        /// The call.
        id: u64,
        /// Bytes of the whole, as its first part said.
        announced: u64,
    },
    /// A chunk out of order.
    #[error("chunk {found} of call {id} came where {expected} was due")]
    Sequence {
        /// The call.
        id: u64,
        /// Number due.
        expected: u32,
        /// Number found.
        found: u32,
    },
    /// More bytes on a stream than its credit allows.
    #[error("stream {0} was sent beyond its credit")]
    CreditExceeded(u64),
    /// More credit than a stream can have.
    #[error("credit for stream {0} exceeds its window")]
    CreditOverflow(u64),
    /// A change of the message types that does not fit those that are known.
    #[error("the change of the message types does not fit those known: {0}")]
    Types(&'static str),
    /// Metadata of a call that cannot be any.
    #[error("the metadata of a call are not valid: {0}")]
    Metadata(&'static str),
    /// Doorbell rings far beyond what any traffic needs.
    #[error("the doorbell was rung {0} times while nobody slept")]
    DoorbellFlood(usize),
}

impl Violation {
    /// A short name for logs and metric labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Header(_) => "bad_header",
            Self::RecordBeyondRing { .. } | Self::RecordTooLong { .. } => "bad_length",
            Self::PadAtStart => "bad_pad",
            Self::Position { .. } => "bad_position",
            Self::Direction(_) => "bad_direction",
            Self::Form(_) => "bad_form",
            Self::DuplicateCall(_) => "duplicate_call",
            Self::Interleaved(_) => "interleaved",
            Self::PartialSize { .. } => "bad_size",
            Self::Sequence { .. } => "bad_sequence",
            Self::CreditExceeded(_) => "credit_exceeded",
            Self::CreditOverflow(_) => "credit_overflow",
            Self::Types(_) => "bad_types",
            Self::Metadata(_) => "bad_metadata",
            Self::DoorbellFlood(_) => "doorbell_flood",
        }
    }
}
