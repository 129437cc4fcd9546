//! A message type as a fleet knows it.

use bellrope::client::Style;

/// The number of the codec whose payloads carry names.
const JSON: u8 = 1;

/// A message type of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct FleetType {
    pub(crate) name: String,
    /// As it travels.
    pub(crate) style: u8,
    pub(crate) codec: u8,
    pub(crate) schema: u64,
}

impl FleetType {
    /// Whether payloads of somebody who says this of them mean the same here. JSON says the names of fields, so both sides may
    /// do with another version; of all other codecs the types must be the same, as far as they are known.
    pub(crate) fn means_the_same(&self, codec: u8, schema: u64) -> bool {
        let known = self.codec != 0 && codec != 0;
        !known || self.codec == codec && (codec == JSON || schema == 0 || self.schema == 0 || self.schema == schema)
    }

    /// Whether its caller sends chunks.
    pub(crate) fn uploads(&self) -> bool {
        style_of(self.style).is_some_and(Style::uploads)
    }
}

/// The style that travels as this number.
pub(crate) fn style_of(number: u8) -> Option<Style> {
    [Style::Unary, Style::ServerStream, Style::ClientStream, Style::Duplex].get(usize::from(number)).copied()
}

/// The number of a style.
pub(crate) fn number_of(style: Style) -> u8 {
    match style {
        Style::Unary => 0,
        Style::ServerStream => 1,
        Style::ClientStream => 2,
        Style::Duplex => 3,
    }
}
