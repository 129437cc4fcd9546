//! JSON to postcard.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeSeed, Error, IntoDeserializer as _, MapAccess, SeqAccess, VariantAccess as _, Visitor},
};

use super::{
    super::{
        bytes,
        codec::{Codec as _, CodecError},
        json::located,
        postcard::{Postcard, depth},
        schema::{Form, Schema, Shape},
    },
    saying::{MOST_BYTES, never_seen, no_such, too_large},
};

/// Makes bytes of a text.
pub(super) fn write(schema: &Schema, shape: &Shape, json: &[u8]) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(json);
    let seed = Value { schema, shape, depth_left: depth::MOST_DEPTH, to: &mut bytes };
    seed.deserialize(&mut reader).and_then(|()| reader.end()).map_err(|error| located(json, &error))?;
    Ok(bytes)
}

/// Reads a value of a shape, and writes it.
struct Value<'s, 'w> {
    schema: &'s Schema,
    shape: &'s Shape,
    /// How much deeper values may nest.
    depth_left: u32,
    to: &'w mut Vec<u8>,
}

impl<'s> Value<'s, '_> {
    /// A value inside of this one, which follows what was written.
    fn part<E: Error>(&mut self, shape: &'s Shape) -> Result<Value<'s, '_>, E> {
        let depth_left = self.deeper()?;
        Ok(Value { schema: self.schema, shape, depth_left, to: &mut *self.to })
    }

    /// A value inside of this one, which is written elsewhere for now.
    fn aside<'t, E: Error>(&self, shape: &'s Shape, to: &'t mut Vec<u8>) -> Result<Value<'s, 't>, E> {
        Ok(Value { schema: self.schema, shape, depth_left: self.deeper()?, to })
    }

    fn deeper<E: Error>(&self) -> Result<u32, E> {
        self.depth_left.checked_sub(1).ok_or_else(|| E::custom(depth::too_deep()))
    }

    /// Reads what has no parts.
    fn plain<'de, D: Deserializer<'de>, T: Deserialize<'de> + Serialize>(self, from: D) -> Result<(), D::Error> {
        put(self.to, &T::deserialize(from)?)
    }

    fn form<'de, D: Deserializer<'de>>(mut self, form: &'s Form, from: D) -> Result<(), D::Error> {
        match form {
            Form::Unit => <()>::deserialize(from),
            Form::Newtype(inner) => self.part(inner)?.deserialize(from),
            Form::Tuple(shapes) => from.deserialize_seq(Tuple(self, shapes)),
            Form::Struct(fields) => from.deserialize_map(Fields(self, fields)),
            Form::Enum(variants) => from.deserialize_enum("", &[], Variants(self, variants)),
            Form::Tagged { .. } | Form::Either(_) => Err(Error::custom(no_such(&Shape::Any))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        match self.shape {
            Shape::Unit => <()>::deserialize(from),
            Shape::Bool => self.plain::<_, bool>(from),
            Shape::Integer { signed, bits } => match (signed, bits) {
                (false, 8) => self.plain::<_, u8>(from),
                (false, 16) => self.plain::<_, u16>(from),
                (false, 32) => self.plain::<_, u32>(from),
                (false, 64) => self.plain::<_, u64>(from),
                (false, 128) => self.plain::<_, u128>(from),
                (true, 8) => self.plain::<_, i8>(from),
                (true, 16) => self.plain::<_, i16>(from),
                (true, 32) => self.plain::<_, i32>(from),
                (true, 64) => self.plain::<_, i64>(from),
                (true, 128) => self.plain::<_, i128>(from),
                _ => Err(Error::custom(no_such(self.shape))),
            },
            Shape::Float { bits: 32 } => {
                let number = from.deserialize_any(Float)?;
                let narrow = number as f32;
                if narrow.is_finite() == number.is_finite() {
                    put(self.to, &narrow)
                } else {
                    Err(Error::custom(format_args!("{number:e} does not fit into 32 bits")))
                }
            }
            Shape::Float { bits: 64 } => put(self.to, &from.deserialize_any(Float)?),
            Shape::Float { .. } | Shape::Any => Err(Error::custom(no_such(self.shape))),
            Shape::Char => self.plain::<_, char>(from),
            Shape::Text => self.plain::<_, String>(from),
            Shape::Bytes => {
                let text = String::deserialize(from)?;
                let bytes = bytes::decode(text.as_bytes())
                    .ok_or_else(|| Error::custom("bytes are written as base64 with padding (RFC 4648)"))?;
                put(self.to, &bytes::Bytes::from(bytes))
            }
            Shape::Optional(inner) => from.deserialize_option(Optional(self, inner)),
            Shape::List(inner) => from.deserialize_seq(List(self, inner.as_deref())),
            Shape::Map(None) => from.deserialize_map(Entries(self, None)),
            Shape::Map(Some(entry)) if self.schema.is_key(&entry.0) => from.deserialize_map(Entries(self, Some(entry))),
            Shape::Map(Some(entry)) => from.deserialize_seq(Pairs(self, entry)),
            Shape::Tuple(shapes) => from.deserialize_seq(Tuple(self, shapes)),
            Shape::Type(_) => match self.schema.form(self.shape) {
                Some(form) => self.form(form, from),
                None => Err(Error::custom(no_such(self.shape))),
            },
        }
    }
}

/// Writes what was read.
fn put<E: Error>(to: &mut Vec<u8>, value: &impl Serialize) -> Result<(), E> {
    Postcard::encode(value, &mut *to).map_err(E::custom)?;
    if to.len() > MOST_BYTES { Err(E::custom(too_large())) } else { Ok(()) }
}

struct Float;

impl Visitor<'_> for Float {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, \"NaN\", \"Infinity\" or \"-Infinity\"")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<f64, E> {
        Ok(number as f64)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<f64, E> {
        Ok(number as f64)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<f64, E> {
        Ok(number)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
        match text {
            "NaN" => Ok(f64::NAN),
            "Infinity" => Ok(f64::INFINITY),
            "-Infinity" => Ok(f64::NEG_INFINITY),
            other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
        }
    }
}

struct Optional<'s, 'w>(Value<'s, 'w>, &'s Shape);

impl<'de> Visitor<'de> for Optional<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or null")
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        put(self.0.to, &false)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        let Self(mut value, inner) = self;
        put(value.to, &true)?;
        if value.schema.may_be_null(inner) {
            from.deserialize_map(Inside(value, inner))
        } else {
            value.part(inner)?.deserialize(from)
        }
    }
}

