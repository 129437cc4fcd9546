//! A message type as a fleet knows it.

use bellrope::client::Style;

/// The number of the codec whose payloads carry names.
const JSON: u8 = 1;

/// The style of what is no call of the type, but asks for the schema of its payloads.
const ASKS_FOR_SCHEMA: u8 = 4;

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

    /// What asks for its schema, at whoever has the same.
    pub(crate) fn schema_question(&self) -> Self {
        Self { style: ASKS_FOR_SCHEMA, ..self.clone() }
    }

    /// Whether it asks for a schema, and is no type that is called.
    pub(crate) fn asks_for_schema(&self) -> bool {
        asks_for_schema(self.style)
    }

    /// Whether it is the type whose schema somebody means who says this of it.
    pub(crate) fn has_schema(&self, codec: u8, schema: u64) -> bool {
        schema != 0 && (self.codec, self.schema) == (codec, schema)
    }

    /// Whether its caller sends chunks.
    pub(crate) fn uploads(&self) -> bool {
        style_of(self.style).is_some_and(Style::uploads)
    }
}

/// Whether what has this number in place of a style asks for a schema.
pub(crate) fn asks_for_schema(style: u8) -> bool {
    style == ASKS_FOR_SCHEMA
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
