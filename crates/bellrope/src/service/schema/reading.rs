//! Answers whatever serde asks for when it reads a value, and notes what that was.

use std::any::type_name;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
    Visitor, value::Error,
};

use super::{
    found::{Found, MOST_STEPS, NUMBERS, TEXTS},
    model::{Form, Shape},
};

/// Reads one value.
pub(super) struct Reader<'t> {
    pub(super) found: &'t mut Found,
    /// What it turns out to be.
    pub(super) shape: &'t mut Option<Shape>,
}

impl Reader<'_> {
    fn text<V>(&mut self) -> &'static str {
        TEXTS[self.found.offer(type_name::<V>()) % TEXTS.len()]
    }

    fn number<V>(&mut self) -> u8 {
        NUMBERS[self.found.offer(type_name::<V>()) % NUMBERS.len()]
    }

    fn is(self, shape: Shape) -> Result<Self, Error> {
        self.found.steps += 1;
        *self.shape = Some(shape);
        if self.found.steps > MOST_STEPS { Err(Error::custom("too many types")) } else { Ok(self) }
    }

    /// Reads a type that has a name.
    fn typed<T>(
        self,
        place: usize,
        read: impl FnOnce(&mut Found) -> Result<(T, Option<Form>), Error>,
    ) -> Result<T, Error> {
        let reader = self.is(Shape::Type(place as u32))?;
        if !reader.found.enter(place) {
            return Err(Error::custom("too deep"));
        }
        let (value, form) = read(reader.found)?;
        reader.found.leave(place, form);
        Ok(value)
    }
}

macro_rules! plain {
    ($($method:ident, $visit:ident, $shape:expr, $value:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let mut reader = self.is($shape)?;
            let value: fn(&mut Self) -> _ = $value;
            visitor.$visit(value(&mut reader))
        }
    )*};
}

