//! The version of the messages.

/// The version of the JSON in this module. It grows only when an old reader could misunderstand a new message.
pub const WIRE_VERSION: u32 = 1;

pub(super) fn wire_version() -> u32 {
    WIRE_VERSION
}
