//! Where the fields of an object stand in its text. It takes no memory, however long or deep the object is.
//!
//! It finds the ends of values, and checks no more than that takes: what is wrong within one is for its reader to say.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr2;

/// The longest name that is looked at when it is written with escapes, in bytes.
const MAX_ESCAPED: usize = 512;

/// A field of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    /// With its quotes.
    pub(super) name: Range<usize>,
    pub(super) value: Range<usize>,
    /// Where the comma stands before the name, if there is one.
    pub(super) before: Option<usize>,
    /// Where the comma stands after the value, if there is one.
    pub(super) after: Option<usize>,
}

/// The text is not that of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoObject;

/// The fields of the object that `json` is, one after the other. After an error nothing follows.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    json: &'a [u8],
    /// Where the next name is looked for.
    at: usize,
    /// Behind the opening bracket.
    pub(super) open: usize,
    before: Option<usize>,
    is_over: bool,
}

impl<'a> Fields<'a> {
    pub(super) fn of(json: &'a [u8]) -> Result<Self, NoObject> {
        let begin = skip_blanks(json, if json.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 });
        if json.get(begin) != Some(&b'{') {
            return Err(NoObject);
        }
        Ok(Self { json, at: begin + 1, open: begin + 1, before: None, is_over: false })
    }

    fn step(&mut self) -> Result<Option<Field>, NoObject> {
        let json = self.json;
        let begin = skip_blanks(json, self.at);
        match json.get(begin) {
            Some(b'}') if self.before.is_none() => {
                self.is_over = true;
                return if skip_blanks(json, begin + 1) == json.len() { Ok(None) } else { Err(NoObject) };
            }
            Some(b'"') => {}
            _ => return Err(NoObject),
        }
        let name = begin..end_of_string(json, begin)?;
        let colon = skip_blanks(json, name.end);
        if json.get(colon) != Some(&b':') {
            return Err(NoObject);
        }
        let value = skip_blanks(json, colon + 1);
        let value = value..end_of_value(json, value)?;
        let next = skip_blanks(json, value.end);
        let after = match json.get(next) {
            Some(b',') => Some(next),
            Some(b'}') => None,
            _ => return Err(NoObject),
        };
        let field = Field { name, value, before: self.before, after };
        (self.at, self.before) = (after.map_or(next, |comma| comma + 1), after);
        Ok(Some(field))
    }
}

impl Iterator for Fields<'_> {
    type Item = Result<Field, NoObject>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let field = self.step();
        self.is_over |= field.is_err();
        field.transpose()
    }
}

/// The name in these quotes; `None` if it is none, or written in an overlong way.
pub(super) fn name(quoted: &[u8]) -> Option<Cow<'_, str>> {
    let inner = quoted.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if memchr::memchr(b'\\', inner).is_none() {
        return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
    }
    (quoted.len() <= MAX_ESCAPED).then(|| serde_json::from_slice(quoted).ok().map(Cow::Owned)).flatten()
}

fn skip_blanks(json: &[u8], mut at: usize) -> usize {
    while matches!(json.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// Behind the quote that ends the string that begins at `at`.
fn end_of_string(json: &[u8], mut at: usize) -> Result<usize, NoObject> {
    at += 1;
    while let Some(found) = json.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found;
        if json[at] == b'"' {
            return Ok(at + 1);
        }
        at += 2;
    }
    Err(NoObject)
}

fn end_of_value(json: &[u8], mut at: usize) -> Result<usize, NoObject> {
    let begin = at;
    let mut depth = 0_usize;
    loop {
        match json.get(at) {
            None => return Err(NoObject),
            Some(b'"') => at = end_of_string(json, at)?,
            Some(b'{' | b'[') => {
                depth += 1;
                at += 1;
            }
            Some(b'}' | b']') if depth > 0 => {
                depth -= 1;
                at += 1;
            }
            // The end of a number or a word.
            Some(b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r') if depth == 0 => {
                return if at > begin { Ok(at) } else { Err(NoObject) };
            }
            Some(_) => {
                at += 1;
                continue;
            }
        }
        if depth == 0 {
            return Ok(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;

    fn fields(json: &str) -> Result<Vec<(String, String)>, NoObject> {
        let read = |field: Field| (name(json[field.name].as_bytes()).unwrap().into(), json[field.value].to_owned());
        Fields::of(json.as_bytes())?.map(|field| field.map(read)).collect()
    }

    #[test]
    fn the_fields_of_an_object_are_found_whatever_is_in_them() {
        let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let json = "\u{feff} { \"a\" : \"x,}\\\"\" ,\n\"mod\\u0065l\":[{\"model\":\"no\"},\"]\"],\"n\":-1.5e3 , \"t\":true}\r\n ";
        let expected =
            [own("a", r#""x,}\"""#), own("model", r#"[{"model":"no"},"]"]"#), own("n", "-1.5e3"), own("t", "true")];
        assert_eq!(fields(json).unwrap(), expected);
        assert_eq!(fields("{ }"), Ok(Vec::new()));
        let deep = format!("{{\"a\":{}}}", "[".repeat(100_000) + &"]".repeat(100_000));
        assert_eq!(fields(&deep).unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_whole_object_is_none() {
        for json in [
            "",
            " ",
            "7",
            "[]",
            "{",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\":1,",
            "{\"a\":1,}",
            "{\"a\" 1}",
            "{a:1}",
            "{\"a\":}",
            "{\"a\":[1}",
            "{\"a\":\"x}",
            "{} {}",
            "{\"a\":1}x",
            "{,}",
            "{\"a\":\"\\",
        ] {
            assert!(fields(json).is_err(), "{json}");
        }
    }

    proptest! {
        /// As serde reads it: the same names in the same order, and each value the same.
        #[test]
        fn every_object_has_the_fields_that_serde_finds(
            pairs in proptest::collection::vec((any::<String>(), any::<Option<(String, i32)>>()), 0..6),
            is_pretty in any::<bool>(),
        ) {
            let object: Map<String, Value> = pairs
                .into_iter()
                .map(|(name, value)| (name, value.map_or(Value::Null, |(text, number)| serde_json::json!({"a": [text, number], "b": number}))))
                .collect();
            let json = if is_pretty { serde_json::to_string_pretty(&object) } else { serde_json::to_string(&object) }.unwrap();
            let found: Vec<_> = Fields::of(json.as_bytes()).unwrap().map(Result::unwrap).collect();
            prop_assert_eq!(found.len(), object.len());
            for (field, (expected, value)) in found.into_iter().zip(&object) {
                if field.name.len() <= MAX_ESCAPED {
                    prop_assert_eq!(name(json[field.name].as_bytes()).unwrap(), expected.as_str());
                }
                prop_assert_eq!(&serde_json::from_str::<Value>(&json[field.value]).unwrap(), value);
            }
        }

        /// Nothing makes it panic, or read further than the text.
        #[test]
        fn no_text_is_too_odd(json in "[\\[\\]{}\":,\\\\ a1]{0,40}") {
            for field in Fields::of(json.as_bytes()).into_iter().flatten().flatten() {
                prop_assert!(field.value.end <= json.len());
            }
        }
    }
}
