//! The events of a chat completion, turned into pieces of an answer.

use std::collections::VecDeque;

use serde_json::value::RawValue;

use crate::error::ProviderError;
use crate::json::{count, each, fields, fields_and, is_nothing, words};
use crate::message::Chunk;
use crate::providers::formats::answer::PartialAnswer;
use crate::providers::formats::calls::{Arguments, CallPiece, Place};
use crate::providers::formats::fault::StatedFault;
use crate::providers::formats::parts::{Speech, arguments, content, message};
use crate::providers::formats::reader::EventReader;
use crate::providers::formats::translate::{Frames, Progress};
use crate::secret::Secret;

/// Turns the events of one chat completion into [`Chunk`]s.
///
/// ```
/// use std::collections::VecDeque;
/// use bellrope_gateway::formats::chat_completions::Translator;
/// use bellrope_gateway::formats::{Progress, Translate};
/// use bellrope_gateway::{Chunk, StopReason, sse::SseEvent};
///
/// let mut translator = Translator::default();
/// let mut chunks = VecDeque::new();
/// let data = r#"{"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}"#;
/// translator.event(SseEvent { name: "message", data }, &mut chunks)?;
/// let progress = translator.event(SseEvent { name: "message", data: "[DONE]" }, &mut chunks)?;
/// assert_eq!(progress, Progress::Ended);
/// assert_eq!(chunks, [Chunk::text("Hi"), Chunk::Done { stop_reason: StopReason::EndTurn }]);
/// # Ok::<(), bellrope_gateway::ProviderError>(())
/// ```
#[derive(Debug, Default)]
pub struct Translator {
    answer: PartialAnswer,
    /// The choice that is read: the first that came. Only one is ever asked for.
    choice: Option<u64>,
    /// Whether anything came in a `delta`.
    has_delta: bool,
    /// Every choice that began, and whether it has said why it stopped.
    choices: Vec<(u64, bool)>,
}

/// How many choices of an answer are told apart: as many as may be asked for.
const MAX_CHOICES: usize = 128;

impl Translator {
    /// A translator whose errors never hold `key`.
    pub fn new(key: Option<Secret>) -> Self {
        Self { answer: PartialAnswer::new(EventReader::new(key)), ..Self::default() }
    }

    /// Takes the JSON of an event or of a whole answer in; `false` if it holds no choice.
    fn take(&mut self, frame: &RawValue, out: &mut VecDeque<Chunk>) -> Result<bool, ProviderError> {
        let mut has_error = false;
        let names = ["choices", "usage", "x_groq", "id", "created"];
        let found = fields_and(frame, names, |name, value| {
            has_error |= (name.starts_with("error") || name == "base_resp") && !is_nothing(value);
        });
        let Some([choices, usage, groq, id, created]) = found else {
            return Err(self.answer.reader().malformed("an event is no object", frame.get()));
        };
        self.answer.identify(id.or(created));
        self.answer.usage().update(groq.and_then(|groq| fields(groq, ["usage"])).and_then(|[usage]| usage));
        self.answer.usage().update(usage);
        let mut reason = None;
        let mut has_choice = false;
        if let Some(choices) = choices {
            let is_list = each(choices, |_, choice| {
                has_choice = true;
                self.choice(choice, &mut reason, out)
            })?;
            if !is_list {
                return Err(self.answer.reader().malformed("`choices` is no list", frame.get()));
            }
        }
        // What came with an error is not lost.
        let fault = if has_error || !has_choice { StatedFault::in_event(frame) } else { None };
        match fault {
            Some(fault) => Err(self.answer.reader().failed(&fault)),
            None => self.answer.stopped(reason).map(|()| has_choice),
        }
    }

