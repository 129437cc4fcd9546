//! The names of a request's fields that nobody here knows, so that none is dropped in silence.
//!
//! The types of a request pass over such fields. This looks for them in the JSON, by a table of what is known, without
//! keeping any of it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::json::repaired;
use crate::notes::{MAX_NOTES, Notes};

/// What is known of a place in a request.
#[derive(Debug, Clone, Copy)]
pub enum Known {
    /// Whatever stands there is used, or refused, as a whole.
    All,
    /// It is not used. What is false or empty there asks for what happens anyway.
    Unused,
    /// An object with these fields, or a list of such objects. In place of it may stand anything that has no fields.
    Fields(&'static [(&'static str, Known)]),
}

use Known::{All, Fields};

const CACHE: (&str, Known) = ("cache_control", All);

/// A chat request: `ai.chat`.
pub const CHAT_REQUEST: Known = Fields(&[
    ("version", All),
    ("provider", All),
    ("model", All),
    ("system", All),
    ("messages", Fields(&[("role", All), ("content", PARTS)])),
    ("tools", Fields(&[("name", All), ("description", All), ("parameters", All), ("strict", All), CACHE])),
    ("tool_choice", All),
    ("temperature", All),
    ("max_tokens", All),
    ("stop", All),
    ("top_p", All),
    ("top_k", All),
    ("seed", All),
    ("presence_penalty", All),
    ("frequency_penalty", All),
    ("logit_bias", All),
    ("logprobs", All),
    ("top_logprobs", All),
    ("user", All),
    ("metadata", All),
    ("reasoning_effort", All),
    ("thinking", All),
    ("parallel_tool_calls", All),
    ("response_format", All),
    ("service_tier", All),
    ("n", All),
    ("resumable", All),
]);

const PARTS: Known = Fields(&[
    ("type", All),
    ("text", All),
    ("url", All),
    ("detail", All),
    ("details", All),
    ("id", All),
    ("name", All),
    ("input", All),
    ("extra_content", All),
    ("tool_use_id", All),
    ("content", All),
    ("images", All),
    ("is_error", All),
    CACHE,
]);

/// A completion request: `ai.complete`.
pub const COMPLETION_REQUEST: Known = Fields(&[
    ("version", All),
    ("provider", All),
    ("model", All),
    ("system", All),
    ("prompt", All),
    ("suffix", All),
    ("temperature", All),
    ("max_tokens", All),
    ("stop", All),
]);

/// A note for each field of `json` that is not `known` and says something, which null does not. Within lists, such as that of the
/// messages, false and what is empty do not either. Each field is told once, however many messages have it. What is no JSON has no
/// fields.
///
/// ```
/// use bellrope_gateway::message::fields::{CHAT_REQUEST, unknown};
///
/// let json = br#"{"messages":[{"role":"user","content":"Hi","colour":"red","mood":[]}],"audio":null,"think":false}"#;
/// let notes = unknown(json, CHAT_REQUEST);
/// assert_eq!(notes[0], "`messages.colour` was left out: no such field is known here");
/// assert_eq!(notes[1], "`think` was left out: no such field is known here");
/// assert_eq!(notes.len(), 2);
/// ```
pub fn unknown(json: &[u8], known: Known) -> Vec<String> {
    unknown_up_to(MAX_NOTES, json, known)
}

/// As [`unknown`], with at most so many notes.
pub(crate) fn unknown_up_to(most: usize, json: &[u8], known: Known) -> Vec<String> {
    let notes = RefCell::new(Notes::up_to(most));
    let place = Place { known, path: &Path { outer: None, name: "" }, is_alone: true, notes: &notes };
    if place.deserialize(&mut serde_json::Deserializer::from_slice(json)).is_err() {
        // Where it is wrong for good, whoever reads it says so.
        let text = String::from_utf8_lossy(json);
        let _ = place.deserialize(&mut serde_json::Deserializer::from_str(&repaired(&text)));
    }
    notes.into_inner().into_vec()
}

