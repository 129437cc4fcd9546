//! The gateway's chunks in the form of OpenAI's responses: an event for everything that happens, each with its number, and
//! one at the end that has the whole response.

mod item;

use serde_json::{Value, json};

use super::echo::{Echo, OWN_REASONING};
use super::ending::{code, counts, ending};
use super::kept_items::MAX_ITEM;
use super::logprobs::{self, text_part};
use super::tools::{Called, Names, input_of};
use crate::error::ProviderError;
use crate::inbound::counted::ToldTokens;
use crate::inbound::fault::Fault;
use crate::inbound::stamp::{seconds_since_1970, serial};
use crate::inbound::writer::{AnswerWriter, comment, named};
use crate::message::{ChatResponse, Chunk, Part, StopReason, TokenLogprob, ToolCall, ToolCallDelta};
use crate::provider::{MAX_ANSWER, MAX_TOOL_CALLS};
use crate::reasoning::{items_of, opaque};

/// The code of an answer that was cancelled, and its status.
const CANCELLED: &str = "cancelled";

/// What a token takes in an item that says how likely it was, in bytes.
const TOKEN: usize = 64;

/// Writes one answer. Clones of one that has not begun write the same for the same chunks.
#[derive(Clone)]
pub(super) struct Script {
    pub(super) id: String,
    created_at: u64,
    pub(super) echo: Echo,
    names: Names,
    sequence: u64,
    /// The number of the first event that is written.
    pub(super) from: u64,
    /// The items in their order; their texts are said again when they are over.
    items: Vec<Item>,
    /// The item that text goes on in.
    open: Option<usize>,
    held: usize,
    counted: ToldTokens,
    status: &'static str,
    /// Why the response is incomplete, and how it failed.
    details: Value,
    error: Value,
    is_over: bool,
}

#[derive(Clone)]
struct Item {
    id: String,
    kind: Kind,
    text: String,
    /// How likely the tokens of a message were, as far as that was said.
    tokens: Vec<TokenLogprob>,
    status: Status,
}

/// How far an item has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Begun,
    Whole,
    Cut,
}

#[derive(Clone)]
enum Kind {
    Message,
    Reasoning(Thought),
    Call { index: u32, call_id: String, called: Called },
}

/// What goes back with reasoning.
#[derive(Clone, Default)]
struct Thought {
    /// To a tool of this format, and by it.
    encrypted: Option<String>,
    /// To the provider, as it gave it.
    details: Option<Value>,
}

impl Script {
    /// An answer to a request, of which `echo` stands in it again.
    pub(super) fn new(echo: Echo, names: Names) -> Self {
        Self {
            id: format!("resp_{}", serial()),
            created_at: seconds_since_1970(),
            echo,
            names,
            sequence: 0,
            from: 0,
            items: Vec::new(),
            open: None,
            held: 0,
            counted: ToldTokens::default(),
            status: "in_progress",
            details: Value::Null,
            error: Value::Null,
            is_over: false,
        }
    }

    /// The response as it is now.
    pub(super) fn now(&self) -> Value {
        let mut response = self.response();
        if self.is_whole() {
            response["usage"] = counts(&self.counted.all());
        } else if let Some(usage) = self.counted.said().filter(|_| self.is_over) {
            response["usage"] = counts(&usage);
        }
        response
    }

    /// How much of the answer is held, in bytes.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Whether the answer has come to its end.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether it came whole: neither failed nor was cancelled.
    pub(super) fn is_whole(&self) -> bool {
        self.is_over && self.error.is_null() && self.status != CANCELLED
    }

    /// What the model said, as a turn of a conversation.
    pub(super) fn said(&self) -> Vec<Part> {
        let part = |item: &Item| match &item.kind {
            Kind::Message => Part::text(item.text.clone()),
            Kind::Reasoning(Thought { details, .. }) => {
                Part::Reasoning { text: item.text.clone(), details: details.clone() }
            }
            Kind::Call { call_id, called, .. } => Part::ToolUse {
                id: call_id.clone(),
                name: called.seen(),
                input: item.text.as_str().into(),
                extra_content: None,
            },
        };
        self.items.iter().map(part).collect()
    }

    /// What the caller calls the tool that the model calls by this name.
    pub(super) fn called(&self, name: &str) -> Called {
        self.names.called(name)
    }

