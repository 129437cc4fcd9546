//! What tools write in several ways, and the names of models.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{DeserializeOwned, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::fault::Fault;
use crate::json;
use crate::message::fields::{Known, unknown_up_to};
use crate::notes::{MAX_NOTES, Notes};
use crate::pass::MAX_FIELDS;

/// The name of a model that leaves the choice to the server.
pub(crate) const DEFAULT_MODEL: &str = "default";

/// The longest name of a model, in bytes.
const MAX_MODEL: usize = 512;

/// Of how many fields that nobody knows a tool's request has notes until those are taken that are carried on.
const MAX_UNKNOWN: usize = MAX_NOTES + MAX_FIELDS;

/// The notes of the fields of a tool's request that nobody knows.
pub(super) fn unknown(body: &[u8], known: Known) -> Vec<String> {
    unknown_up_to(MAX_UNKNOWN, body, known)
}

/// Reads a body.
///
/// # Errors
/// It cannot be read; the words name the field.
pub(super) fn read_wire<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    json::from_slice(body).map_err(|error| match no_json(body) {
        Some(words) => Fault::invalid(None, words),
        None => {
            let place = json::place_of_fault::<T>(body);
            let shown = place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
            let words = format!("the request cannot be read: {shown}{}", json::plain_words(&error.to_string()));
            Fault::misread(place, words)
        }
    })
}

/// What is wrong with a body that nobody can take for JSON.
pub(super) fn no_json(body: &[u8]) -> Option<String> {
    let why = if body.trim_ascii().is_empty() {
        "it has no body"
    } else if body.starts_with(b"\xff\xfe")
        || body.starts_with(b"\xfe\xff")
        || body.iter().take(4).any(|byte| *byte == 0)
    {
        "its text is no UTF-8"
    } else {
        return None;
    };
    Some(format!("the request cannot be read: {why}; send a JSON object as UTF-8"))
}

/// The model that a request names. It stands in every event of the answer again, so its length is bounded.
///
/// # Errors
/// It is longer than [`MAX_MODEL`].
pub(super) fn model_of(model: Option<String>) -> Result<String, Fault> {
    let model = model.unwrap_or_else(|| DEFAULT_MODEL.to_owned());
    if model.len() > MAX_MODEL {
        return Err(Fault::invalid(Some("model"), format!("the model's name has more than {MAX_MODEL} bytes")));
    }
    Ok(model)
}

/// The provider and the model that a name stands for: `PROVIDER/MODEL`, a provider alone, or a model of the default
/// provider, whose name may hold a slash of its own.
pub(super) fn route(name: &str, providers: &[String]) -> (Option<String>, Option<String>) {
    let known = |provider: &str| providers.iter().any(|known| known == provider);
    match name.split_once('/') {
        Some((provider, model)) if known(provider) && !model.is_empty() => {
            (Some(provider.to_owned()), Some(model.to_owned()))
        }
        None if known(name) => (Some(name.to_owned()), None),
        None if name.is_empty() || name == DEFAULT_MODEL => (None, None),
        _ => (None, Some(name.to_owned())),
    }
}

/// The notes of a request: of the fields that nobody knows, and others.
#[derive(Default)]
pub(super) struct Told(Notes);

impl Told {
    pub(super) fn new(unknown: &[String]) -> Self {
        let mut notes = Notes::up_to(MAX_UNKNOWN);
        for note in unknown {
            notes.add(note);
        }
        Self(notes)
    }

    /// Notes that something goes no further, and why.
    pub(super) fn left_out(&mut self, what: &str, reason: &str) {
        self.0.left_out(what, reason);
    }

    pub(super) fn into_vec(self) -> Vec<String> {
        self.0.into_vec()
    }
}

/// The arguments of a call as the object that some formats demand. A text that is none stands in one, so that it is not lost.
pub(super) fn arguments_object(text: &str) -> Value {
    match json::from_str(text) {
        Ok(object @ Value::Object(_)) => object,
        _ if text.trim().is_empty() => json!({}),
        _ => json!({ "text": text }),
    }
}

/// What OpenAI's formats ask for beside the pieces of a stream.
#[derive(Deserialize)]
pub(super) struct StreamOptions {
    include_usage: Option<bool>,
}

