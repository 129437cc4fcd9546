//! What other threads tell a worker, through its [inbox](super::inbox::Inbox).

use std::sync::Arc;
#[cfg(feature = "tokio")]
use std::time::Duration;

#[cfg(feature = "tokio")]
use bellrope_proto::{Reservation, connection::Failure};
use bellrope_proto::{connection::ServerConnection, stream::StreamEnd};
use bellrope_shm::socket::{PeerCredentials, Socket};

use super::{
    accept::{connection_limits::ConnectionSlot, newcomers::GiveWay},
    calls::body::Body,
    handler::added::AddedTypes,
};
use crate::status::Counted;

/// One thing for a worker to do.
#[derive(Debug)]
pub(crate) enum WorkerMessage {
    /// A new connection.
    Connected(Box<NewConnection>),
    /// A process is to give a place up.
    GiveWay(Arc<GiveWay>),
    /// Message types were added or taken out.
    TypesChanged,
    /// Something from an async handler.
    #[cfg(feature = "tokio")]
    FromHandler { session: SessionId, call: u64, what: FromHandler },
}

/// A connection whose handshake has ended, on its way from the acceptor to its worker.
#[derive(Debug)]
pub(crate) struct NewConnection {
    pub(crate) socket: Socket,
    pub(crate) connection: ServerConnection<Body>,
    /// Where its records travel over the socket: what serves its rings, and what keeps it counted among those.
    pub(crate) stream: Option<(StreamEnd, Counted)>,
    /// The server's number for it, never used again.
    pub(crate) serial: u64,
    pub(crate) peer: PeerCredentials,
    /// Its place among the connections that there may be.
    pub(crate) slot: ConnectionSlot,
    /// The name its client gave, free of control characters.
    pub(crate) name: String,
    /// What its client knows of the types that come and go, and whether it reads schemas. `None`: it has not asked for that.
    pub(crate) told: Option<ToldTypes>,
}

/// What the client of a connection was told of the message types that come and go.
#[derive(Debug)]
pub(crate) struct ToldTypes {
    pub(crate) types: Arc<AddedTypes>,
    pub(crate) with_schemas: bool,
}

/// Names a session of a worker. The serial number keeps a late message from reaching another session.
#[cfg(feature = "tokio")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionId {
    pub(crate) index: usize,
    pub(crate) serial: u64,
}

/// What an async handler answers with.
#[cfg(feature = "tokio")]
#[derive(Debug)]
pub(crate) struct AsyncReply {
    pub(crate) bytes: Vec<u8>,
    /// Room in the budget for what its call does not hold, if it needs more than that.
    pub(crate) reservation: Option<Reservation>,
}

/// What an async handler says.
#[cfg(feature = "tokio")]
#[derive(Debug)]
pub(crate) enum FromHandler {
    Answered(Result<AsyncReply, Failure>),
    Chunk(Body),
    /// Several, in their order.
    Chunks(Vec<Body>),
    Finished(Result<(), Failure>),
    /// It has taken chunks of these sizes from its caller's stream.
    Consumed(Vec<usize>),
    /// The handler of this message type has held its thread for so long.
    Held(u16, Duration),
}

#[cfg(feature = "tokio")]
impl FromHandler {
    /// Bytes that it has for its caller.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Answered(Ok(reply)) => reply.bytes.len(),
            Self::Chunk(body) => body.as_ref().len(),
            Self::Chunks(bodies) => bodies.iter().map(|body| body.as_ref().len()).sum(),
            _ => 0,
        }
    }

    /// How many things it says.
    pub(crate) fn count(&self) -> usize {
        if let Self::Chunks(bodies) = self { bodies.len() } else { 1 }
    }
}
