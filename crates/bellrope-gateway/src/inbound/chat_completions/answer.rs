//! The gateway's chunks in OpenAI's form.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::Value;

use super::in_turn::{HeldCall, InTurn};
use crate::inbound::counted::ToldTokens;
use crate::inbound::fault::{ErrorForm, Fault};
use crate::inbound::stamp::{seconds_since_1970, serial};
use crate::inbound::writer::{AnswerWriter, comment, data};
use crate::message::{
    ChatResponse, Chunk, ErrorInfo, Part, StopReason, TokenLogprob, ToolCallDelta, TopLogprob, Usage,
};
use crate::reasoning::items_of;

/// The most calls of tools in one answer.
const MAX_CALLS: usize = 256;

/// What stands in every object of one answer.
#[derive(Debug, Clone)]
pub(crate) struct Heading {
    id: String,
    /// Seconds since 1970.
    created: u64,
    model: String,
}

impl Heading {
    /// The heading of a new answer by `model`, as the client calls it.
    pub(crate) fn new(model: String) -> Self {
        Self { id: format!("chatcmpl-{}", serial()), created: seconds_since_1970(), model }
    }

    /// A whole answer, which took so much.
    fn whole(&self, response: ChatResponse, usage: Option<&Usage>) -> serde_json::Result<Vec<u8>> {
        let ChatResponse { text, reasoning, reasoning_parts, logprobs, tool_calls, stop_reason, .. } = response;
        let details = reasoning_parts.iter().filter_map(|part| match part {
            Part::Reasoning { details, .. } => details.as_ref(),
            _ => None,
        });
        let calls: Vec<_> = tool_calls
            .iter()
            .map(|call| Call {
                index: None,
                id: Some(&call.id),
                r#type: Some("function"),
                function: Function { name: Some(&call.name), arguments: &call.arguments },
                extra_content: call.extra_content.as_ref(),
            })
            .collect();
        let message = Message {
            role: Some("assistant"),
            content: Some((!text.is_empty() || calls.is_empty()).then_some(&*text)),
            reasoning_content: (!reasoning.is_empty()).then_some(&reasoning),
            reasoning_details: details.flat_map(items_of).collect(),
            tool_calls: calls,
        };
        let choice = Choice {
            index: 0,
            message: Some(message),
            delta: None,
            logprobs: Logprobs::of(&logprobs),
            finish_reason: Some(finish(stop_reason)),
        };
        let usage = usage.map(|usage| Some(WireUsage::from(usage)));
        serde_json::to_vec(&self.object("chat.completion", Some(choice), usage))
    }

    fn object<'a>(
        &'a self,
        object: &'static str,
        choice: Option<Choice<'a>>,
        usage: Option<Option<WireUsage>>,
    ) -> Object<'a> {
        let Self { id, created, model } = self;
        Object { id, object, created: *created, model, choices: choice.into_iter().collect(), usage }
    }
}

/// Writes one answer.
pub(crate) struct Script {
    heading: Heading,
    include_usage: bool,
    counted: ToldTokens,
    /// The gateway's numbers of calls are no indices; a client takes these for some.
    calls: HashMap<u32, usize>,
    in_turn: InTurn,
}

impl Script {
    pub(crate) fn new(heading: Heading, include_usage: bool) -> Self {
        Self {
            heading,
            include_usage,
            counted: ToldTokens::default(),
            calls: HashMap::new(),
            in_turn: InTurn::default(),
        }
    }
}

impl AnswerWriter for Script {
    fn expect(&mut self, input_tokens: u64) {
        self.counted.expect(input_tokens);
    }

    fn held(&self) -> usize {
        self.in_turn.held()
    }

    fn whole(&mut self, response: ChatResponse) -> serde_json::Result<Vec<u8>> {
        self.counted.take_whole(&response);
        self.heading.whole(response, self.counted.said().as_ref())
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        let delta = Message { role: Some("assistant"), content: Some(Some("")), ..Message::default() };
        self.delta(delta, None, out);
    }

    fn chunk(&mut self, chunk: Chunk, out: &mut Vec<u8>) {
        self.counted.take_in(&chunk);
        match chunk {
            Chunk::Text { text } => {
                self.delta(Message { content: Some(Some(&text)), ..Message::default() }, None, out);
            }
            Chunk::Reasoning { text } => {
                self.delta(Message { reasoning_content: Some(&text), ..Message::default() }, None, out);
            }
            Chunk::ReasoningDetails { details } => {
                let reasoning_details: Vec<_> = items_of(&details).collect();
                if !reasoning_details.is_empty() {
                    self.delta(Message { reasoning_details, ..Message::default() }, None, out);
                }
            }
            Chunk::Logprobs { tokens } => self.choice(Message::default(), Logprobs::of(&tokens), None, out),
            Chunk::ToolCall(delta) => {
                if let Some(delta) = self.in_turn.admit(delta) {
                    self.call(&delta, out);
                }
                self.release(false, out);
            }
            Chunk::ToolCallExtra { index, extra_content } => {
                if let Some(extra_content) = self.in_turn.admit_extra(index, extra_content) {
                    self.extra(index, &extra_content, out);
                }
            }
            Chunk::Done { stop_reason } => {
                self.release(true, out);
                self.end(stop_reason, out);
            }
            Chunk::Error(info) => fail(info, out),
            // A comment keeps the connection alive and is nothing to a client.
            Chunk::Notice { text } => comment(&text, out),
            // What chat completions have no place for, and kinds of a later version.
            _ => {}
        }
    }
}