impl StreamOptions {
    pub(super) fn include_usage(&self) -> bool {
        self.include_usage.unwrap_or(false)
    }
}

/// A list, or a string or an object that stands for a list of one.
#[derive(Debug)]
pub(super) struct OneOrMany<T>(pub(super) Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// What a string can stand for.
pub(super) trait FromText {
    fn from_text(text: String) -> Self;
}

// By hand, because the derived code for untagged enums hides what was wrong.
impl<'de, T: Deserialize<'de> + FromText> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrManyVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de> + FromText> Visitor<'de> for OneOrManyVisitor<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(OneOrMany(vec![T::from_text(text.to_owned())]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                let list = Vec::<Element<T>>::deserialize(SeqAccessDeserializer::new(list))?;
                Ok(OneOrMany(list.into_iter().filter_map(|Element(element)| element).collect()))
            }

            fn visit_map<A: MapAccess<'de>>(self, one: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(one)).map(|one| OneOrMany(vec![one]))
            }
        }

        deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

/// What stands in such a list: an object, a string that stands for one, or nothing.
struct Element<T>(Option<T>);

impl<'de, T: Deserialize<'de> + FromText> Deserialize<'de> for Element<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de> + FromText> Visitor<'de> for ElementVisitor<T> {
            type Value = Element<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object or a string")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Element(Some(T::from_text(text.to_owned()))))
            }

            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(Element(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, one: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(one)).map(|one| Element(Some(one)))
            }
        }

        deserializer.deserialize_any(ElementVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_name_may_name_its_provider() {
        let providers = ["embedded".to_owned(), "openai".to_owned()];
        let some = |text: &str| Some(text.to_owned());
        for (name, provider, model) in [
            ("openai/gpt-5", some("openai"), some("gpt-5")),
            ("openai/meta/llama", some("openai"), some("meta/llama")),
            ("meta/llama", None, some("meta/llama")),
            ("gpt-5", None, some("gpt-5")),
            ("embedded", some("embedded"), None),
            ("default", None, None),
            ("", None, None),
        ] {
            assert_eq!(route(name, &providers), (provider, model), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_read_says_why_and_where() {
        #[derive(Debug, Deserialize)]
        #[expect(dead_code, reason = "it is read to see how that fails")]
        struct Request {
            messages: Vec<Message>,
            format: Option<Message>,
        }
        #[derive(Debug, Deserialize)]
        #[expect(dead_code, reason = "as above")]
        struct Message {
            role: String,
        }

        for (body, words, param) in [
            (&b""[..], "it has no body", None),
            (b" \n", "it has no body", None),
            (b"\xff\xfe{\0}\0", "is no UTF-8", None),
            (b"{\0}\0", "is no UTF-8", None),
            (b"{\"messages\":[],}", "trailing comma at line 1 column 16", None),
            (b"{\"messages\":[]} x", "trailing characters at line 1 column 17", None),
            (b"{\"messages\":[{\"role\":7}]}", "messages[0].role: invalid type", Some("messages[0].role")),
            (b"{\"messages\":[],\"format\":\"x\"}", "expected an object at line 1", Some("format")),
        ] {
            let fault = read_wire::<Request>(body).unwrap_err();
            assert!(fault.to_string().contains(words), "{fault}");
            assert_eq!(fault.param(), param, "{fault}");
        }
    }

    #[test]
    fn the_name_of_a_model_is_bounded() {
        assert_eq!(model_of(None).unwrap(), DEFAULT_MODEL);
        assert_eq!(model_of(Some("m".into())).unwrap(), "m");
        assert!(model_of(Some("m".repeat(MAX_MODEL + 1))).is_err());
    }

    #[test]
    fn arguments_that_are_no_object_stand_in_one() {
        for (text, object) in [
            (r#"{"a":1}"#, json!({"a": 1})),
            ("", json!({})),
            (" ", json!({})),
            ("[1]", json!({"text": "[1]"})),
            ("{\"a\":", json!({"text": "{\"a\":"})),
        ] {
            assert_eq!(arguments_object(text), object, "{text}");
        }
    }
}
