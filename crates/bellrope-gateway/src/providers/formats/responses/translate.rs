//! The events of a response, turned into pieces of an answer.

use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;

use crate::error::ProviderError;
use crate::json::{count, text};
use crate::message::{Chunk, StopReason, ToolCallDelta, Usage};
use crate::provider::MAX_TOOL_CALLS;
use crate::providers::formats::details::{InputDetails, OutputDetails};
use crate::providers::formats::translate::{EventReader, Progress, Translate, push_end};
use crate::secret::Secret;
use crate::sse::Event;

/// Turns the events of one response into [`Chunk`]s.
///
/// ```
/// use std::collections::VecDeque;
/// use bellrope_gateway::formats::responses::Translator;
/// use bellrope_gateway::formats::{Progress, Translate};
/// use bellrope_gateway::{Chunk, StopReason, sse::Event};
///
/// let mut translator = Translator::default();
/// let mut chunks = VecDeque::new();
/// let data = r#"{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"Hi"}"#;
/// translator.event(Event { name: "response.output_text.delta", data }, &mut chunks)?;
/// let data = r#"{"type":"response.completed","response":{"status":"completed"}}"#;
/// let progress = translator.event(Event { name: "response.completed", data }, &mut chunks)?;
/// assert_eq!(progress, Progress::Ended);
/// assert_eq!(chunks, [Chunk::text("Hi"), Chunk::Done { stop_reason: StopReason::EndTurn }]);
/// # Ok::<(), bellrope_gateway::ProviderError>(())
/// ```
#[derive(Debug, Default)]
pub struct Translator {
    reader: EventReader,
    /// The calls of tools by `output_index`, and whether any of their arguments have come.
    calls: BTreeMap<u32, bool>,
    /// The items of servers that leave `output_index` out (llama.cpp does), each in the place that it has here.
    items: Vec<String>,
    /// Whether any text has come in pieces.
    has_text: bool,
    refused: bool,
}

impl Translator {
    /// A translator whose errors never hold `key`.
    pub fn new(key: Option<Secret>) -> Self {
        Self { reader: EventReader::new(key), ..Self::default() }
    }

    /// Where an item is: as the provider says, else in the order in which the items' ids came up.
    fn place(&mut self, output_index: Option<u32>, item_id: Option<&str>) -> u32 {
        let Some(id) = item_id.filter(|_| output_index.is_none()) else { return output_index.unwrap_or(0) };
        let at = self.items.iter().position(|known| known == id).unwrap_or_else(|| {
            if self.items.len() < MAX_TOOL_CALLS {
                self.items.push(id.to_owned());
            }
            self.items.len() - 1
        });
        at.try_into().unwrap_or(u32::MAX)
    }

    /// Takes in that a call begins, or says once more what it is.
    fn call(&mut self, index: u32, item: Item, out: &mut VecDeque<Chunk>) -> Result<(), ProviderError> {
        let Item { call_id, id, name, arguments, .. } = item;
        let arguments = arguments.unwrap_or_default();
        let known = self.calls.get(&index).copied();
        if known == Some(true) || (known == Some(false) && arguments.is_empty()) {
            return Ok(());
        }
        if self.calls.len() == MAX_TOOL_CALLS {
            return Err(ProviderError::Malformed { reason: "more tool calls than an answer may hold".into() });
        }
        self.calls.insert(index, !arguments.is_empty());
        let (id, name) = if known.is_some() { (None, None) } else { (call_id.or(id), name) };
        out.push_back(Chunk::ToolCall(ToolCallDelta { index, id, name, arguments }));
        Ok(())
    }

    fn arguments(&mut self, index: u32, arguments: String, out: &mut VecDeque<Chunk>) {
        if self.calls.len() < MAX_TOOL_CALLS || self.calls.contains_key(&index) {
            self.calls.insert(index, true);
            out.push_back(Chunk::ToolCall(ToolCallDelta { index, id: None, name: None, arguments }));
        }
    }

    fn text(&mut self, text: Option<String>, out: &mut VecDeque<Chunk>) {
        if let Some(text) = text {
            self.has_text = true;
            out.push_back(Chunk::Text { text });
        }
    }

