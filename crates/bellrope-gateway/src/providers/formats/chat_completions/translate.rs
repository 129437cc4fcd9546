//! The events of a chat completion, turned into pieces of an answer.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::ProviderError;
use crate::json::{Few, count, string_of, text};
use crate::message::{Chunk, StopReason, ToolCallDelta, Usage};
use crate::provider::MAX_TOOL_CALLS;
use crate::providers::formats::details::{InputDetails, OutputDetails};
use crate::providers::formats::translate::{EventReader, Progress, Translate, push_end};
use crate::secret::Secret;
use crate::sse::Event;

/// The most choices in one event. Only one is ever asked for.
const MAX_CHOICES: usize = 128;

/// Turns the events of one chat completion into [`Chunk`]s.
///
/// ```
/// use std::collections::VecDeque;
/// use bellrope_gateway::formats::chat_completions::Translator;
/// use bellrope_gateway::formats::{Progress, Translate};
/// use bellrope_gateway::{Chunk, StopReason, sse::Event};
///
/// let mut translator = Translator::default();
/// let mut chunks = VecDeque::new();
/// let data = r#"{"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}"#;
/// translator.event(Event { name: "message", data }, &mut chunks)?;
/// let progress = translator.event(Event { name: "message", data: "[DONE]" }, &mut chunks)?;
/// assert_eq!(progress, Progress::Ended);
/// assert_eq!(chunks, [Chunk::text("Hi"), Chunk::Done { stop_reason: StopReason::EndTurn }]);
/// # Ok::<(), bellrope_gateway::ProviderError>(())
/// ```
#[derive(Debug, Default)]
pub struct Translator {
    reader: EventReader,
    stop_reason: Option<StopReason>,
    /// The latest counts: some providers send them again and again as they grow.
    usage: Option<Usage>,
    refused: bool,
}

impl Translator {
    /// A translator whose errors never hold `key`.
    pub fn new(key: Option<Secret>) -> Self {
        Self { reader: EventReader::new(key), ..Self::default() }
    }
}

impl Translate for Translator {
    fn event(&mut self, event: Event<'_>, out: &mut VecDeque<Chunk>) -> Result<Progress, ProviderError> {
        let data = event.data.trim();
        if data == "[DONE]" {
            self.stop_reason.get_or_insert(StopReason::Other);
            self.finish(out);
            return Ok(Progress::Ended);
        }
        if data.is_empty() {
            return Ok(Progress::Continues);
        }
        if event.name == "error" {
            return Err(self.reader.reported(data));
        }
        self.frame(self.reader.read(data)?, out)?;
        Ok(Progress::Continues)
    }

    fn finish(&mut self, out: &mut VecDeque<Chunk>) -> bool {
        let Some(stop_reason) = self.stop_reason else { return false };
        let stop_reason = if self.refused { StopReason::Refusal } else { stop_reason };
        push_end(out, self.usage.take(), stop_reason);
        true
    }
}

impl Translator {
    fn frame(&mut self, frame: Frame<'_>, out: &mut VecDeque<Chunk>) -> Result<(), ProviderError> {
        if let Some(usage) = frame.usage {
            self.usage = Some(usage.into());
        }
        // Only one answer was asked for.
        for choice in frame.choices.unwrap_or_default().into_iter().filter(|choice| choice.index.unwrap_or(0) == 0) {
            if let Some(delta) = choice.delta {
                self.delta(delta, out);
            }
            if let Some(reason) = choice.finish_reason {
                self.stop_reason = Some(stop_reason(&reason));
            }
        }
        match frame.error {
            None => Ok(()),
            Some(error) => Err(self.reader.reported(error.get())),
        }
    }

    fn delta(&mut self, delta: Delta<'_>, out: &mut VecDeque<Chunk>) {
        // Some servers send the same reasoning under both names.
        out.extend(delta.reasoning_content.or(delta.reasoning).map(|text| Chunk::Reasoning { text }));
        out.extend(delta.content.map(|text| Chunk::Text { text }));
        if let Some(text) = delta.refusal {
            self.refused = true;
            out.push_back(Chunk::Text { text });
        }
        for (position, call) in delta.tool_calls.unwrap_or_default().into_iter().enumerate() {
            let CallDelta { index, id, function } = call;
            let CalledFunction { name, arguments } = function.unwrap_or_default();
            out.push_back(Chunk::ToolCall(ToolCallDelta {
                index: index.or(position.try_into().ok()).unwrap_or(u32::MAX),
                id,
                name,
                arguments: match arguments {
                    None => String::new(),
                    // Some servers send the arguments themselves rather than their text.
                    Some(json) => string_of(json).unwrap_or_else(|| json.get().to_owned()),
                },
            }));
        }
    }
}

