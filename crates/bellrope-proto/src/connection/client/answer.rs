//! What the server sent, as its client sees it.

use crate::{frame::ErrorCode, ring::Record};

/// An answer at the front of the response ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The call it is for.
    pub id: u64,
    /// What it is.
    pub kind: AnswerKind,
    /// Payload bytes.
    pub len: usize,
    /// Where in the whole message they belong: 0 unless it came in parts.
    pub at: usize,
    pub(super) record: Record,
}

impl Answer {
    #[inline(always)]
    pub(super) fn new(record: Record, kind: AnswerKind, at: usize) -> Self {
        Self { id: record.id, kind, len: record.header.len as usize, at, record }
    }
}

/// What an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerKind {
    /// The response, or the last part of it: the call is over.
    Response,
    /// A part of a response that is too large for one record.
    Part {
        /// Bytes of the whole.
        size: usize,
    },
    /// The call failed and is over; the payload is a text for people.
    Error {
        /// Why.
        code: ErrorCode,
        /// What more there is to say: see [`Failure::detail`](crate::Failure::detail).
        detail: u64,
    },
    /// The next chunk of a stream.
    Chunk,
    /// The stream is done.
    End,
    /// The stream to the server has credit again. Nothing is to be taken but the answer itself.
    Credit,
    /// The message types of the server have changed: for no call.
    Types {
        /// How many there are now.
        entries: u64,
    },
}

impl AnswerKind {
    /// Whether the call is over with this.
    #[must_use]
    pub fn is_last(self) -> bool {
        matches!(self, Self::Response | Self::Error { .. } | Self::End)
    }
}
