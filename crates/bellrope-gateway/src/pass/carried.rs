//! Fields that nobody here knows, put into the request that was made of the others: for providers of the same format whose
//! answers are repaired.

use serde::de::IgnoredAny;

use super::edit::{Edits, field};
use super::format::PassFormat;
use super::scan::{Fields, name};
use crate::json::repaired;
use crate::notes::bound;

/// The most fields that are carried, and the most bytes of all of them.
pub(crate) const MAX_FIELDS: usize = 64;
const MAX_BYTES: usize = 256 * 1024;

/// Fields of a request of which nothing is known here, as they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    format: PassFormat,
    /// Each with its text. An object may be known in part: then it adds to what is made of it.
    fields: Vec<(String, String)>,
    /// What is said of them where they go no further.
    notes: Vec<String>,
}

impl Carried {
    /// Takes the fields of a body of which `notes` say that they were left out, as far as `is_carried` says so; the others'
    /// notes stay. A note has the name of its field in backticks, `a.b` for one within another.
    pub(crate) fn take(
        format: PassFormat,
        body: &[u8],
        notes: &mut Vec<String>,
        is_carried: impl Fn(&str) -> bool,
    ) -> Option<Self> {
        let names: Vec<String> = notes.iter().filter_map(|note| wanted(note, &is_carried).map(str::to_owned)).collect();
        if names.is_empty() {
            return None;
        }
        let mut fields: Vec<(String, String)> = Vec::new();
        let mut too_large: Vec<String> = Vec::new();
        let mut room = MAX_BYTES;
        for found in Fields::of(body).ok()?.flatten() {
            let Some(name) = name(&body[found.name]).filter(|name| names.iter().any(|wanted| wanted == name)) else {
                continue;
            };
            let text = String::from_utf8_lossy(&body[found.value]);
            let text = repaired(&text);
            if text.len() > room {
                too_large.push(name.into_owned());
                continue;
            }
            if serde_json::from_str::<IgnoredAny>(&text).is_err() {
                continue;
            }
            room -= text.len();
            // The last of several counts.
            fields.retain(|(earlier, _)| *earlier != name);
            if fields.len() < MAX_FIELDS {
                fields.push((name.into_owned(), text.into_owned()));
            }
        }
        let is_taken =
            |note: &String| wanted(note, &is_carried).is_some_and(|head| fields.iter().any(|(name, _)| name == head));
        let (mut taken, mut kept): (Vec<String>, Vec<String>) = std::mem::take(notes).into_iter().partition(is_taken);
        for note in &mut kept {
            if let Some(name) = wanted(note, &is_carried).filter(|head| too_large.iter().any(|name| name == head)) {
                *note = format!("`{name}` was left out: what is not known here may have {} KiB", MAX_BYTES / 1024);
            }
        }
        *notes = kept;
        bound(&mut taken);
        Some(Self { format, fields, notes: taken })
    }

    /// The format of the request.
    pub(crate) fn format(&self) -> PassFormat {
        self.format
    }

    /// What is said of the fields where they go no further.
    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// A request with these fields, and those of their objects, that it does not have.
    pub(crate) fn put_into(&self, body: Vec<u8>) -> Vec<u8> {
        let Ok(fields) = Fields::of(&body) else { return body };
        let open = fields.open;
        let there: Vec<_> = fields.flatten().collect();
        let mut edits = Edits::default();
        for (field_name, text) in &self.fields {
            let known = there.iter().find(|found| name(&body[found.name.clone()]).as_deref() == Some(field_name));
            let Some(known) = known else {
                edits.insert_field(open, there.is_empty(), field(field_name, text.as_bytes()));
                continue;
            };
            let (Ok(inner), Ok(more)) = (Fields::of(&body[known.value.clone()]), Fields::of(text.as_bytes())) else {
                continue;
            };
            let open = known.value.start + inner.open;
            let inner: Vec<_> = inner.flatten().collect();
            let said = &body[known.value.clone()];
            for one in more.flatten() {
                let Some(one_name) = name(&text.as_bytes()[one.name]) else { continue };
                if !inner.iter().any(|found| name(&said[found.name.clone()]).as_deref() == Some(&*one_name)) {
                    edits.insert_field(open, inner.is_empty(), field(&one_name, &text.as_bytes()[one.value]));
                }
            }
        }
        if edits.is_empty() { body } else { edits.apply(&body) }
    }
}

