//! Faults that are the subject of no other test, each provoked for real: docs/faults.md lists them all. Crowds of clients
//! stand in `alone/`.
//!
//! Some of these tests start processes, so no test here binds a path anew: see `rpc/main.rs`.

mod clock;
mod fake_server;
mod half_hellos;
mod handshakes;
mod memory;
mod newcomers;
mod offenders;
mod panics;
mod places;
mod processes;
mod slow_servers;
mod tables;
