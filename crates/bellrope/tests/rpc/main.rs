//! Servers and clients over real sockets and real shared memory.
//!
//! Tests of this program run beside each other in one process. What looks at its whole process stands in `alone/`.

mod calls;
mod faces;
mod faults;
mod limits;
mod outcomes;
mod pool;
mod reconnect;
mod streams;

use bellrope_testkit::support::TestServer;

/// Calls that async handlers are working on.
fn running(server: &TestServer) -> u64 {
    server.server.metrics().snapshot().types.iter().map(|row| row.running).sum()
}
