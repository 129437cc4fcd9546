//! The few fields of a request that matter on its way, and how they are changed in place.

use std::ops::Range;

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::Value;
use thiserror::Error;

use super::edit::{Edits, field};
use super::scan::{Field, Fields, NoObject, name};

/// How often a field may stand in a request that has to be changed. Readers differ in which of them counts.
const MAX_TWINS: usize = 8;

/// What a budget counts by, beside the model.
const COUNTED: [&str; 5] = ["max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of"];

/// The longest name of a model, in bytes as it is written.
const MAX_MODEL: usize = 4 * 1024;

/// The longest id of a response, in bytes as it is written.
const MAX_ID: usize = 512;

/// Why a request cannot go on as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Unreadable {
    /// It is not JSON, or no object.
    #[error("the request cannot be read: it is no whole JSON object")]
    NoObject,
    /// The name of its model is none.
    #[error("model: the name of a model is a text")]
    Model,
    /// A field stands in it again and again.
    #[error("`{0}` stands there more than {MAX_TWINS} times; once is enough")]
    Twins(&'static str),
}

impl From<NoObject> for Unreadable {
    fn from(NoObject: NoObject) -> Self {
        Self::NoObject
    }
}

/// What is known of a request without reading it: where the fields stand that may have to be changed.
#[derive(Debug, Clone, Default)]
pub struct Envelope {
    /// The name of the model, as it stands there last.
    pub model: Option<String>,
    /// Whether the answer is to come in pieces.
    pub stream: bool,
    /// Whether the answer is to be kept and asked for later.
    pub background: bool,
    /// The id of the response that it goes on from, if it is no longer than [`MAX_ID`].
    pub(super) previous: Option<String>,
    /// How many answers are to be made at once, where it says so.
    pub(super) choices: Option<u32>,
    /// Whether it asks for several answers, by whatever name, or in a way that is not understood.
    has_several: bool,
    /// The most tokens of the answer, by each of the names that formats have for it.
    most: Vec<Most>,
    /// Whether a stream of chat completions is to say what it took.
    pub(super) wants_usage: bool,
    /// Behind the bracket that opens the request, and whether nothing follows.
    open: usize,
    is_empty: bool,
    models: Vec<Twin>,
    options: Vec<Range<usize>>,
}

/// One of the places where the most tokens of the answer stand.
#[derive(Debug, Clone)]
struct Most {
    field: &'static str,
    value: Range<usize>,
    tokens: Tokens,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tokens {
    /// It says `null`.
    Any,
    AtMost(u32),
    /// What it says is no number of tokens.
    Odd,
}

/// One of the places where the model stands.
#[derive(Debug, Clone)]
struct Twin {
    value: Range<usize>,
    /// The field with one comma beside it.
    whole: Range<usize>,
    /// The name there.
    name: Option<String>,
}

impl Envelope {
    /// Looks for the fields in a request.
    ///
    /// # Errors
    /// It cannot be changed in place.
    pub fn read(body: &[u8]) -> Result<Self, Unreadable> {
        let fields = Fields::of(body)?;
        let mut envelope = Self { open: fields.open, is_empty: true, ..Self::default() };
        for found in fields {
            let found = found?;
            envelope.is_empty = false;
            let is_true = || &body[found.value.clone()] == b"true";
            match name(&body[found.name.clone()]).as_deref() {
                Some("model") => envelope.take_model(body, &found)?,
                Some("stream") => envelope.stream = is_true(),
                Some("background") => envelope.background = is_true(),
                Some(name @ ("max_tokens" | "max_completion_tokens" | "max_output_tokens")) => {
                    envelope.take_most(name, body, found.value)?;
                }
                Some(name @ ("n" | "best_of")) => {
                    let count = serde_json::from_slice::<Option<u32>>(&body[found.value]);
                    envelope.has_several |= !matches!(count, Ok(None | Some(0 | 1)));
                    if name == "n" {
                        envelope.choices = count.unwrap_or_default();
                    }
                }
                Some("prompt") => envelope.has_several |= has_several_texts(&body[found.value]),
                Some("previous_response_id") if found.value.len() <= MAX_ID => {
                    envelope.previous = serde_json::from_slice(&body[found.value]).ok();
                }
                Some("stream_options") => {
                    if envelope.options.len() == MAX_TWINS {
                        return Err(Unreadable::Twins("stream_options"));
                    }
                    envelope.wants_usage = wants_usage(&body[found.value.clone()]);
                    envelope.options.push(found.value);
                }
                // Readers that pass over case would take it for one of those.
                Some(name) if COUNTED.iter().any(|counted| counted.eq_ignore_ascii_case(name)) => {
                    envelope.has_several = true;
                }
                _ => {}
            }
        }
        Ok(envelope)
    }

