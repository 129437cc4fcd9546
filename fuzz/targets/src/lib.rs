//! What must hold whatever the other side writes, sends or does when, whatever a provider sends, or a configuration file
//! or a schema says. Each function claims it of one input, and panics where it does not hold.
//!
//! The fuzz targets look for counterexamples; the tests of this crate replay the corpora.

mod answers;
mod client;
mod config;
mod peer;
mod ring;
mod server;
mod service;
mod stream;
mod wire;

pub use answers::{answers, sse};
pub use bellrope_fleet::strangers::messages as fleet;
pub use client::client;
pub use config::config;
pub use ring::ring;
pub use server::server;
pub use service::{json, postcard, schema};
pub use stream::stream;
pub use wire::{frame, handshake};