impl Script {
    /// Writes the calls whose turn has come.
    fn release(&mut self, is_over: bool, out: &mut Vec<u8>) {
        while let Some(HeldCall { delta, extra }) = self.in_turn.next(is_over) {
            self.call(&delta, out);
            if let Some(extra) = extra {
                self.extra(delta.index, &extra, out);
            }
        }
    }

    fn call(&mut self, delta: &ToolCallDelta, out: &mut Vec<u8>) {
        let next = self.calls.len();
        let index = match self.calls.get(&delta.index) {
            Some(index) => *index,
            None if next < MAX_CALLS => *self.calls.entry(delta.index).or_insert(next),
            None => return,
        };
        let call = Call {
            index: Some(index),
            id: delta.id.as_deref(),
            r#type: delta.id.is_some().then_some("function"),
            function: Function { name: delta.name.as_deref(), arguments: &delta.arguments },
            extra_content: None,
        };
        self.delta(Message { tool_calls: vec![call], ..Message::default() }, None, out);
    }

    /// What the provider wants back with a call.
    fn extra(&self, index: u32, extra_content: &Value, out: &mut Vec<u8>) {
        let Some(index) = self.calls.get(&index) else { return };
        let call = Call { index: Some(*index), extra_content: Some(extra_content), ..Call::default() };
        self.delta(Message { tool_calls: vec![call], ..Message::default() }, None, out);
    }

    fn end(&self, stop_reason: StopReason, out: &mut Vec<u8>) {
        self.delta(Message::default(), Some(finish(stop_reason)), out);
        if let Some(usage) = self.counted.said().filter(|_| self.include_usage) {
            data(&self.heading.object("chat.completion.chunk", None, Some(Some((&usage).into()))), out);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn delta(&self, delta: Message<'_>, finish_reason: Option<&'static str>, out: &mut Vec<u8>) {
        self.choice(delta, None, finish_reason, out);
    }

    fn choice(
        &self,
        delta: Message<'_>,
        logprobs: Option<Logprobs<'_>>,
        finish_reason: Option<&'static str>,
        out: &mut Vec<u8>,
    ) {
        let choice = Choice { index: 0, message: None, delta: Some(delta), logprobs, finish_reason };
        // With usage asked for, every chunk has the field.
        let usage = self.include_usage.then_some(None);
        data(&self.heading.object("chat.completion.chunk", Some(choice), usage), out);
    }
}

/// An answer that fails after it has begun: OpenAI's clients take such an event for an error.
fn fail(info: ErrorInfo, out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(&Fault::from(info).body(ErrorForm::OpenAi));
    out.extend_from_slice(b"\n\n");
}

fn finish(reason: StopReason) -> &'static str {
    match reason {
        StopReason::MaxTokens | StopReason::ContextWindow => "length",
        StopReason::ToolUse => "tool_calls",
        StopReason::ContentFilter => "content_filter",
        _ => "stop",
    }
}

#[derive(Serialize)]
struct Object<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<WireUsage>>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Logprobs<'a>>,
    finish_reason: Option<&'static str>,
}

/// How likely the tokens of a choice were.
#[derive(Serialize)]
struct Logprobs<'a> {
    content: Vec<TokenOut<'a>>,
    refusal: (),
}

/// A token, every field of which OpenAI's own clients take to be there.
#[derive(Serialize)]
struct TokenOut<'a> {
    token: &'a str,
    logprob: f64,
    bytes: Option<&'a [u8]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<Vec<TokenOut<'a>>>,
}

impl<'a> Logprobs<'a> {
    fn of(tokens: &'a [TokenLogprob]) -> Option<Self> {
        let top = |top: &'a TopLogprob| TokenOut {
            token: &top.token,
            logprob: top.logprob,
            bytes: top.bytes.as_deref(),
            top_logprobs: None,
        };
        let one = |token: &'a TokenLogprob| TokenOut {
            token: &token.token,
            logprob: token.logprob,
            bytes: token.bytes.as_deref(),
            top_logprobs: Some(token.top_logprobs.iter().map(top).collect()),
        };
        (!tokens.is_empty()).then(|| Self { content: tokens.iter().map(one).collect(), refusal: () })
    }
}

