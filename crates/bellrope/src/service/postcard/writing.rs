//! Values to bytes.

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
    depth::{MOST_DEPTH, too_deep},
};

/// Bytes that are gathered before they are written: most values have fewer, and each write costs more than what it writes.
const GATHERED: usize = 64;

/// Writes values.
pub(super) struct Writer<W> {
    to: W,
    /// What was not written yet, and how much that is.
    gathered: [u8; GATHERED],
    filled: usize,
    /// Bytes of the value so far.
    written: usize,
    /// How much deeper values may nest.
    depth_left: u32,
}

impl<W: io::Write> Writer<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to, gathered: [0; GATHERED], filled: 0, written: 0, depth_left: MOST_DEPTH }
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) -> Result<(), CodecError> {
        self.written += bytes.len();
        let Some(room) = self.gathered.get_mut(self.filled..self.filled + bytes.len()) else {
            return self.put_more(bytes);
        };
        room.copy_from_slice(bytes);
        self.filled += bytes.len();
        Ok(())
    }

    #[inline(never)]
    fn put_more(&mut self, bytes: &[u8]) -> Result<(), CodecError> {
        self.finish()?;
        match self.gathered.get_mut(..bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.filled = bytes.len();
                Ok(())
            }
            None => self.to.write_all(bytes).map_err(unwritten),
        }
    }

    /// Writes what was gathered.
    #[inline]
    pub(super) fn finish(&mut self) -> Result<(), CodecError> {
        match std::mem::take(&mut self.filled) {
            0 => Ok(()),
            filled => self.to.write_all(&self.gathered[..filled]).map_err(unwritten),
        }
    }

    /// A number in groups of seven bits, the lowest first; the highest bit of a byte says that another follows.
    #[inline]
    fn varint(&mut self, number: u64) -> Result<(), CodecError> {
        if number < 0x80 { self.put(&[number as u8]) } else { self.long_varint(number) }
    }

    fn long_varint(&mut self, mut number: u64) -> Result<(), CodecError> {
        let mut bytes = [0; 10];
        let mut len = 0;
        loop {
            bytes[len] = number as u8 & 0x7F;
            number >>= 7;
            len += 1;
            if number == 0 {
                return self.put(&bytes[..len]);
            }
            bytes[len - 1] |= 0x80;
        }
    }

    fn varint_128(&mut self, mut number: u128) -> Result<(), CodecError> {
        let mut bytes = [0; 19];
        let mut len = 0;
        loop {
            bytes[len] = number as u8 & 0x7F;
            number >>= 7;
            len += 1;
            if number == 0 {
                return self.put(&bytes[..len]);
            }
            bytes[len - 1] |= 0x80;
        }
    }

    /// Numbers with a sign, small ones first: 0, -1, 1, -2, ...
    #[inline]
    fn zigzag(&mut self, number: i64) -> Result<(), CodecError> {
        self.varint(((number << 1) ^ (number >> 63)) as u64)
    }

    /// Goes one level down. Whoever calls it goes up again, unless there was an error: then nothing is written any more.
    #[inline]
    fn enter(&mut self) -> Result<(), CodecError> {
        self.depth_left = self.depth_left.checked_sub(1).ok_or_else(too_deep)?;
        Ok(())
    }

    #[inline]
    fn leave(&mut self) {
        self.depth_left += 1;
    }

    #[inline]
    fn compound(&mut self, due: Option<usize>) -> Result<Compound<'_, W>, CodecError> {
        self.enter()?;
        Ok(Compound { writer: self, due, index: 0 })
    }
}

macro_rules! unsigned {
    ($($method:ident: $type:ty),*) => {$(
        #[inline]
        fn $method(self, number: $type) -> Result<(), CodecError> {
            self.varint(number.into())
        }
    )*};
}

