//! Two types that one visitor reads, which is told only when it runs which it is to read: a schema cannot tell them apart, so a
//! method with both has none.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, Visitor},
};

#[derive(Serialize)]
pub(crate) struct Text(String);

#[derive(Serialize)]
pub(crate) struct Number(u8);

struct Item {
    is_text: bool,
}

impl<'de> Visitor<'de> for Item {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an item")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        if self.is_text { String::deserialize(from) } else { u8::deserialize(from).map(|number| number.to_string()) }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_newtype_struct("Item", Item { is_text: true }).map(Self)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let number = from.deserialize_newtype_struct("Item", Item { is_text: false })?;
        Ok(Self(number.parse().map_err(D::Error::custom)?))
    }
}