fn stop_reason(reason: &str) -> StopReason {
    match reason {
        "stop" => StopReason::EndTurn,
        "length" => StopReason::MaxTokens,
        "tool_calls" | "function_call" => StopReason::ToolUse,
        "content_filter" => StopReason::ContentFilter,
        _ => StopReason::Other,
    }
}

/// One event's JSON. Servers differ in what they leave out, set to null or add; only what is used has to fit.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow)]
    choices: Option<Few<Choice<'a>, MAX_CHOICES>>,
    usage: Option<WireUsage>,
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    index: Option<u32>,
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
    finish_reason: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Delta<'a> {
    #[serde(deserialize_with = "text")]
    content: Option<String>,
    #[serde(deserialize_with = "text")]
    refusal: Option<String>,
    #[serde(deserialize_with = "text")]
    reasoning_content: Option<String>,
    #[serde(deserialize_with = "text")]
    reasoning: Option<String>,
    #[serde(borrow)]
    tool_calls: Option<Few<CallDelta<'a>, MAX_TOOL_CALLS>>,
}

#[derive(Deserialize)]
struct CallDelta<'a> {
    index: Option<u32>,
    id: Option<String>,
    #[serde(borrow)]
    function: Option<CalledFunction<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CalledFunction<'a> {
    #[serde(deserialize_with = "text")]
    name: Option<String>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireUsage {
    #[serde(deserialize_with = "count")]
    prompt_tokens: Option<u64>,
    #[serde(deserialize_with = "count")]
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<InputDetails>,
    completion_tokens_details: Option<OutputDetails>,
    /// OpenRouter's price of the request.
    cost: Option<f64>,
}

impl From<WireUsage> for Usage {
    fn from(usage: WireUsage) -> Self {
        Self {
            input_tokens: usage.prompt_tokens.unwrap_or(0),
            output_tokens: usage.completion_tokens.unwrap_or(0),
            cache_read_tokens: usage.prompt_tokens_details.and_then(|details| details.cached_tokens),
            cache_write_tokens: None,
            reasoning_tokens: usage.completion_tokens_details.and_then(|details| details.reasoning_tokens),
            total_cost: usage.cost,
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

    fn done(stop_reason: StopReason) -> Chunk {
        Chunk::Done { stop_reason }
    }

    #[test]
    fn text_reasoning_usage_and_end_come_out_in_order() {
        let (chunks, ended) = play(&[
            r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#,
            r#"{"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"reasoning":"so"}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}],"usage":{"prompt_tokens":1}}"#,
            r#"{"choices":[{"index":1,"delta":{"content":"other"}}]}"#,
            r#"{"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13,"cost":0.25,
                "prompt_tokens_details":{"cached_tokens":5},"completion_tokens_details":{"reasoning_tokens":null}}}"#,
            "[DONE]",
        ]);
        let usage = Usage {
            input_tokens: 9,
            output_tokens: 4,
            cache_read_tokens: Some(5),
            total_cost: Some(0.25),
            ..Usage::default()
        };
        let expected = [
            Chunk::reasoning("hm"),
            Chunk::reasoning("so"),
            Chunk::text("Hi"),
            Chunk::Usage(usage),
            done(StopReason::MaxTokens),
        ];
        assert_eq!(chunks, expected);
        assert_eq!(ended, Ok(Progress::Ended));
    }

    #[test]
    fn an_end_without_a_word_is_truncated_and_one_after_the_reason_is_not() {
        let text = r#"{"choices":[{"delta":{"content":"a"}}]}"#;
        let stop = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
        assert_eq!(play(&[text]), (vec![Chunk::text("a")], Err(ProviderError::Truncated { reason: "fin".into() })));
        let whole = vec![Chunk::text("a"), done(StopReason::EndTurn)];
        assert_eq!(play(&[text, stop]), (whole, Ok(Progress::Ended)));
        assert_eq!(play(&["[DONE]"]).0, [done(StopReason::Other)]);
    }

