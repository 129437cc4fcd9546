//! The list of a server's models: OpenAI's form, and those of servers that have one of their own. Each entry is read by
//! itself, so that an odd one hides no other.

use std::collections::HashSet;

use serde_json::value::RawValue;
use tracing::debug;

use super::fault::StatedFault;
use super::reader::EventReader;
use crate::error::ProviderError;
use crate::json::{each, fields, raw, words};
use crate::message::ModelInfo;
use crate::secret::Secret;

/// The target of its log lines, which filters name: it stays when the file moves.
const TARGET: &str = "bellrope_gateway::http";

/// The most models of one list. What comes after them is left out.
const MAX_MODELS: usize = 10_000;

/// The longest name of a model, in bytes: no request may name a longer one.
const MAX_NAME: usize = 512;

/// What has been read of a list.
#[derive(Default)]
struct Listing {
    models: Vec<ModelInfo>,
    known: HashSet<String>,
    /// Entries that name no model, or that are too many.
    left_out: usize,
}

/// The models in a document, each once, in their order. `key`: what no error may hold.
///
/// # Errors
/// It says that the server failed, or is no list.
pub(crate) fn models_in(body: &[u8], provider: &str, key: Option<Secret>) -> Result<Vec<ModelInfo>, ProviderError> {
    let text = String::from_utf8_lossy(body);
    let reader = EventReader::new(key);
    let read = raw(text.trim_start_matches('\u{feff}'), |document| {
        let mut listing = Listing::default();
        let is_list = list_of(document).is_some_and(|list| {
            let visit = |_, entry: &RawValue| -> Result<(), ()> {
                listing.take(entry, provider);
                Ok(())
            };
            each(list, visit).unwrap_or(false)
        });
        // An empty list beside an error is none.
        let fault = if listing.models.is_empty() { StatedFault::in_event(document) } else { None };
        match fault {
            Some(fault) => Err(reader.failed(&fault)),
            None if !is_list => Err(reader.malformed("there is no list of models", &text)),
            None if listing.models.is_empty() && listing.left_out > 0 => {
                Err(reader.malformed("no entry of the list names a model", &text))
            }
            None => Ok(listing),
        }
    });
    let listing = read.unwrap_or_else(|error| match error.is_eof() {
        true => Err(ProviderError::Truncated { reason: "its JSON is cut off".into() }),
        false => Err(reader.malformed(&error.to_string(), &text)),
    })?;
    if listing.left_out > 0 {
        debug!(target: TARGET, provider, left_out = listing.left_out, "entries of the list of models are left out");
    }
    Ok(listing.models)
}

/// The list, which is the document with some servers, and called `models` with others.
fn list_of(document: &RawValue) -> Option<&RawValue> {
    if document.get().starts_with('[') {
        return Some(document);
    }
    let is_list = |value: &&RawValue| value.get().starts_with('[');
    fields(document, ["data", "models"])?.into_iter().flatten().find(is_list)
}

