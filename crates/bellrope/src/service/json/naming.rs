//! Which argument was read when an error came that has no place: one of a type that looks at what comes before it chooses
//! (`untagged`, `tag`, `flatten`), or that is made of another one (`try_from`).

use std::{borrow::Cow, cell::RefCell, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, IntoDeserializer as _, MapAccess, Visitor, value::CowStrDeserializer},
    forward_to_deserialize_any,
};

/// The name of the field of the outermost struct whose value could not be read, if that is where the error came.
pub(super) fn failed_field<'a, T: Deserialize<'a>>(text: &'a str) -> Option<String> {
    let failed = RefCell::new(None);
    let mut json = serde_json::Deserializer::from_str(text);
    let _ = T::deserialize(Outermost { json: &mut json, failed: &failed });
    failed.into_inner()
}

/// Reads a struct from an object, and nothing else.
struct Outermost<'f, D> {
    json: D,
    failed: &'f RefCell<Option<String>>,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Outermost<'_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, D::Error> {
        Err(de::Error::custom("it is no struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.json.deserialize_struct(name, fields, Named { inner: visitor, failed: self.failed })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Notes which value fails.
struct Named<'f, I> {
    inner: I,
    failed: &'f RefCell<Option<String>>,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Named<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Fields { map, key: None, failed: self.failed })
    }
}

struct Fields<'f, A> {
    map: A,
    key: Option<String>,
    failed: &'f RefCell<Option<String>>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Fields<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let Some(key) = self.map.next_key::<String>()? else { return Ok(None) };
        self.key = Some(key.clone());
        let key: CowStrDeserializer<'_, A::Error> = Cow::<str>::Owned(key).into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        let key = self.key.take();
        self.map.next_value_seed(seed).inspect_err(|_| *self.failed.borrow_mut() = key)
    }
}
