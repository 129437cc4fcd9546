//! The events of a message, turned into pieces of an answer.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::ProviderError;
use crate::json::{count, text};
use crate::message::{Chunk, StopReason, ToolCallDelta, Usage};
use crate::providers::formats::translate::{EventReader, Progress, Translate, push_end};
use crate::secret::Secret;
use crate::sse::Event;

/// Turns the events of one message into [`Chunk`]s.
///
/// ```
/// use std::collections::VecDeque;
/// use bellrope_gateway::formats::messages::Translator;
/// use bellrope_gateway::formats::{Progress, Translate};
/// use bellrope_gateway::{Chunk, StopReason, sse::Event};
///
/// let mut translator = Translator::default();
/// let mut chunks = VecDeque::new();
/// for data in [
///     r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}"#,
///     r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#,
/// ] {
///     translator.event(Event { name: "message", data }, &mut chunks)?;
/// }
/// let progress = translator.event(Event { name: "message_stop", data: r#"{"type":"message_stop"}"# }, &mut chunks)?;
/// assert_eq!(progress, Progress::Ended);
/// assert_eq!(chunks, [Chunk::text("Hi"), Chunk::Done { stop_reason: StopReason::EndTurn }]);
/// # Ok::<(), bellrope_gateway::ProviderError>(())
/// ```
#[derive(Debug, Default)]
pub struct Translator {
    reader: EventReader,
    stop_reason: Option<StopReason>,
    /// The latest counts. They come at the start, and again at the end as they have grown.
    usage: Option<WireUsage>,
}

impl Translator {
    /// A translator whose errors never hold `key`.
    pub fn new(key: Option<Secret>) -> Self {
        Self { reader: EventReader::new(key), ..Self::default() }
    }

    fn count(&mut self, usage: Option<WireUsage>) {
        if let Some(usage) = usage {
            self.usage.get_or_insert_default().update(&usage);
        }
    }
}

impl Translate for Translator {
    fn event(&mut self, event: Event<'_>, out: &mut VecDeque<Chunk>) -> Result<Progress, ProviderError> {
        let data = event.data.trim();
        if data.is_empty() {
            return Ok(Progress::Continues);
        }
        if event.name == "error" {
            return Err(self.reader.reported(data));
        }
        let frame: Frame<'_> = self.reader.read(data)?;
        match frame.kind.as_deref().unwrap_or(event.name) {
            "message_start" => self.count(frame.message.and_then(|message| message.usage)),
            "content_block_start" => {
                let index = frame.index.unwrap_or(0);
                out.extend(frame.content_block.and_then(|block| block.begin(index)));
            }
            "content_block_delta" => {
                let index = frame.index.unwrap_or(0);
                out.extend(frame.delta.and_then(|delta| delta.piece(index)));
            }
            "message_delta" => {
                self.count(frame.usage);
                if let Some(reason) = frame.delta.and_then(|delta| delta.stop_reason) {
                    self.stop_reason = Some(stop_reason(&reason));
                }
            }
            "message_stop" => {
                self.stop_reason.get_or_insert(StopReason::Other);
                self.finish(out);
                return Ok(Progress::Ended);
            }
            "error" => return Err(self.reader.reported(data)),
            // Pings, ends of blocks, and what is unknown.
            _ => {}
        }
        Ok(Progress::Continues)
    }

    fn finish(&mut self, out: &mut VecDeque<Chunk>) -> bool {
        let Some(stop_reason) = self.stop_reason else { return false };
        push_end(out, self.usage.take(), stop_reason);
        true
    }
}

fn stop_reason(reason: &str) -> StopReason {
    match reason {
        "end_turn" => StopReason::EndTurn,
        "max_tokens" | "model_context_window_exceeded" => StopReason::MaxTokens,
        "stop_sequence" => StopReason::StopSequence,
        "tool_use" => StopReason::ToolUse,
        "refusal" => StopReason::Refusal,
        _ => StopReason::Other,
    }
}

