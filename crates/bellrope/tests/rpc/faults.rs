//! Faults that are the subject of no other test, each provoked for real: docs/faults.md lists them all.

mod clock;
mod crowds;
mod handshakes;
mod memory;
mod offenders;
mod panics;
mod pretender;
mod processes;
#[path = "../raw/mod.rs"]
mod raw;
mod slow_servers;
#[expect(dead_code, reason = "no test here counts dropped handlers")]
#[path = "../support/mod.rs"]
mod support;
