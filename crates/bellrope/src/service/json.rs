//! The codec `json`.
//!
//! It reads with serde_json. It writes itself, because what serde_json writes cannot always be read back as the same value:
//! NaN and `Some(None)` become `null` there.

mod bounded;
mod naming;
mod output;
mod place;
mod text;
mod words;
mod writing;

use std::io;

use serde::{Deserialize, Serialize};

use super::{
    codec::{Codec, CodecError},
    memory::Memory,
};

/// Values that any language can read, with names: see [`Codec`]. Fields may be added.
///
/// What JSON cannot say is an error where it is written, and never another value: floats that are no number or infinite,
/// `Some(None)`, keys of maps that are neither texts, numbers, booleans nor plain variants. Numbers of 64 and 128 bits are
/// exact. Values nest at most 127 deep. Lists of bytes are long as JSON: see [`Bytes`](super::Bytes).
///
/// ```
/// use bellrope::service::{Codec, Json};
///
/// let mut text = Vec::new();
/// Json::encode(&(u64::MAX, "ding", 0.5), &mut text).unwrap();
/// assert_eq!(text, br#"[18446744073709551615,"ding",0.5]"#);
/// assert_eq!(Json::decode::<(u64, &str, f64)>(&text).unwrap(), (u64::MAX, "ding", 0.5));
/// assert_eq!(Json::encode(&[1.0, f64::NAN], &mut text).unwrap_err().place(), "[1]");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Json;

impl Codec for Json {
    const NAME: &'static str = "json";
    const NUMBER: u8 = 1;
    const NAMED: bool = true;

    fn encode<T: Serialize + ?Sized>(value: &T, to: impl io::Write) -> Result<(), CodecError> {
        value.serialize(&mut output::Writer::new(to))
    }

    fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
        // Checked as a whole: a check of each text in it costs three times as much.
        let text = std::str::from_utf8(bytes).map_err(|fault| no_text(bytes, fault.valid_up_to()))?;
        let read = if Memory::may_end(bytes.len()) { counted(text) } else { serde_json::from_str(text) };
        read.map_err(|error| explained::<T>(text, &error))
    }
}

/// Reads what may take much memory. By a reader of another kind than the usual way, which with this as a second user of its parts
/// would take 6 % more instructions.
fn counted<'a, T: Deserialize<'a>>(text: &'a str) -> serde_json::Result<T> {
    let mut json = serde_json::Deserializer::from_slice(text.as_bytes());
    let left = bounded::Left::new(Memory::of(text.len()));
    let value = T::deserialize(bounded::Counted::new(&mut json, &left))?;
    json.end()?;
    Ok(value)
}

/// What serde_json found wrong with a text that is to be read as this, with its place.
#[cold]
fn explained<'a, T: Deserialize<'a>>(text: &'a str, error: &serde_json::Error) -> CodecError {
    let located = located(text.as_bytes(), error);
    if !located.place().is_empty() || !error.is_data() {
        return located;
    }
    // Of what was looked at before it was read, serde_json says where it all ends.
    match naming::failed_field::<T>(text) {
        Some(field) => located.in_field(field),
        None => located,
    }
}

/// What is no text from that byte on.
#[cold]
fn no_text(bytes: &[u8], from: usize) -> CodecError {
    let steps = place::steps(bytes, 1, from);
    let fault = CodecError::new(format_args!("byte {from} is not UTF-8, which JSON is"));
    steps.into_iter().rev().fold(fault, CodecError::within)
}

/// What serde_json found in these bytes, with its place.
pub(super) fn located(bytes: &[u8], error: &serde_json::Error) -> CodecError {
    let (words, column) = words::of(bytes, error);
    let steps = place::steps(bytes, error.line(), column);
    steps.into_iter().rev().fold(CodecError::new(words), CodecError::within)
}
