//! What a schema says of a shape, and errors that both directions share.

use super::super::{
    codec::CodecError,
    postcard::depth::MOST_DEPTH,
    schema::{Form, Schema, Shape},
};

/// Most bytes that are made of one value.
pub(super) const MOST_BYTES: usize = 64 << 20;

impl Schema {
    /// The form of a shape that is a type.
    pub(super) fn form(&self, shape: &Shape) -> Option<&Form> {
        match shape {
            Shape::Type(at) => self.types.get(*at as usize).map(|ty| &ty.form),
            _ => None,
        }
    }

    /// Whether a value of this shape may be `null` in JSON.
    pub(super) fn may_be_null(&self, shape: &Shape) -> bool {
        let mut shape = shape;
        // Types may stand for each other in a circle.
        for _ in 0..MOST_DEPTH {
            shape = match (shape, self.form(shape)) {
                (Shape::Unit | Shape::Optional(_) | Shape::Any, _) | (_, Some(Form::Unit)) => return true,
                (_, Some(Form::Newtype(inner))) => inner,
                _ => return false,
            };
        }
        true
    }

    /// Whether values of this shape are texts, or have a plain form as one.
    pub(super) fn is_key(&self, shape: &Shape) -> bool {
        let mut shape = shape;
        for _ in 0..MOST_DEPTH {
            shape = match (shape, self.form(shape)) {
                (Shape::Text | Shape::Char, _) => return true,
                (_, Some(Form::Enum(variants))) => return variants.iter().all(|(_, form)| *form == Form::Unit),
                (_, Some(Form::Newtype(inner))) => inner,
                (shape, _) => return is_plain(shape),
            };
        }
        false
    }

    /// Whether a key of this shape is JSON inside of its quotation marks.
    pub(super) fn is_quoted(&self, shape: &Shape) -> bool {
        let mut shape = shape;
        for _ in 0..MOST_DEPTH {
            shape = match self.form(shape) {
                Some(Form::Newtype(inner)) => inner,
                _ => return is_plain(shape),
            };
        }
        false
    }
}

fn is_plain(shape: &Shape) -> bool {
    matches!(shape, Shape::Bool | Shape::Integer { .. } | Shape::Float { .. })
}

#[cold]
pub(super) fn no_such(shape: &Shape) -> CodecError {
    match shape {
        Shape::Any => CodecError::new("postcard does not say what comes where the schema says `anything`"),
        shape => CodecError::new(format_args!("the schema names a type that there is not: {shape:?}")),
    }
}

#[cold]
pub(super) fn too_large() -> CodecError {
    CodecError::new(format_args!("what it stands for has more than {MOST_BYTES} bytes"))
}

#[cold]
pub(super) fn never_seen() -> CodecError {
    CodecError::new("the schema does not say what the elements are")
}