/// The field of a request that `T` does not read, if it is one of those that are known. `required`: the field without which
/// none is a `T`, with a value.
pub(crate) fn misread<T: DeserializeOwned>(json: &[u8], known: Known, required: (&str, &str)) -> Option<&'static str> {
    struct Search<T> {
        known: &'static [(&'static str, Known)],
        required: (&'static str, String),
        found: Option<&'static str>,
        request: PhantomData<T>,
    }

    impl<'de, T: DeserializeOwned> Visitor<'de> for &mut Search<T> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                let Some((known, _)) = self.known.iter().find(|(known, _)| *known == name) else {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                };
                let value = map.next_value::<&'de RawValue>()?.get();
                let (required, other) = &self.required;
                let alone = if required == known { String::new() } else { format!(",\"{required}\":{other}") };
                if serde_json::from_str::<T>(&format!("{{\"{known}\":{value}{alone}}}")).is_err() {
                    self.found = Some(known);
                    break;
                }
            }
            Ok(())
        }
    }

    let Fields(known) = known else { return None };
    let required = (known.iter().find(|(name, _)| *name == required.0)?.0, required.1.to_owned());
    let mut search = Search { known, required, found: None, request: PhantomData::<T> };
    let text = String::from_utf8_lossy(json);
    // What is no JSON has no fields.
    let _ = serde_json::Deserializer::from_str(&repaired(&text)).deserialize_map(&mut search);
    search.found
}

/// The fields that lead to a place.
struct Path<'a> {
    outer: Option<&'a Path<'a>>,
    name: &'a str,
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(outer) = self.outer.filter(|outer| !outer.name.is_empty()) {
            write!(f, "{outer}.")?;
        }
        f.write_str(self.name)
    }
}

#[derive(Clone, Copy)]
struct Place<'a> {
    known: Known,
    path: &'a Path<'a>,
    /// Whether it is in no list: then what is off there was set so by somebody.
    is_alone: bool,
    notes: &'a RefCell<Notes>,
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.known {
            All | Known::Unused => deserializer.deserialize_ignored_any(IgnoredAny).map(drop),
            Fields(_) => deserializer.deserialize_any(self),
        }
    }
}

/// Numbers say something.
macro_rules! plain {
    ($($visit:ident($value:ty)),+) => {
        $(fn $visit<E>(self, _: $value) -> Result<Self::Value, E> { Ok(true) })+
    };
}

impl<'de> Visitor<'de> for Place<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Fields(fields) = self.known else { return Ok(()) };
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            let path = Path { outer: Some(self.path), name: &name };
            let says = match fields.iter().find(|(known, _)| *known == name) {
                Some((_, Known::Unused)) => Says { when_off: false },
                // What is off in the options of a stream does not come anyway.
                Some((_, known)) => {
                    let is_alone = self.is_alone && name != "stream_options";
                    map.next_value_seed(Place { known: *known, path: &path, is_alone, ..self })?;
                    continue;
                }
                None => Says { when_off: self.is_alone },
            };
            if map.next_value_seed(says)? {
                let note = format!("`{path}` was left out: no such field is known here");
                self.notes.borrow_mut().add(&note);
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Self { is_alone: false, ..self })?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Whether a value says something. `when_off`: also one that is false or empty.
struct Says {
    when_off: bool,
}

impl<'de> DeserializeSeed<'de> for Says {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Says {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    plain! { visit_i64(i64), visit_u64(u64), visit_f64(f64) }

    fn visit_bool<E>(self, value: bool) -> Result<bool, E> {
        Ok(value || self.when_off)
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        Ok(self.when_off || !text.is_empty())
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut says = self.when_off;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            says = true;
        }
        Ok(says)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        let mut says = self.when_off;
        while list.next_element::<IgnoredAny>()?.is_some() {
            says = true;
        }
        Ok(says)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ChatRequest, CompletionRequest};

