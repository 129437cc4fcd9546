//! Bytes to values. The bytes may be anybody's.

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::{
    super::{
        codec::{CodecError, Step},
        memory::Memory,
    },
    depth::{MOST_DEPTH, too_deep},
};

/// Reads values.
pub(in crate::service) struct Reader<'de> {
    left: &'de [u8],
    /// How much deeper values may nest.
    depth_left: u32,
    memory: Memory,
}

impl<'de> Reader<'de> {
    pub(in crate::service) fn new(bytes: &'de [u8]) -> Self {
        Self { left: bytes, depth_left: MOST_DEPTH, memory: Memory::of(bytes.len()) }
    }

    /// Nothing may follow a value.
    pub(in crate::service) fn is_done(&self) -> Result<(), CodecError> {
        match self.left.len() {
            0 => Ok(()),
            left => Err(CodecError::new(format_args!("{left} bytes follow where it should end"))),
        }
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'de [u8], CodecError> {
        let (taken, left) = self.left.split_at_checked(len).ok_or_else(ends_early)?;
        self.left = left;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (taken, left) = self.left.split_first_chunk().ok_or_else(ends_early)?;
        self.left = left;
        Ok(*taken)
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, CodecError> {
        Ok(self.array::<1>()?[0])
    }

    /// A number of at most so many bits.
    #[inline]
    fn varint(&mut self, bits: u32) -> Result<u64, CodecError> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(first.into());
        }
        self.varint_128_from(first, bits).map(|number| number as u64)
    }

    fn varint_128(&mut self, bits: u32) -> Result<u128, CodecError> {
        let first = self.byte()?;
        self.varint_128_from(first, bits)
    }

    fn varint_128_from(&mut self, first: u8, bits: u32) -> Result<u128, CodecError> {
        let mut number = u128::from(first & 0x7F);
        let (mut more, mut shift) = (first >= 0x80, 7);
        while more {
            let byte = self.byte()?;
            let group = u128::from(byte & 0x7F);
            // Either no room is left at all, or less than the group needs.
            if shift >= bits || (bits - shift < 7 && group >> (bits - shift) != 0) {
                return Err(too_large(bits));
            }
            number |= group << shift;
            (more, shift) = (byte >= 0x80, shift + 7);
        }
        Ok(number)
    }

    #[inline]
    fn zigzag(&mut self, bits: u32) -> Result<i64, CodecError> {
        let number = self.varint(bits)?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// A number of elements, each of which takes at least a byte.
    #[inline]
    pub(in crate::service) fn len(&mut self) -> Result<usize, CodecError> {
        let len = self.varint(64)?;
        if len > self.left.len() as u64 {
            return Err(too_many(len, self.left.len()));
        }
        Ok(len as usize)
    }

    #[inline]
    fn bytes(&mut self) -> Result<&'de [u8], CodecError> {
        let len = self.len()?;
        self.take(len)
    }

    #[inline]
    fn text(&mut self) -> Result<&'de str, CodecError> {
        std::str::from_utf8(self.bytes()?).map_err(CodecError::new)
    }

    /// Runs what reads the inside of a value.
    #[inline]
    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, CodecError>) -> Result<T, CodecError> {
        self.depth_left = self.depth_left.checked_sub(1).ok_or_else(too_deep)?;
        let value = read(self)?;
        self.depth_left += 1;
        Ok(value)
    }
}