/// `{"Some": …}`.
struct Inside<'s, 'w>(Value<'s, 'w>, &'s Shape);

impl<'de> Visitor<'de> for Inside<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null or {\"Some\": ...}, because what is inside may be null itself")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        if map.next_key::<String>()?.as_deref() != Some("Some") {
            return Err(Error::custom("expected {\"Some\": ...}, because what is inside may be null itself"));
        }
        let inner = self.1;
        map.next_value_seed(self.0.part(inner)?)?;
        match map.next_key::<String>()? {
            None => Ok(()),
            Some(_) => Err(Error::custom("nothing stands beside \"Some\"")),
        }
    }
}

/// Writes how many elements there are, and then the elements.
fn counted<E: Error>(to: &mut Vec<u8>, count: usize, elements: &[u8]) -> Result<(), E> {
    put(to, &(count as u64))?;
    to.extend_from_slice(elements);
    if to.len() > MOST_BYTES { Err(E::custom(too_large())) } else { Ok(()) }
}

/// Refuses elements that take no bytes, as the codec does.
fn took_bytes<E: Error>(before: usize, after: usize) -> Result<(), E> {
    if after > before {
        Ok(())
    } else {
        Err(E::custom("a list of elements that take no bytes cannot travel as postcard"))
    }
}

struct List<'s, 'w>(Value<'s, 'w>, Option<&'s Shape>);

impl<'de> Visitor<'de> for List<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let (mut elements, mut count) = (Vec::new(), 0);
        loop {
            let before = elements.len();
            let element = self.0.aside(self.1.unwrap_or(&Shape::Any), &mut elements)?;
            if list.next_element_seed(element)?.is_none() {
                break;
            }
            took_bytes(before, elements.len())?;
            count += 1;
        }
        counted(self.0.to, count, &elements)
    }
}

struct Tuple<'s, 'w>(Value<'s, 'w>, &'s [Shape]);

impl<'de> Visitor<'de> for Tuple<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {} values", self.1.len())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        for (at, shape) in self.1.iter().enumerate() {
            if list.next_element_seed(self.0.part(shape)?)?.is_none() {
                return Err(Error::invalid_length(at, &self));
            }
        }
        match list.next_element::<serde::de::IgnoredAny>()? {
            None => Ok(()),
            Some(_) => Err(Error::custom(format_args!("more than {} values", self.1.len()))),
        }
    }
}

