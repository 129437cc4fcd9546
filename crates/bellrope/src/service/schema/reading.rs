//! Answers whatever serde asks for when it reads a value, and notes what that was.

use std::{
    any::type_name,
    hash::{DefaultHasher, Hash, Hasher},
    mem::discriminant,
    panic::{AssertUnwindSafe, catch_unwind},
};

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
    Visitor,
    value::{BorrowedStrDeserializer, Error},
};

use super::{
    asking,
    contents::Kind,
    found::{Found, MOST_STEPS},
    model::Shape,
    offers::LAST,
    steps::{Place, Step},
};

/// Reads one value.
pub(super) struct Reader<'t> {
    pub(super) found: &'t mut Found,
    /// What it turns out to be.
    pub(super) shape: &'t mut Option<Shape>,
}

impl Reader<'_> {
    fn text(&mut self) -> &'static str {
        self.found.offers.text(&self.found.path)
    }

    fn number(&mut self) -> i128 {
        self.found.offers.number(&self.found.path)
    }

    /// Notes which type asks what comes, where no names travel.
    #[inline(never)]
    fn asks<'de, V: Visitor<'de>>(self, for_a_name: bool) -> Result<V::Value, Error> {
        let asks = asking::words(type_name::<V>(), type_name::<V::Value>(), for_a_name, &self.found.path);
        self.found.asked.get_or_insert(asks);
        Err(Error::custom("asks what comes"))
    }

    fn is(self, shape: Shape) -> Result<Self, Error> {
        self.found.steps += 1;
        *self.shape = Some(shape);
        if self.found.steps > MOST_STEPS { Err(Error::custom("too many types")) } else { Ok(self) }
    }

    /// Reads a type that has a name.
    fn typed<T>(self, at: usize, read: impl FnOnce(&mut Found) -> Result<T, Error>) -> Result<T, Error> {
        let reader = self.is(Shape::Type(at as u32))?;
        let depth = reader.found.path.len();
        let Some(outer) = reader.found.enter(at) else { return Err(Error::custom("too deep")) };
        let value = read(reader.found);
        reader.found.leave(at, outer);
        if value.is_ok() {
            reader.found.path.truncate(depth);
        }
        value
    }
}

