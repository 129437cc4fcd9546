//! The events of a message, turned into pieces of an answer.

use std::collections::VecDeque;

use serde_json::json;
use serde_json::value::RawValue;

use crate::error::ProviderError;
use crate::json::{count, each, fields, fields_and, is_nothing, words};
use crate::message::Chunk;
use crate::providers::formats::answer::PartialAnswer;
use crate::providers::formats::calls::{Arguments, CallPiece, Place};
use crate::providers::formats::fault::StatedFault;
use crate::providers::formats::parts::{self, Speech, content};
use crate::providers::formats::reader::EventReader;
use crate::providers::formats::translate::{Frames, Progress};
use crate::secret::Secret;

/// Turns the events of one message into [`Chunk`]s.
///
/// ```
/// use std::collections::VecDeque;
/// use bellrope_gateway::formats::messages::Translator;
/// use bellrope_gateway::formats::{Progress, Translate};
/// use bellrope_gateway::{Chunk, StopReason, sse::SseEvent};
///
/// let mut translator = Translator::default();
/// let mut chunks = VecDeque::new();
/// for data in [
///     r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}"#,
///     r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#,
/// ] {
///     translator.event(SseEvent { name: "message", data }, &mut chunks)?;
/// }
/// let progress = translator.event(SseEvent { name: "message_stop", data: r#"{"type":"message_stop"}"# }, &mut chunks)?;
/// assert_eq!(progress, Progress::Ended);
/// assert_eq!(chunks, [Chunk::text("Hi"), Chunk::Done { stop_reason: StopReason::EndTurn }]);
/// # Ok::<(), bellrope_gateway::ProviderError>(())
/// ```
#[derive(Debug, Default)]
pub struct Translator {
    answer: PartialAnswer,
    /// The signature of the reasoning so far, or nothing.
    signature: String,
}

/// The longest signature, and the longest data of a redacted thought, in bytes. Longer ones are noted and left out.
const MAX_SIGNATURE: usize = 1 << 20;

impl Translator {
    /// A translator whose errors never hold `key`.
    pub fn new(key: Option<Secret>) -> Self {
        Self { answer: PartialAnswer::new(EventReader::new(key)), signature: String::new() }
    }

    /// Takes a message in, or the beginning of one.
    fn message(&mut self, message: &RawValue, out: &mut VecDeque<Chunk>) -> Result<(), ProviderError> {
        let names = ["id", "content", "usage", "stop_reason"];
        let Some([id, content, usage, stop_reason]) = fields(message, names) else { return Ok(()) };
        self.answer.identify(id);
        self.answer.usage().update(usage);
        if let Some(content) = content {
            let at_index = |at: usize| at.try_into().map_or(Place::Latest, Place::Index);
            let is_list = each(content, |at, part| self.block(part, at_index(at), true, out))?;
            if !is_list {
                self.block(content, Place::Latest, true, out)?;
            }
        }
        self.answer.stopped(stop_reason)
    }

    /// Takes in a block as it begins or, `is_whole`, as it is.
    fn block(
        &mut self,
        block: &RawValue,
        place: Place,
        is_whole: bool,
        out: &mut VecDeque<Chunk>,
    ) -> Result<(), ProviderError> {
        self.close(out);
        parts::begin(&mut self.answer, block, place, out)?;
        let Some([kind, signature, data]) = fields(block, ["type", "signature", "data"]) else { return Ok(()) };
        match kind.and_then(words).as_deref() {
            Some("thinking") => self.sign(signature),
            Some("redacted_thinking") => {
                if let Some(data) = data.and_then(words).filter(|data| data.len() <= MAX_SIGNATURE) {
                    out.push_back(Chunk::ReasoningDetails { details: json!({ "data": data }) });
                }
            }
            _ => {}
        }
        if is_whole {
            self.close(out);
        }
        Ok(())
    }

    /// Takes in more of a signature.
    fn sign(&mut self, signature: Option<&RawValue>) {
        let Some(more) = signature.and_then(words) else { return };
        if self.signature.len() + more.len() <= MAX_SIGNATURE {
            self.signature.push_str(&more);
        }
    }

    /// Hands out the signature of a block that is over.
    fn close(&mut self, out: &mut VecDeque<Chunk>) {
        let signature = std::mem::take(&mut self.signature);
        if !signature.is_empty() {
            out.push_back(Chunk::ReasoningDetails { details: json!({ "signature": signature }) });
        }
    }