impl Listing {
    fn take(&mut self, entry: &RawValue, provider: &str) {
        let name = |value: &RawValue| Some(value).filter(|value| value.get().starts_with('"')).and_then(words);
        let is_name = |name: &String| name.len() <= MAX_NAME && !name.chars().any(char::is_control);
        let (id, owner) = match fields(entry, ["id", "name", "model", "owned_by"]) {
            Some([id, called, model, owner]) => {
                (id.into_iter().chain(called).chain(model).find_map(name), owner.and_then(name))
            }
            None => (name(entry), None),
        };
        let Some(id) = id.filter(is_name).filter(|_| self.models.len() < MAX_MODELS) else {
            self.left_out += 1;
            return;
        };
        if self.known.insert(id.clone()) {
            let provider = provider.to_owned();
            self.models.push(ModelInfo { id, provider, owner: owner.filter(is_name) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The models, each with its owner behind it.
    fn of(body: &[u8]) -> Result<Vec<String>, ProviderError> {
        let models = models_in(body, "p", Some(Secret::new("sk-test-0123456789")))?;
        assert!(models.iter().all(|model| model.provider == "p"));
        let shown = |ModelInfo { id, owner, .. }| owner.iter().fold(id, |id, owner| format!("{id} of {owner}"));
        Ok(models.into_iter().map(shown).collect())
    }

    #[test]
    fn an_odd_entry_hides_no_other() {
        let rest = r#"{"id":"b","owned_by":"us"}"#;
        for odd in [
            r#"{"id":null}"#,
            r#"{"id":7}"#,
            r#"{"object":"model"}"#,
            "null",
            "7",
            "[]",
            r#"{"id":""}"#,
            r#"{"id":{}}"#,
            r#"{"id":"a\u001b[31m\r\nX: y"}"#,
            rest,
        ] {
            let body = format!(r#"{{"object":"list","data":[{odd},{rest},{{"id":"c"}}]}}"#);
            assert_eq!(of(body.as_bytes()).unwrap(), ["b of us", "c"], "{odd}");
        }
        for owner in ["5", "{}", "[]", "null", "\"\"", "true"] {
            let body = format!(r#"{{"data":[{{"id":"b","owned_by":{owner}}}]}}"#);
            assert_eq!(of(body.as_bytes()).unwrap(), ["b"], "{owner}");
        }
        let long = format!(r#"{{"data":[{{"id":"{}"}},{{"id":"b"}}]}}"#, "x".repeat(MAX_NAME + 1));
        assert_eq!(of(long.as_bytes()).unwrap().len(), 1);
    }

    #[test]
    fn every_form_of_a_list_is_read() {
        for body in [
            r#"{"data":[{"id":"a"},{"id":"b"}]}"#,
            r#"[{"id":"a"},{"id":"b","type":"chat"}]"#,
            r#"["a","b"]"#,
            r#"{"models":[{"name":"a","model":"a"},{"model":"b"}]}"#,
            r#"{"data":null,"models":["a","b"]}"#,
            "\u{feff}{\"data\":[{\"id\":\"a\"},{\"id\":\"b\",\"x\":\"\\ud83d\"}]}",
            r#"{"data":[{"id":"a"},{"id":"b"}],"error":null}"#,
        ] {
            assert_eq!(of(body.as_bytes()).unwrap(), ["a", "b"], "{body}");
        }
        assert!(of(br#"{"data":[]}"#).unwrap().is_empty());
        assert_eq!(of(b"{\"data\":[{\"id\":\"\\ud83d\"},{\"id\":\"\xff\"}]}").unwrap(), ["\u{fffd}"]);
    }

    #[test]
    fn a_list_that_is_too_long_is_cut_and_not_lost() {
        let entries: Vec<_> = (0..=MAX_MODELS).map(|number| format!(r#"{{"id":"m{number}"}}"#)).collect();
        let models = of(format!("[{}]", entries.join(",")).as_bytes()).unwrap();
        assert_eq!((models.len(), models.last().unwrap().as_str()), (MAX_MODELS, "m9999"));
    }

    #[test]
    fn what_is_no_list_is_an_error_without_the_key() {
        for (body, code, words) in [
            (r#"{"error":{"message":"slow down sk-test-0123456789","code":429}}"#, "rate_limited", "slow down"),
            (r#"{"data":[],"error":{"message":"boom"}}"#, "provider_error", "boom"),
            (r#"{"data":{}}"#, "malformed", "no list of models"),
            (r#"{"data":[{"id":5}]}"#, "malformed", "names a model"),
            ("<html>", "malformed", "expected value"),
            (r#"{"data":[{"id":"a"#, "truncated", "cut off"),
        ] {
            let error = of(body.as_bytes()).unwrap_err();
            assert!(error.code() == code && error.to_string().contains(words), "{body}: {error}");
            assert!(!error.to_string().contains("0123456789"), "{error}");
        }
    }
}
