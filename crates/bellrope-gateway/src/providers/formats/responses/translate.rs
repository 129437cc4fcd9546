//! The events of a response, turned into pieces of an answer.

mod came;

use std::collections::{BTreeMap, VecDeque};

use serde_json::json;
use serde_json::value::RawValue;

use came::{Beyond, Came, CameSoFar, Part, Where, parts};

use crate::error::ProviderError;
use crate::json::{TextPiece, count, each, fields, is_nothing, words};
use crate::message::{Chunk, StopReason};
use crate::providers::formats::answer::PartialAnswer;
use crate::providers::formats::calls::{Arguments, CallPiece};
use crate::providers::formats::fault::StatedFault;
use crate::providers::formats::parts::{Speech, arguments, content};
use crate::providers::formats::reader::EventReader;
use crate::providers::formats::reason::Reason;
use crate::providers::formats::translate::{Frames, Progress};
use crate::secret::Secret;

/// How many parts of an answer are told apart. Text of any beyond them counts once, in the form that came first.
const MAX_PARTS: usize = 4096;

/// Turns the events of one response into [`Chunk`]s.
///
/// ```
/// use std::collections::VecDeque;
/// use bellrope_gateway::formats::responses::Translator;
/// use bellrope_gateway::formats::{Progress, Translate};
/// use bellrope_gateway::{Chunk, StopReason, sse::SseEvent};
///
/// let mut translator = Translator::default();
/// let mut chunks = VecDeque::new();
/// let data = r#"{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"Hi"}"#;
/// translator.event(SseEvent { name: "response.output_text.delta", data }, &mut chunks)?;
/// let data = r#"{"type":"response.completed","response":{"status":"completed"}}"#;
/// let progress = translator.event(SseEvent { name: "response.completed", data }, &mut chunks)?;
/// assert_eq!(progress, Progress::Ended);
/// assert_eq!(chunks, [Chunk::text("Hi"), Chunk::Done { stop_reason: StopReason::EndTurn }]);
/// # Ok::<(), bellrope_gateway::ProviderError>(())
/// ```
#[derive(Debug, Default)]
pub struct Translator {
    answer: PartialAnswer,
    /// The parts that came in pieces, and what came of them, so that their repetition at the end says no more than what is missing.
    spoken: BTreeMap<Part, CameSoFar>,
    /// What came of text and of reasoning in pieces, and what had come before the list of all items.
    in_pieces: Came,
    before_list: Option<Came>,
    /// Whether details of reasoning were handed out, and whether what comes now only repeats them.
    has_details: bool,
    is_again: bool,
}

/// The longest encrypted content of a piece of reasoning, in bytes. A longer one is left out.
const MAX_ENCRYPTED: usize = 1 << 20;

impl Translator {
    /// A translator whose errors never hold `key`.
    pub fn new(key: Option<Secret>) -> Self {
        Self { answer: PartialAnswer::new(EventReader::new(key)), ..Self::default() }
    }

    /// Takes in more text of a part.
    fn more(
        &mut self,
        said: Option<&RawValue>,
        speech: Speech,
        at: Where<'_>,
        out: &mut VecDeque<Chunk>,
    ) -> Result<(), ProviderError> {
        let Some(said) = said.filter(|said| said.get() != "\"\"") else { return Ok(()) };
        match speech {
            Speech::Text | Speech::Refusal => self.in_pieces.text = true,
            Speech::Reasoning => self.in_pieces.reasoning = true,
        }
        self.mark(speech, at, said);
        content(&mut self.answer, said, speech, out)
    }

    /// Takes in the whole text of a part, which counts as far as it did not come in pieces.
    fn all(
        &mut self,
        said: Option<&RawValue>,
        speech: Speech,
        at: Where<'_>,
        out: &mut VecDeque<Chunk>,
    ) -> Result<(), ProviderError> {
        if !self.is_spoken(speech, at) {
            return self.more(said, speech, at, out);
        }
        let whole = said.and_then(TextPiece::of).map(TextPiece::alone);
        let spoken = parts(speech, at).into_iter().find_map(|part| self.spoken.get(&part));
        let Some((whole, spoken)) = whole.zip(spoken.filter(|spoken| !spoken.is_odd)) else { return Ok(()) };
        match spoken.rest_of(&whole) {
            Beyond::Nothing => Ok(()),
            Beyond::Text(rest) => {
                let rest = serde_json::value::to_raw_value(&rest).ok();
                self.more(rest.as_deref(), speech, at, out)
            }
            Beyond::Other => {
                self.answer.differs();
                Ok(())
            }
        }
    }