    /// Takes in more of a block.
    fn delta(&mut self, delta: &RawValue, place: Place, out: &mut VecDeque<Chunk>) -> Result<(), ProviderError> {
        let names = ["type", "text", "thinking", "partial_json", "refusal", "signature"];
        let mut other = None;
        let found = fields_and(delta, names, |name, value| other = Some((name.to_owned(), value)));
        let Some([kind, text, thinking, json, refusal, signature]) = found else { return Ok(()) };
        self.sign(signature);
        let kind = kind.and_then(words);
        let said = [text, thinking, refusal].map(|said| said.filter(|said| said.get() != "null"));
        // Some put the object itself there.
        let json = parts::arguments(json.filter(|json| json.get() != "null"));
        let says_nothing = json.is_none() && said.iter().all(Option::is_none);
        let [text, thinking, refusal] = said;
        for (said, speech) in [(text, Speech::Text), (thinking, Speech::Reasoning), (refusal, Speech::Refusal)] {
            said.map_or(Ok(()), |said| content(&mut self.answer, said, speech, out))?;
        }
        if let Some(json) = json {
            let arguments = Arguments::More(json);
            self.answer.call(CallPiece { place, is_named: true, arguments, ..CallPiece::default() }, out)?;
        }
        if let Some((name, value)) = other.filter(|_| says_nothing) {
            self.answer.left_out(kind.as_deref().unwrap_or(&name), value);
        }
        Ok(())
    }
}

impl Frames for Translator {
    const DONE_ENDS: bool = false;

    fn answer(&mut self) -> &mut PartialAnswer {
        &mut self.answer
    }

    fn frame(&mut self, name: &str, frame: &RawValue, out: &mut VecDeque<Chunk>) -> Result<Progress, ProviderError> {
        let names = ["type", "index", "message", "content_block", "delta", "usage", "error"];
        let Some([kind, index, message, block, delta, usage, error]) = fields(frame, names) else {
            return Err(self.answer.reader().malformed("an event is no object", frame.get()));
        };
        let kind = kind.and_then(words);
        let place = index.and_then(count).map_or(Place::Latest, Place::Index);
        let may_fail = error.is_some() || kind.as_deref().is_none_or(|kind| kind == "error");
        if let Some(fault) = may_fail.then(|| StatedFault::in_event(frame)).flatten() {
            return Err(self.answer.reader().failed(&fault));
        }
        match kind.as_deref().unwrap_or(name) {
            "message_start" => {
                message.map_or(Ok(()), |message| self.message(message, out))?;
                self.answer.usage().begin();
            }
            "content_block_start" => block.map_or(Ok(()), |block| self.block(block, place, false, out))?,
            "content_block_stop" => self.close(out),
            "content_block_delta" => delta.map_or(Ok(()), |delta| self.delta(delta, place, out))?,
            "message_delta" => {
                self.close(out);
                self.answer.usage().update(usage);
                let reason = delta.and_then(|delta| fields(delta, ["stop_reason"])).and_then(|[reason]| reason);
                self.answer.stopped(reason)?;
            }
            "message_stop" => return self.answer.end(out).map(|()| Progress::Ended),
            // Pings, and what is unknown.
            _ => {}
        }
        Ok(Progress::Continues)
    }

    fn whole(&mut self, document: &RawValue, out: &mut VecDeque<Chunk>) -> Result<bool, ProviderError> {
        let Some([kind, Some(_), error]) = fields(document, ["type", "content", "error"]) else { return Ok(false) };
        if error.is_some_and(|error| !is_nothing(error)) || kind.and_then(words).is_some_and(|kind| kind == "error") {
            return Ok(false);
        }
        self.message(document, out).map(|()| true)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::{StopReason, Usage};
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
        let details = |details| Chunk::ReasoningDetails { details };
        let expected = vec![
            Chunk::reasoning("hm"),
            details(json!({"signature": "c2ln"})),
            details(json!({"data": "eA=="})),
            Chunk::text("Hi"),
            Chunk::Usage(usage),
            done,
        ];
        assert_eq!((chunks, ended), (expected, Ok(Progress::Ended)));
    }

    #[test]
    fn tool_calls_are_numbered_as_they_begin() {
        let (chunks, _) = play(&[
            r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"b","name":"ls","input":{}}}"#,
            r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"c","name":"cat","input":{"path":1}}}"#,
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"a\""}}"#,
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":":1}"}}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"tool_use"}}"#,
        ]);
        let expected = [
            call(0, Some("b"), Some("ls"), ""),
            call(1, Some("c"), Some("cat"), ""),
            call(0, None, None, r#"{"a""#),
            call(0, None, None, ":1}"),
            call(1, None, None, r#"{"path":1}"#),
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
            ("tool_use", StopReason::EndTurn),
            ("pause_turn", StopReason::PauseTurn),
            ("refusal", StopReason::Refusal),
            ("model_context_window_exceeded", StopReason::ContextWindow),
        ] {
            let data = format!(r#"{{"type":"message_delta","delta":{{"stop_reason":"{wire}"}}}}"#);
            let text = r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"a"}}"#;
            assert_eq!(play(&[text, &data]).0, [Chunk::text("a"), Chunk::Done { stop_reason: meant }], "{wire}");
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
        for data in ["{", "<html>", "[1]"] {
            assert_eq!(play(&[data]).1.unwrap_err().code(), "malformed", "{data}");
        }
        for data in [
            "",
            "{}",
            r#"{"index":"x"}"#,
            r#"{"type":"content_block_delta"}"#,
            r#"{"type":"message_delta","delta":{}}"#,
        ] {
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
