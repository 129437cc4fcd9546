//! A server that is started when there is none. Of any number of clients that look for it at the same time one starts it,
//! and all of them connect to it.
//!
//! | module | what it holds |
//! |---|---|
//! | [`environment`] | which variables a started server has |
//! | [`error`] | why there is no connection |
//! | [`lock`] | who may start a server |
//! | [`program`] | which program is the server, and what it is given |
//! | [`search`] | looking for a server, starting one, and waiting for it |
//! | [`started`] | a program that was started, and what it said |

mod environment;
mod error;
mod lock;
mod program;
mod search;
mod started;

pub use error::SpawnError;
pub use program::{Spawn, Started};

use super::{config::ClientConfig, handshake::Established};

/// Connects to the server, or starts it and connects then. Blocks, at most for the time-out and a handshake.
pub(crate) fn find_or_start(config: &ClientConfig, spawn: &Spawn) -> Result<Established, SpawnError> {
    search::Search::new(config, spawn).run()
}