const fn integer(signed: bool, bits: u8) -> Shape {
    Shape::Integer { signed, bits }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Error;

    plain! {
        deserialize_bool, visit_bool, Shape::Bool, |_| true;
        deserialize_i8, visit_i8, integer(true, 8), |reader| reader.number::<V>() as i8;
        deserialize_i16, visit_i16, integer(true, 16), |reader| reader.number::<V>().into();
        deserialize_i32, visit_i32, integer(true, 32), |reader| reader.number::<V>().into();
        deserialize_i64, visit_i64, integer(true, 64), |reader| reader.number::<V>().into();
        deserialize_i128, visit_i128, integer(true, 128), |reader| reader.number::<V>().into();
        deserialize_u8, visit_u8, integer(false, 8), |reader| reader.number::<V>();
        deserialize_u16, visit_u16, integer(false, 16), |reader| reader.number::<V>().into();
        deserialize_u32, visit_u32, integer(false, 32), |reader| reader.number::<V>().into();
        deserialize_u64, visit_u64, integer(false, 64), |reader| reader.number::<V>().into();
        deserialize_u128, visit_u128, integer(false, 128), |reader| reader.number::<V>().into();
        deserialize_f32, visit_f32, Shape::Float { bits: 32 }, |reader| reader.number::<V>().into();
        deserialize_f64, visit_f64, Shape::Float { bits: 64 }, |reader| reader.number::<V>().into();
        deserialize_char, visit_char, Shape::Char, |_| 'a';
        deserialize_str, visit_borrowed_str, Shape::Text, |reader| reader.text::<V>();
        deserialize_string, visit_borrowed_str, Shape::Text, |reader| reader.text::<V>();
        deserialize_bytes, visit_borrowed_bytes, Shape::Bytes, |_| b"a".as_slice();
        deserialize_byte_buf, visit_borrowed_bytes, Shape::Bytes, |_| b"a".as_slice();
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if !self.found.named {
            self.found.asked = true;
            return Err(Error::custom("asks what comes"));
        }
        self.is(Shape::Any)?;
        visitor.visit_unit()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.is(Shape::Unit)?;
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.found.recursing > 0 {
            return visitor.visit_none();
        }
        let mut inner = None;
        let reader = self.is(Shape::Any)?;
        let value = visitor.visit_some(Reader { found: &mut *reader.found, shape: &mut inner })?;
        *reader.shape = inner.map(|inner| Shape::Optional(Box::new(inner)));
        Ok(value)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        let place = self.found.place::<V::Value>(name);
        self.typed(place, |found| {
            let mut inner = None;
            let value = visitor.visit_newtype_struct(Reader { found, shape: &mut inner })?;
            Ok((value, inner.map(Form::Newtype)))
        })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let due = usize::from(self.found.recursing == 0);
        let reader = self.is(Shape::List(None))?;
        let mut shapes = Vec::new();
        let value = visitor.visit_seq(Parts { found: &mut *reader.found, shapes: &mut shapes, due })?;
        *reader.shape = Some(Shape::List(shapes.pop().map(Box::new)));
        Ok(value)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        let reader = self.is(Shape::Tuple(Vec::new()))?;
        let mut shapes = Vec::new();
        let value = visitor.visit_seq(Parts { found: &mut *reader.found, shapes: &mut shapes, due: len })?;
        *reader.shape = Some(Shape::Tuple(shapes));
        Ok(value)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        let place = self.found.place::<V::Value>(name);
        self.typed(place, |found| {
            let mut shapes = Vec::new();
            let value = visitor.visit_seq(Parts { found, shapes: &mut shapes, due: len })?;
            Ok((value, Some(Form::Tuple(shapes))))
        })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let due = usize::from(self.found.recursing == 0);
        let reader = self.is(Shape::Map(None))?;
        let mut shapes = Vec::new();
        let value = visitor.visit_map(Parts { found: &mut *reader.found, shapes: &mut shapes, due })?;
        let entry = (shapes.pop(), shapes.pop());
        let entry = if let (Some(value), Some(key)) = entry { Some(Box::new((key, value))) } else { None };
        *reader.shape = Some(Shape::Map(entry));
        Ok(value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let place = self.found.place::<V::Value>(name);
        self.typed(place, |found| {
            let mut shapes = Vec::new();
            let value = visitor.visit_seq(Parts { found, shapes: &mut shapes, due: names.len() })?;
            Ok((value, Some(Form::Struct(fields(names, shapes)))))
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let place = self.found.place::<V::Value>(name);
        self.typed(place, |found| {
            let variant = found.choose(place, names);
            found.inside.push((place, variant));
            let value = visitor.visit_enum(Chosen { found: &mut *found, place, variant })?;
            found.inside.pop();
            Ok((value, None))
        })
    }

    fn is_human_readable(&self) -> bool {
        self.found.named
    }
}

/// Fields with their names. Where a field has further names (`#[serde(alias)]`), serde does not say which is whose: all of
/// them together are the name of each.
fn fields(names: &'static [&'static str], shapes: Vec<Shape>) -> Vec<(String, Shape)> {
    let clear = names.len() == shapes.len();
    let name = |at: usize| if clear { names[at].to_owned() } else { format!("{}#{at}", names.join("|")) };
    shapes.into_iter().enumerate().map(|(at, shape)| (name(at), shape)).collect()
}

/// The parts of a value.
struct Parts<'t> {
    found: &'t mut Found,
    shapes: &'t mut Vec<Shape>,
    due: usize,
}

impl Parts<'_> {
    fn part<'de, S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let mut shape = None;
        let value = seed.deserialize(Reader { found: &mut *self.found, shape: &mut shape })?;
        self.shapes.push(shape.unwrap_or(Shape::Any));
        Ok(value)
    }
}

impl<'de> SeqAccess<'de> for Parts<'_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let Some(due) = self.due.checked_sub(1) else { return Ok(None) };
        self.due = due;
        self.part(seed).map(Some)
    }
}

impl<'de> MapAccess<'de> for Parts<'_> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        self.part(seed)
    }
}

/// The variant that was chosen.
struct Chosen<'t> {
    found: &'t mut Found,
    place: usize,
    variant: usize,
}

impl<'de> EnumAccess<'de> for Chosen<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let variant = seed.deserialize(IntoDeserializer::<Error>::into_deserializer(self.variant as u32))?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for Chosen<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        self.found.learn(self.place, self.variant, Form::Unit);
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        let mut inner = None;
        let value = seed.deserialize(Reader { found: &mut *self.found, shape: &mut inner })?;
        self.found.learn(self.place, self.variant, Form::Newtype(inner.unwrap_or(Shape::Any)));
        Ok(value)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        let mut shapes = Vec::new();
        let value = visitor.visit_seq(Parts { found: &mut *self.found, shapes: &mut shapes, due: len })?;
        self.found.learn(self.place, self.variant, Form::Tuple(shapes));
        Ok(value)
    }

    fn struct_variant<V: Visitor<'de>>(self, names: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        let mut shapes = Vec::new();
        let value = visitor.visit_seq(Parts { found: &mut *self.found, shapes: &mut shapes, due: names.len() })?;
        self.found.learn(self.place, self.variant, Form::Struct(fields(names, shapes)));
        Ok(value)
    }
}
