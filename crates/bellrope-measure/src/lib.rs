//! Measurements of Bellrope, which the command `bellrope` has as sub-commands.
//!
//! | module | what it holds |
//! |---|---|
//! | [`mod@bench`] | measurements between two processes |
//! | [`bench_server`] | the server half of a measurement |
//! | [`mod@demo`] | a chat and the criteria in one command |
//! | [`served`] | what is measured: the message types of `bellrope serve` |
//! | [`slots`] | bare slots in shared memory, the least that a call can be |
//! | [`mod@stress`] | suites that put a server under more load and more faults than in use |
//!
//! A measurement starts the program that it is part of once more, with the hidden sub-commands `bench-server` and
//! `stress-client`. So a program that offers measurements has those, too, and hands over its counting allocator, which only
//! a program can have.
//!
//! Without the feature `suites`, which is on by default, there are the bare [`slots`] alone. The feature `fleet` adds what
//! measures calls through NATS.
#![forbid(unsafe_code)]

/// What is said where a fleet is asked for, in a program that was built without.
pub const WITHOUT_FLEET: &str = "this program was built without fleets; `cargo build --release --features fleet` makes one with \
                                 them, see docs/fleet.md";

#[cfg(feature = "suites")]
pub mod bench;
#[cfg(feature = "suites")]
pub mod bench_server;
#[cfg(feature = "suites")]
mod criterion;
#[cfg(feature = "suites")]
pub mod demo;
#[cfg(feature = "fleet")]
mod nats_process;
#[cfg(feature = "suites")]
pub mod served;
#[cfg(feature = "suites")]
mod server_process;
pub mod slots;
#[cfg(feature = "suites")]
pub mod stress;
#[cfg(feature = "suites")]
mod typed;