#[derive(Serialize, Default)]
struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    /// What goes back with that, as `OpenRouter` has it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasoning_details: Vec<&'a Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call<'a>>,
}

#[derive(Serialize, Default)]
struct Call<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    function: Function<'a>,
    /// What the provider wants back with the call: Gemini's thought signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    extra_content: Option<&'a Value>,
}

#[derive(Serialize, Default)]
struct Function<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

#[derive(Debug, Clone, Serialize)]
struct WireUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_tokens_details: Option<PromptDetails>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_tokens_details: Option<CompletionDetails>,
    /// The price, as OpenRouter names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<f64>,
}

#[derive(Debug, Clone, Serialize)]
struct PromptDetails {
    cached_tokens: u64,
}

#[derive(Debug, Clone, Serialize)]
struct CompletionDetails {
    reasoning_tokens: u64,
}

impl From<&Usage> for WireUsage {
    fn from(usage: &Usage) -> Self {
        Self {
            prompt_tokens: usage.input_tokens,
            completion_tokens: usage.output_tokens,
            total_tokens: usage.input_tokens.saturating_add(usage.output_tokens),
            prompt_tokens_details: usage.cache_read_tokens.map(|cached_tokens| PromptDetails { cached_tokens }),
            completion_tokens_details: usage
                .reasoning_tokens
                .map(|reasoning_tokens| CompletionDetails { reasoning_tokens }),
            cost: usage.total_cost,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(response: ChatResponse) -> serde_json::Result<Vec<u8>> {
        Script::new(heading(), false).whole(response)
    }

    fn heading() -> Heading {
        Heading { id: "chatcmpl-1".into(), created: 7, model: "p/m".into() }
    }

    fn events(chunks: Vec<Chunk>, include_usage: bool) -> Vec<Value> {
        let mut script = Script::new(heading(), include_usage);
        let mut out = Vec::new();
        script.begin(&mut out);
        for chunk in chunks {
            script.chunk(chunk, &mut out);
        }
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with("\n\n"));
        text.split_terminator("\n\n")
            .map(|event| match event.strip_prefix("data: ").unwrap() {
                "[DONE]" => json!("[DONE]"),
                data => serde_json::from_str(data).unwrap(),
            })
            .collect()
    }

    fn delta(delta: &Value, finish_reason: &Value) -> Value {
        json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "p/m",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
        })
    }

    #[test]
    fn the_likelihood_of_tokens_stands_beside_their_text() {
        let token = TokenLogprob {
            token: "Hi".into(),
            logprob: -0.5,
            bytes: Some(vec![72, 105]),
            top_logprobs: vec![TopLogprob { token: "Ho".into(), logprob: -1.5, bytes: None }],
        };
        let content = json!([{"token": "Hi", "logprob": -0.5, "bytes": [72, 105],
            "top_logprobs": [{"token": "Ho", "logprob": -1.5, "bytes": null}]}]);
        let events = events(vec![Chunk::text("Hi"), Chunk::Logprobs { tokens: vec![token.clone()] }], false);
        assert_eq!(events[2]["choices"][0]["logprobs"], json!({"content": content, "refusal": null}));
        assert_eq!(events[2]["choices"][0]["delta"], json!({}));
        assert!(events[1]["choices"][0].get("logprobs").is_none());
        let response: ChatResponse =
            serde_json::from_value(json!({"text": "Hi", "stop_reason": "end_turn", "logprobs": [token]})).unwrap();
        let whole: Value = serde_json::from_slice(&told(response).unwrap()).unwrap();
        assert_eq!(whole["choices"][0]["logprobs"]["content"], content);
    }

    fn call(index: u32, id: Option<&str>, name: Option<&str>, arguments: &str) -> Chunk {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Chunk::ToolCall(ToolCallDelta { index, id: owned(id), name: owned(name), arguments: arguments.into() })
    }

    #[test]
    fn a_stream_has_the_form_that_clients_know() {
        let usage = Usage { input_tokens: 3, output_tokens: 4, reasoning_tokens: Some(1), ..Usage::default() };
        let chunks = vec![
            Chunk::reasoning("hm"),
            Chunk::text("Hi\n"),
            call(7, Some("c"), Some("ls"), ""),
            call(u32::MAX, Some("d"), Some("ls"), "{}"),
            call(7, None, None, "{}"),
            Chunk::Usage(usage),
            Chunk::Done { stop_reason: StopReason::ToolUse },
        ];
        let none = &Value::Null;
        let expected = [
            delta(&json!({"role": "assistant", "content": ""}), none),
            delta(&json!({"reasoning_content": "hm"}), none),
            delta(&json!({"content": "Hi\n"}), none),
            delta(
                &json!({"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "ls", "arguments": ""}}]}),
                none,
            ),
            delta(&json!({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}), none),
            delta(
                &json!({"tool_calls": [{"index": 1, "id": "d", "type": "function", "function": {"name": "ls", "arguments": "{}"}}]}),
                none,
            ),
            delta(&json!({}), &json!("tool_calls")),
            json!("[DONE]"),
        ];
        assert_eq!(events(chunks.clone(), false), expected);

        let with_usage = events(chunks, true);
        assert_eq!(with_usage[1]["usage"], Value::Null);
        assert!(with_usage[1].as_object().unwrap().contains_key("usage"));
        let [.., last, done] = &with_usage[..] else { panic!("{with_usage:?}") };
        assert_eq!((&last["choices"], done), (&json!([]), &json!("[DONE]")));
        let expected = json!({
            "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7,
            "completion_tokens_details": {"reasoning_tokens": 1},
        });
        assert_eq!(last["usage"], expected);
    }

    // Fault 75.
    #[test]
    fn what_a_provider_wants_back_with_a_call_reaches_the_client() {
        let extra_content = json!({"google": {"thought_signature": "QUJD"}});
        let chunks = vec![
            call(7, Some("c"), Some("ls"), "{}"),
            Chunk::ToolCallExtra { index: 7, extra_content: extra_content.clone() },
            Chunk::ToolCallExtra { index: 8, extra_content: json!({}) },
            Chunk::Done { stop_reason: StopReason::ToolUse },
        ];
        let events = events(chunks, false);
        assert_eq!(events.len(), 5);
        let call = &events[2]["choices"][0]["delta"]["tool_calls"][0];
        assert_eq!((&call["index"], &call["extra_content"]), (&json!(0), &extra_content));
        let whole = json!({
            "text": "", "stop_reason": "tool_use",
            "tool_calls": [{"id": "c", "name": "ls", "arguments": "{}", "extra_content": extra_content}],
        });
        let whole = told(serde_json::from_value(whole).unwrap()).unwrap();
        let whole: Value = serde_json::from_slice(&whole).unwrap();
        assert_eq!(whole["choices"][0]["message"]["tool_calls"][0]["extra_content"], extra_content);
    }

    #[test]
    fn a_stream_that_fails_ends_with_the_error_and_without_done() {
        let info = ErrorInfo {
            code: "truncated".into(),
            message: "it broke off".into(),
            retryable: true,
            ..ErrorInfo::default()
        };
        let events = events(vec![Chunk::text("Hi"), Chunk::Error(info)], false);
        let error = &events.last().unwrap()["error"];
        assert_eq!((&error["code"], &error["message"]), (&json!("truncated"), &json!("it broke off")));
    }

    #[test]
    fn a_flood_of_tool_calls_takes_no_memory_beyond_its_bound() {
        let mut script = Script::new(heading(), false);
        let mut out = Vec::new();
        for index in 0..1000 {
            script.chunk(call(index, None, None, "x"), &mut out);
        }
        assert_eq!(script.calls.len(), MAX_CALLS);
    }

    #[test]
    fn a_whole_answer_has_the_form_that_clients_know() {
        let response: ChatResponse = serde_json::from_value(json!({
            "text": "", "reasoning": "hm", "stop_reason": "tool_use", "usage": {"input_tokens": 1, "output_tokens": 2},
            "tool_calls": [{"id": "c", "name": "ls", "arguments": "{}"}],
        }))
        .unwrap();
        let whole: Value = serde_json::from_slice(&told(response).unwrap()).unwrap();
        assert_eq!(whole["object"], "chat.completion");
        let expected = json!({
            "index": 0, "finish_reason": "tool_calls",
            "message": {
                "role": "assistant", "content": null, "reasoning_content": "hm",
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "ls", "arguments": "{}"}}],
            },
        });
        assert_eq!(whole["choices"][0], expected);
        assert_eq!(whole["usage"]["total_tokens"], 3);
        let plain: ChatResponse = serde_json::from_value(json!({"text": "Hi", "stop_reason": "max_tokens"})).unwrap();
        let whole: Value = serde_json::from_slice(&told(plain).unwrap()).unwrap();
        assert_eq!(
            (&whole["choices"][0]["message"]["content"], &whole["choices"][0]["finish_reason"]),
            (&json!("Hi"), &json!("length"))
        );
        for (reason, known) in [("content_filter", "content_filter"), ("refusal", "stop")] {
            let ended = serde_json::from_value(json!({"text": "", "stop_reason": reason})).unwrap();
            let whole: Value = serde_json::from_slice(&told(ended).unwrap()).unwrap();
            assert_eq!(whole["choices"][0]["finish_reason"], known);
        }
    }
}