macro_rules! signed {
    ($($method:ident: $type:ty),*) => {$(
        #[inline]
        fn $method(self, number: $type) -> Result<(), CodecError> {
            self.zigzag(number.into())
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
    type SerializeMap = Compound<'w, W>;
    type SerializeStruct = Compound<'w, W>;
    type SerializeStructVariant = Compound<'w, W>;

    unsigned!(serialize_u16: u16, serialize_u32: u32, serialize_u64: u64);
    signed!(serialize_i16: i16, serialize_i32: i32, serialize_i64: i64);

    #[inline]
    fn serialize_bool(self, value: bool) -> Result<(), CodecError> {
        self.put(&[value.into()])
    }

    fn serialize_i8(self, value: i8) -> Result<(), CodecError> {
        self.put(&value.to_le_bytes())
    }

    #[inline]
    fn serialize_u8(self, value: u8) -> Result<(), CodecError> {
        self.put(&[value])
    }

    fn serialize_i128(self, value: i128) -> Result<(), CodecError> {
        self.varint_128(((value << 1) ^ (value >> 127)) as u128)
    }

    fn serialize_u128(self, value: u128) -> Result<(), CodecError> {
        self.varint_128(value)
    }

    fn serialize_f32(self, value: f32) -> Result<(), CodecError> {
        self.put(&value.to_bits().to_le_bytes())
    }

    fn serialize_f64(self, value: f64) -> Result<(), CodecError> {
        self.put(&value.to_bits().to_le_bytes())
    }

    fn serialize_char(self, value: char) -> Result<(), CodecError> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), CodecError> {
        self.serialize_bytes(value.as_bytes())
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Result<(), CodecError> {
        self.varint(value.len() as u64)?;
        self.put(value)
    }

    #[inline]
    fn serialize_none(self) -> Result<(), CodecError> {
        self.put(&[0])
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), CodecError> {
        self.put(&[1])?;
        self.serialize_newtype_struct("", value)
    }

    fn serialize_unit(self) -> Result<(), CodecError> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), CodecError> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, index: u32, _: &'static str) -> Result<(), CodecError> {
        self.varint(index.into())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), CodecError> {
        self.enter()?;
        value.serialize(&mut *self)?;
        self.leave();
        Ok(())
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        self.varint(index.into())?;
        self.serialize_newtype_struct(name, value).map_err(|error| error.in_field(variant))
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, CodecError> {
        let len = len.ok_or_else(unknown_length)?;
        self.varint(len as u64)?;
        self.compound(Some(len))
    }

    #[inline]
    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, CodecError> {
        self.compound(Some(len))
    }

    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Self::SerializeTupleStruct, CodecError> {
        self.compound(Some(len))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, CodecError> {
        self.varint(index.into())?;
        self.compound(Some(len))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, CodecError> {
        self.serialize_seq(len)
    }

    #[inline]
    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Self::SerializeStruct, CodecError> {
        self.compound(Some(len))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        _: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, CodecError> {
        self.varint(index.into())?;
        self.serialize_struct(name, len)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// A value of several parts.
pub(super) struct Compound<'w, W> {
    writer: &'w mut Writer<W>,
    /// Parts that were announced.
    due: Option<usize>,
    /// Parts that were written.
    index: usize,
}

impl<W: io::Write> Compound<'_, W> {
    #[inline]
    fn part<T: Serialize + ?Sized>(&mut self, part: &T) -> Result<(), CodecError> {
        self.index += 1;
        part.serialize(&mut *self.writer)
    }

    #[inline]
    fn element<T: Serialize + ?Sized>(&mut self, element: &T) -> Result<(), CodecError> {
        let (index, before) = (self.index, self.writer.written);
        self.part(element).map_err(|error| error.within(Step::Index(index)))?;
        if self.writer.written == before {
            return Err(nothing_written().within(Step::Index(index)));
        }
        Ok(())
    }

    #[inline]
    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, field: &T) -> Result<(), CodecError> {
        self.part(field).map_err(|error| error.in_field(name))
    }

    #[inline]
    fn close(self) -> Result<(), CodecError> {
        self.writer.leave();
        match self.due {
            Some(due) if due != self.index => Err(miscounted(due, self.index)),
            _ => Ok(()),
        }
    }
}

impl<W: io::Write> SerializeSeq for Compound<'_, W> {
    type Ok = ();
    type Error = CodecError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, element: &T) -> Result<(), CodecError> {
        self.element(element)
    }

    fn end(self) -> Result<(), CodecError> {
        self.close()
    }
}

impl<W: io::Write> SerializeMap for Compound<'_, W> {
    type Ok = ();
    type Error = CodecError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), CodecError> {
        self.element(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        let index = self.index.saturating_sub(1);
        value.serialize(&mut *self.writer).map_err(|error| error.within(Step::Index(index)))
    }

    fn end(self) -> Result<(), CodecError> {
        self.close()
    }
}

macro_rules! positional {
    ($($trait:ident: $method:ident),*) => {$(
        impl<W: io::Write> $trait for Compound<'_, W> {
            type Ok = ();
            type Error = CodecError;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, part: &T) -> Result<(), CodecError> {
                let index = self.index;
                self.part(part).map_err(|error| error.within(Step::Index(index)))
            }

            #[inline]
            fn end(self) -> Result<(), CodecError> {
                self.close()
            }
        }
    )*};
}

positional!(SerializeTuple: serialize_element, SerializeTupleStruct: serialize_field, SerializeTupleVariant: serialize_field);

macro_rules! named {
    ($($trait:ident),*) => {$(
        impl<W: io::Write> $trait for Compound<'_, W> {
            type Ok = ();
            type Error = CodecError;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                field: &T,
            ) -> Result<(), CodecError> {
                self.field(name, field)
            }

            fn skip_field(&mut self, name: &'static str) -> Result<(), CodecError> {
                Err(left_out().in_field(name))
            }

            #[inline]
            fn end(self) -> Result<(), CodecError> {
                self.close()
            }
        }
    )*};
}

named!(SerializeStruct, SerializeStructVariant);

#[cold]
fn unknown_length() -> CodecError {
    CodecError::new("postcard needs to know before how many elements there are (does #[serde(flatten)] hide it?)")
}

#[cold]
fn nothing_written() -> CodecError {
    CodecError::new("a list of elements that take no bytes cannot travel as postcard")
}

#[cold]
fn miscounted(due: usize, written: usize) -> CodecError {
    CodecError::new(format_args!("{due} parts were announced, and {written} written"))
}

#[cold]
fn unwritten(error: io::Error) -> CodecError {
    CodecError::new(error)
}

#[cold]
fn left_out() -> CodecError {
    CodecError::left_out(
        "postcard cannot leave a field out (#[serde(skip_serializing_if)]); its reader would take the next one for it",
    )
}
