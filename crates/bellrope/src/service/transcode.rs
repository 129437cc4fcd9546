//! JSON to what travels, and back, by a schema: for programs that learn only when they run what a method takes.
//!
//! Schema and bytes may be anybody's, so depth, steps and size are bounded.

mod reading;
mod saying;
mod writing;

use std::collections::BTreeMap;

use serde::de::IgnoredAny;

use super::{
    codec::{Codec, CodecError},
    json::Json,
    postcard::Postcard,
    schema::{Form, Schema, Shape},
};

impl Schema {
    /// What travels for a value that is written as JSON. With the codec `json` it is the same; with `postcard`, `shape` says
    /// what it is: [`request`](Self::request), [`answer`](Self::answer) or [`sent`](Self::sent).
    ///
    /// Values look as they do with the codec `json`. Beyond that, bytes are base64 (RFC 4648, padded); floats may be
    /// `"NaN"`, `"Infinity"` and `"-Infinity"`; something inside of an option that may be `null` itself is `{"Some": null}`; a
    /// map whose keys are no texts is a list of pairs.
    ///
    /// ```
    /// use bellrope::service::{Schema, Shape};
    ///
    /// let schema = Schema {
    ///     codec: "postcard".to_owned(),
    ///     request: Shape::Tuple(vec![Shape::Text, Shape::Optional(Box::new(Shape::Bool))]),
    ///     answer: Shape::Unit,
    ///     sent: Shape::Unit,
    ///     types: Vec::new(),
    /// };
    /// let bytes = schema.write(&schema.request, br#"["ding", true]"#).unwrap();
    /// assert_eq!(bytes, b"\x04ding\x01\x01");
    /// assert_eq!(schema.read(&schema.request, &bytes).unwrap(), r#"["ding",true]"#);
    /// assert_eq!(schema.write(&schema.request, br#"["ding", 1]"#).unwrap_err().place(), "[1]");
    /// ```
    ///
    /// # Errors
    /// What the text is not, and where; or the codec is neither of the two.
    pub fn write(&self, shape: &Shape, json: &[u8]) -> Result<Vec<u8>, CodecError> {
        match self.codec.as_str() {
            Json::NAME => Json::decode::<IgnoredAny>(json).map(|_| json.to_vec()),
            Postcard::NAME => writing::write(self, shape, json),
            other => Err(unknown_codec(other)),
        }
    }

    /// What [`write`](Self::write) takes, made of what came: one line of text.
    ///
    /// # Errors
    /// What the bytes are not, and where; or the codec is neither of the two.
    pub fn read(&self, shape: &Shape, bytes: &[u8]) -> Result<String, CodecError> {
        let text = match self.codec.as_str() {
            Json::NAME => {
                Json::decode::<IgnoredAny>(bytes)?;
                // Inside of a text they are escaped, so these are mere space.
                bytes.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
            }
            Postcard::NAME => reading::read(self, shape, bytes)?,
            other => return Err(unknown_codec(other)),
        };
        String::from_utf8(text).map_err(CodecError::new)
    }

    /// What a method has answered, or each item of its stream: its value, or its application's error if it answers with a
    /// `Result`. Both as [`read`](Self::read) has them. [Example](Self).
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_answer(&self, bytes: &[u8]) -> Result<Result<String, String>, CodecError> {
        let Some((value, error)) = self.outcome() else { return self.read(&self.answer, bytes).map(Ok) };
        if self.codec != Json::NAME {
            return match bytes.split_first() {
                Some((0, rest)) => self.read(value, rest).map(Ok),
                Some((1, rest)) => self.read(error, rest).map(Err),
                _ => self.read(&self.answer, bytes).map(Ok),
            };
        }
        let text = self.read(&self.answer, bytes)?;
        let keys: BTreeMap<String, IgnoredAny> = Json::decode(text.as_bytes())?;
        // The keys are those alone, so the first colon is the one after them.
        let inside = || text.trim().strip_suffix('}')?.split_once(':').map(|(_, inside)| inside.trim().to_owned());
        match (keys.len(), keys.first_key_value().map(|(key, _)| key.as_str()), inside()) {
            (1, Some("Ok"), Some(value)) => Ok(Ok(value)),
            (1, Some("Err"), Some(error)) => Ok(Err(error)),
            _ => Err(CodecError::new("it is neither {\"Ok\": ...} nor {\"Err\": ...}")),
        }
    }

    /// What a method answers with and its application's error, if its answer is a `Result`: `{"Ok": …}` or `{"Err": …}`.
    /// [Example](Self).
    #[must_use]
    pub fn outcome(&self) -> Option<(&Shape, &Shape)> {
        match self.form(&self.answer) {
            Some(Form::Enum(variants)) => match variants.as_slice() {
                [(ok, Form::Newtype(value)), (err, Form::Newtype(error))] if ok == "Ok" && err == "Err" => {
                    Some((value, error))
                }
                _ => None,
            },
            _ => None,
        }
    }
}

#[cold]
fn unknown_codec(name: &str) -> CodecError {
    let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    CodecError::new(format_args!("the codec {name} is not known here; known are json and postcard"))
}