/// Reads what is inside of a type, or of one of its variants. What was seen before an error is kept.
fn contents<'de, V: Visitor<'de>>(found: &mut Found, place: Place, kind: Kind, visitor: V) -> Result<V::Value, Error> {
    let alone = found.open(place, kind);
    let due = match kind {
        Kind::Unit | Kind::Newtype => 1,
        Kind::Tuple(len) => len,
        Kind::Struct(names) => names.len(),
    };
    let mut shapes = Vec::new();
    if let (Some(part), Kind::Struct(names)) = (alone, kind) {
        return visitor.visit_map(Alone { found, place, part, names, is_read: false });
    }
    let value = visitor.visit_seq(Parts { found, shapes: &mut shapes, due, index: 0, place: Some((place, kind)) })?;
    found.close(place);
    Ok(value)
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
        deserialize_bool, visit_bool, Shape::Bool, |reader| reader.found.offers.truth(&reader.found.path);
        deserialize_i8, visit_i8, integer(true, 8), |reader| reader.number() as i8;
        deserialize_i16, visit_i16, integer(true, 16), |reader| reader.number() as i16;
        deserialize_i32, visit_i32, integer(true, 32), |reader| reader.number() as i32;
        deserialize_i64, visit_i64, integer(true, 64), |reader| reader.number() as i64;
        deserialize_i128, visit_i128, integer(true, 128), |reader| reader.number();
        deserialize_u8, visit_u8, integer(false, 8), |reader| reader.number() as u8;
        deserialize_u16, visit_u16, integer(false, 16), |reader| reader.number() as u16;
        deserialize_u32, visit_u32, integer(false, 32), |reader| reader.number() as u32;
        deserialize_u64, visit_u64, integer(false, 64), |reader| reader.number() as u64;
        deserialize_u128, visit_u128, integer(false, 128), |reader| reader.number() as u128;
        deserialize_f32, visit_f32, Shape::Float { bits: 32 }, |reader| reader.number() as f32;
        deserialize_f64, visit_f64, Shape::Float { bits: 64 }, |reader| reader.number() as f64;
        deserialize_char, visit_char, Shape::Char, |_| 'a';
        deserialize_str, visit_borrowed_str, Shape::Text, |reader| reader.text();
        deserialize_string, visit_borrowed_str, Shape::Text, |reader| reader.text();
        deserialize_bytes, visit_borrowed_bytes, Shape::Bytes, |_| b"a".as_slice();
        deserialize_byte_buf, visit_borrowed_bytes, Shape::Bytes, |_| b"a".as_slice();
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if !self.found.named {
            return self.asks::<V>(false);
        }
        let reader = self.is(Shape::Any)?;
        reader.found.offers.only(&reader.found.path);
        visitor.visit_unit()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.found.named { self.deserialize_any(visitor) } else { self.asks::<V>(true) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.is(Shape::Unit)?;
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.found.is_nothing() {
            return visitor.visit_none();
        }
        let mut inner = None;
        let reader = self.is(Shape::Any)?;
        let (depth, mark) = (reader.found.path.len(), reader.found.mark());
        reader.found.path.push(Step::Part(0));
        let value = caught(reader.found, |found| visitor.visit_some(Reader { found, shape: &mut inner }));
        match value {
            Ok(_) => reader.found.path.truncate(depth),
            Err(_) => reader.found.refusals.failed(mark),
        }
        *reader.shape = inner.map(|inner| Shape::Optional(Box::new(inner)));
        value
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        let at = self.found.place::<V, V::Value>(by::<V>(), name, &[]);
        self.typed(at, |found| newtype(found, (at, None), |reader| visitor.visit_newtype_struct(reader)))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let due = usize::from(!self.found.is_nothing());
        let reader = self.is(Shape::List(None))?;
        let mut shapes = Vec::new();
        let value = visitor.visit_seq(Parts::of(reader.found, &mut shapes, due));
        *reader.shape = Some(Shape::List(shapes.pop().map(Box::new)));
        value
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        let reader = self.is(Shape::Tuple(Vec::new()))?;
        let mut shapes = Vec::new();
        let value = visitor.visit_seq(Parts::of(reader.found, &mut shapes, len));
        if value.is_err() {
            // Of an array, all are of one type.
            let one = shapes.first().filter(|_| type_name::<V::Value>().starts_with('['));
            shapes.resize(len, one.cloned().unwrap_or(Shape::Any));
        }
        *reader.shape = Some(Shape::Tuple(shapes));
        value
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        let at = self.found.place::<V, V::Value>(by::<V>(), name, &[]);
        self.typed(at, |found| contents(found, (at, None), Kind::Tuple(len), visitor))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let due = usize::from(!self.found.is_nothing());
        let reader = self.is(Shape::Map(None))?;
        let mut shapes = Vec::new();
        let value = visitor.visit_map(Parts::of(reader.found, &mut shapes, due));
        let mut shapes = shapes.into_iter();
        *reader.shape = Some(match shapes.next() {
            // With keys that ask what comes it is a struct with others inside (#[serde(flatten)]).
            Some(Shape::Any) => Shape::Any,
            Some(key) => Shape::Map(Some(Box::new((key, shapes.next().unwrap_or(Shape::Any))))),
            None => Shape::Map(None),
        });
        value
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let at = self.found.place::<V, V::Value>(by::<V>(), name, names);
        self.typed(at, |found| contents(found, (at, None), Kind::Struct(names), visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let by = V::visit_enum::<Chosen<'static>> as *const () as usize;
        let at = self.found.place::<V, V::Value>(by, name, names);
        self.typed(at, |found| {
            let variant = found.choose(at, names);
            found.path.push(Step::Variant(variant));
            visitor.visit_enum(Chosen { found, at, variant, names })
        })
    }

    fn is_human_readable(&self) -> bool {
        self.found.named
    }
}

/// What reads the parts of a type: of two types it is another function.
fn by<'de, V: Visitor<'de>>() -> usize {
    V::visit_seq::<Parts<'static>> as *const () as usize
}

/// Has others read a part. One that panics takes no such value, and no other is tried.
pub(super) fn caught<T>(found: &mut Found, read: impl FnOnce(&mut Found) -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(|| read(&mut *found))).unwrap_or_else(|_| {
        found.offers.end();
        Err(Error::custom("panicked"))
    })
}

/// Reads the one part of a type or of a variant.
fn newtype<T>(found: &mut Found, place: Place, read: impl FnOnce(Reader<'_>) -> Result<T, Error>) -> Result<T, Error> {
    found.open(place, Kind::Newtype);
    let (mut inner, depth, mark) = (None, found.path.len(), found.mark());
    found.path.push(Step::Part(0));
    let value = caught(found, |found| read(Reader { found, shape: &mut inner }));
    found.note(place, 0, inner.unwrap_or(Shape::Any));
    let value = value.inspect_err(|_| {
        found.refusals.failed(mark);
        // A variant that never is, such as the `Err` of a `Result<_, Infallible>`, is known by now.
        if found.is_never && place.1.is_some() {
            found.close(place);
            found.advanced = true;
        }
    })?;
    found.refusals.taken();
    found.path.truncate(depth);
    found.close(place);
    Ok(value)
}

/// The parts of a value.
struct Parts<'t> {
    found: &'t mut Found,
    shapes: &'t mut Vec<Shape>,
    due: usize,
    index: usize,
    /// Of which type or variant they are, if it has a name.
    place: Option<(Place, Kind)>,
}

impl<'t> Parts<'t> {
    fn of(found: &'t mut Found, shapes: &'t mut Vec<Shape>, due: usize) -> Self {
        Self { found, shapes, due, index: 0, place: None }
    }

    fn part<'de, S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let (mut shape, depth, mark) = (None, self.found.path.len(), self.found.mark());
        self.found.path.push(Step::Part(self.index));
        if self.due == 0 && matches!(self.place, Some((_, Kind::Tuple(_)))) {
            self.found.path.push(LAST);
        }
        let value = caught(self.found, |found| seed.deserialize(Reader { found, shape: &mut shape }));
        let shape = shape.unwrap_or(Shape::Any);
        match self.place {
            Some((place, _)) => self.found.note(place, self.index, shape),
            None => self.shapes.push(shape),
        }
        self.index += 1;
        let value = value.inspect_err(|_| self.found.refusals.failed(mark))?;
        self.found.refusals.taken();
        self.found.path.truncate(depth);
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

    fn next_entry_seed<K: DeserializeSeed<'de>, S: DeserializeSeed<'de>>(
        &mut self,
        key: K,
        value: S,
    ) -> Result<Option<(K::Value, S::Value)>, Error> {
        let depth = self.found.path.len();
        match self.next_key_seed(key) {
            Ok(None) => Ok(None),
            Ok(Some(key)) => Ok(Some((key, self.part(value)?))),
            Err(error) => {
                // What it would be the key of is looked at all the same.
                let (failed, path) = (self.found.refusals.take_failed(), self.found.path.clone());
                self.found.path.truncate(depth);
                let _ = self.part(value);
                self.found.path = path;
                self.found.refusals.taken();
                failed.into_iter().for_each(|mark| self.found.refusals.failed(mark));
                Err(error)
            }
        }
    }
}

/// One field of a struct of which no whole value can be made.
struct Alone<'t> {
    found: &'t mut Found,
    place: Place,
    part: usize,
    names: &'static [&'static str],
    is_read: bool,
}

