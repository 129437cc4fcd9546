//! Postcard to JSON.

use serde::{Deserialize, Serialize};

use super::{
    super::{
        bytes,
        codec::{Codec as _, CodecError, Step},
        json::Json,
        postcard::{
            depth,
            reading::{Reader, unknown_variant},
        },
        schema::{Form, Schema, Shape},
    },
    saying::{MOST_BYTES, never_seen, no_such, too_large},
};

/// Makes JSON of what came.
pub(super) fn read(schema: &Schema, shape: &Shape, bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
    // A value takes a byte, unless it has no contents; a schema may say that a great many of those follow each other.
    let steps_left = bytes.len().saturating_mul(16).saturating_add(100_000);
    let (from, to) = (Reader::new(bytes), Vec::new());
    let mut reading = Reading { schema, from, to, steps_left, depth_left: depth::MOST_DEPTH };
    reading.value(shape)?;
    reading.from.is_done()?;
    Ok(reading.to)
}

struct Reading<'s, 'b> {
    schema: &'s Schema,
    from: Reader<'b>,
    to: Vec<u8>,
    /// How many values may follow.
    steps_left: usize,
    /// How much deeper they may nest.
    depth_left: u32,
}

impl<'s, 'b> Reading<'s, 'b> {
    fn value(&mut self, shape: &'s Shape) -> Result<(), CodecError> {
        self.steps_left = self.steps_left.checked_sub(1).ok_or_else(too_many_steps)?;
        match shape {
            Shape::Unit => self.put(b"null"),
            Shape::Bool => self.plain::<bool>(),
            Shape::Integer { signed, bits } => match (signed, bits) {
                (false, 8) => self.plain::<u8>(),
                (false, 16) => self.plain::<u16>(),
                (false, 32) => self.plain::<u32>(),
                (false, 64) => self.plain::<u64>(),
                (false, 128) => self.plain::<u128>(),
                (true, 8) => self.plain::<i8>(),
                (true, 16) => self.plain::<i16>(),
                (true, 32) => self.plain::<i32>(),
                (true, 64) => self.plain::<i64>(),
                (true, 128) => self.plain::<i128>(),
                _ => Err(no_such(shape)),
            },
            Shape::Float { bits: 32 } => {
                let number = f32::deserialize(&mut self.from)?;
                self.float(&number, number.into())
            }
            Shape::Float { bits: 64 } => {
                let number = f64::deserialize(&mut self.from)?;
                self.float(&number, number)
            }
            Shape::Float { .. } | Shape::Any => Err(no_such(shape)),
            Shape::Char => self.plain::<char>(),
            Shape::Text => self.plain::<&str>(),
            Shape::Bytes => {
                let bytes = <&[u8]>::deserialize(&mut self.from)?;
                self.write(&bytes::encode(bytes))
            }
            Shape::Optional(inner) => self.optional(inner),
            Shape::List(inner) => self.list(inner.as_deref()),
            Shape::Map(entry) => self.map(entry.as_deref()),
            Shape::Tuple(shapes) => self.tuple(shapes),
            Shape::Type(_) => match self.schema.form(shape).ok_or_else(|| no_such(shape))? {
                Form::Enum(variants) => self.variant(variants),
                form => self.form(form),
            },
        }
    }

    fn form(&mut self, form: &'s Form) -> Result<(), CodecError> {
        match form {
            Form::Unit => self.put(b"null"),
            Form::Newtype(inner) => self.deeper(|reading| reading.value(inner)),
            Form::Tuple(shapes) => self.tuple(shapes),
            Form::Struct(fields) => self.fields(fields),
            Form::Enum(variants) => self.variant(variants),
            Form::Tagged { .. } | Form::Either(_) => Err(no_such(&Shape::Any)),
        }
    }

    fn variant(&mut self, variants: &'s [(String, Form)]) -> Result<(), CodecError> {
        let number = u32::deserialize(&mut self.from)?;
        let Some((name, form)) = variants.get(number as usize) else {
            let names: Vec<_> = variants.iter().take(32).map(|(name, _)| name.as_str()).collect();
            return Err(unknown_variant(number, &names));
        };
        if *form == Form::Unit {
            return self.write(name);
        }
        self.put(b"{")?;
        self.write(name)?;
        self.put(b":")?;
        self.form(form).map_err(|error| error.in_field(name.clone()))?;
        self.put(b"}")
    }