struct Fields<'s, 'w>(Value<'s, 'w>, &'s [(String, Shape)]);

impl<'de> Visitor<'de> for Fields<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    /// Fields come in any order, and travel in that of the schema.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut written: Vec<Option<Vec<u8>>> = vec![None; self.1.len()];
        while let Some(key) = map.next_key::<String>()? {
            let Some(at) = self.1.iter().position(|(name, _)| *name == key) else {
                let known: Vec<_> = self.1.iter().take(32).map(|(name, _)| name.as_str()).collect();
                return Err(Error::custom(format_args!("unknown field `{key}`; known are {}", known.join(", "))));
            };
            if written[at].is_some() {
                return Err(Error::custom(format_args!("the field `{key}` comes twice")));
            }
            let mut bytes = Vec::new();
            map.next_value_seed(self.0.aside(&self.1[at].1, &mut bytes)?)?;
            written[at] = Some(bytes);
        }
        for ((name, shape), bytes) in self.1.iter().zip(written) {
            match bytes {
                Some(bytes) => self.0.to.extend_from_slice(&bytes),
                None if matches!(shape, Shape::Optional(_)) => put(self.0.to, &false)?,
                None if matches!(shape, Shape::Unit) => {}
                None => return Err(Error::custom(format_args!("missing field `{name}`"))),
            }
        }
        if self.0.to.len() > MOST_BYTES { Err(Error::custom(too_large())) } else { Ok(()) }
    }
}

struct Variants<'s, 'w>(Value<'s, 'w>, &'s [(String, Form)]);

impl<'de> Visitor<'de> for Variants<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a variant: its name, or an object with its name as the only key")
    }

    fn visit_enum<A: serde::de::EnumAccess<'de>>(mut self, variant: A) -> Result<(), A::Error> {
        let (name, contents) = variant.variant::<String>()?;
        let Some(number) = self.1.iter().position(|(known, _)| *known == name) else {
            let known: Vec<_> = self.1.iter().take(32).map(|(name, _)| name.as_str()).collect();
            return Err(Error::custom(format_args!("unknown variant `{name}`; known are {}", known.join(", "))));
        };
        put(self.0.to, &(number as u32))?;
        match &self.1[number].1 {
            Form::Unit => contents.unit_variant(),
            Form::Newtype(inner) => contents.newtype_variant_seed(self.0.part(inner)?),
            Form::Tuple(shapes) => contents.tuple_variant(shapes.len(), Tuple(self.0, shapes)),
            Form::Struct(fields) => contents.struct_variant(&[], Fields(self.0, fields)),
            Form::Enum(_) | Form::Tagged { .. } | Form::Either(_) => {
                Err(Error::custom("the schema has a variant that is an enum"))
            }
        }
    }
}

struct Entries<'s, 'w>(Value<'s, 'w>, Option<&'s (Shape, Shape)>);

impl<'de> Visitor<'de> for Entries<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut entries, mut count) = (Vec::new(), 0);
        while let Some(text) = map.next_key::<String>()? {
            let (key, value) = self.1.ok_or_else(|| Error::custom(never_seen()))?;
            let before = entries.len();
            let quoted = self.0.schema.is_quoted(key);
            let seed = self.0.aside(key, &mut entries)?;
            if quoted && !matches!(text.as_str(), "NaN" | "Infinity" | "-Infinity") {
                let mut reader = serde_json::Deserializer::from_str(&text);
                seed.deserialize(&mut reader)
                    .and_then(|()| reader.end())
                    .map_err(|error| Error::custom(bad_key(&text, &error)))?;
            } else {
                seed.deserialize(text.into_deserializer())?;
            }
            took_bytes(before, entries.len())?;
            map.next_value_seed(self.0.aside(value, &mut entries)?)?;
            count += 1;
        }
        counted(self.0.to, count, &entries)
    }
}

/// What is wrong with a key. Its line and column are those of a text of its own: the map's are found by whoever reads that.
fn bad_key(key: &str, error: &serde_json::Error) -> String {
    let said = error.to_string();
    format!("the key {key:?}: {}", said.rsplit_once(" at line ").map_or(&*said, |(said, _)| said))
}

/// A map whose keys are no texts.
struct Pairs<'s, 'w>(Value<'s, 'w>, &'s (Shape, Shape));

impl<'de> Visitor<'de> for Pairs<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of pairs, because the keys of this map are no texts")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let (mut entries, mut count) = (Vec::new(), 0);
        loop {
            let before = entries.len();
            let pair = Pair(self.0.aside(&self.1.0, &mut entries)?, &self.1.1);
            if list.next_element_seed(pair)?.is_none() {
                break;
            }
            took_bytes(before, entries.len())?;
            count += 1;
        }
        counted(self.0.to, count, &entries)
    }
}

struct Pair<'s, 'w>(Value<'s, 'w>, &'s Shape);

impl<'de> DeserializeSeed<'de> for Pair<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Pair<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key and a value")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self(Value { schema, shape, depth_left, to }, second) = self;
        for shape in [shape, second] {
            let value = Value { schema, shape, depth_left, to: &mut *to };
            list.next_element_seed(value)?.ok_or_else(|| Error::custom("a key and a value stand in each pair"))?;
        }
        match list.next_element::<serde::de::IgnoredAny>()? {
            None => Ok(()),
            Some(_) => Err(Error::custom("a key and a value, and no more, stand in each pair")),
        }
    }
}
