//! Servers and clients over real sockets and real shared memory.
//!
//! Tests of this program run beside each other in one process. What looks at its whole process stands in `alone/`. No test
//! here starts a process: until a child runs its program it holds a copy of every descriptor, and with it the lock of a
//! server that another test has just ended and starts anew.

mod blocking;
mod calls;
mod faces;
mod limits;
mod metadata;
mod names;
mod options;
mod outcomes;
mod pairings;
mod parts;
mod pool;
mod put_out;
mod reconnect;
mod shares;
mod streams;
mod table;
mod transports;
mod turns;
mod wakers;

use bellrope_testkit::support::TestServer;

/// Calls that async handlers are working on.
fn running(server: &TestServer) -> u64 {
    server.server.metrics().snapshot().types.iter().map(|row| row.running).sum()
}
