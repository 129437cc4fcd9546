//! Servers and clients over real sockets and real shared memory.

mod calls;
mod limits;
mod outcomes;
mod pool;
mod reconnect;
mod streams;
#[path = "../support/mod.rs"]
mod support;
