//! What the messages of a conversation say, in parts that every format can write.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use crate::error::ProviderError;
use crate::json::{MAX_DEPTH, depth, repaired};
use crate::message::{COMPACTION, Content, Message, Part, Role};

/// What of a conversation goes to no other format, and why.
pub(super) const COMPACTED: &str = "the `compaction` of the beginning of the conversation";
pub(super) const COMPACTED_REASON: &str = "only whoever compacted it can read it; ask for a summary in words instead";

/// One thing that a message says in so many words or pictures.
#[derive(Debug, Clone, Copy)]
pub(super) enum Said<'a> {
    Text { text: &'a str, cache: Option<&'a Value> },
    Image { url: &'a str, detail: Option<&'a str>, cache: Option<&'a Value> },
}

/// What the model thought.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reasoning<'a> {
    pub(super) text: &'a str,
    pub(super) details: Option<&'a Value>,
}

/// What stands for the result of a call that has none.
pub(super) const NO_RESULT: &str = "(this call has no result)";

impl Output<'_> {
    /// Its text, which says that the tool failed: for formats that have no other place for that.
    pub(super) fn in_words(&self) -> Cow<'_, str> {
        match &*self.text {
            text if !self.is_error || text == NO_RESULT => text.into(),
            "" => "The tool failed.".into(),
            text => format!("The tool failed: {text}").into(),
        }
    }
}

impl Reasoning<'_> {
    /// Whether it stands for an earlier part of the conversation, which responses alone have.
    pub(super) fn is_compaction(&self) -> bool {
        self.details.is_some_and(|details| details["type"] == COMPACTION)
    }
}

/// A call of a tool, with its result.
#[derive(Debug, Clone)]
pub(super) struct Call<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) name: Cow<'a, str>,
    pub(super) input: &'a Value,
    pub(super) extra: Option<&'a Value>,
    /// Never absent in a conversation that is handed out.
    pub(super) output: Option<Output<'a>>,
}

/// The result of a call.
#[derive(Debug, Clone, Default)]
pub(super) struct Output<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) images: Vec<&'a str>,
    pub(super) is_error: bool,
    pub(super) cache: Option<&'a Value>,
}

/// A part of a message, known to fit its role.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    Said(Said<'a>),
    Reasoning(Reasoning<'a>),
    Call(Call<'a>),
    Result { id: &'a str, output: Output<'a> },
}

/// What a message says, part by part.
pub(super) fn pieces(message: &Message) -> Result<Vec<Piece<'_>>, ProviderError> {
    let role = message.role;
    let parts = match &message.content {
        Content::Text(_) if role == Role::Tool => {
            return Err(invalid("a message of role tool must consist of tool_result parts"));
        }
        Content::Text(text) => return Ok(vec![Piece::Said(Said::Text { text, cache: None })]),
        Content::Parts(parts) => parts,
    };
    let mut pieces = Vec::with_capacity(parts.len());
    for part in parts {
        pieces.push(match (part, role) {
            (Part::Text { text, cache_control }, Role::System | Role::User | Role::Assistant) => {
                Piece::Said(Said::Text { text, cache: cache_control.as_ref() })
            }
            (Part::Image { url, detail, cache_control }, Role::User) => {
                Piece::Said(Said::Image { url, detail: detail.as_deref(), cache: cache_control.as_ref() })
            }
            (Part::Reasoning { text, details }, Role::Assistant) => {
                Piece::Reasoning(Reasoning { text, details: details.as_ref() })
            }
            (Part::ToolUse { id, name, input, extra_content }, Role::Assistant) => Piece::Call(Call {
                id: id.into(),
                name: name.into(),
                input,
                extra: extra_content.as_ref(),
                output: None,
            }),
            (Part::ToolResult { tool_use_id, content, images, is_error, cache_control }, Role::User | Role::Tool) => {
                let images = images.iter().map(String::as_str).collect();
                let cache = cache_control.as_ref();
                let output = Output { text: content.into(), images, is_error: *is_error, cache };
                Piece::Result { id: tool_use_id, output }
            }
            (Part::Text { .. }, _) => return Err(misplaced("text", role)),
            (Part::Image { .. }, _) => return Err(misplaced("an image", role)),
            (Part::Reasoning { .. }, _) => return Err(misplaced("reasoning", role)),
            (Part::ToolUse { .. }, _) => return Err(misplaced("a tool_use", role)),
            (Part::ToolResult { .. }, _) => return Err(misplaced("a tool_result", role)),
        });
    }
    Ok(pieces)
}