    #[test]
    fn an_event_that_the_end_cut_off_counts_if_it_is_whole() {
        let stop = r#"{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}"#;
        for (data, is_whole) in [(stop, true), ("[DONE]", true), (&stop[..20], false), ("{}", false)] {
            let unfinished = Some(Event { name: "message", data });
            let ended = Translator::default().end(unfinished, "fin".into(), &mut VecDeque::new());
            assert_eq!(ended.is_ok(), is_whole, "{data}");
            assert!(is_whole || ended.unwrap_err().code() == "truncated", "{data}");
        }
    }

    #[test]
    fn each_reason_to_stop_is_known_by_name_and_any_other_is_an_end_too() {
        for (reason, expected) in [
            ("stop", StopReason::EndTurn),
            ("length", StopReason::MaxTokens),
            ("tool_calls", StopReason::ToolUse),
            ("function_call", StopReason::ToolUse),
            ("content_filter", StopReason::ContentFilter),
            ("a later word", StopReason::Other),
        ] {
            let event = format!(r#"{{"choices":[{{"delta":{{}},"finish_reason":"{reason}"}}]}}"#);
            assert_eq!(play(&[&event]), (vec![done(expected)], Ok(Progress::Ended)), "{reason}");
        }
    }

    #[test]
    fn a_tool_call_without_arguments_has_none() {
        let (chunks, _) = play(&[r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a"}]}}]}"#]);
        let call = ToolCallDelta { index: 0, id: Some("a".into()), name: None, arguments: String::new() };
        assert_eq!(chunks, [Chunk::ToolCall(call)]);
    }

    #[test]
    fn tool_calls_keep_their_indices_and_lose_no_text() {
        let (chunks, _) = play(&[
            r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"id":"b","type":"function","function":{"name":"ls","arguments":""}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"id":"c","function":{"name":"x","arguments":{"a":1}}}]}}]}"#,
        ]);
        let expected = [
            call(1, Some("b"), Some("ls"), ""),
            call(1, None, None, "{}"),
            call(0, Some("c"), Some("x"), r#"{"a":1}"#),
        ];
        assert_eq!(chunks, expected);
    }

    #[test]
    fn a_flood_of_tiny_tool_calls_is_refused_before_it_takes_memory() {
        let flood = format!(r#"{{"choices":[{{"delta":{{"tool_calls":[{}{{}}]}}}}]}}"#, "{},".repeat(100_000));
        assert_eq!(play(&[&flood]).1.unwrap_err().code(), "malformed");
    }

    #[test]
    fn a_refusal_is_text_with_its_own_reason_to_stop() {
        let (chunks, _) = play(&[r#"{"choices":[{"delta":{"refusal":"No."},"finish_reason":"stop"}]}"#, "[DONE]"]);
        assert_eq!(chunks, [Chunk::text("No."), done(StopReason::Refusal)]);
    }

    #[test]
    fn an_error_within_the_stream_is_typed_and_free_of_the_key() {
        let (chunks, ended) = play(&[
            r#"{"choices":[{"delta":{"content":"last"}}],"error":{"message":"Slow down, sk-secret","code":429}}"#,
        ]);
        assert_eq!(chunks, [Chunk::text("last")], "what came with the error is not lost");
        let error = ended.unwrap_err();
        assert_eq!(error.code(), "rate_limited");
        assert!(error.retryable());
        assert_eq!(error.to_string(), "the provider broke off with an error (429): Slow down, [secret]");
        let mut out = VecDeque::new();
        let event = Event { name: "error", data: "backend died" };
        let error = Translator::default().event(event, &mut out).unwrap_err();
        assert_eq!(error.to_string(), "the provider broke off with an error: backend died");
    }

    #[test]
    fn what_is_no_frame_is_malformed() {
        for data in ["{", "<html>", "[1]", r#"{"choices":7}"#] {
            assert_eq!(play(&[data]).1.unwrap_err().code(), "malformed", "{data}");
        }
        for data in ["", "  ", "{}", r#"{"choices":null,"usage":null,"error":null,"id":[]}"#] {
            assert_eq!(play(&[data]).1.unwrap_err().code(), "truncated", "{data}");
        }
    }

    proptest! {
        #[test]
        fn no_event_makes_it_panic(events in proptest::collection::vec(".{0,40}|\\{\"choices\":\\[.{0,40}\\]\\}", 0..8)) {
            let events: Vec<_> = events.iter().map(String::as_str).collect();
            let (chunks, ended) = play(&events);
            prop_assert_eq!(ended.is_ok(), chunks.last().is_some_and(Chunk::is_terminal));
        }
    }
}
