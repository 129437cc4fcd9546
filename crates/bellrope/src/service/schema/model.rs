//! The words in which a schema is said.

use serde::{Deserialize, Serialize};

use super::super::{codec::Codec, json::Json};

/// The form of a value, as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Shape {
    /// Nothing.
    Unit,
    /// Yes or no.
    Bool,
    /// A whole number: with a sign or without, and of so many bits.
    Integer {
        /// Whether it may be negative.
        signed: bool,
        /// How many bits it has.
        bits: u8,
    },
    /// A floating-point number of so many bits.
    Float {
        /// How many bits it has.
        bits: u8,
    },
    /// One character.
    Char,
    /// Text.
    Text,
    /// Bytes.
    Bytes,
    /// Something that may be missing.
    Optional(Box<Shape>),
    /// Any number of these. `None`: it was never seen what they are.
    List(Option<Box<Shape>>),
    /// Keys and values.
    Map(Option<Box<(Shape, Shape)>>),
    /// One after the other.
    Tuple(Vec<Shape>),
    /// The type in this place of the schema's list.
    Type(u32),
    /// Whatever comes says what it is.
    Any,
}

impl Shape {
    /// What two looks at the same value have shown together; `None` if they are of two.
    pub(super) fn merged(&self, other: &Self) -> Option<Self> {
        let both = |one: &Option<Box<Self>>, two: &Option<Box<Self>>| match (one, two) {
            (Some(one), Some(two)) => one.merged(two).map(|shape| Some(Box::new(shape))),
            (one, two) => Some(one.clone().or_else(|| two.clone())),
        };
        Some(match (self, other) {
            (one, two) if one == two => one.clone(),
            (Self::Any, shape) | (shape, Self::Any) => shape.clone(),
            (Self::Optional(one), Self::Optional(two)) => Self::Optional(Box::new(one.merged(two)?)),
            (Self::List(one), Self::List(two)) => Self::List(both(one, two)?),
            (Self::Map(Some(one)), Self::Map(Some(two))) => {
                Self::Map(Some(Box::new((one.0.merged(&two.0)?, one.1.merged(&two.1)?))))
            }
            (Self::Map(one), Self::Map(two)) => Self::Map(one.clone().or_else(|| two.clone())),
            (Self::Tuple(one), Self::Tuple(two)) if one.len() == two.len() => {
                Self::Tuple(one.iter().zip(two).map(|(one, two)| one.merged(two)).collect::<Option<_>>()?)
            }
            _ => return None,
        })
    }
}

/// The form of a type that has a name, or of what is inside of a variant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Form {
    /// Nothing.
    Unit,
    /// Its one field.
    Newtype(Shape),
    /// Fields without names.
    Tuple(Vec<Shape>),
    /// Fields with names, in order.
    Struct(Vec<(String, Shape)>),
    /// One of these, in order.
    Enum(Vec<(String, Form)>),
    /// An object of which one field says which of these it is, each with its further fields. Said by hand, of what travels as
    /// JSON alone: serde does not tell.
    Tagged {
        /// The name of that field.
        tag: String,
        /// What it may say, with the fields that come with it.
        variants: Vec<(String, Vec<(String, Shape)>)>,
    },
    /// One of these, told apart by what comes. Said by hand, as the one before.
    Either(Vec<Shape>),
}

/// A type that has a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Type {
    /// Its name in the sources, for people. Two types of one name are told apart by a number.
    pub name: String,
    /// What it is made of.
    pub form: Form,
}

/// What travels when a method is called.
///
/// ```
/// use bellrope::service::{Schema, Shape};
///
/// let schema = Schema {
///     codec: "postcard".to_owned(),
///     request: Shape::Unit,
///     answer: Shape::Text,
///     sent: Shape::Unit,
///     types: Vec::new(),
/// };
/// schema.check().unwrap();
/// let theirs = Schema::from_json(&serde_json::to_vec(&schema).unwrap()).unwrap();
/// assert_eq!(theirs.hash(), schema.hash());
/// assert!(schema.outcome().is_none(), "its answer is no `Result`");
/// assert_eq!(schema.read_answer(b"\x04ding").unwrap(), Ok("\"ding\"".to_owned()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// The codec.
    pub codec: String,
    /// What is sent first.
    pub request: Shape,
    /// What it is answered with, or each item of its stream.
    pub answer: Shape,
    /// Each item that its caller sends; [`Shape::Unit`] if it sends none.
    pub sent: Shape,
    /// The types that the others name.
    pub types: Vec<Type>,
}

impl Schema {
    /// The same for schemas that say the same, whatever their types are called. Never 0. [Example](Self).
    #[must_use]
    pub fn hash(&self) -> u64 {
        let forms: Vec<_> = self.types.iter().map(|ty| &ty.form).collect();
        let mut bytes = Vec::new();
        let said = (&self.codec, "request", &self.request, "answer", &self.answer, "sent", &self.sent, forms);
        // What is made of texts and lists can always be written.
        let _ = Json::encode(&said, &mut bytes);
        // FNV-1a: it tells changes apart, not forgeries; a server may say of itself what it likes.
        let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        hash.max(1)
    }
}

/// What a client asks `bellrope.schema`: the name of a method.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SchemaQuestion {
    pub(crate) method: String,
}