impl<'de> MapAccess<'de> for Alone<'_> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let Some(name) = self.names.get(self.part).filter(|_| !self.is_read) else { return Ok(None) };
        self.is_read = true;
        self.found.path.push(Step::Part(self.part));
        let key = seed.deserialize(BorrowedStrDeserializer::new(name))?;
        if !self.found.is_field(self.place, self.part, mark(&key)) {
            self.found.advanced = true;
            return Err(Error::custom("another name of a field"));
        }
        Ok(Some(key))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let (mut shape, depth, mark) = (None, self.found.path.len(), self.found.mark());
        let value = caught(self.found, |found| seed.deserialize(Reader { found, shape: &mut shape }));
        self.found.note(self.place, self.part, shape.unwrap_or(Shape::Any));
        let value = value.inspect_err(|_| self.found.refusals.failed(mark))?;
        self.found.refusals.taken();
        self.found.path.truncate(depth - 1);
        self.found.advanced = true;
        Ok(value)
    }
}

/// What tells the variants of an enum apart, such as those by which serde tells fields.
fn mark<T>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    discriminant(value).hash(&mut hasher);
    hasher.finish()
}

/// The variant that was chosen.
struct Chosen<'t> {
    found: &'t mut Found,
    at: usize,
    variant: usize,
    names: &'static [&'static str],
}

impl Chosen<'_> {
    fn place(&self) -> Place {
        (self.at, Some(self.variant))
    }
}

impl<'de> EnumAccess<'de> for Chosen<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let number = IntoDeserializer::<Error>::into_deserializer(self.variant as u32);
        let variant = seed.deserialize(number);
        let mark = variant.as_ref().ok().map(mark);
        let is_own = self.found.is_variant((self.at, self.variant), mark, self.names);
        let variant = variant.inspect_err(|_| self.found.advanced |= !is_own)?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for Chosen<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        self.found.open(self.place(), Kind::Unit);
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        newtype(self.found, (self.at, Some(self.variant)), |reader| seed.deserialize(reader))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        let place = self.place();
        contents(self.found, place, Kind::Tuple(len), visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, names: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        let place = self.place();
        contents(self.found, place, Kind::Struct(names), visitor)
    }
}
