//! Servers and clients over real sockets and real shared memory.

mod calls;
mod faces;
mod limits;
mod outcomes;
mod pool;
#[path = "../raw/mod.rs"]
mod raw;
mod reconnect;
mod streams;
#[path = "../support/mod.rs"]
mod support;

use support::TestServer;

/// Calls that async handlers are working on.
fn running(server: &TestServer) -> u64 {
    server.server.metrics().snapshot().types.iter().map(|row| row.running).sum()
}