    fn item_id(&self, kind: &str) -> String {
        let own = self.id.strip_prefix("resp_").unwrap_or(&self.id);
        format!("{kind}{own}{:04x}", self.items.len())
    }

    pub(super) fn event(&mut self, name: &str, mut event: Value, out: &mut Vec<u8>) {
        event["type"] = name.into();
        event["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        if self.sequence > self.from {
            named(name, &event, out);
        }
    }

    /// Counts what is kept until the end; `false`, and the answer fails, if it is too much.
    fn keep(&mut self, bytes: usize, out: &mut Vec<u8>) -> bool {
        self.held += bytes;
        if self.held > MAX_ANSWER || self.items.len() > 4 * MAX_TOOL_CALLS {
            let error = ProviderError::TooLarge { what: "the answer", limit: MAX_ANSWER };
            self.fail(&error.into(), out);
            return false;
        }
        true
    }

    /// More text of a message or of reasoning.
    fn say(&mut self, text: &str, is_reasoning: bool, out: &mut Vec<u8>) {
        if !self.keep(text.len(), out) {
            return;
        }
        let goes_on = self.open.is_some_and(|at| matches!(self.items[at].kind, Kind::Reasoning(_)) == is_reasoning);
        if !goes_on {
            let kind = if is_reasoning { Kind::Reasoning(Thought::default()) } else { Kind::Message };
            self.begin_item(kind, out);
        }
        let Some(at) = self.open else { return };
        if text.is_empty() {
            return;
        }
        self.items[at].text.push_str(text);
        let (name, mut event) = if is_reasoning {
            ("response.reasoning_summary_text.delta", json!({"summary_index": 0}))
        } else {
            ("response.output_text.delta", json!({"content_index": 0, "logprobs": []}))
        };
        event["delta"] = text.into();
        self.of_item(name, at, event, out);
    }

    /// How likely the tokens of the text before were: told beside no further text.
    fn likely(&mut self, tokens: Vec<TokenLogprob>, out: &mut Vec<u8>) {
        let Some(at) = self.items.iter().rposition(|item| matches!(item.kind, Kind::Message)) else { return };
        if self.items[at].status != Status::Begun || !self.keep(tokens.iter().map(TokenLogprob::size).sum(), out) {
            return;
        }
        let event = json!({"content_index": 0, "delta": "", "logprobs": logprobs::list(&tokens)});
        self.items[at].tokens.extend(tokens);
        self.of_item("response.output_text.delta", at, event, out);
    }

    /// Begins an item of text, after the one before it has ended.
    fn begin_item(&mut self, kind: Kind, out: &mut Vec<u8>) {
        self.close(out);
        let at = self.items.len();
        let is_reasoning = matches!(kind, Kind::Reasoning(_));
        let id = self.item_id(if is_reasoning { OWN_REASONING } else { "msg_" });
        self.items.push(Item { id, kind, text: String::new(), tokens: Vec::new(), status: Status::Begun });
        self.open = Some(at);
        self.added(at, out);
        let (name, event) = if is_reasoning {
            let part = json!({"type": "summary_text", "text": ""});
            ("response.reasoning_summary_part.added", json!({"summary_index": 0, "part": part}))
        } else {
            ("response.content_part.added", json!({"content_index": 0, "part": text_part("", &[])}))
        };
        self.of_item(name, at, event, out);
    }

    /// What goes back with the reasoning. That of another format means nothing to a tool of this one.
    fn details(&mut self, details: &Value, out: &mut Vec<u8>) {
        let is_ours = details.get("encrypted_content").is_some() || items_of(details).next().is_some();
        let encrypted = opaque(details).filter(|_| is_ours);
        if encrypted.is_some_and(|encrypted| !self.keep(encrypted.len(), out)) {
            return;
        }
        let is_open = |script: &Self| script.open.is_some_and(|at| matches!(script.items[at].kind, Kind::Reasoning(_)));
        if encrypted.is_some() && !is_open(self) {
            self.begin_item(Kind::Reasoning(Thought::default()), out);
        }
        if let Some(Item { kind: Kind::Reasoning(thought), .. }) = self.open.map(|at| &mut self.items[at]) {
            *thought = Thought { encrypted: encrypted.map(str::to_owned), details: Some(details.clone()) };
        }
        if is_open(self) {
            self.close(out);
        }
    }

