//! Clients: three interfaces to one core.
//!
//! A [`Connection`] owns one link to its server and adds little, and a [`Pool`] lends connections. A [`Client`] and an
//! `AsyncClient` share one link among many callers.

#[cfg(feature = "tokio")]
mod asynchronous;
mod blocking;
mod config;
mod connection;
mod deadline;
mod free_list;
mod handshake;
mod leave;
mod link;
mod mailboxes;
#[cfg(feature = "tokio")]
mod offer;
mod options;
mod pool;
mod reconnector;
mod shared;
mod spawn;
mod stream;
mod types;
mod waiters;

#[cfg(feature = "tokio")]
pub use asynchronous::{AsyncAnswer, AsyncChunkSink, AsyncClient, AsyncStream, AsyncUpload};
pub use bellrope_proto::{
    frame::{ErrorCode, Rejection},
    handshake::{HandshakeError, HandshakeStatus, Style},
    metadata::{Metadata, MetadataError, TraceContext},
};
pub use blocking::{
    ChunkSink, ChunkStream, Client, Upload,
    parts::{CallReader, CallWriter, RequestWriter},
};
pub use config::{ClientConfig, ConnectionState, Transport};
pub use connection::{CallId, Completion, Connection};
#[cfg(feature = "tokio")]
pub use offer::Offer;
pub use options::{CallOptions, CancelToken, Retry};
pub use pool::{Pool, PoolConfig, PoolError, PoolStats, Pooled};
pub use spawn::{Spawn, SpawnError, Started};
pub use types::{MessageType, Target};

pub use crate::{
    error::{Blame, CallError, ConnectError},
    spin::SpinPolicy,
};