    fn take_most(&mut self, name: &str, body: &[u8], value: Range<usize>) -> Result<(), Unreadable> {
        let fields = ["max_tokens", "max_completion_tokens", "max_output_tokens"];
        let Some(field) = fields.into_iter().find(|field| *field == name) else { return Ok(()) };
        if self.most.len() == MAX_TWINS {
            return Err(Unreadable::Twins(field));
        }
        let tokens = match serde_json::from_slice::<Option<u32>>(&body[value.clone()]) {
            Ok(None) => Tokens::Any,
            Ok(Some(most)) => Tokens::AtMost(most),
            Err(_) => Tokens::Odd,
        };
        self.most.push(Most { field, value, tokens });
        Ok(())
    }

    /// The most tokens of the answer by any of these fields.
    pub(super) fn max_tokens(&self, fields: &[&str]) -> Option<u32> {
        let of = |most: &Most| match most.tokens {
            Tokens::AtMost(tokens) => Some(tokens),
            Tokens::Any | Tokens::Odd => None,
        };
        self.most.iter().filter(|most| fields.contains(&most.field)).filter_map(of).max()
    }

    /// Whether it can be told for sure how much it asks for, by these fields: one answer, of a number of tokens that is one.
    pub(super) fn is_countable(&self, fields: &[&str]) -> bool {
        let is_odd = |most: &Most| fields.contains(&most.field) && most.tokens == Tokens::Odd;
        !self.has_several && !self.most.iter().any(is_odd)
    }

    fn take_model(&mut self, body: &[u8], found: &Field) -> Result<(), Unreadable> {
        if self.models.len() == MAX_TWINS {
            return Err(Unreadable::Twins("model"));
        }
        let text = &body[found.value.clone()];
        let name = match text {
            b"null" => None,
            _ if text.len() > MAX_MODEL => return Err(Unreadable::Model),
            _ => Some(serde_json::from_slice::<String>(text).map_err(|_| Unreadable::Model)?),
        };
        let whole = match (found.before, found.after) {
            (_, Some(after)) => found.name.start..after + 1,
            (Some(before), None) => before..found.value.end,
            (None, None) => found.name.start..found.value.end,
        };
        self.model.clone_from(&name);
        self.models.push(Twin { value: found.value.clone(), whole, name });
        Ok(())
    }

    /// The request for a provider that calls the model so, or chooses one itself. `adds_usage`: the answer is to say what
    /// it took. `limit`: the most tokens that the answer may have, and the fields that say so, of which the first is put in
    /// where none is there.
    pub(super) fn edited(
        &self,
        body: &Bytes,
        model: Option<&str>,
        adds_usage: bool,
        limit: Option<(u32, &[&str])>,
    ) -> Bytes {
        let mut edits = Edits::default();
        match model {
            Some(model) if self.models.is_empty() => {
                edits.insert_field(self.open, self.is_empty, field("model", quoted(model).as_bytes()));
            }
            Some(model) => {
                for twin in self.models.iter().filter(|twin| twin.name.as_deref() != Some(model)) {
                    edits.replace(twin.value.clone(), quoted(model));
                }
            }
            None => self.models.iter().for_each(|twin| edits.replace(twin.whole.clone(), "")),
        }
        if adds_usage {
            self.add_usage(body, &mut edits);
        }
        if let Some((limit, fields)) = limit {
            self.limit(limit, fields, &mut edits);
        }
        if edits.is_empty() { body.clone() } else { edits.apply(body).into() }
    }

    fn limit(&self, limit: u32, fields: &[&str], edits: &mut Edits) {
        let mut is_there = false;
        for most in self.most.iter().filter(|most| fields.contains(&most.field)) {
            is_there |= most.tokens != Tokens::Any;
            if matches!(most.tokens, Tokens::AtMost(tokens) if tokens > limit) {
                edits.replace(most.value.clone(), limit.to_string());
            }
        }
        if is_there {
            return;
        }
        let mut fields = fields.iter();
        let nothing = self.most.iter().find(|most| fields.clone().any(|field| *field == most.field));
        match (nothing, fields.next()) {
            (Some(nothing), _) => edits.replace(nothing.value.clone(), limit.to_string()),
            (None, Some(field)) => {
                edits.insert_field(self.open, self.is_empty, self::field(field, limit.to_string().as_bytes()));
            }
            (None, None) => {}
        }
    }