    /// Takes in the whole text of a message's parts, as far as it is missing from what came in pieces.
    fn rest(&mut self, parts: &RawValue, at: Where<'_>, out: &mut VecDeque<Chunk>) -> Result<(), ProviderError> {
        each(parts, |index, part| {
            let Some([kind, text, refusal]) = fields(part, ["type", "text", "refusal"]) else { return Ok(()) };
            let (speech, said) = match kind.and_then(words).as_deref() {
                Some("output_text" | "text") => (Speech::Text, text),
                Some("refusal") => (Speech::Refusal, refusal),
                _ => return Ok(()),
            };
            let index = serde_json::value::to_raw_value(&index).ok();
            let at = Where { part: index.as_deref(), ..at };
            // What came under another name cannot be told from what is missing.
            if self.is_spoken(speech, at) { self.all(said, speech, at, out) } else { Ok(()) }
        })
        .map(drop)
    }

    fn mark(&mut self, speech: Speech, at: Where<'_>, said: &RawValue) {
        for part in parts(speech, at) {
            if self.spoken.len() < MAX_PARTS || self.spoken.contains_key(&part) {
                self.spoken.entry(part).or_default().push(said);
            }
        }
    }

    fn is_spoken(&self, speech: Speech, at: Where<'_>) -> bool {
        self.spoken.len() >= MAX_PARTS || parts(speech, at).iter().any(|part| self.spoken.contains_key(part))
    }

    /// What has come so far.
    fn came(&self) -> Came {
        Came { text: self.answer.has_text(), reasoning: self.answer.has_reasoning() }
    }

    /// Takes in the text of a whole item, unless something of it may have come before. Whether it took it.
    fn whole_item(
        &mut self,
        said: Option<&RawValue>,
        speech: Speech,
        at: Where<'_>,
        out: &mut VecDeque<Chunk>,
    ) -> Result<bool, ProviderError> {
        let is_new = match self.before_list {
            Some(before) => !before.has(speech),
            None => !self.came().has(speech) || !self.in_pieces.has(speech) && !self.is_spoken(speech, at),
        };
        if let Some(said) = said.filter(|_| is_new) {
            content(&mut self.answer, said, speech, out)?;
            for part in parts(speech, at) {
                if self.spoken.len() < MAX_PARTS {
                    self.spoken.entry(part).or_default().is_odd = true;
                }
            }
        }
        Ok(is_new)
    }

    /// Takes an item in as it begins or, `is_over`, as it is.
    fn item(
        &mut self,
        item: &RawValue,
        at: Where<'_>,
        is_over: bool,
        out: &mut VecDeque<Chunk>,
    ) -> Result<(), ProviderError> {
        let names = ["type", "id", "call_id", "name", "arguments", "input", "content", "summary", "encrypted_content"];
        let Some([kind, id, call_id, name, text, input, said, summary, encrypted]) = fields(item, names) else {
            return Ok(());
        };
        let at = Where { item_id: at.item_id.or(id), ..at };
        match kind.and_then(words).as_deref() {
            Some("function_call") => {
                let text = text.filter(|text| text.get() != "null").or(input);
                let text = arguments(text).map(TextPiece::alone);
                let piece = CallPiece {
                    place: at.place(),
                    id: call_id.and_then(words),
                    spare_id: id.and_then(words),
                    name: name.and_then(words),
                    is_named: true,
                    arguments: text.map_or(Arguments::None, if is_over { Arguments::Whole } else { Arguments::Start }),
                };
                self.answer.call(piece, out)
            }
            Some("message") if is_over => match self.whole_item(said, Speech::Text, at, out)? {
                true => Ok(()),
                false => said.map_or(Ok(()), |said| self.rest(said, at, out)),
            },
            Some("reasoning") if is_over => {
                let said = [summary, said].into_iter().flatten().find(|said| !is_nothing(said));
                self.whole_item(said, Speech::Reasoning, at, out)?;
                self.details(id, encrypted, out);
                Ok(())
            }
            Some("message" | "reasoning") | None => Ok(()),
            Some(other) => {
                // Its text comes in pieces, or stands in several events.
                self.answer.not_shown(other, item);
                self.answer.no_call(at.place())
            }
        }
    }