    fn optional(&mut self, inner: &'s Shape) -> Result<(), CodecError> {
        if !self.tag()? {
            return self.put(b"null");
        }
        if !self.schema.may_be_null(inner) {
            return self.deeper(|reading| reading.value(inner));
        }
        self.put(b"{\"Some\":")?;
        self.deeper(|reading| reading.value(inner))?;
        self.put(b"}")
    }

    fn tag(&mut self) -> Result<bool, CodecError> {
        match u8::deserialize(&mut self.from)? {
            0 => Ok(false),
            1 => Ok(true),
            other => {
                Err(CodecError::new(format_args!("{other} says neither that nothing is there (0) nor something (1)")))
            }
        }
    }

    fn list(&mut self, inner: Option<&'s Shape>) -> Result<(), CodecError> {
        let len = self.from.len()?;
        let inner = if len == 0 { inner.unwrap_or(&Shape::Unit) } else { inner.ok_or_else(never_seen)? };
        self.several(b"[", b"]", len, |reading, at| reading.value(inner).map_err(|error| error.within(Step::Index(at))))
    }

    fn map(&mut self, entry: Option<&'s (Shape, Shape)>) -> Result<(), CodecError> {
        let len = self.from.len()?;
        let Some((key, value)) = entry else {
            return if len == 0 { self.put(b"{}") } else { Err(never_seen()) };
        };
        let within = |at| move |error: CodecError| error.within(Step::Index(at));
        if !self.schema.is_key(key) {
            return self.several(b"[", b"]", len, |reading, at| {
                let pair = |reading: &mut Self, part| reading.value(if part == 0 { key } else { value });
                reading.several(b"[", b"]", 2, pair).map_err(within(at))
            });
        }
        let quoted = self.schema.is_quoted(key);
        self.several(b"{", b"}", len, |reading, at| {
            // A float that is no number has quotation marks of its own.
            let from = reading.to.len();
            reading.value(key).map_err(within(at))?;
            if quoted && reading.to.get(from) != Some(&b'"') {
                reading.to.insert(from, b'"');
                reading.put(b"\"")?;
            }
            reading.put(b":")?;
            reading.value(value).map_err(within(at))
        })
    }

    fn tuple(&mut self, shapes: &'s [Shape]) -> Result<(), CodecError> {
        self.several(b"[", b"]", shapes.len(), |reading, at| {
            reading.value(&shapes[at]).map_err(|error| error.within(Step::Index(at)))
        })
    }

    fn fields(&mut self, fields: &'s [(String, Shape)]) -> Result<(), CodecError> {
        self.several(b"{", b"}", fields.len(), |reading, at| {
            let (name, shape) = &fields[at];
            reading.write(name)?;
            reading.put(b":")?;
            reading.value(shape).map_err(|error| error.in_field(name.clone()))
        })
    }

    /// Parts with commas between them, one level down.
    fn several(
        &mut self,
        opening: &[u8],
        closing: &[u8],
        len: usize,
        mut part: impl FnMut(&mut Self, usize) -> Result<(), CodecError>,
    ) -> Result<(), CodecError> {
        self.put(opening)?;
        self.deeper(|reading| {
            (0..len).try_for_each(|at| {
                if at > 0 {
                    reading.put(b",")?;
                }
                part(reading, at)
            })
        })?;
        self.put(closing)
    }

    fn deeper(&mut self, read: impl FnOnce(&mut Self) -> Result<(), CodecError>) -> Result<(), CodecError> {
        self.depth_left = self.depth_left.checked_sub(1).ok_or_else(depth::too_deep)?;
        read(self)?;
        self.depth_left += 1;
        Ok(())
    }

    /// What has no parts.
    fn plain<T: Deserialize<'b> + Serialize>(&mut self) -> Result<(), CodecError> {
        let value = T::deserialize(&mut self.from)?;
        self.write(&value)
    }

    fn float(&mut self, number: &impl Serialize, wide: f64) -> Result<(), CodecError> {
        match wide {
            wide if wide.is_finite() => self.write(number),
            wide if wide.is_nan() => self.put(b"\"NaN\""),
            wide if wide > 0.0 => self.put(b"\"Infinity\""),
            _ => self.put(b"\"-Infinity\""),
        }
    }

    fn write<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        Json::encode(value, &mut self.to)?;
        self.put(b"")
    }

    fn put(&mut self, text: &[u8]) -> Result<(), CodecError> {
        self.to.extend_from_slice(text);
        if self.to.len() > MOST_BYTES { Err(too_large()) } else { Ok(()) }
    }
}

#[cold]
fn too_many_steps() -> CodecError {
    CodecError::new("the schema says that more follows than so few bytes can hold")
}