    fn ended(&self, response: Option<Response>, out: &mut VecDeque<Chunk>) {
        let Response { usage, incomplete_details } = response.unwrap_or_default();
        let stop_reason = match incomplete_details.and_then(|details| details.reason).as_deref() {
            Some("max_output_tokens") => StopReason::MaxTokens,
            Some("content_filter") => StopReason::ContentFilter,
            Some(_) => StopReason::Other,
            None if self.refused => StopReason::Refusal,
            None if !self.calls.is_empty() => StopReason::ToolUse,
            None => StopReason::EndTurn,
        };
        push_end(out, usage, stop_reason);
    }
}

impl Translate for Translator {
    fn event(&mut self, event: Event<'_>, out: &mut VecDeque<Chunk>) -> Result<Progress, ProviderError> {
        let data = event.data.trim();
        // Some servers end with the word that ends a chat completion.
        if data.is_empty() || data == "[DONE]" {
            return Ok(Progress::Continues);
        }
        let frame: Frame = match self.reader.read(data) {
            Ok(frame) => frame,
            Err(_) if event.name == "error" => return Err(self.reader.reported(data)),
            Err(malformed) => return Err(malformed),
        };
        let Frame { kind, output_index, item_id, item, delta, text, arguments, response } = frame;
        match kind.as_deref().unwrap_or(event.name) {
            "response.output_text.delta" => self.text(delta, out),
            "response.output_text.done" if !self.has_text => self.text(text, out),
            "response.refusal.delta" => {
                self.refused = true;
                self.text(delta, out);
            }
            "response.reasoning_text.delta" | "response.reasoning_summary_text.delta" => {
                out.extend(delta.map(|text| Chunk::Reasoning { text }));
            }
            "response.output_item.added" | "response.output_item.done" => {
                if let Some(item) = item.filter(|item| item.kind.as_deref() == Some("function_call")) {
                    let index = self.place(output_index, item.id.as_deref());
                    self.call(index, item, out)?;
                }
            }
            "response.function_call_arguments.delta" => {
                if let Some(delta) = delta {
                    let index = self.place(output_index, item_id.as_deref());
                    self.arguments(index, delta, out);
                }
            }
            "response.function_call_arguments.done" => {
                let index = self.place(output_index, item_id.as_deref());
                if let Some(arguments) = arguments.filter(|_| self.calls.get(&index) != Some(&true)) {
                    self.arguments(index, arguments, out);
                }
            }
            "response.completed" | "response.incomplete" => {
                self.ended(response, out);
                return Ok(Progress::Ended);
            }
            "response.failed" | "error" => {
                return Err(self.reader.reported(&error_of(data)));
            }
            // Beginnings and ends of parts, and what is unknown.
            _ => {}
        }
        Ok(Progress::Continues)
    }

    fn finish(&mut self, _: &mut VecDeque<Chunk>) -> bool {
        // Why it stopped is said by the terminal event alone.
        false
    }
}

/// The part of a failure that says what happened: in `response` if there is one, else the event itself.
fn error_of(data: &str) -> String {
    let json: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
    let failed = json.get("response").filter(|response| !response.is_null()).unwrap_or(&json);
    match failed.get("error") {
        Some(error) if !error.is_null() => serde_json::json!({ "error": error }).to_string(),
        // `type` would otherwise be taken for the type of the error.
        _ => serde_json::json!({"message": failed.get("message"), "code": failed.get("code")}).to_string(),
    }
}

