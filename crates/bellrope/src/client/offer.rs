//! What a server offers.

use bellrope_proto::handshake::Style;

/// A message type that a server offers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Offer {
    /// Its name.
    pub name: String,
    /// How it is called.
    pub style: Style,
    /// The number of the codec of its payloads; 0 if that is not known.
    pub codec: u8,
    /// The hash of what its payloads are; 0 if that is not known.
    pub schema: u64,
}