/// One event's JSON. Only what is used has to fit.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type")]
    kind: Option<String>,
    index: Option<u32>,
    message: Option<Start>,
    #[serde(borrow)]
    content_block: Option<Block<'a>>,
    delta: Option<Delta>,
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
struct Start {
    usage: Option<WireUsage>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Block<'a> {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(deserialize_with = "text")]
    text: Option<String>,
    #[serde(deserialize_with = "text")]
    thinking: Option<String>,
    #[serde(deserialize_with = "text")]
    id: Option<String>,
    #[serde(deserialize_with = "text")]
    name: Option<String>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

impl Block<'_> {
    /// What the start of a block says by itself; usually only a call of a tool says something.
    fn begin(self, index: u32) -> Option<Chunk> {
        match self.kind.as_deref() {
            Some("text") => self.text.map(|text| Chunk::Text { text }),
            Some("thinking") => self.thinking.map(|text| Chunk::Reasoning { text }),
            Some("tool_use") => {
                // Usually an empty object, which the pieces to come replace; some servers send it whole.
                let input = self.input.map(RawValue::get).filter(|input| input.len() > 2 && input.starts_with('{'));
                let whole = input.filter(|input| !input[1..].trim_start().starts_with('}'));
                let arguments = whole.unwrap_or_default().to_owned();
                Some(Chunk::ToolCall(ToolCallDelta { index, id: self.id, name: self.name, arguments }))
            }
            _ => None,
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Delta {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(deserialize_with = "text")]
    text: Option<String>,
    #[serde(deserialize_with = "text")]
    thinking: Option<String>,
    #[serde(deserialize_with = "text")]
    partial_json: Option<String>,
    #[serde(deserialize_with = "text")]
    stop_reason: Option<String>,
}

impl Delta {
    fn piece(self, index: u32) -> Option<Chunk> {
        match self.kind.as_deref() {
            Some("text_delta") => self.text.map(|text| Chunk::Text { text }),
            Some("thinking_delta") => self.thinking.map(|text| Chunk::Reasoning { text }),
            Some("input_json_delta") => self
                .partial_json
                .map(|arguments| Chunk::ToolCall(ToolCallDelta { index, id: None, name: None, arguments })),
            // Signatures of reasoning, citations, and what is unknown.
            _ => None,
        }
    }
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct WireUsage {
    #[serde(deserialize_with = "count")]
    input_tokens: Option<u64>,
    #[serde(deserialize_with = "count")]
    output_tokens: Option<u64>,
    #[serde(deserialize_with = "count")]
    cache_creation_input_tokens: Option<u64>,
    #[serde(deserialize_with = "count")]
    cache_read_input_tokens: Option<u64>,
}

impl WireUsage {
    /// Later counts are of the whole answer so far, so they take the place of the earlier ones.
    fn update(&mut self, later: &Self) {
        self.input_tokens = later.input_tokens.or(self.input_tokens);
        self.output_tokens = later.output_tokens.or(self.output_tokens);
        self.cache_creation_input_tokens = later.cache_creation_input_tokens.or(self.cache_creation_input_tokens);
        self.cache_read_input_tokens = later.cache_read_input_tokens.or(self.cache_read_input_tokens);
    }
}

impl From<WireUsage> for Usage {
    fn from(usage: WireUsage) -> Self {
        let WireUsage { input_tokens, output_tokens, cache_creation_input_tokens, cache_read_input_tokens } = usage;
        // Anthropic counts what the cache had apart from the rest of the input.
        let cached = [cache_creation_input_tokens, cache_read_input_tokens].into_iter().flatten();
        Self {
            input_tokens: cached.fold(input_tokens.unwrap_or(0), u64::saturating_add),
            output_tokens: output_tokens.unwrap_or(0),
            cache_read_tokens: cache_read_input_tokens,
            cache_write_tokens: cache_creation_input_tokens,
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
            r#"{"type":"message_start","message":{"id":"msg_1","role":"assistant","model":"m","content":[],"stop_reason":null,
                "usage":{"input_tokens":9,"output_tokens":1,"cache_creation_input_tokens":3,"cache_read_input_tokens":5}}}"#,
            r#"{"type":"ping"}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"c2ln"}}"#,
            r#"{"type":"content_block_stop","index":0}"#,
            r#"{"type":"content_block_start","index":1,"content_block":{"type":"redacted_thinking","data":"eA=="}}"#,
            r#"{"type":"content_block_start","index":2,"content_block":{"type":"text","text":""}}"#,
            r#"{"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":"Hi"}}"#,
            r#"{"type":"later_addition","delta":{"type":"x"}}"#,
            r#"{"type":"content_block_stop","index":2}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"max_tokens","stop_sequence":null},"usage":{"output_tokens":7}}"#,
            r#"{"type":"message_stop"}"#,
        ]);
        let usage = Usage {
            input_tokens: 17,
            output_tokens: 7,
            cache_read_tokens: Some(5),
            cache_write_tokens: Some(3),
            ..Usage::default()
        };
        let done = Chunk::Done { stop_reason: StopReason::MaxTokens };
        let expected = vec![Chunk::reasoning("hm"), Chunk::text("Hi"), Chunk::Usage(usage), done];
        assert_eq!((chunks, ended), (expected, Ok(Progress::Ended)));
    }