/// One event's JSON. Servers differ in what they leave out, set to null or add; only what is used has to fit.
#[derive(Deserialize)]
struct Frame {
    #[serde(rename = "type")]
    kind: Option<String>,
    output_index: Option<u32>,
    #[serde(default, deserialize_with = "text")]
    item_id: Option<String>,
    item: Option<Item>,
    #[serde(default, deserialize_with = "text")]
    delta: Option<String>,
    #[serde(default, deserialize_with = "text")]
    text: Option<String>,
    #[serde(default, deserialize_with = "text")]
    arguments: Option<String>,
    response: Option<Response>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Item {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(deserialize_with = "text")]
    call_id: Option<String>,
    #[serde(deserialize_with = "text")]
    id: Option<String>,
    #[serde(deserialize_with = "text")]
    name: Option<String>,
    #[serde(deserialize_with = "text")]
    arguments: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Response {
    usage: Option<WireUsage>,
    incomplete_details: Option<IncompleteDetails>,
}

#[derive(Deserialize)]
struct IncompleteDetails {
    reason: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireUsage {
    #[serde(deserialize_with = "count")]
    input_tokens: Option<u64>,
    #[serde(deserialize_with = "count")]
    output_tokens: Option<u64>,
    input_tokens_details: Option<InputDetails>,
    output_tokens_details: Option<OutputDetails>,
}

impl From<WireUsage> for Usage {
    fn from(usage: WireUsage) -> Self {
        Self {
            input_tokens: usage.input_tokens.unwrap_or(0),
            output_tokens: usage.output_tokens.unwrap_or(0),
            cache_read_tokens: usage.input_tokens_details.and_then(|details| details.cached_tokens),
            reasoning_tokens: usage.output_tokens_details.and_then(|details| details.reasoning_tokens),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{Played, call, play as play_to};

    fn play(events: &[&str]) -> Played {
        play_to(Translator::new(Some(Secret::new("sk-secret"))), events)
    }

    #[test]
    fn text_reasoning_usage_and_end_come_out_in_order() {
        let (chunks, ended) = play(&[
            r#"{"type":"response.created","response":{"status":"in_progress","usage":null,"incomplete_details":null}}"#,
            r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"reasoning","id":"rs_1"}}"#,
            r#"{"type":"response.reasoning_summary_text.delta","delta":"hm"}"#,
            r#"{"type":"response.reasoning_text.delta","delta":"so"}"#,
            r#"{"type":"response.output_text.delta","delta":"Hi"}"#,
            r#"{"type":"response.output_text.done","text":"Hi"}"#,
            r#"{"type":"response.later_addition","delta":{"strange":[]},"text":7}"#,
            r#"{"type":"response.incomplete","response":{"incomplete_details":{"reason":"max_output_tokens"},
                "usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":5},"output_tokens":4,
                "output_tokens_details":{"reasoning_tokens":2},"total_tokens":13}}}"#,
        ]);
        let usage = Usage {
            input_tokens: 9,
            output_tokens: 4,
            cache_read_tokens: Some(5),
            reasoning_tokens: Some(2),
            ..Usage::default()
        };
        let expected = [
            Chunk::reasoning("hm"),
            Chunk::reasoning("so"),
            Chunk::text("Hi"),
            Chunk::Usage(usage),
            Chunk::Done { stop_reason: StopReason::MaxTokens },
        ];
        assert_eq!((chunks, ended), (expected.to_vec(), Ok(Progress::Ended)));
    }

    #[test]
    fn an_answer_that_was_left_incomplete_says_why() {
        for (reason, expected) in [
            ("max_output_tokens", StopReason::MaxTokens),
            ("content_filter", StopReason::ContentFilter),
            ("a later word", StopReason::Other),
        ] {
            let event = format!(
                r#"{{"type":"response.incomplete","response":{{"incomplete_details":{{"reason":"{reason}"}}}}}}"#
            );
            let done = Chunk::Done { stop_reason: expected };
            assert_eq!(play(&[&event]), (vec![done], Ok(Progress::Ended)), "{reason}");
        }
    }

    #[test]
    fn tool_calls_are_told_apart_by_their_place_and_said_once() {
        let (chunks, _) = play(&[
            r#"{"type":"response.output_item.added","output_index":1,"item":{"type":"function_call","id":"fc_1","call_id":"b","name":"ls","arguments":""}}"#,
            r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"function_call","id":"fc_0","call_id":"a","name":"cat","arguments":""}}"#,
            r#"{"type":"response.function_call_arguments.delta","output_index":1,"delta":"{"}"#,
            r#"{"type":"response.function_call_arguments.done","output_index":0,"arguments":"{\"whole\":1}"}"#,
            r#"{"type":"response.function_call_arguments.delta","output_index":1,"delta":"}"}"#,
            r#"{"type":"response.function_call_arguments.done","output_index":1,"arguments":"{}"}"#,
            r#"{"type":"response.output_item.done","output_index":1,"item":{"type":"function_call","call_id":"b","name":"ls","arguments":"{}"}}"#,
            r#"{"type":"response.output_item.done","output_index":7,"item":{"type":"function_call","call_id":"c","name":"now","arguments":"{}"}}"#,
            r#"{"type":"response.completed","response":{"status":"completed"}}"#,
        ]);
        let expected = [
            call(1, Some("b"), Some("ls"), ""),
            call(0, Some("a"), Some("cat"), ""),
            call(1, None, None, "{"),
            call(0, None, None, r#"{"whole":1}"#),
            call(1, None, None, "}"),
            call(7, Some("c"), Some("now"), "{}"),
            Chunk::Done { stop_reason: StopReason::ToolUse },
        ];
        assert_eq!(chunks, expected);
    }

    #[test]
    fn tool_calls_of_a_server_that_counts_nothing_are_told_apart_by_their_items() {
        let (chunks, _) = play(&[
            r#"{"type":"response.output_item.added","item":{"type":"function_call","id":"fc_x","call_id":"a","name":"ls","arguments":""}}"#,
            r#"{"type":"response.function_call_arguments.delta","item_id":"fc_x","delta":"{}"}"#,
            r#"{"type":"response.output_item.added","item":{"type":"function_call","id":"fc_y","call_id":"b","name":"cat","arguments":""}}"#,
            r#"{"type":"response.function_call_arguments.delta","item_id":"fc_y","delta":"[]"}"#,
            r#"{"type":"response.output_item.done","item":{"type":"function_call","id":"fc_x","call_id":"a","name":"ls","arguments":"{}"}}"#,
        ]);
        let expected = [
            call(0, Some("a"), Some("ls"), ""),
            call(0, None, None, "{}"),
            call(1, Some("b"), Some("cat"), ""),
            call(1, None, None, "[]"),
        ];
        assert_eq!(chunks, expected);
    }

    #[test]
    fn failures_are_typed_in_each_of_their_forms_and_free_of_the_key() {
        for (data, code, message) in [
            (
                r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"server_error","message":"Down, sk-secret"}}}"#,
                "provider_error",
                "the provider broke off with an error (server_error): Down, [secret]",
            ),
            (
                r#"{"type":"error","code":"rate_limit_exceeded","message":"Slow","param":null,"sequence_number":3}"#,
                "rate_limited",
                "the provider broke off with an error (rate_limit_exceeded): Slow",
            ),
            (
                r#"{"type":"error","error":{"type":"overloaded_error","message":"Full"}}"#,
                "overloaded",
                "the provider broke off with an error (overloaded_error): Full",
            ),
        ] {
            let error = play(&[data]).1.unwrap_err();
            assert_eq!((error.code(), error.to_string().as_str()), (code, message));
            assert!(error.retryable(), "{error}");
        }
    }

    #[test]
    fn a_refusal_has_its_own_reason_to_stop() {
        let (chunks, _) =
            play(&[r#"{"type":"response.refusal.delta","delta":"No."}"#, r#"{"type":"response.completed"}"#]);
        assert_eq!(chunks, [Chunk::text("No."), Chunk::Done { stop_reason: StopReason::Refusal }]);
    }

    #[test]
    fn an_end_without_the_terminal_event_is_truncated() {
        let text = r#"{"type":"response.output_text.done","text":"a"}"#;
        let (chunks, ended) = play(&[text, "[DONE]"]);
        assert_eq!(chunks, [Chunk::text("a")], "text that came in one piece is not lost");
        assert_eq!(ended, Err(ProviderError::Truncated { reason: "fin".into() }));
    }

    #[test]
    fn a_flood_of_calls_is_refused_before_it_takes_memory() {
        let mut translator = Translator::default();
        let mut refused = false;
        for index in 0..=MAX_TOOL_CALLS {
            let data = format!(
                r#"{{"type":"response.output_item.added","output_index":{index},"item":{{"type":"function_call"}}}}"#
            );
            refused = translator.event(Event { name: "message", data: &data }, &mut VecDeque::new()).is_err();
        }
        assert!(refused);
    }

    proptest! {
        #[test]
        fn no_event_makes_it_panic(
            events in proptest::collection::vec(
                ".{0,40}|\\{\"type\":\"response\\.(completed|failed|output_item\\.added)\",\"item\":\\{.{0,20}\\}\\}", 0..8
            )
        ) {
            let events: Vec<_> = events.iter().map(String::as_str).collect();
            let (chunks, ended) = play(&events);
            prop_assert_eq!(ended.is_ok(), chunks.last().is_some_and(Chunk::is_terminal));
        }
    }
}
