//! The two ends of one connection: what is under way on it, and what each record does to that.
//!
//! A call is a request and ends with exactly one response or error. What comes between depends on its
//! [style](crate::handshake::Style): chunks from the server, from the client, or both, numbered and under
//! [credit](credit::Credit); a stream from the server ends with an end or error instead of a response. The client may
//! cancel any call; what comes for it afterwards is dropped and counted.
//!
//! A message that is too large for one record travels in parts. In each direction the parts of one message at most are
//! on their way at a time, other records among them. The server puts a message together only after it was told that
//! there is [budget](crate::Budget) for it; until then the message waits in the ring, and with it its connection.
//!
//! Both ends are driven from outside: by [`ServerConnection::next_inbound`] and [`ClientConnection::next_answer`] for
//! what came in, by the sending methods for what goes out. Neither blocks. What is sent becomes visible to the peer with
//! the next commit ([`ServerConnection::commit`], [`ClientConnection::commit`]), many records at once, and the commit
//! says whether the peer must be woken.
//!
//! **Absent on purpose**: no clock, no socket, no handler, no thread.

mod assembly;
mod client;
mod credit;
mod flow;
mod outbox;
mod reply;
mod server;
mod slots;

use std::{borrow::Cow, sync::Arc};

use bellrope_shm::SharedMemory;
pub use client::{Answer, AnswerKind, ClientConnection, Loss, Sending, SubmitError};
pub use credit::Credit;
pub use reply::Reply;
pub use server::{Announced, Inbound, Request, ServerConnection, Unfinished};

use crate::{
    frame::{ErrorCode, Rejection},
    layout::Geometry,
};

/// Longest text that travels with an error, in bytes.
pub const MAX_ERROR_TEXT: usize = 1024;

/// Bytes of one part of a large message, unless a record holds less. Small enough that both sides work on a part at the
/// same time and find it in their caches.
pub const PART: usize = 32 * 1024;

/// What both ends of a connection agreed on in the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Size of the rings.
    pub geometry: Geometry,
    /// Bytes of the largest request and of the largest response.
    pub max_message: u32,
    /// Calls and streams under way at once.
    pub max_in_flight: u32,
    /// Credit of a fresh stream, in bytes.
    pub stream_window: u32,
}

impl Terms {
    /// Bytes of the largest message that travels in one record, and of the largest chunk.
    #[inline]
    #[must_use]
    pub fn max_record(&self) -> usize {
        (self.geometry.max_payload() as usize).min(self.max_message as usize)
    }

    /// Bytes of a part of a message that does not fit a record.
    fn part(&self) -> usize {
        self.max_record().min(PART)
    }
}

/// Why a call failed, and a text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The code that travels.
    pub code: ErrorCode,
    /// A number that says more, 0 for none: of a handler's error its own code, of a rejection its
    /// [reason](Rejection::to_detail), of a message too large its size in bytes.
    pub detail: u64,
    /// The text that travels, cut to [`MAX_ERROR_TEXT`] bytes.
    pub text: Cow<'static, str>,
}

impl Failure {
    /// A failure with this code and text, and no detail.
    #[must_use]
    pub fn new(code: ErrorCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: 0, text: text.into() }
    }

    /// A refusal before the handler ran, for this reason.
    #[must_use]
    pub fn rejected(reason: Rejection, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code: ErrorCode::Rejected, detail: reason.to_detail(None), text: text.into() }
    }

    /// A `what` of `size` bytes where `limit` is the most there may be.
    #[cold]
    #[must_use]
    pub fn too_large(what: &str, size: u64, limit: u64) -> Self {
        let text = format!("the {what} of {size} bytes exceeds the limit of {limit} bytes");
        Self { code: ErrorCode::MessageTooLarge, detail: size, text: text.into() }
    }

    /// The text, cut at a character boundary to what may travel.
    #[must_use]
    pub fn bounded_text(&self) -> &str {
        &self.text[..self.text.floor_char_boundary(MAX_ERROR_TEXT)]
    }
}

/// Both ends over one fresh mapping, for tests and models.
#[must_use]
pub fn pair<B: AsRef<[u8]>>(memory: &Arc<SharedMemory>, terms: Terms) -> (ClientConnection, ServerConnection<B>) {
    (ClientConnection::new(memory, terms), ServerConnection::new(memory, terms))
}
