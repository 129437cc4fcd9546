//! Values to JSON.

use std::io;

use serde::{
    Serialize,
    ser::{
        SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
        SerializeTupleVariant, Serializer,
    },
};

use super::{
    super::codec::{CodecError, Step},
    output::{Writer, no_number},
    text,
};

fn compound<'w, W: io::Write>(
    writer: &'w mut Writer<W>,
    opening: &'static [u8; 1],
    closing: &'static [u8; 1],
) -> Result<Compound<'w, W>, CodecError> {
    writer.open(opening)?;
    Ok(Compound { writer, index: 0, closing, in_variant: false, raw: false })
}

macro_rules! plain {
    ($($method:ident: $type:ty),*) => {$(
        #[inline]
        fn $method(self, value: $type) -> Result<(), CodecError> {
            self.plain(&value)
        }
    )*};
}

impl<'w, W: io::Write> Serializer for &'w mut Writer<W> {
    type Ok = ();
    type Error = CodecError;
    type SerializeSeq = Compound<'w, W>;
    type SerializeTuple = Compound<'w, W>;
    type SerializeTupleStruct = Compound<'w, W>;
    type SerializeTupleVariant = Compound<'w, W>;
    type SerializeMap = Map<'w, W>;
    type SerializeStruct = Compound<'w, W>;
    type SerializeStructVariant = Compound<'w, W>;

    plain! {
        serialize_bool: bool, serialize_char: char, serialize_str: &str,
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128
    }

    fn serialize_f32(self, value: f32) -> Result<(), CodecError> {
        if value.is_finite() { self.plain(&value) } else { Err(no_number(value)) }
    }

    fn serialize_f64(self, value: f64) -> Result<(), CodecError> {
        if value.is_finite() { self.plain(&value) } else { Err(no_number(value)) }
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), CodecError> {
        self.plain(value)
    }

    fn serialize_none(self) -> Result<(), CodecError> {
        self.null()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), CodecError> {
        let before = self.written;
        value.serialize(&mut *self)?;
        if self.null_at == Some(before) {
            return Err(nothing_inside_something());
        }
        Ok(())
    }

    fn serialize_unit(self) -> Result<(), CodecError> {
        self.null()
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), CodecError> {
        self.null()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), CodecError> {
        self.plain(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), CodecError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        self.open_variant(variant)?;
        value.serialize(&mut *self).map_err(|error| error.in_field(variant))?;
        self.close(b"}")
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, CodecError> {
        compound(self, b"[", b"]")
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, CodecError> {
        compound(self, b"[", b"]")
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, CodecError> {
        compound(self, b"[", b"]")
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, CodecError> {
        self.open_variant(variant)?;
        Ok(Compound { in_variant: true, ..compound(self, b"[", b"]")? })
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, CodecError> {
        Ok(Map { compound: compound(self, b"{", b"}")?, keys: text::Keys::default() })
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Self::SerializeStruct, CodecError> {
        // What serde_json calls raw values and numbers of any precision: their one field is JSON.
        if name.starts_with("$serde_json::private::") {
            return Ok(Compound { writer: self, index: 0, closing: b"}", in_variant: false, raw: true });
        }
        compound(self, b"{", b"}")
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, CodecError> {
        self.open_variant(variant)?;
        Ok(Compound { in_variant: true, ..compound(self, b"{", b"}")? })
    }
}

/// A value of several parts.
pub(super) struct Compound<'w, W> {
    writer: &'w mut Writer<W>,
    /// Parts that were written.
    index: usize,
    closing: &'static [u8; 1],
    /// Whether it stands in an object of its own, for its variant.
    in_variant: bool,
    /// Whether its one field is JSON already.
    raw: bool,
}

impl<W: io::Write> Compound<'_, W> {
    #[inline]
    fn next(&mut self) -> Result<usize, CodecError> {
        if self.index > 0 {
            self.writer.put(b",")?;
        }
        self.index += 1;
        Ok(self.index - 1)
    }

    fn element<T: Serialize + ?Sized>(&mut self, element: &T) -> Result<(), CodecError> {
        let index = self.next()?;
        element.serialize(&mut *self.writer).map_err(|error| error.within(Step::Index(index)))
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, field: &T) -> Result<(), CodecError> {
        if self.raw {
            return field.serialize(text::Text { writer: self.writer, quoted: false, keys: None });
        }
        self.writer.key(name, self.index == 0)?;
        self.index += 1;
        field.serialize(&mut *self.writer).map_err(|error| error.in_field(name))
    }

    fn close(self) -> Result<(), CodecError> {
        if self.raw {
            return Ok(());
        }
        self.writer.close(self.closing)?;
        if self.in_variant { self.writer.close(b"}") } else { Ok(()) }
    }
}

macro_rules! listed {
    ($($trait:ident: $method:ident),*) => {$(
        impl<W: io::Write> $trait for Compound<'_, W> {
            type Ok = ();
            type Error = CodecError;

            fn $method<T: Serialize + ?Sized>(&mut self, element: &T) -> Result<(), CodecError> {
                self.element(element)
            }

            fn end(self) -> Result<(), CodecError> {
                self.close()
            }
        }
    )*};
}

listed! {
    SerializeSeq: serialize_element,
    SerializeTuple: serialize_element,
    SerializeTupleStruct: serialize_field,
    SerializeTupleVariant: serialize_field
}

macro_rules! named {
    ($($trait:ident),*) => {$(
        impl<W: io::Write> $trait for Compound<'_, W> {
            type Ok = ();
            type Error = CodecError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                field: &T,
            ) -> Result<(), CodecError> {
                self.field(name, field)
            }

            fn end(self) -> Result<(), CodecError> {
                self.close()
            }
        }
    )*};
}

named!(SerializeStruct, SerializeStructVariant);

/// A map.
pub(super) struct Map<'w, W> {
    compound: Compound<'w, W>,
    keys: text::Keys,
}

impl<W: io::Write> SerializeMap for Map<'_, W> {
    type Ok = ();
    type Error = CodecError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), CodecError> {
        let index = self.compound.next()?;
        key.serialize(text::Text { writer: self.compound.writer, quoted: true, keys: Some(&mut self.keys) })
            .map_err(|error| error.within(Step::Index(index)))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        let index = self.compound.index - 1;
        self.compound.writer.put(b":")?;
        value.serialize(&mut *self.compound.writer).map_err(|error| error.within(Step::Index(index)))
    }

    fn end(self) -> Result<(), CodecError> {
        if !self.keys.are_distinct() {
            return Err(twice());
        }
        self.compound.close()
    }
}

#[cold]
fn twice() -> CodecError {
    CodecError::new("two keys of the map are one text in JSON: a number or a boolean, and a text that looks like it")
}

#[cold]
fn nothing_inside_something() -> CodecError {
    CodecError::new("JSON cannot tell nothing (None, ()) inside of Some from None: both are null")
}
