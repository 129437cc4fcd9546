//! The version of the messages.

use serde::{Deserialize, Deserializer};

/// The version of the JSON in this module. It grows only when an old reader could misunderstand a new message.
pub const WIRE_VERSION: u32 = 1;

pub(super) fn wire_version() -> u32 {
    WIRE_VERSION
}

/// Reads a version that may be null, as generated clients send what was left out.
pub(super) fn version<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    Option::deserialize(from).map(|version| version.unwrap_or(WIRE_VERSION))
}
