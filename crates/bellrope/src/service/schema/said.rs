//! Shapes and forms as others say them: what a later version has and this one does not know is anything.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};

use super::model::{Form, Shape};

/// What is said by its name alone, or with contents.
trait Said<'de>: Sized {
    const WHAT: &'static str;

    fn plain(name: &str) -> Self;

    /// `None` if there is nothing of this name with contents.
    fn with<A: MapAccess<'de>>(name: &str, map: &mut A) -> Result<Option<Self>, A::Error>;
}

struct Words<T>(PhantomData<T>);

impl<'de, T: Said<'de>> Visitor<'de> for Words<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::WHAT)
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<T, E> {
        Ok(T::plain(name))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let unsaid = || A::Error::custom(format_args!("expected {}", T::WHAT));
        let name = map.next_key::<String>()?.ok_or_else(unsaid)?;
        let said = match T::with(&name, &mut map)? {
            Some(said) => said,
            None => {
                map.next_value::<IgnoredAny>()?;
                T::plain(&name)
            }
        };
        if map.next_key::<IgnoredAny>()?.is_some() { Err(unsaid()) } else { Ok(said) }
    }
}

#[derive(Deserialize)]
struct Integer {
    signed: bool,
    bits: u8,
}

#[derive(Deserialize)]
struct Float {
    bits: u8,
}

impl<'de> Said<'de> for Shape {
    const WHAT: &'static str = "a shape, such as \"text\" or {\"list\": ...}";

    fn plain(name: &str) -> Self {
        match name {
            "unit" => Self::Unit,
            "bool" => Self::Bool,
            "char" => Self::Char,
            "text" => Self::Text,
            "bytes" => Self::Bytes,
            _ => Self::Any,
        }
    }

    fn with<A: MapAccess<'de>>(name: &str, map: &mut A) -> Result<Option<Self>, A::Error> {
        Ok(Some(match name {
            "integer" => {
                let Integer { signed, bits } = map.next_value()?;
                Self::Integer { signed, bits }
            }
            "float" => Self::Float { bits: map.next_value::<Float>()?.bits },
            "optional" => Self::Optional(map.next_value()?),
            "list" => Self::List(map.next_value()?),
            "map" => Self::Map(map.next_value()?),
            "tuple" => Self::Tuple(map.next_value()?),
            "type" => Self::Type(map.next_value()?),
            _ => return Ok(None),
        }))
    }
}

#[derive(Deserialize)]
struct Tagged {
    tag: String,
    variants: Vec<(String, Vec<(String, Shape)>)>,
}

impl<'de> Said<'de> for Form {
    const WHAT: &'static str = "a form, such as \"unit\" or {\"struct\": ...}";

    fn plain(name: &str) -> Self {
        if name == "unit" { Self::Unit } else { Self::Newtype(Shape::Any) }
    }

    fn with<A: MapAccess<'de>>(name: &str, map: &mut A) -> Result<Option<Self>, A::Error> {
        Ok(Some(match name {
            "newtype" => Self::Newtype(map.next_value()?),
            "tuple" => Self::Tuple(map.next_value()?),
            "struct" => Self::Struct(map.next_value()?),
            "enum" => Self::Enum(map.next_value()?),
            "tagged" => {
                let Tagged { tag, variants } = map.next_value()?;
                Self::Tagged { tag, variants }
            }
            "either" => Self::Either(map.next_value()?),
            _ => return Ok(None),
        }))
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Words(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Form {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Words(PhantomData))
    }
}