    fn choice<'a>(
        &mut self,
        choice: &'a RawValue,
        reason: &mut Option<&'a RawValue>,
        out: &mut VecDeque<Chunk>,
    ) -> Result<(), ProviderError> {
        let names = ["index", "delta", "message", "text", "finish_reason", "error", "usage", "logprobs"];
        let Some([index, delta, whole, text, finish_reason, error, usage, logprobs]) = fields(choice, names) else {
            return Ok(());
        };
        let is_over = finish_reason.is_some_and(|reason| !is_nothing(reason));
        self.begun(index.and_then(count).unwrap_or_default(), is_over);
        if index.and_then(count).is_some_and(|index| *self.choice.get_or_insert(index) != index) {
            return Ok(());
        }
        if let Some(delta) = delta {
            self.has_delta |= !is_nothing(delta);
            self.message(delta, false, out)?;
        }
        if let Some(whole) = whole {
            // After deltas it can only repeat them; without any it stands in their place.
            self.message(whole, self.has_delta, out)?;
        }
        if let Some(text) = text {
            content(&mut self.answer, text, Speech::Text, out)?;
        }
        if let Some([content, refusal]) = logprobs.and_then(|logprobs| fields(logprobs, ["content", "refusal"])) {
            self.answer.logprobs(content, out);
            self.answer.logprobs(refusal, out);
        }
        self.answer.usage().update(usage);
        *reason = finish_reason.or(*reason);
        match error.and_then(StatedFault::in_field) {
            Some(fault) => Err(self.answer.reader().failed(&fault)),
            None => Ok(()),
        }
    }

    fn begun(&mut self, index: u64, is_over: bool) {
        if let Some((_, was_over)) = self.choices.iter_mut().find(|(known, _)| *known == index) {
            *was_over |= is_over;
        } else if self.choices.len() < MAX_CHOICES {
            self.choices.push((index, is_over));
        }
    }

    fn message(&mut self, delta: &RawValue, is_again: bool, out: &mut VecDeque<Chunk>) -> Result<(), ProviderError> {
        // What stands beside deltas repeats them.
        self.answer.begin_list();
        let [calls, function_call] = message(&mut self.answer, delta, is_again, out)?;
        if let Some(calls) = calls {
            let is_list = each(calls, |at, call| self.call(at, call, out))?;
            if !is_list {
                self.call(0, calls, out)?;
            }
        }
        if let Some(function) = function_call {
            // The form before there could be several calls.
            let place = Place::Item("function_call".to_owned());
            self.function(CallPiece { place, ..CallPiece::default() }, Some(function), None, out)?;
        }
        Ok(())
    }

    fn call(&mut self, at: usize, call: &RawValue, out: &mut VecDeque<Chunk>) -> Result<(), ProviderError> {
        let Some([index, id, function, kind]) = fields(call, ["index", "id", "function", "type"]) else {
            return Ok(());
        };
        let kind = kind.and_then(words).unwrap_or_default();
        if function.is_none() && !matches!(kind.as_str(), "" | "function") {
            self.answer.left_out(&kind, call);
            return Ok(());
        }
        let place = index.and_then(count).map_or(Place::InList(at), Place::Index);
        let piece = CallPiece { place, id: id.and_then(words), ..CallPiece::default() };
        self.function(piece, function, Some(call), out)
    }

    /// Takes in what a function is called with. Some servers put that beside it.
    fn function(
        &mut self,
        piece: CallPiece,
        function: Option<&RawValue>,
        beside: Option<&RawValue>,
        out: &mut VecDeque<Chunk>,
    ) -> Result<(), ProviderError> {
        let names = ["name", "arguments", "input", "parameters", "args"];
        let [[name, arguments, input, parameters, args], beside] =
            [function, beside].map(|said| said.and_then(|said| fields(said, names)).unwrap_or_default());
        let name = name.or(beside[0]).and_then(words);
        let said = [arguments, beside[1], input, beside[2], parameters, beside[3], args, beside[4]];
        let said = said.into_iter().flatten().find(|said| said.get() != "null");
        let arguments = self::arguments(said).map_or(Arguments::None, Arguments::More);
        self.answer.call(CallPiece { name, arguments, ..piece }, out)
    }
}

impl Frames for Translator {
    const DONE_ENDS: bool = true;

    fn answer(&mut self) -> &mut PartialAnswer {
        &mut self.answer
    }

    fn frame(&mut self, _: &str, frame: &RawValue, out: &mut VecDeque<Chunk>) -> Result<Progress, ProviderError> {
        self.take(frame, out).map(|_| Progress::Continues)
    }

    fn has_all(&self, choices: u32) -> bool {
        let wanted = usize::try_from(choices.max(1)).unwrap_or(usize::MAX).min(MAX_CHOICES);
        self.choices.len() >= wanted && self.choices.iter().all(|(_, is_over)| *is_over)
    }

    fn whole(&mut self, document: &RawValue, out: &mut VecDeque<Chunk>) -> Result<bool, ProviderError> {
        if document.get().starts_with('{') { self.take(document, out) } else { Ok(false) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::{StopReason, Usage};
    use crate::providers::formats::translate::Translate;
    use crate::sse::SseEvent;
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
        assert_eq!(play(&[text, "[DONE]"]).0, [Chunk::text("a"), done(StopReason::Other)]);
        assert_eq!(play(&["[DONE]"]).1.unwrap_err().code(), "provider_error", "an answer of nothing");
    }

    #[test]
    fn an_event_that_the_end_cut_off_counts_if_it_is_whole() {
        let stop = r#"{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}"#;
        for (data, is_whole) in [(stop, true), (&stop[..20], false), ("{}", false)] {
            let unfinished = Some(SseEvent { name: "message", data });
            let ended = Translator::default().end(unfinished, "fin".into(), &mut VecDeque::new());
            assert_eq!(ended.is_ok(), is_whole, "{data}");
            assert!(is_whole || ended.unwrap_err().code() == "truncated", "{data}");
        }
    }

    #[test]
    fn each_reason_to_stop_is_known_by_name() {
        for (reason, expected) in [
            ("stop", StopReason::EndTurn),
            ("length", StopReason::MaxTokens),
            ("tool_calls", StopReason::EndTurn),
            ("function_call", StopReason::EndTurn),
            ("content_filter", StopReason::ContentFilter),
        ] {
            let event = format!(r#"{{"choices":[{{"delta":{{"content":"a"}},"finish_reason":"{reason}"}}]}}"#);
            assert_eq!(play(&[&event]), (vec![Chunk::text("a"), done(expected)], Ok(Progress::Ended)), "{reason}");
        }
    }

    #[test]
    fn tool_calls_are_numbered_as_they_begin_and_lose_no_text() {
        let (chunks, _) = play(&[
            r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"id":"b","type":"function","function":{"name":"ls","arguments":""}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"id":"c","function":{"name":"x","arguments":{"a":1}}}]}}]}"#,
            "[DONE]",
        ]);
        let expected = [
            call(0, Some("b"), Some("ls"), "{}"),
            call(1, Some("c"), Some("x"), r#"{"a":1}"#),
            done(StopReason::ToolUse),
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
        let event = SseEvent { name: "error", data: "backend died" };
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