    fn call(&mut self, delta: &ToolCallDelta, out: &mut Vec<u8>) {
        if !self.keep(delta.arguments.len(), out) {
            return;
        }
        let known = |item: &Item| matches!(item.kind, Kind::Call { index, .. } if index == delta.index);
        let at = match self.items.iter().rposition(known) {
            Some(at) => at,
            None => {
                self.close(out);
                let called = self.names.called(delta.name.as_deref().unwrap_or_default());
                let id = self.item_id(if called.is_custom { "ctc_" } else { "fc_" });
                let call_id = delta.id.clone().unwrap_or_default();
                let kind = Kind::Call { index: delta.index, call_id, called };
                self.items.push(Item { id, kind, text: String::new(), tokens: Vec::new(), status: Status::Begun });
                let at = self.items.len() - 1;
                self.added(at, out);
                at
            }
        };
        self.items[at].text.push_str(&delta.arguments);
        let is_custom = matches!(&self.items[at].kind, Kind::Call { called, .. } if called.is_custom);
        // The text of a tool that takes one is known when its object is whole.
        if !delta.arguments.is_empty() && !is_custom {
            self.of_item("response.function_call_arguments.delta", at, json!({"delta": delta.arguments}), out);
        }
    }

    fn added(&mut self, at: usize, out: &mut Vec<u8>) {
        let event = json!({"output_index": at, "item": self.items[at].json()});
        self.event("response.output_item.added", event, out);
    }

    fn of_item(&mut self, name: &str, at: usize, mut event: Value, out: &mut Vec<u8>) {
        event["item_id"] = self.items[at].id.as_str().into();
        event["output_index"] = at.into();
        self.event(name, event, out);
    }

    /// Ends the item that text goes on in.
    fn close(&mut self, out: &mut Vec<u8>) {
        if let Some(at) = self.open.take() {
            self.finish(at, Status::Whole, out);
        }
    }

    fn finish(&mut self, at: usize, status: Status, out: &mut Vec<u8>) {
        let item = &mut self.items[at];
        item.status = status;
        let text = item.text.clone();
        match &item.kind {
            Kind::Message => {
                let part = text_part(&text, &item.tokens);
                let event = json!({"content_index": 0, "text": text, "logprobs": part["logprobs"]});
                self.of_item("response.output_text.done", at, event, out);
                let event = json!({"content_index": 0, "part": part});
                self.of_item("response.content_part.done", at, event, out);
            }
            Kind::Reasoning(_) => {
                let event = json!({"summary_index": 0, "text": text});
                self.of_item("response.reasoning_summary_text.done", at, event, out);
                let part = json!({"type": "summary_text", "text": text});
                let event = json!({"summary_index": 0, "part": part});
                self.of_item("response.reasoning_summary_part.done", at, event, out);
            }
            Kind::Call { called, .. } if called.is_custom => {
                let input = input_of(&text);
                self.of_item("response.custom_tool_call_input.delta", at, json!({"delta": input}), out);
                self.of_item("response.custom_tool_call_input.done", at, json!({"input": input}), out);
            }
            Kind::Call { called, .. } => {
                let event = json!({"arguments": text, "name": called.name});
                self.of_item("response.function_call_arguments.done", at, event, out);
            }
        }
        let event = json!({"output_index": at, "item": self.items[at].json()});
        self.event("response.output_item.done", event, out);
    }

    fn end(&mut self, reason: StopReason, out: &mut Vec<u8>) {
        let (name, status, details) = ending(reason);
        self.open = None;
        for at in 0..self.items.len() {
            if self.items[at].status == Status::Begun {
                self.finish(at, self.last_status(at, &details), out);
            }
        }
        (self.status, self.details, self.is_over) = (status, details, true);
        let response = self.now();
        self.event(name, json!({"response": response}), out);
    }

    /// How an item ends with its answer: the last one of an answer that was cut is cut itself.
    fn last_status(&self, at: usize, incomplete: &Value) -> Status {
        if incomplete.is_null() || at + 1 < self.items.len() { Status::Whole } else { Status::Cut }
    }

