//! The two ends of one connection: what is under way on it, and what each record does to that.
//!
//! A call is a request record and ends with exactly one response or error. A stream is a request whose answer comes as
//! numbered chunks under [credit](credit::Credit), and ends with exactly one end or error. The client may cancel
//! either; what comes for it afterwards is dropped and counted.
//!
//! Both ends are driven from outside: by [`ServerConnection::next_inbound`] and [`ClientConnection::next_answer`] for
//! what came in, by the sending methods for what goes out. Neither blocks. What is sent becomes visible to the peer with
//! the next commit ([`ServerConnection::commit`], [`ClientConnection::commit`]), many records at once, and the commit
//! says whether the peer must be woken.
//!
//! **Absent on purpose**: no clock, no socket, no handler, no thread.

mod client;
mod credit;
mod reply;
mod server;
mod slots;

use std::{borrow::Cow, sync::Arc};

use bellrope_shm::SharedMemory;
pub use client::{Answer, AnswerKind, ClientConnection, Expect, Loss, SubmitError};
pub use credit::Credit;
pub use reply::Reply;
pub use server::{Inbound, Request, ServerConnection};

use crate::{frame::ErrorCode, layout::Geometry};

/// Longest text that travels with an error, in bytes.
pub const MAX_ERROR_TEXT: usize = 1024;

/// What both ends of a connection agreed on in the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Size of the rings.
    pub geometry: Geometry,
    /// Calls and streams under way at once.
    pub max_in_flight: u32,
    /// Credit of a fresh stream, in bytes.
    pub stream_window: u32,
}

/// Why a call failed, and a text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The code that travels.
    pub code: ErrorCode,
    /// The text that travels, cut to [`MAX_ERROR_TEXT`] bytes.
    pub text: Cow<'static, str>,
}

impl Failure {
    /// A failure with this code and text.
    #[must_use]
    pub fn new(code: ErrorCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, text: text.into() }
    }

    /// The text, cut at a character boundary to what may travel.
    #[must_use]
    pub fn bounded_text(&self) -> &str {
        &self.text[..self.text.floor_char_boundary(MAX_ERROR_TEXT)]
    }
}

/// Both ends over one fresh mapping, for tests and models.
#[must_use]
pub fn pair<B: AsRef<[u8]> + From<Vec<u8>>>(
    memory: &Arc<SharedMemory>,
    terms: Terms,
) -> (ClientConnection, ServerConnection<B>) {
    (ClientConnection::new(memory, terms), ServerConnection::new(memory, terms))
}
