//! What must hold whatever the other side writes, sends or does when. The fuzz targets look for counterexamples; the tests
//! of the protocol replay the corpus.

mod client;
mod peer;
mod ring;
mod server;
mod wire;

pub use client::client;
pub use ring::ring;
pub use server::server;
pub use wire::{frame, handshake};
