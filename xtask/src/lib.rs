//! What reads the sources of this repository and says where they break its rules. `cargo xtask --help` shows how to run it.

pub mod api;
pub mod arrows;
pub mod budgets;
pub mod circles;
mod code;
pub mod dependencies;
mod documents;
pub mod durations;
pub mod examples;
pub mod faults;
pub mod found;
pub mod lengths;
pub mod links;
mod metadata;
pub mod names;
pub mod promises;
pub mod sources;
pub mod wording;
