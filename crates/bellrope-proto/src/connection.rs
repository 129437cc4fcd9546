//! The two ends of one connection: what is under way on it, and what each record does to that.
//!
//! A call is a request and ends with exactly one response or error. What comes between depends on its
//! [style](crate::Style): chunks from the server, from the client, or both, numbered and under
//! [credit](credit::Credit); a stream from the server ends with an end or error instead of a response. The client may
//! cancel any call; what comes for it afterwards is dropped and counted.
//!
//! A message that is too large for one record travels in parts. In each direction the parts of one message at most are
//! on their way at a time, other records among them. The server puts a message together only after it was told that
//! there is [budget](crate::BufferBudget) for it; until then the message waits in the ring, and with it its connection.
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
mod ids;
mod outbox;
mod reply;
mod server;
mod slots;
mod uploads;

use std::sync::Arc;

pub use assembly::Unfinished;
use bellrope_shm::SharedMemory;
pub use client::{Answer, AnswerKind, ClientConnection, Loss, Sending, SubmitError};
pub use credit::Credit;
pub use outbox::answer::Unsent;
pub use reply::Reply;
pub use server::{Announced, Inbound, InboundChunk, InboundRequest, ServerConnection};

pub use crate::{failure::Failure, terms::Terms};

/// Both ends over one fresh mapping, for tests and models.
#[must_use]
pub fn pair<B: AsRef<[u8]>>(memory: &Arc<SharedMemory>, terms: Terms) -> (ClientConnection, ServerConnection<B>) {
    (ClientConnection::new(memory, terms), ServerConnection::new(memory, terms))
}
