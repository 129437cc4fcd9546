//! Notes what serde announces when it writes a value.

use serde::{
    Serialize,
    ser::{
        SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
        SerializeTupleVariant, Serializer,
    },
};

use super::{super::codec::CodecError, model::Shape};

/// What was announced of a value.
#[derive(Debug)]
pub(super) enum Said {
    /// What has no parts.
    Plain(Shape),
    /// A field that is left out this time.
    LeftOut,
    None,
    Some(Box<Said>),
    List(Vec<Said>),
    /// Keys and values in turn.
    Map(Vec<Said>),
    /// Of a tuple or a struct; without names, there are none. A field that is left out this time is there, too.
    Parts {
        names: Vec<&'static str>,
        parts: Vec<Said>,
    },
    Variant {
        number: u32,
        name: &'static str,
        inside: Box<Said>,
    },
}

/// What is announced of a value.
pub(super) fn announced(value: &impl Serialize, named: bool) -> Result<Said, CodecError> {
    value.serialize(Announcements { named })
}

#[derive(Clone, Copy)]
struct Announcements {
    named: bool,
}

macro_rules! plain {
    ($($method:ident: $type:ty, $shape:expr;)*) => {$(
        fn $method(self, _: $type) -> Result<Said, CodecError> {
            Ok(Said::Plain($shape))
        }
    )*};
}

const fn integer(signed: bool, bits: u8) -> Shape {
    Shape::Integer { signed, bits }
}

impl Serializer for Announcements {
    type Ok = Said;
    type Error = CodecError;
    type SerializeSeq = Compound;
    type SerializeTuple = Compound;
    type SerializeTupleStruct = Compound;
    type SerializeTupleVariant = Compound;
    type SerializeMap = Compound;
    type SerializeStruct = Compound;
    type SerializeStructVariant = Compound;

    plain! {
        serialize_bool: bool, Shape::Bool;
        serialize_i8: i8, integer(true, 8);
        serialize_i16: i16, integer(true, 16);
        serialize_i32: i32, integer(true, 32);
        serialize_i64: i64, integer(true, 64);
        serialize_i128: i128, integer(true, 128);
        serialize_u8: u8, integer(false, 8);
        serialize_u16: u16, integer(false, 16);
        serialize_u32: u32, integer(false, 32);
        serialize_u64: u64, integer(false, 64);
        serialize_u128: u128, integer(false, 128);
        serialize_f32: f32, Shape::Float { bits: 32 };
        serialize_f64: f64, Shape::Float { bits: 64 };
        serialize_char: char, Shape::Char;
        serialize_str: &str, Shape::Text;
        serialize_bytes: &[u8], Shape::Bytes;
        serialize_unit_struct: &'static str, Shape::Unit;
    }

    fn serialize_unit(self) -> Result<Said, CodecError> {
        Ok(Said::Plain(Shape::Unit))
    }

    fn serialize_none(self) -> Result<Said, CodecError> {
        Ok(Said::None)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Said, CodecError> {
        Ok(Said::Some(Box::new(value.serialize(self)?)))
    }

    fn serialize_unit_variant(self, _: &'static str, number: u32, name: &'static str) -> Result<Said, CodecError> {
        Ok(Said::Variant { number, name, inside: Box::new(Said::Plain(Shape::Unit)) })
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Said, CodecError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        number: u32,
        name: &'static str,
        value: &T,
    ) -> Result<Said, CodecError> {
        Ok(Said::Variant { number, name, inside: Box::new(value.serialize(self)?) })
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Compound, CodecError> {
        Ok(self.compound(Form::List))
    }

    fn serialize_tuple(self, _: usize) -> Result<Compound, CodecError> {
        Ok(self.compound(Form::Parts))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Compound, CodecError> {
        Ok(self.compound(Form::Parts))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        number: u32,
        name: &'static str,
        _: usize,
    ) -> Result<Compound, CodecError> {
        Ok(Compound { variant: Some((number, name)), ..self.compound(Form::Parts) })
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Compound, CodecError> {
        Ok(self.compound(Form::Map))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Compound, CodecError> {
        Ok(self.compound(Form::Parts))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        number: u32,
        name: &'static str,
        _: usize,
    ) -> Result<Compound, CodecError> {
        Ok(Compound { variant: Some((number, name)), ..self.compound(Form::Parts) })
    }

    fn is_human_readable(&self) -> bool {
        self.named
    }
}

impl Announcements {
    fn compound(self, form: Form) -> Compound {
        Compound { to: self, form, variant: None, names: Vec::new(), parts: Vec::new() }
    }
}

enum Form {
    List,
    Map,
    Parts,
}

/// A value of several parts.
struct Compound {
    to: Announcements,
    form: Form,
    variant: Option<(u32, &'static str)>,
    names: Vec<&'static str>,
    parts: Vec<Said>,
}

impl Compound {
    fn part<T: Serialize + ?Sized>(&mut self, part: &T) -> Result<(), CodecError> {
        self.parts.push(part.serialize(self.to)?);
        Ok(())
    }

    fn close(self) -> Said {
        let (names, parts) = (self.names, self.parts);
        let said = match self.form {
            Form::List => Said::List(parts),
            Form::Map => Said::Map(parts),
            Form::Parts => Said::Parts { names, parts },
        };
        match self.variant {
            Some((number, name)) => Said::Variant { number, name, inside: Box::new(said) },
            None => said,
        }
    }
}

macro_rules! listed {
    ($($trait:ident: $method:ident),*) => {$(
        impl $trait for Compound {
            type Ok = Said;
            type Error = CodecError;

            fn $method<T: Serialize + ?Sized>(&mut self, part: &T) -> Result<(), CodecError> {
                self.part(part)
            }

            fn end(self) -> Result<Said, CodecError> {
                Ok(self.close())
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

impl SerializeMap for Compound {
    type Ok = Said;
    type Error = CodecError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), CodecError> {
        self.part(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.part(value)
    }

    fn end(self) -> Result<Said, CodecError> {
        Ok(self.close())
    }
}

macro_rules! named {
    ($($trait:ident),*) => {$(
        impl $trait for Compound {
            type Ok = Said;
            type Error = CodecError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                part: &T,
            ) -> Result<(), CodecError> {
                self.names.push(name);
                self.part(part)
            }

            fn skip_field(&mut self, name: &'static str) -> Result<(), CodecError> {
                self.names.push(name);
                // Of what it is nothing is known, and nothing is compared.
                self.parts.push(Said::LeftOut);
                Ok(())
            }

            fn end(self) -> Result<Said, CodecError> {
                Ok(self.close())
            }
        }
    )*};
}

named!(SerializeStruct, SerializeStructVariant);
