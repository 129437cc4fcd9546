//! What reads the sources of this repository and says where they break its rules. `cargo xtask --help` shows how to run it.

pub mod circles;
pub mod found;
pub mod sources;
