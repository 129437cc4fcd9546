//! What must be a text in JSON: the keys of a map.

use std::io;

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
}

macro_rules! quoted {
    ($($method:ident: $type:ty),*) => {$(
        fn $method(self, value: $type) -> Result<(), CodecError> {
            self.writer.put(b"\"")?;
            self.writer.plain(&value)?;
            self.writer.put(b"\"")
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
        self.writer.put(b"\"")?;
        self.writer.plain(&value)?;
        self.writer.put(b"\"")
    }

    fn serialize_char(self, value: char) -> Result<(), CodecError> {
        self.writer.plain(&value)
    }

    fn serialize_str(self, value: &str) -> Result<(), CodecError> {
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