    fn add_usage(&self, body: &[u8], edits: &mut Edits) {
        const ASKED: &[u8] = b"\"include_usage\":true";
        if self.options.is_empty() {
            let options = [b"{", ASKED, b"}"].concat();
            edits.insert_field(self.open, self.is_empty, field("stream_options", &options));
        }
        for place in &self.options {
            let Ok(fields) = Fields::of(&body[place.clone()]) else {
                // What is neither is for the provider to refuse.
                if &body[place.clone()] == b"null" {
                    edits.replace(place.clone(), [b"{", ASKED, b"}"].concat());
                }
                continue;
            };
            let (open, mut is_empty, mut is_there) = (place.start + fields.open, true, false);
            for found in fields.flatten() {
                is_empty = false;
                let text = &body[place.clone()];
                if name(&text[found.name.clone()]).as_deref() == Some("include_usage") {
                    is_there = true;
                    edits.replace(place.start + found.value.start..place.start + found.value.end, "true");
                }
            }
            if !is_there {
                edits.insert_field(open, is_empty, ASKED.to_vec());
            }
        }
    }
}

/// Whether a prompt is a list of several: of texts, or of lists of tokens. Each of them gets an answer.
fn has_several_texts(prompt: &[u8]) -> bool {
    let Some(inner) = prompt.strip_prefix(b"[") else { return false };
    matches!(inner.trim_ascii_start().first(), Some(b'"' | b'['))
        && serde_json::from_slice::<Vec<IgnoredAny>>(prompt).is_ok_and(|texts| texts.len() > 1)
}

/// Whether these options ask for what the answer takes.
fn wants_usage(options: &[u8]) -> bool {
    let fields = Fields::of(options).into_iter().flatten().flatten();
    let asked = fields.filter(|found| name(&options[found.name.clone()]).as_deref() == Some("include_usage"));
    asked.last().is_some_and(|found| &options[found.value] == b"true")
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn edited(body: &str, model: Option<&str>, adds_usage: bool) -> String {
        let envelope = Envelope::read(body.as_bytes()).unwrap();
        let edited = envelope.edited(&Bytes::copy_from_slice(body.as_bytes()), model, adds_usage, None);
        String::from_utf8(edited.to_vec()).unwrap()
    }

    #[test]
    fn the_model_is_changed_where_it_stands_and_nothing_else_is() {
        for (body, model, expected) in [
            (r#"{ "model" : "p/m" , "x":[1 ,2]}"#, Some("m"), r#"{ "model" : "m" , "x":[1 ,2]}"#),
            (r#"{"x":{"model":"p/m"},"model":"p\/m"}"#, Some("m"), r#"{"x":{"model":"p/m"},"model":"m"}"#),
            (r#"{"mod\u0065l":"a","model":"b"}"#, Some("m"), r#"{"mod\u0065l":"m","model":"m"}"#),
            (r#"{"model":"\u006d"}"#, Some("m"), r#"{"model":"\u006d"}"#),
            (r#"{"model":null,"a":1}"#, Some("m\""), r#"{"model":"m\"","a":1}"#),
            (r#"{"a":1}"#, Some("m"), r#"{"model":"m","a":1}"#),
            ("{}", Some("m"), r#"{"model":"m"}"#),
            (r#"{"model":"default","a":1}"#, None, r#"{"a":1}"#),
            (r#"{"a":1, "model":"default"}"#, None, r#"{"a":1}"#),
            (r#"{"model":"default"}"#, None, "{}"),
            (r#"{"a":"\ud83d","model":"m"}"#, Some("m"), r#"{"a":"\ud83d","model":"m"}"#),
        ] {
            assert_eq!(edited(body, model, false), expected, "{body}");
        }
    }

    #[test]
    fn a_body_that_needs_no_change_is_not_copied() {
        let body = Bytes::from_static(br#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#);
        let envelope = Envelope::read(&body).unwrap();
        assert!(envelope.stream && envelope.wants_usage);
        assert_eq!(envelope.edited(&body, Some("m"), false, None).as_ptr(), body.as_ptr());
    }

    #[test]
    fn what_the_answer_takes_is_asked_for_in_every_form_of_the_options() {
        let asked = r#""include_usage":true"#;
        for (options, expected) in [
            ("", format!(r#""stream_options":{{{asked}}},"#)),
            (r#""stream_options":null,"#, format!(r#""stream_options":{{{asked}}},"#)),
            (r#""stream_options":{},"#, format!(r#""stream_options":{{{asked}}},"#)),
            (r#""stream_options":{ "a":1},"#, format!(r#""stream_options":{{{asked}, "a":1}},"#)),
            (
                r#""stream_options":{"include_usage": false },"#,
                r#""stream_options":{"include_usage": true },"#.to_owned(),
            ),
            (r#""stream_options":7,"#, r#""stream_options":7,"#.to_owned()),
        ] {
            assert_eq!(edited(&format!("{{{options}\"a\":1}}"), None, true), format!("{{{expected}\"a\":1}}"));
        }
        let last = |body: &str| Envelope::read(body.as_bytes()).unwrap().wants_usage;
        let twins = r#"{"stream_options":{"include_usage":true},"stream_options":{"include_usage":false}}"#;
        assert!(!last(twins));
        assert_eq!(edited(twins, None, true).matches(asked).count(), 2, "whichever counts");
    }

    #[test]
    fn what_cannot_be_changed_is_refused_in_words() {
        let words = |body: &str| Envelope::read(body.as_bytes()).unwrap_err().to_string();
        assert!(words("[]").contains("no whole JSON object"));
        assert!(words(r#"{"model":7}"#).contains("is a text"));
        assert!(words(&format!(r#"{{"model":"{}"}}"#, "m".repeat(MAX_MODEL))).contains("is a text"));
        let many = format!("{{{}}}", [r#""model":"m""#; MAX_TWINS + 1].join(","));
        assert!(words(&many).contains("more than 8 times"));
        let many = format!("{{{}}}", [r#""stream_options":{}"#; MAX_TWINS + 1].join(","));
        assert!(words(&many).contains("stream_options"));
    }

    #[test]
    fn a_limit_is_put_where_more_is_asked_for_and_nowhere_else() {
        let chat: &[&str] = &["max_completion_tokens", "max_tokens"];
        for (body, expected) in [
            (r#"{ "max_tokens" : 900 ,"a":1.0}"#, r#"{ "max_tokens" : 500 ,"a":1.0}"#),
            (r#"{"max_tokens":900,"max_completion_tokens":9}"#, r#"{"max_tokens":500,"max_completion_tokens":9}"#),
            (r#"{"max_tokens":500,"max_tokens":501}"#, r#"{"max_tokens":500,"max_tokens":500}"#),
            (r#"{"a":{"max_tokens":900}}"#, r#"{"max_completion_tokens":500,"a":{"max_tokens":900}}"#),
            (r#"{"max_output_tokens":900}"#, r#"{"max_completion_tokens":500,"max_output_tokens":900}"#),
            (r#"{"max_tokens":null}"#, r#"{"max_tokens":500}"#),
            (r#"{"max_tokens":null,"max_completion_tokens":7}"#, r#"{"max_tokens":null,"max_completion_tokens":7}"#),
            ("{}", r#"{"max_completion_tokens":500}"#),
        ] {
            let envelope = Envelope::read(body.as_bytes()).unwrap();
            let edited = envelope.edited(&Bytes::copy_from_slice(body.as_bytes()), None, false, Some((500, chat)));
            assert_eq!(edited, expected, "{body}");
            assert!(envelope.is_countable(chat));
        }
        let of = |body: &str| Envelope::read(body.as_bytes()).unwrap();
        assert_eq!(of(r#"{"max_tokens":7,"max_completion_tokens":3,"max_output_tokens":9}"#).max_tokens(chat), Some(7));
        for odd in [
            r#"MAX_TOKENS":9"#,
            r#"N":8"#,
            "n\":2",
            "n\":\"2\"",
            "best_of\":3",
            r#"prompt":["a", "b"]"#,
            r#"prompt":[[1,2],[3]]"#,
            "max_tokens\":1e9",
            "max_tokens\":\"900\"",
            "max_tokens\":-1",
        ] {
            assert!(!of(&format!("{{\"{odd}}}")).is_countable(chat), "{odd}");
        }
        for one in [
            r#""n":1,"best_of":null,"max_output_tokens":"x""#,
            r#""prompt":["a"]"#,
            r#""prompt":[1,2]"#,
            r#""prompt":"a""#,
        ] {
            assert!(of(&format!("{{{one}}}")).is_countable(chat), "{one}");
        }
    }

    proptest! {
        /// Whatever stands beside it: the model is the new one, and all else is as it was.
        #[test]
        fn all_but_the_model_stays(
            before in proptest::collection::btree_map("[a-l]{1,8}", any::<(String, i64)>(), 0..4),
            old in any::<Option<String>>(),
            new in any::<String>(),
        ) {
            let mut object = json!(before);
            if let Some(old) = &old {
                object["model"] = json!(old);
            }
            let body = object.to_string();
            let edited = edited(&body, Some(&new), false);
            object["model"] = json!(new);
            prop_assert_eq!(serde_json::from_str::<Value>(&edited).unwrap(), object);
        }
    }
}
