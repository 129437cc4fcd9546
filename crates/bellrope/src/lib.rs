//! Local RPC over shared memory: one server, a thousand clients on the same machine, about two cache-line transfers a
//! call.
//!
//! A [`Server`] answers message types by name; a [`Client`] (blocking), an `AsyncClient` (tokio) or an exclusive
//! [`Connection`](client::Connection) (fastest) calls them.
//!
//! | module | what is in it |
//! |---|---|
//! | [`server`] | the server, its settings, what handlers are given |
//! | [`client`] | the clients, their options, how a call ends |
//! | [`breaker`] | the circuit breaker of a message type, also for use of your own |
//! | [`status`] | a server's counters and what an operator is shown |
//! | [`rate`] | the rate limiter |
//! | `service` | typed services, made of a trait, with the feature of that name |
//! | `tower` | calls and handlers as services of tower, with the feature of that name |
//!
//! ```
//! use bellrope::{Client, Server};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("private").join("echo.sock");
//! let server = Server::builder()
//!     .unary("shout", |call, reply| {
//!         reply.put(&call.payload().to_ascii_uppercase());
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
//!
//! The features `client`, `server` and `tokio` (async handlers, the async client) are on by default. A program that only calls
//! takes `default-features = false, features = ["client"]`, and compiles no server. The feature `service` adds typed services.
#![forbid(unsafe_code)]

pub mod breaker;
#[cfg(feature = "client")]
pub mod client;
pub mod date;
#[cfg(feature = "client")]
mod error;
#[cfg(any(feature = "client", feature = "server", feature = "kill-points"))]
mod kill_points;
mod log_file;
#[cfg(any(feature = "client", all(feature = "server", feature = "tokio")))]
mod part;
mod path;
#[cfg(any(feature = "client", feature = "server"))]
mod private_directory;
#[cfg(any(feature = "client", feature = "server"))]
mod pump;
pub mod rate;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "service")]
pub mod service;
mod settings;
#[cfg(any(feature = "client", feature = "server"))]
mod spin;
pub mod status;
mod sync;
#[cfg(feature = "tower")]
pub mod tower;

// What nearly every program that serves or calls names: the two ends, what a handler is given and answers with, how a call
// ends, and where the socket and the log lie. Everything else is looked up in its module.
#[cfg(feature = "service")]
pub use bellrope_macros::service;
#[cfg(all(feature = "client", feature = "tokio"))]
pub use client::AsyncClient;
#[cfg(feature = "client")]
pub use client::{CallError, Client};
pub use log_file::LogFile;
pub use path::{default_log_path, default_socket_path, default_state_path};
#[cfg(feature = "server")]
pub use server::{Call, HandlerError, Reply, Server};

/// For tests of this repository: it follows no version.
#[cfg(feature = "kill-points")]
#[doc(hidden)]
pub mod internal {
    pub use crate::kill_points::KillPoint;
}

/// The example of this crate's README, compiled and run with the documentation tests.
#[cfg(all(doctest, feature = "client", feature = "server"))]
#[doc = include_str!("../README.md")]
struct Readme;
