//! Local RPC over shared memory: one server, a thousand clients on the same machine, about two cache-line transfers a
//! call.
//!
//! A [`Server`] answers message types by name; a [`Client`] (blocking), an `AsyncClient` (tokio) or an exclusive
//! [`Connection`] (fastest) calls them.
//!
//! ```
//! use bellrope::{Client, Server};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("private").join("echo.sock");
//! let server = Server::builder()
//!     .unary("shout", |call, reply| {
//!         reply.write(&call.payload().to_ascii_uppercase());
//!         Ok(())
//!     })
//!     .bind(&path)?;
//!
//! let client = Client::connect(&path)?;
//! assert_eq!(client.call("shout", b"ring the bell")?, b"RING THE BELL");
//! server.shutdown();
//! # Ok(())
//! # }
//! ```
//!
//! A call that ends in an error says what happened and whether it is safe to send it again: see [`CallError`].
#![forbid(unsafe_code)]

mod breaker;
mod client;
mod error;
mod kill_points;
mod path;
pub mod rate;
mod server;
mod spin;
mod status;
mod sync;

pub use bellrope_proto::{
    connection::Reply,
    frame::{ErrorCode, Rejection},
    handshake::Style,
};
pub use breaker::{
    Breaker, BreakerConfig, BreakerSetting, BreakerSnapshot, Caller as BreakerCaller, CallerSnapshot, Now, Permit,
    Rejected, State as BreakerState,
};
#[cfg(feature = "tokio")]
pub use client::{AsyncChunkSink, AsyncClient, AsyncStream, AsyncUpload};
pub use client::{
    CallId, CallOptions, CancelToken, ChunkSink, ChunkStream, Client, ClientConfig, Completion, Connection,
    ConnectionState, MessageType, Pool, PoolConfig, PoolError, PoolStats, Pooled, Retry, Upload,
};
pub use error::{BindError, Blame, CallError, ConnectError, HandlerError};
#[doc(hidden)]
pub use kill_points::KillPoint;
pub use path::{default_socket_path, inherited_listener};
pub use server::{Call, CallInPlace, Server, ServerBuilder, ServerConfig};
#[cfg(feature = "tokio")]
pub use server::{Cancelled, ChunkReceiver, ChunkSender, OwnedCall, StreamClosed};
pub use spin::SpinPolicy;
pub use status::{Condition, Health, LivenessProbe, MemoryUse, Metrics, Reloads, Snapshot, Status, TypeSnapshot};

/// The parts of the shared-memory crate that measurements need.
pub mod shm {
    pub use bellrope_shm::{CountingAllocator, SharedMemory, View, clock, process, sync::Ordering};
}

/// The example of this crate's README, compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