    /// Hands out what goes back with a piece of reasoning.
    fn details(&mut self, id: Option<&RawValue>, encrypted: Option<&RawValue>, out: &mut VecDeque<Chunk>) {
        let encrypted = encrypted.and_then(words).filter(|encrypted| encrypted.len() <= MAX_ENCRYPTED);
        let Some(encrypted) = encrypted.filter(|_| !self.is_again) else { return };
        self.has_details = true;
        let mut details = json!({ "encrypted_content": encrypted });
        if let Some(id) = id.and_then(words) {
            details["id"] = id.into();
        }
        out.push_back(Chunk::ReasoningDetails { details });
    }

    /// Takes in the end of an answer, or a whole one. Only one that is completed, without an error, is whole.
    fn ended(
        &mut self,
        event: &str,
        response: Option<&RawValue>,
        out: &mut VecDeque<Chunk>,
    ) -> Result<(), ProviderError> {
        let names = ["id", "status", "error", "incomplete_details", "usage", "output", "max_output_tokens"];
        let found = response.and_then(|response| fields(response, names)).unwrap_or_default();
        let [id, status, error, details, usage, output, most] = found;
        self.answer.identify(id);
        self.answer.usage().update(usage);
        self.answer.limit(most.and_then(count));
        if let Some(output) = output {
            self.is_again = self.has_details;
            self.before_list = Some(self.came());
            each(output, |at, item| {
                let index = serde_json::value::to_raw_value(&at).ok();
                self.item(item, Where { output_index: index.as_deref(), ..Where::default() }, true, out)
            })?;
        }
        if let Some(fault) = error.and_then(StatedFault::in_field) {
            return Err(self.answer.reader().failed(&fault));
        }
        let status = status.and_then(words);
        let why = details.and_then(|details| fields(details, ["reason"])).and_then(|[reason]| reason);
        match status.as_deref() {
            Some(status) if Reason::of(status) == Some(Reason::Failure) => Err(self.ended_as(status)),
            Some("incomplete") => self.incomplete(why),
            _ if event == "response.incomplete" || why.is_some() => self.incomplete(why),
            Some("completed") | None => {
                self.answer.stopped_for(StopReason::EndTurn);
                Ok(())
            }
            Some(other) => {
                let reason = self.answer.reader().excerpt(&format!("the response ended while it is `{other}`"));
                Err(ProviderError::Truncated { reason })
            }
        }
    }

    /// Takes in that the answer was cut, by whatever bound: no word for that makes it whole.
    fn incomplete(&mut self, why: Option<&RawValue>) -> Result<(), ProviderError> {
        let Some(word) = why.and_then(words) else {
            if self.answer.is_at_limit() {
                self.answer.stopped_for(StopReason::MaxTokens);
                return Ok(());
            }
            let reason = "the provider calls it incomplete and does not say why".into();
            return Err(ProviderError::Truncated { reason });
        };
        match Reason::of(&word) {
            Some(Reason::Failure) => self.answer.stopped(why),
            Some(Reason::Stop(
                reason @ (StopReason::MaxTokens
                | StopReason::ContextWindow
                | StopReason::ContentFilter
                | StopReason::Refusal
                | StopReason::PauseTurn),
            )) => {
                self.answer.stopped_for(reason);
                Ok(())
            }
            _ => {
                self.answer.cut_for(&word);
                Ok(())
            }
        }
    }

    fn ended_as(&self, status: &str) -> ProviderError {
        self.answer.reader().failed(&StatedFault::of_message(format!("the response ended as `{status}`")))
    }
}