    fn fail(&mut self, fault: &Fault, out: &mut Vec<u8>) {
        let name = if fault.code() == CANCELLED {
            self.status = CANCELLED;
            "response.incomplete"
        } else {
            self.status = "failed";
            self.error = json!({"code": code(fault), "message": fault.message()});
            "response.failed"
        };
        for item in self.items.iter_mut().filter(|item| item.status == Status::Begun) {
            item.status = Status::Cut;
        }
        let response = self.response();
        self.is_over = true;
        self.event(name, json!({"response": response}), out);
    }

    fn response(&self) -> Value {
        let Echo { model, max_output_tokens, temperature, top_p, parallel_tool_calls, effort, .. } = &self.echo;
        let Echo { metadata, store, background, previous, .. } = &self.echo;
        let output: Vec<_> = self.items.iter().map(Item::json).collect();
        json!({
            "id": self.id, "object": "response", "created_at": self.created_at, "status": self.status, "model": model,
            "output": output, "error": self.error, "incomplete_details": self.details, "usage": null,
            "background": background,
            "instructions": null, "max_output_tokens": max_output_tokens, "temperature": temperature,
            "top_p": top_p, "parallel_tool_calls": parallel_tool_calls.unwrap_or(true), "previous_response_id": previous,
            "reasoning": {"effort": effort, "summary": null}, "metadata": metadata, "store": store,
            "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "truncation": "disabled",
        })
    }
}

impl AnswerWriter for Script {
    fn expect(&mut self, input_tokens: u64) {
        self.counted.expect(input_tokens);
    }

    fn whole(&mut self, response: ChatResponse) -> serde_json::Result<Vec<u8>> {
        self.counted.take_whole(&response);
        let ChatResponse { text, reasoning, reasoning_parts, logprobs, tool_calls, stop_reason, .. } = response;
        // The items are those of a stream of the same pieces.
        let unread = &mut Vec::new();
        for part in &reasoning_parts {
            let Part::Reasoning { text, details } = part else { continue };
            if !text.is_empty() {
                self.say(text, true, unread);
            }
            if let Some(details) = details {
                self.details(details, unread);
            }
        }
        if reasoning_parts.is_empty() && !reasoning.is_empty() {
            self.say(&reasoning, true, unread);
        }
        if !text.is_empty() {
            self.say(&text, false, unread);
            self.likely(logprobs, unread);
        }
        for (index, ToolCall { id, name, arguments, .. }) in (0..).zip(tool_calls) {
            self.call(&ToolCallDelta { index, id: Some(id), name: Some(name), arguments }, unread);
        }
        let (_, status, details) = ending(stop_reason);
        for at in 0..self.items.len() {
            self.items[at].status = self.last_status(at, &details);
        }
        (self.status, self.details, self.is_over) = (status, details, true);
        serde_json::to_vec(&self.now())
    }

    fn items(&self, keep: &mut dyn FnMut(&Value)) {
        let may_be_kept = self.is_whole() && !self.echo.is_private;
        let is_small = |item: &&Item| item.text.len() <= MAX_ITEM && item.tokens.len() <= MAX_ITEM / TOKEN;
        self.items.iter().filter(|_| may_be_kept).filter(is_small).for_each(|item| keep(&item.json()));
    }

    fn held(&self) -> usize {
        self.held
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        for name in ["response.created", "response.in_progress"] {
            let response = self.response();
            self.event(name, json!({"response": response}), out);
        }
    }

    fn chunk(&mut self, chunk: Chunk, out: &mut Vec<u8>) {
        if self.is_over {
            return;
        }
        self.counted.take_in(&chunk);
        match chunk {
            Chunk::Text { text } => self.say(&text, false, out),
            Chunk::Reasoning { text } => self.say(&text, true, out),
            Chunk::Logprobs { tokens } => self.likely(tokens, out),
            Chunk::ReasoningDetails { details } => self.details(&details, out),
            Chunk::ToolCall(delta) => self.call(&delta, out),
            Chunk::Notice { text } if self.sequence >= self.from => comment(&text, out),
            Chunk::Done { stop_reason } => self.end(stop_reason, out),
            Chunk::Error(info) => self.fail(&info.into(), out),
            // What this format has no place for, and kinds of a later version.
            _ => {}
        }
    }

    fn tells_in_stream(&self, fault: &Fault) -> bool {
        matches!(code(fault), "context_length_exceeded" | "insufficient_quota")
    }
}

#[cfg(test)]
mod tests;
