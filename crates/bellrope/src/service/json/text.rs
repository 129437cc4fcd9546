//! What must be a text in JSON: the keys of a map.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    io,
};

use serde::{
    Serialize,
    ser::{Impossible, Serializer},
};

use super::{
    super::codec::CodecError,
    output::{Writer, no_number},
};

/// Writes a text, or what has a plain form as one.
pub(super) struct Text<'w, W> {
    pub(super) writer: &'w mut Writer<W>,
    /// Whether it stands in quotation marks. Otherwise it is JSON already.
    pub(super) quoted: bool,
    /// What else was a key.
    pub(super) keys: Option<&'w mut Keys>,
}

/// Keys that may be the same text although they are not the same value: numbers and booleans, and texts that look like them. There are
/// none in most maps, whose keys are texts that begin with a letter.
#[derive(Default)]
pub(super) struct Keys {
    hashes: Vec<u64>,
    /// Whether there were keys that were texts already, and others.
    texts: bool,
    others: bool,
}

impl Keys {
    fn add(&mut self, key: &[u8], is_text: bool) {
        let looks = matches!(key.first(), Some(b'0'..=b'9' | b'-')) || matches!(key, b"true" | b"false");
        if !is_text || looks {
            *(if is_text { &mut self.texts } else { &mut self.others }) = true;
            let mut hasher = DefaultHasher::new();
            key.hash(&mut hasher);
            self.hashes.push(hasher.finish());
        }
    }

    /// Whether two are the same text.
    pub(super) fn are_distinct(mut self) -> bool {
        if !self.texts || !self.others {
            return true;
        }
        let count = self.hashes.len();
        self.hashes.sort_unstable();
        self.hashes.dedup();
        self.hashes.len() == count
    }
}

macro_rules! quoted {
    ($($method:ident: $type:ty),*) => {$(
        fn $method(self, value: $type) -> Result<(), CodecError> {
            self.put_quoted(&value)
        }
    )*};
}

macro_rules! refused {
    ($($method:ident($($type:ty),*) -> $ok:ty;)*) => {$(
        fn $method(self, $(_: $type),*) -> Result<$ok, CodecError> {
            Err(not_a_text())
        }
    )*};
}

impl<W: io::Write> Text<'_, W> {
    fn put_quoted<T: Serialize>(self, value: &T) -> Result<(), CodecError> {
        let Some(keys) = self.keys else {
            self.writer.put(b"\"")?;
            self.writer.plain(value)?;
            return self.writer.put(b"\"");
        };
        // As long as a number may be.
        let mut text = [0; 48];
        let mut left = &mut text[..];
        serde_json::to_writer(&mut left, value).map_err(CodecError::new)?;
        let unused = left.len();
        let text = &text[..text.len() - unused];
        keys.add(text, false);
        self.writer.put(b"\"")?;
        self.writer.put(text)?;
        self.writer.put(b"\"")
    }
}

impl<W: io::Write> Serializer for Text<'_, W> {
    type Ok = ();
    type Error = CodecError;
    type SerializeSeq = Impossible<(), CodecError>;
    type SerializeTuple = Impossible<(), CodecError>;
    type SerializeTupleStruct = Impossible<(), CodecError>;
    type SerializeTupleVariant = Impossible<(), CodecError>;
    type SerializeMap = Impossible<(), CodecError>;
    type SerializeStruct = Impossible<(), CodecError>;
    type SerializeStructVariant = Impossible<(), CodecError>;

    quoted! {
        serialize_bool: bool,
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128
    }

    refused! {
        serialize_bytes(&[u8]) -> ();
        serialize_none() -> ();
        serialize_unit() -> ();
        serialize_unit_struct(&'static str) -> ();
        serialize_seq(Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant;
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct(&'static str, usize) -> Self::SerializeStruct;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant;
    }

    fn serialize_f32(self, value: f32) -> Result<(), CodecError> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), CodecError> {
        if !value.is_finite() {
            return Err(no_number(value));
        }
        self.put_quoted(&value)
    }

    fn serialize_char(self, value: char) -> Result<(), CodecError> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), CodecError> {
        if let Some(keys) = self.keys {
            keys.add(value.as_bytes(), true);
        }
        if self.quoted { self.writer.plain(value) } else { self.writer.put(value.as_bytes()) }
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), CodecError> {
        self.writer.plain(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), CodecError> {
        value.serialize(self)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<(), CodecError> {
        Err(not_a_text())
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), CodecError> {
        Err(not_a_text())
    }
}

#[cold]
fn not_a_text() -> CodecError {
    CodecError::new("a key of a map must be a text, a number, a boolean or a plain variant to be one in JSON")
}
