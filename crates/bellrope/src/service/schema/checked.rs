//! Schemas that others say, and their bounds.

use std::collections::HashSet;

use super::{
    super::{
        codec::{Codec, CodecError},
        json::Json,
    },
    model::{Form, Schema, Shape},
};

/// Most bytes of a schema as JSON.
const MOST_BYTES: usize = 1 << 20;
/// Most bytes of the name of a type, a field or a variant.
const MOST_NAME: usize = 4096;

impl Schema {
    /// Reads what `bellrope.schema` answers with, of whatever server. A schema has at most 1 MiB, its names 4 KiB, and it
    /// names no types but its own. [Example](Self).
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn from_json(json: &[u8]) -> Result<Self, CodecError> {
        if json.len() > MOST_BYTES {
            return Err(too_large(json.len()));
        }
        let schema: Self = Json::decode(json)?;
        schema.check()?;
        Ok(schema)
    }

    /// Whether others will read it.
    pub(in crate::service) fn check_size(&self) -> Result<(), CodecError> {
        let mut json = Vec::new();
        Json::encode(self, &mut json)?;
        if json.len() > MOST_BYTES { Err(too_large(json.len())) } else { self.check() }
    }

    /// Whether its names are not too long, and it names no types but its own and no numbers that there are not.
    /// [Example](Self).
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn check(&self) -> Result<(), CodecError> {
        let shapes = [("request", &self.request), ("answer", &self.answer), ("sent", &self.sent)];
        shapes.iter().try_for_each(|(name, shape)| self.check_shape(shape).map_err(|error| error.in_field(*name)))?;
        self.types.iter().try_for_each(|ty| {
            let known = name(&ty.name).and_then(|()| self.check_form(&ty.form));
            known.map_err(|error| error.in_field(ty.name.clone()))
        })
    }

    fn check_form(&self, form: &Form) -> Result<(), CodecError> {
        match form {
            Form::Struct(named) => are_distinct(named)?,
            Form::Enum(named) => are_distinct(named)?,
            Form::Tagged { variants, .. } => are_distinct(variants)?,
            _ => {}
        }
        match form {
            Form::Unit => Ok(()),
            Form::Newtype(shape) => self.check_shape(shape),
            Form::Tuple(shapes) | Form::Either(shapes) => shapes.iter().try_for_each(|shape| self.check_shape(shape)),
            Form::Struct(fields) => self.check_fields(fields),
            Form::Tagged { tag, variants } => {
                name(tag)?;
                variants.iter().try_for_each(|(variant, fields)| {
                    if fields.iter().any(|(field, _)| field == tag) {
                        return Err(CodecError::new("the name comes twice")
                            .in_field(tag.clone())
                            .in_field(variant.clone()));
                    }
                    let known =
                        name(variant).and_then(|()| are_distinct(fields)).and_then(|()| self.check_fields(fields));
                    known.map_err(|error| error.in_field(variant.clone()))
                })
            }
            Form::Enum(variants) => variants.iter().try_for_each(|(variant, form)| {
                let known = name(variant).and_then(|()| match form {
                    Form::Enum(_) | Form::Tagged { .. } | Form::Either(_) => {
                        Err(CodecError::new("a variant is no enum"))
                    }
                    form => self.check_form(form),
                });
                known.map_err(|error| error.in_field(variant.clone()))
            }),
        }
    }

    fn check_fields(&self, fields: &[(String, Shape)]) -> Result<(), CodecError> {
        fields.iter().try_for_each(|(field, shape)| {
            name(field).and_then(|()| self.check_shape(shape)).map_err(|error| error.in_field(field.clone()))
        })
    }

    fn check_shape(&self, shape: &Shape) -> Result<(), CodecError> {
        match shape {
            Shape::Optional(inner) => self.check_shape(inner),
            Shape::List(inner) => inner.as_deref().map_or(Ok(()), |inner| self.check_shape(inner)),
            Shape::Map(entry) => entry.as_deref().map_or(Ok(()), |(key, value)| {
                self.check_shape(key)?;
                self.check_shape(value)
            }),
            Shape::Tuple(shapes) => shapes.iter().try_for_each(|shape| self.check_shape(shape)),
            Shape::Type(at) if *at as usize >= self.types.len() => {
                Err(CodecError::new(format_args!("type {at} is named, and there are {}", self.types.len())))
            }
            Shape::Integer { bits, .. } if ![8, 16, 32, 64, 128].contains(bits) => {
                Err(CodecError::new(format_args!("there are no integers of {bits} bits")))
            }
            Shape::Float { bits } if ![32, 64].contains(bits) => {
                Err(CodecError::new(format_args!("there are no floats of {bits} bits")))
            }
            _ => Ok(()),
        }
    }
}

fn are_distinct<T>(named: &[(String, T)]) -> Result<(), CodecError> {
    let mut seen = HashSet::new();
    match named.iter().find(|(name, _)| !seen.insert(name)) {
        Some((name, _)) => Err(CodecError::new("the name comes twice").in_field(name.clone())),
        None => Ok(()),
    }
}

fn name(name: &str) -> Result<(), CodecError> {
    if name.len() > MOST_NAME {
        return Err(CodecError::new(format_args!("the name has {} bytes, and at most {MOST_NAME}", name.len())));
    }
    Ok(())
}

#[cold]
fn too_large(size: usize) -> CodecError {
    CodecError::new(format_args!("the schema has {size} bytes, and at most {MOST_BYTES}"))
}