macro_rules! numbers {
    ($($method:ident, $visit:ident, $type:ty, $read:ident, $bits:literal;)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
            visitor.$visit(self.$read($bits)? as $type)
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = CodecError;

    numbers! {
        deserialize_u16, visit_u16, u16, varint, 16;
        deserialize_u32, visit_u32, u32, varint, 32;
        deserialize_u64, visit_u64, u64, varint, 64;
        deserialize_u128, visit_u128, u128, varint_128, 128;
        deserialize_i16, visit_i16, i16, zigzag, 16;
        deserialize_i32, visit_i32, i32, zigzag, 32;
        deserialize_i64, visit_i64, i64, zigzag, 64;
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, CodecError> {
        Err(needs_names())
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        match self.byte()? {
            0 => visitor.visit_bool(false),
            1 => visitor.visit_bool(true),
            other => Err(CodecError::new(format_args!("{other} is neither false (0) nor true (1)"))),
        }
    }

    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_i8(i8::from_le_bytes(self.array()?))
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_u8(self.byte()?)
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let number = self.varint_128(128)?;
        visitor.visit_i128((number >> 1) as i128 ^ -((number & 1) as i128))
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_f32(f32::from_le_bytes(self.array()?))
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_f64(f64::from_le_bytes(self.array()?))
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let mut chars = self.text()?.chars();
        match (chars.next(), chars.next()) {
            (Some(char), None) => visitor.visit_char(char),
            _ => Err(CodecError::new("a character is one, and no more")),
        }
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_borrowed_str(self.text()?)
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_borrowed_bytes(self.bytes()?)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        match self.byte()? {
            0 => visitor.visit_none(),
            1 => self.deeper(|reader| visitor.visit_some(reader)),
            other => {
                Err(CodecError::new(format_args!("{other} says neither that nothing is there (0) nor something (1)")))
            }
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, CodecError> {
        self.deeper(|reader| visitor.visit_newtype_struct(reader))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let left = self.len()?;
        self.deeper(|reader| visitor.visit_seq(Elements(Parts { reader, left, index: 0, names: &[] })))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, CodecError> {
        self.deeper(|reader| visitor.visit_seq(Parts { reader, left: len, index: 0, names: &[] }))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let left = self.len()?;
        self.deeper(|reader| visitor.visit_map(Elements(Parts { reader, left, index: 0, names: &[] })))
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.deeper(|reader| visitor.visit_seq(Parts { reader, left: names.len(), index: 0, names }))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        // What is inside of it counts as a level, as it does when it is written.
        visitor.visit_enum(Variant { reader: self, names })
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, CodecError> {
        Err(needs_names())
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, CodecError> {
        Err(needs_names())
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The parts of a value.
struct Parts<'r, 'de> {
    reader: &'r mut Reader<'de>,
    /// Parts to come. Of a list it is at most the number of bytes that were there, so it is also what may be allocated.
    left: usize,
    index: usize,
    /// Of the fields, if they have any.
    names: &'static [&'static str],
}

impl<'de> Parts<'_, 'de> {
    #[inline]
    fn part<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, CodecError> {
        seed.deserialize(&mut *self.reader).map_err(|error| match self.names.get(self.index) {
            Some(name) => error.in_field(*name),
            None => error.within(Step::Index(self.index)),
        })
    }
}

impl<'de> SeqAccess<'de> for Parts<'_, 'de> {
    type Error = CodecError;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, CodecError> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        let part = self.part(seed)?;
        (self.left, self.index) = (left, self.index + 1);
        Ok(Some(part))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// The elements of a list or the entries of a map, whose number their writer has chosen. Each takes a byte, so that their number is
/// bounded by the bytes even where one list is in another.
struct Elements<'r, 'de>(Parts<'r, 'de>);

impl<'de> Elements<'_, 'de> {
    #[inline]
    fn element<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, CodecError> {
        let before = self.0.reader.left.len();
        let element = self.0.part(seed)?;
        if self.0.reader.left.len() == before {
            return Err(takes_nothing().within(Step::Index(self.0.index)));
        }
        self.0.reader.memory.take::<S::Value>().map_err(|error| error.within(Step::Index(self.0.index)))?;
        Ok(element)
    }
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = CodecError;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, CodecError> {
        let Some(left) = self.0.left.checked_sub(1) else { return Ok(None) };
        let element = self.element(seed)?;
        (self.0.left, self.0.index) = (left, self.0.index + 1);
        Ok(Some(element))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.left)
    }
}

impl<'de> MapAccess<'de> for Elements<'_, 'de> {
    type Error = CodecError;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, CodecError> {
        let Some(left) = self.0.left.checked_sub(1) else { return Ok(None) };
        let key = self.element(seed)?;
        self.0.left = left;
        Ok(Some(key))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, CodecError> {
        let value = self.0.part(seed)?;
        self.0.reader.memory.take::<S::Value>().map_err(|error| error.within(Step::Index(self.0.index)))?;
        self.0.index += 1;
        Ok(value)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.left)
    }
}

/// One of an enum's variants.
struct Variant<'r, 'de> {
    reader: &'r mut Reader<'de>,
    names: &'static [&'static str],
}

impl<'r, 'de> EnumAccess<'de> for Variant<'r, 'de> {
    type Error = CodecError;
    type Variant = Inside<'r, 'de>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), CodecError> {
        let number = self.reader.varint(32)? as u32;
        let Some(name) = self.names.get(number as usize) else { return Err(unknown_variant(number, self.names)) };
        let variant = seed.deserialize(IntoDeserializer::<CodecError>::into_deserializer(number))?;
        Ok((variant, Inside { reader: self.reader, name }))
    }
}

/// What is inside of a variant.
struct Inside<'r, 'de> {
    reader: &'r mut Reader<'de>,
    name: &'static str,
}

impl<'de> VariantAccess<'de> for Inside<'_, 'de> {
    type Error = CodecError;

    fn unit_variant(self) -> Result<(), CodecError> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, CodecError> {
        self.reader.deeper(|reader| seed.deserialize(reader)).map_err(|error| error.in_field(self.name))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, CodecError> {
        self.reader.deserialize_tuple(len, visitor).map_err(|error| error.in_field(self.name))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.reader.deserialize_struct("", fields, visitor).map_err(|error| error.in_field(self.name))
    }
}

#[cold]
fn ends_early() -> CodecError {
    CodecError::new("the bytes end before the value does")
}

#[cold]
fn too_large(bits: u32) -> CodecError {
    CodecError::new(format_args!("the number has more than {bits} bits"))
}

#[cold]
fn takes_nothing() -> CodecError {
    CodecError::new("a list of elements that take no bytes cannot travel as postcard")
}

#[cold]
fn too_many(len: u64, left: usize) -> CodecError {
    CodecError::new(format_args!("{len} elements cannot be in the {left} bytes that are left"))
}

#[cold]
pub(in crate::service) fn unknown_variant(number: u32, names: &[&str]) -> CodecError {
    CodecError::new(format_args!("unknown variant number {number}; known are {}", names.join(", ")))
}

#[cold]
fn needs_names() -> CodecError {
    CodecError::new(
        "its type asks what comes next (#[serde(untagged)], #[serde(flatten)], #[serde(tag)]), which postcard does not say; \
         use the codec json",
    )
}