    #[test]
    fn tool_calls_keep_their_indices() {
        let (chunks, _) = play(&[
            r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"b","name":"ls","input":{}}}"#,
            r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"c","name":"cat","input":{"path":1}}}"#,
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"a\""}}"#,
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":":1}"}}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"tool_use"}}"#,
        ]);
        let expected = [
            call(1, Some("b"), Some("ls"), ""),
            call(2, Some("c"), Some("cat"), r#"{"path":1}"#),
            call(1, None, None, r#"{"a""#),
            call(1, None, None, ":1}"),
            Chunk::Done { stop_reason: StopReason::ToolUse },
        ];
        assert_eq!(chunks, expected);
    }

    #[test]
    fn every_reason_to_stop_has_its_meaning() {
        for (wire, meant) in [
            ("end_turn", StopReason::EndTurn),
            ("max_tokens", StopReason::MaxTokens),
            ("stop_sequence", StopReason::StopSequence),
            ("tool_use", StopReason::ToolUse),
            ("pause_turn", StopReason::Other),
            ("refusal", StopReason::Refusal),
            ("model_context_window_exceeded", StopReason::MaxTokens),
        ] {
            let data = format!(r#"{{"type":"message_delta","delta":{{"stop_reason":"{wire}"}}}}"#);
            assert_eq!(play(&[&data]).0, [Chunk::Done { stop_reason: meant }], "{wire}");
        }
    }

    #[test]
    fn errors_in_the_stream_are_typed_and_free_of_the_key() {
        let data =
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Full, sk-secret"},"request_id":"r"}"#;
        let error = play(&[data]).1.unwrap_err();
        assert_eq!((error.code(), error.retryable()), ("overloaded", true));
        assert_eq!(error.to_string(), "the provider broke off with an error (overloaded_error): Full, [secret]");
    }

    #[test]
    fn what_is_no_event_is_malformed_and_an_end_without_a_word_truncated() {
        for data in ["{", "<html>", "[1]", r#"{"index":"x"}"#] {
            assert_eq!(play(&[data]).1.unwrap_err().code(), "malformed", "{data}");
        }
        for data in ["", "{}", r#"{"type":"content_block_delta"}"#, r#"{"type":"message_delta","delta":{}}"#] {
            assert_eq!(play(&[data]).1.unwrap_err().code(), "truncated", "{data}");
        }
    }

    proptest! {
        #[test]
        fn no_event_makes_it_panic(
            events in proptest::collection::vec(
                ".{0,40}|\\{\"type\":\"(message_stop|message_delta|content_block_start)\",\"delta\":\\{.{0,20}\\}\\}", 0..8
            )
        ) {
            let events: Vec<_> = events.iter().map(String::as_str).collect();
            let (chunks, ended) = play(&events);
            prop_assert_eq!(ended.is_ok(), chunks.last().is_some_and(Chunk::is_terminal));
        }
    }
}
