//! The codecs of typed services, and schemas, that anybody may have written.

use std::{borrow::Cow, collections::BTreeMap};

use bellrope::service::{Bytes, Codec, Form, Json, Postcard, Schema, Shape, Type};
use serde::{Deserialize, Serialize};

/// A value of every form that serde has.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Everything<'a> {
    flag: bool,
    numbers: (u8, i8, u16, i32, u64, i64),
    long: (u128, i128),
    floats: (f32, f64),
    letter: char,
    #[serde(borrow)]
    text: Cow<'a, str>,
    bytes: Bytes<'static>,
    list: Vec<Tree>,
    keys: BTreeMap<Key, Option<u32>>,
    maybe: Option<Box<Everything<'a>>>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Named(String),
    Both(u8, u64),
    Branch { left: Box<Tree>, right: Option<Box<Tree>> },
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Key {
    Low,
    High,
}

/// What the codec `json` reads it writes so that the same is read again, and no input takes more than its own size.
pub fn json(input: &[u8]) {
    again::<Json>(input);
}

/// As [`json`], of the codec `postcard`; and what it reads is, by the schema of its type, JSON that stands for the same bytes.
pub fn postcard(input: &[u8]) {
    again::<Postcard>(input);
    let schema = everything();
    let Ok(text) = schema.read(&schema.request, input) else { return };
    assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
    let written = schema.write(&schema.request, text.as_bytes());
    // A number may have been written in more bytes than it needs, and of NaN there are many.
    let Ok(written) = written else { panic!("{text}: {written:?}") };
    assert_eq!(schema.read(&schema.request, &written).as_deref(), Ok(&*text));
}

/// A schema and what comes by it: the first 16 bits say how long the schema is. Neither takes more than its bounds.
pub fn schema(input: &[u8]) {
    let Some((len, rest)) = input.split_first_chunk() else { return };
    let (schema, bytes) = rest.split_at(usize::from(u16::from_le_bytes(*len)).min(rest.len()));
    let Ok(mut schema) = Schema::from_json(schema) else { return };
    let _ = (schema.hash(), schema.outcome().is_some(), schema.read_answer(bytes), schema.write(&schema.sent, bytes));
    for codec in ["json", "postcard"] {
        codec.clone_into(&mut schema.codec);
        if let Ok(text) = schema.read(&schema.request, bytes) {
            assert!(!text.contains('\n'), "{text}");
            let written = schema.write(&schema.request, text.as_bytes()).unwrap();
            assert_eq!(schema.read(&schema.request, &written).as_deref(), Ok(&*text));
        }
    }
}

/// Reads a value and writes it, twice.
fn again<C: Codec>(input: &[u8]) {
    let Ok(value) = C::decode::<Everything<'_>>(input) else { return };
    let mut written = Vec::new();
    // An infinite number comes from too many digits, and JSON has none.
    let Ok(()) = C::encode(&value, &mut written) else { return };
    let back: Everything<'_> = C::decode(&written).unwrap();
    let mut again = Vec::new();
    C::encode(&back, &mut again).unwrap();
    assert_eq!(again, written, "{value:?}");
}

/// The schema of [`Everything`] with the codec `postcard`.
fn everything() -> Schema {
    let integer = |signed, bits| Shape::Integer { signed, bits };
    let boxed = |shape| Box::new(shape);
    let named = |name: &str, shape| (name.to_owned(), shape);
    let form = |name: &str, form| (name.to_owned(), form);
    let fields = vec![
        named("flag", Shape::Bool),
        named(
            "numbers",
            Shape::Tuple(vec![
                integer(false, 8),
                integer(true, 8),
                integer(false, 16),
                integer(true, 32),
                integer(false, 64),
                integer(true, 64),
            ]),
        ),
        named("long", Shape::Tuple(vec![integer(false, 128), integer(true, 128)])),
        named("floats", Shape::Tuple(vec![Shape::Float { bits: 32 }, Shape::Float { bits: 64 }])),
        named("letter", Shape::Char),
        named("text", Shape::Text),
        named("bytes", Shape::Bytes),
        named("list", Shape::List(Some(boxed(Shape::Type(1))))),
        named("keys", Shape::Map(Some(Box::new((Shape::Type(2), Shape::Optional(boxed(integer(false, 32)))))))),
        named("maybe", Shape::Optional(boxed(Shape::Type(0)))),
    ];
    let tree = vec![
        form("Leaf", Form::Unit),
        form("Named", Form::Newtype(Shape::Text)),
        form("Both", Form::Tuple(vec![integer(false, 8), integer(false, 64)])),
        form(
            "Branch",
            Form::Struct(vec![named("left", Shape::Type(1)), named("right", Shape::Optional(boxed(Shape::Type(1))))]),
        ),
    ];
    let types = [
        ("Everything", Form::Struct(fields)),
        ("Tree", Form::Enum(tree)),
        ("Key", Form::Enum(vec![form("Low", Form::Unit), form("High", Form::Unit)])),
    ];
    Schema {
        codec: "postcard".to_owned(),
        request: Shape::Type(0),
        answer: Shape::Unit,
        sent: Shape::Unit,
        types: types.into_iter().map(|(name, form)| Type { name: name.to_owned(), form }).collect(),
    }
}