/// The outermost part of the name of the field that a note is about, if it is to be carried.
fn wanted<'a>(note: &'a str, is_carried: &impl Fn(&str) -> bool) -> Option<&'a str> {
    let field = note.strip_prefix('`')?.split('`').next().filter(|field| is_carried(field))?;
    field.split('.').next()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn fields_that_nobody_knows_stand_beside_those_that_were_made() {
        let body =
            br#"{"new":{"a":[1]},"reasoning":{"effort":"low","summary":"auto"},"messages":[{"name":"Bo"}],"new":7}"#;
        let mut notes: Vec<String> = ["new", "reasoning.summary", "messages.name"]
            .map(|field| format!("`{field}` was left out: no such field is known here"))
            .into();
        let is_carried = |field: &str| !field.starts_with("messages.");
        let carried = Carried::take(PassFormat::Responses, body, &mut notes, is_carried).unwrap();
        assert_eq!((carried.notes().len(), notes.len()), (2, 1), "{notes:?}");
        let put = |body: &Value| {
            let put = carried.put_into(body.to_string().into_bytes());
            serde_json::from_slice::<Value>(&put).unwrap()
        };
        assert_eq!(
            put(&json!({"model": "m", "reasoning": {"effort": "low"}})),
            json!({"model": "m", "new": 7, "reasoning": {"effort": "low", "summary": "auto"}})
        );
        assert_eq!(put(&json!({})), json!({"new": 7, "reasoning": {"effort": "low", "summary": "auto"}}));
        assert_eq!(
            put(&json!({"new": 1, "reasoning": {}})),
            json!({"new": 1, "reasoning": {"effort": "low", "summary": "auto"}}),
            "what is there stays"
        );
    }

    #[test]
    fn what_is_carried_is_bounded_and_the_rest_is_noted() {
        let long = "x".repeat(MAX_BYTES);
        let body = format!(r#"{{"a":"{long}","b":"\ud83d","c":1}}"#);
        let mut notes: Vec<String> = ["a", "b", "c"].map(|field| format!("`{field}` was left out: x")).into();
        let carried = Carried::take(PassFormat::Messages, body.as_bytes(), &mut notes, |_| true).unwrap();
        assert_eq!(carried.notes().len(), 2);
        assert_eq!(notes, ["`a` was left out: what is not known here may have 256 KiB"]);
        assert_eq!(carried.put_into(b"{}".to_vec()), br#"{"b":"\ufffd","c":1}"#);
        assert_eq!(Carried::take(PassFormat::Messages, b"{}", &mut Vec::new(), |_| true), None);
    }

    #[test]
    fn as_many_fields_are_carried_as_may_be_and_the_rest_is_noted() {
        let fields: Vec<_> = (0..200).map(|at| format!("\"f{at}\":{at}")).collect();
        let body =
            format!("{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"a\"}}],{}}}", fields.join(","));
        let asked = crate::inbound::ToolFormat::ChatCompletions.read(body.as_bytes(), &[]).unwrap();
        let carried = asked.chat.from_tool.carried.unwrap();
        let put: Value = serde_json::from_slice(&carried.put_into(b"{}".to_vec())).unwrap();
        assert_eq!(put.as_object().unwrap().len(), MAX_FIELDS);
        assert_eq!((asked.chat.notes.len(), carried.notes().len()), (32, 32));
        assert!(asked.chat.notes[0].starts_with("`f64` was left out"), "{:?}", asked.chat.notes);
    }
}