impl Frames for Translator {
    const DONE_ENDS: bool = false;

    fn answer(&mut self) -> &mut PartialAnswer {
        &mut self.answer
    }

    fn frame(&mut self, name: &str, frame: &RawValue, out: &mut VecDeque<Chunk>) -> Result<Progress, ProviderError> {
        let names = [
            "type",
            "output_index",
            "item_id",
            "content_index",
            "summary_index",
            "item",
            "delta",
            "text",
            "refusal",
            "arguments",
            "response",
            "error",
            "annotation",
            "logprobs",
        ];
        let Some(
            [
                kind,
                output_index,
                item_id,
                content_index,
                summary_index,
                item,
                delta,
                text,
                refusal,
                whole,
                response,
                error,
                annotation,
                logprobs,
            ],
        ) = fields(frame, names)
        else {
            return Err(self.answer.reader().malformed("an event is no object", frame.get()));
        };
        let kind = kind.and_then(words);
        let at = Where { output_index, item_id, part: content_index.or(summary_index) };
        let may_fail = error.is_some() || kind.as_deref().is_none_or(|kind| kind == "error");
        if let Some(fault) = may_fail.then(|| StatedFault::in_event(frame)).flatten() {
            return Err(self.answer.reader().failed(&fault));
        }
        match kind.as_deref().unwrap_or(name) {
            "response.output_text.delta" => {
                self.more(delta, Speech::Text, at, out)?;
                self.answer.logprobs(logprobs, out);
            }
            "response.output_text.done" => {
                let is_again = self.is_spoken(Speech::Text, at);
                self.all(text, Speech::Text, at, out)?;
                self.answer.logprobs(logprobs.filter(|_| !is_again), out);
            }
            "response.refusal.delta" => self.more(delta, Speech::Refusal, at, out)?,
            "response.refusal.done" => self.all(refusal, Speech::Refusal, at, out)?,
            "response.reasoning_text.delta" | "response.reasoning_summary_text.delta" => {
                self.more(delta, Speech::Reasoning, at, out)?;
            }
            "response.reasoning_text.done" | "response.reasoning_summary_text.done" => {
                self.all(text, Speech::Reasoning, at, out)?;
            }
            word @ ("response.output_item.added" | "response.output_item.done") => {
                let is_over = word == "response.output_item.done";
                item.map_or(Ok(()), |item| self.item(item, at, is_over, out))?;
            }
            "response.function_call_arguments.delta" => {
                let arguments = arguments(delta).map_or(Arguments::None, Arguments::More);
                self.answer.call(CallPiece { place: at.place(), arguments, ..CallPiece::default() }, out)?;
            }
            "response.function_call_arguments.done" => {
                let whole = arguments(whole).map(TextPiece::alone);
                let arguments = whole.map_or(Arguments::None, Arguments::Whole);
                self.answer.call(CallPiece { place: at.place(), arguments, ..CallPiece::default() }, out)?;
            }
            word @ ("response.completed" | "response.incomplete" | "response.done") => {
                self.ended(word, response, out)?;
                return self.answer.end(out).map(|()| Progress::Ended);
            }
            word @ ("response.failed" | "response.cancelled") => {
                let [failed, usage] =
                    response.and_then(|response| fields(response, ["error", "usage"])).unwrap_or_default();
                self.answer.usage().update(usage);
                let fault =
                    failed.and_then(StatedFault::in_field).or_else(|| StatedFault::in_event(response.unwrap_or(frame)));
                return Err(fault.map_or_else(|| self.ended_as(word), |fault| self.answer.reader().failed(&fault)));
            }
            "response.created" | "response.in_progress" => {
                let found = response.and_then(|response| fields(response, ["id", "max_output_tokens"]));
                let [id, most] = found.unwrap_or_default();
                self.answer.identify(id);
                self.answer.limit(most.and_then(count));
            }
            "error" => return Err(self.answer.reader().reported(frame.get())),
            // Beginnings and ends of parts, and what is unknown.
            word => {
                if let Some(more) = delta {
                    self.answer.left_out(word, more);
                } else if let Some(beside) = annotation {
                    self.answer.not_shown(word, beside);
                }
            }
        }
        Ok(Progress::Continues)
    }