    // Fault 75.
    #[test]
    fn a_field_that_nobody_knows_is_named_once_wherever_it_stands() {
        let json = br#"{"messages":[
            {"role":"user","content":"a","name":"Bo","annotations":[],"store":false},
            {"role":"user","name":"Ed","content":[{"type":"text","text":"b","mood":1}, 7]}
        ],"tools":[{"name":"f","parameters":{"any":"thing"},"kind":"x"}],
        "verbosity":"low","audio":null,"enable_thinking":false,"plugins":[],"web_search_options":{},"colour":"","\u0065xtra":0,
        "metadata":{"a":"b"}}"#;
        let notes = unknown(json, CHAT_REQUEST);
        let names: Vec<_> = notes.iter().map(|note| note.split('`').nth(1).unwrap()).collect();
        assert_eq!(
            names,
            [
                "messages.name",
                "messages.content.mood",
                "tools.kind",
                "verbosity",
                "enable_thinking",
                "plugins",
                "web_search_options",
                "colour",
                "extra",
            ]
        );
        let known = Fields(&[("store", Known::Unused), ("stream_options", Fields(&[])), ("text", Fields(&[]))]);
        let off = br#"{"store":false,"stream_options":{"include_obfuscation":false},"text":{"a":false}}"#;
        assert_eq!(unknown(off, known), ["`text.a` was left out: no such field is known here"]);
        assert_eq!(unknown(br#"{"store":true}"#, known).len(), 1);
        assert!(unknown(b"{\"messages\":", CHAT_REQUEST).is_empty());
        assert!(unknown(b"7", CHAT_REQUEST).is_empty());
        let broken = br#"{"messages":[{"role":"user","content":"cut \ud83d here"}],"extra":"\ud83d"}"#;
        assert_eq!(unknown(broken, CHAT_REQUEST).len(), 1);
    }

    #[test]
    fn a_flood_of_fields_has_a_bounded_number_of_notes() {
        let fields: Vec<_> = (0..1000).map(|number| format!("\"{number}{}\":1", "x".repeat(1000))).collect();
        let notes = unknown(format!("{{{}}}", fields.join(",")).as_bytes(), CHAT_REQUEST);
        assert_eq!(notes.len(), MAX_NOTES);
        assert!(notes.iter().all(|note| note.len() <= crate::MAX_NOTE));
    }

    #[test]
    fn the_field_that_cannot_be_read_is_found() {
        let place = |json: &str| misread::<ChatRequest>(json.as_bytes(), CHAT_REQUEST, ("messages", "[]"));
        for (json, expected) in [
            (r#"{"x":1,"messages":[],"max_tokens":"many","stop":7}"#, Some("max_tokens")),
            (r#"{"max_tokens":1,"messages":[{"role":"ghost","content":"\ud83d"}]}"#, Some("messages")),
            (r#"{"max_tokens":1}"#, None),
            (r#"{"max_tokens":"many"#, None),
            ("7", None),
        ] {
            assert_eq!(place(json), expected, "{json}");
        }
    }

    #[test]
    fn what_the_types_write_is_known() {
        let all = r#"{"version":1,"messages":[{"role":"user","content":[{"type":"text","text":"a","cache_control":{}}]}],
            "tools":[{"name":"f","parameters":{},"strict":true,"cache_control":{"type":"ephemeral"}}],"top_p":1,"top_k":1,
            "seed":1,"presence_penalty":1,"frequency_penalty":1,"logit_bias":{"1":1},"user":"u","metadata":{"a":"b"},
            "reasoning_effort":"low","thinking":{"type":"adaptive"},"parallel_tool_calls":true,"response_format":{"type":"text"},"service_tier":"auto",
            "n":1}"#;
        let chat: ChatRequest = serde_json::from_str(all).unwrap();
        let json = serde_json::to_vec(&chat).unwrap();
        assert!(json.len() > 400);
        assert_eq!(unknown(&json, CHAT_REQUEST), Vec::<String>::new());
        let completion =
            CompletionRequest { max_tokens: Some(1), suffix: Some("b".into()), ..CompletionRequest::new("a") };
        assert_eq!(unknown(&serde_json::to_vec(&completion).unwrap(), COMPLETION_REQUEST), Vec::<String>::new());
    }
}