/// The role's name, which is the same in all formats that have the role.
pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    }
}

/// The arguments of a call as text: what the model wrote, as it was; an empty object for none.
pub(super) fn arguments(input: &Value) -> Cow<'_, str> {
    match input {
        Value::Null => "{}".into(),
        Value::String(text) if is_blank(text) => "{}".into(),
        Value::String(text) => text.into(),
        json => json.to_string().into(),
    }
}

/// The arguments of a call as the JSON of an object. A text that is none stands in one, so that it is not lost.
pub(super) fn arguments_object(input: &Value) -> Result<Box<RawValue>, ProviderError> {
    let json = match input {
        Value::Object(_) => to_raw_value(input),
        Value::Null => to_raw_value(&json!({})),
        Value::String(text) if is_blank(text) => to_raw_value(&json!({})),
        Value::String(text) if is_object(text) => RawValue::from_string(repaired(text.trim()).into_owned()),
        Value::String(text) => to_raw_value(&json!({"text": text})),
        json => to_raw_value(&json!({"value": json})),
    };
    json.map_err(|error| unwritable(&error))
}

/// Whether a text is the JSON of an object, in a form that every reader takes.
fn is_object(text: &str) -> bool {
    text.trim_start().starts_with('{')
        && depth(text.as_bytes()) <= MAX_DEPTH
        && serde_json::from_str::<IgnoredAny>(&repaired(text)).is_ok()
}

/// Whether a text has nothing but white space.
pub(super) fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

pub(super) fn invalid(reason: &str) -> ProviderError {
    ProviderError::InvalidRequest { reason: reason.into() }
}

/// A request that cannot be written as JSON.
pub(super) fn unwritable(error: &serde_json::Error) -> ProviderError {
    invalid(&error.to_string())
}

fn misplaced(what: &str, role: Role) -> ProviderError {
    invalid(&format!("a message of role {} must not hold {what}", role_name(role)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_in_the_wrong_mouth_are_refused() {
        for (role, part) in [
            ("assistant", json!({"type": "image", "url": "data:"})),
            ("user", json!({"type": "tool_use", "id": "c", "name": "n"})),
            ("user", json!({"type": "reasoning", "text": "hm"})),
            ("system", json!({"type": "tool_result", "tool_use_id": "c", "content": ""})),
            ("tool", json!({"type": "text", "text": "t"})),
        ] {
            let message: Message = serde_json::from_value(json!({"role": role, "content": [part]})).unwrap();
            assert_eq!(pieces(&message).unwrap_err().code(), "invalid_request", "{role}");
        }
        let message: Message = serde_json::from_value(json!({"role": "tool", "content": "plain"})).unwrap();
        assert_eq!(pieces(&message).unwrap_err().code(), "invalid_request");
    }

    #[test]
    fn a_result_says_in_words_that_the_tool_failed() {
        let of = |text: &'static str, is_error| Output { text: text.into(), is_error, ..Output::default() };
        for (output, words) in [
            (of("4", false), "4"),
            (of("no clock", true), "The tool failed: no clock"),
            (of("", true), "The tool failed."),
            (of("", false), ""),
            (of(NO_RESULT, true), NO_RESULT),
        ] {
            assert_eq!(output.in_words(), words);
        }
    }

    // Fault 74.
    #[test]
    fn arguments_are_text_as_it_was_or_an_object_that_holds_it() {
        for (input, text, object) in [
            (json!(null), "{}", json!({})),
            (json!(" "), "{}", json!({})),
            (json!({"a": 1}), "{\"a\":1}", json!({"a": 1})),
            (json!("{\"a\":"), "{\"a\":", json!({"text": "{\"a\":"})),
            (json!("{\"a\": 2}"), "{\"a\": 2}", json!({"a": 2})),
            // A line break that should have been escaped, as local models write it.
            (json!("{\"a\":\"x\ny\"}"), "{\"a\":\"x\ny\"}", json!({"a": "x\ny"})),
            (json!("[1]"), "[1]", json!({"text": "[1]"})),
            (json!([1]), "[1]", json!({"value": [1]})),
        ] {
            let written: Value = serde_json::from_str(arguments_object(&input).unwrap().get()).unwrap();
            assert_eq!((&*arguments(&input), written), (text, object));
        }
    }
}