    fn whole(&mut self, document: &RawValue, out: &mut VecDeque<Chunk>) -> Result<bool, ProviderError> {
        let Some([output, status, kind, object]) = fields(document, ["output", "status", "type", "object"]) else {
            return Ok(false);
        };
        let is_error = [kind, object].into_iter().flatten().filter_map(words).any(|word| word == "error");
        if is_error
            || output.is_none() && object.and_then(words).is_none_or(|object| object != "response" || status.is_none())
        {
            return Ok(false);
        }
        self.ended("response", Some(document), out).map(|()| true)
    }

    fn limited(&mut self, max_output_tokens: Option<u32>) {
        self.answer.limit(max_output_tokens.map(u64::from));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::Usage;
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
    fn what_goes_back_with_reasoning_is_handed_out_once() {
        let item = r#"{"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"hm"}],"encrypted_content":"QUJD"}"#;
        let text = r#"{"type":"response.output_text.delta","delta":"Hi"}"#;
        let done = format!(r#"{{"type":"response.output_item.done","output_index":0,"item":{item}}}"#);
        let end = format!(r#"{{"type":"response.completed","response":{{"status":"completed","output":[{item}]}}}}"#);
        let details = Chunk::ReasoningDetails { details: json!({"id": "rs_1", "encrypted_content": "QUJD"}) };
        let ended = Chunk::Done { stop_reason: StopReason::EndTurn };
        let expected = vec![Chunk::reasoning("hm"), details, Chunk::text("Hi"), ended];
        assert_eq!(play(&[&done, text, &end]).0, expected);
        let (chunks, _) = play(&[text, &end]);
        assert!(chunks.contains(&expected[1]), "{chunks:?}");
    }

    #[test]
    fn an_answer_that_was_left_incomplete_says_why() {
        for (reason, expected) in [
            ("max_output_tokens", StopReason::MaxTokens),
            ("content_filter", StopReason::ContentFilter),
            ("max_tool_calls", StopReason::MaxTokens),
            ("stop", StopReason::MaxTokens),
        ] {
            let text = r#"{"type":"response.output_text.delta","delta":"a"}"#;
            let event = format!(
                r#"{{"type":"response.incomplete","response":{{"incomplete_details":{{"reason":"{reason}"}}}}}}"#
            );
            let done = Chunk::Done { stop_reason: expected };
            assert_eq!(play(&[text, &event]), (vec![Chunk::text("a"), done], Ok(Progress::Ended)), "{reason}");
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
            call(0, Some("b"), Some("ls"), ""),
            call(1, Some("a"), Some("cat"), ""),
            call(0, None, None, "{"),
            call(1, None, None, r#"{"whole":1}"#),
            call(0, None, None, "}"),
            call(2, Some("c"), Some("now"), ""),
            call(2, None, None, "{}"),
            Chunk::Done { stop_reason: StopReason::ToolUse },
        ];
        assert_eq!(chunks, expected);
    }

    #[test]
    fn tool_calls_of_a_server_that_counts_nothing_are_told_apart_by_their_items() {
        let (chunks, _) = play(&[
            r#"{"type":"response.output_item.added","item":{"type":"function_call","id":"fc_x","call_id":"a","name":"ls","arguments":""}}"#,
            r#"{"type":"response.function_call_arguments.delta","item_id":"fc_x","delta":"{\"p\":1}"}"#,
            r#"{"type":"response.output_item.added","item":{"type":"function_call","id":"fc_y","call_id":"b","name":"cat","arguments":""}}"#,
            r#"{"type":"response.function_call_arguments.delta","item_id":"fc_y","delta":"[1]"}"#,
            r#"{"type":"response.output_item.done","item":{"type":"function_call","id":"fc_x","call_id":"a","name":"ls","arguments":"{\"p\":1}"}}"#,
        ]);
        let expected = [
            call(0, Some("a"), Some("ls"), ""),
            call(0, None, None, r#"{"p":1}"#),
            call(1, Some("b"), Some("cat"), ""),
            call(1, None, None, "[1]"),
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
