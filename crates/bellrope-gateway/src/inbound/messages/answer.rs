//! The gateway's chunks in Anthropic's form.
//!
//! Blocks come one after another, each opened when there is something in it. Pieces of calls that interleave are held until
//! the call before theirs is whole: not every tool takes blocks that are open at the same time.

use std::collections::{HashSet, VecDeque};

use serde_json::{Value, json};

use crate::error::ProviderError;
use crate::ids::plain;
use crate::inbound::counted::ToldTokens;
use crate::inbound::fault::Fault;
use crate::inbound::stamp::serial;
use crate::inbound::wholeness::Wholeness;
use crate::inbound::wire::arguments_object;
use crate::inbound::writer::{AnswerWriter, comment, named};
use crate::message::{ChatResponse, Chunk, Part, StopReason, ToolCallDelta, Usage};
use crate::provider::{MAX_ANSWER, MAX_TOOL_CALLS};

/// The most blanks that are kept until a text begins.
const MAX_BLANK: usize = 1024;

/// Writes one answer.
pub(super) struct Script {
    id: String,
    model: String,
    counted: ToldTokens,
    /// The number of the next block.
    next: usize,
    /// The text at which the answer was to end, if it is the only one: answers do not say which it was.
    stop: Option<String>,
    open: Option<Open>,
    /// Blanks that a text began with. A block of nothing else would be kept by the tool, and refused by Anthropic each time it
    /// comes back.
    blank: String,
    /// The calls that are over.
    closed: HashSet<u32>,
    /// What waits for the open call to be whole.
    held: VecDeque<Held>,
    held_bytes: usize,
    is_over: bool,
}

/// The open block.
enum Open {
    Thinking,
    Text,
    Call(u32, Wholeness),
}

/// A block that waits.
enum Held {
    Thinking(String),
    Details(Value),
    Text(String),
    Call(ToolCallDelta),
}

impl Script {
    /// An answer by `model`, as the tool calls it, that was to end at one of `stops`.
    pub(super) fn new(model: String, stops: &[String]) -> Self {
        Self {
            id: format!("msg_{}", serial()),
            model,
            stop: <&[String; 1]>::try_from(stops).ok().map(|[stop]| stop.clone()),
            counted: ToldTokens::default(),
            next: 0,
            open: None,
            blank: String::new(),
            closed: HashSet::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            is_over: false,
        }
    }

    fn text(&mut self, text: &str, out: &mut Vec<u8>) {
        if matches!(self.open, Some(Open::Text)) {
            return self.delta(&json!({"type": "text_delta", "text": text}), out);
        }
        if text.trim().is_empty() {
            // Of more than a tool could want to see the rest says no more.
            let room = MAX_BLANK.saturating_sub(self.blank.len());
            return self.blank.extend(text.chars().take(room));
        }
        let text = std::mem::take(&mut self.blank) + text;
        self.begin_block(Open::Text, &json!({"type": "text", "text": ""}), out);
        self.delta(&json!({"type": "text_delta", "text": text}), out);
    }

    fn thinking(&mut self, text: &str, out: &mut Vec<u8>) {
        if !matches!(self.open, Some(Open::Thinking)) {
            self.begin_block(Open::Thinking, &json!({"type": "thinking", "thinking": "", "signature": ""}), out);
        }
        if !text.is_empty() {
            self.delta(&json!({"type": "thinking_delta", "thinking": text}), out);
        }
    }

    /// What goes back with the reasoning. That of another format means nothing to a tool of this one.
    fn details(&mut self, details: &Value, out: &mut Vec<u8>) {
        if let Some(data) = details.get("data").and_then(Value::as_str) {
            self.close(out);
            self.whole_block(&json!({"type": "redacted_thinking", "data": data}), out);
            return;
        }
        if let Some(signature) = details.get("signature").and_then(Value::as_str) {
            self.thinking("", out);
            self.delta(&json!({"type": "signature_delta", "signature": signature}), out);
        }
        if matches!(self.open, Some(Open::Thinking)) {
            self.close(out);
        }
    }

    fn call(&mut self, delta: &ToolCallDelta, out: &mut Vec<u8>) {
        let ToolCallDelta { index, id, name, arguments } = delta;
        if !matches!(self.open, Some(Open::Call(open, _)) if open == *index) {
            let id = plain(id.as_deref().unwrap_or_default());
            let block = json!({"type": "tool_use", "id": id, "name": name.as_deref().unwrap_or_default(), "input": {}});
            self.begin_block(Open::Call(*index, Wholeness::default()), &block, out);
        }
        if let Some(Open::Call(_, wholeness)) = &mut self.open {
            wholeness.read(arguments);
        }
        if !arguments.is_empty() {
            self.delta(&json!({"type": "input_json_delta", "partial_json": arguments}), out);
        }
    }

    /// Whether the open block is a call of which more is to come, other than `index`.
    fn is_within_call(&self, index: Option<u32>) -> bool {
        matches!(&self.open, Some(Open::Call(open, wholeness)) if Some(*open) != index && !wholeness.is_whole())
    }

    fn hold(&mut self, chunk: Chunk, out: &mut Vec<u8>) {
        self.held_bytes += match &chunk {
            Chunk::Text { text } | Chunk::Reasoning { text } => text.len(),
            Chunk::ToolCall(delta) => delta.arguments.len() + 64,
            _ => 64,
        };
        if self.held_bytes > MAX_ANSWER || self.held.len() > 4 * MAX_TOOL_CALLS {
            let error = ProviderError::TooLarge { what: "the answer", limit: MAX_ANSWER };
            self.fail(&error.into(), out);
            return;
        }
        match (chunk, self.held.back_mut()) {
            (Chunk::Text { text }, Some(Held::Text(held))) => held.push_str(&text),
            (Chunk::Text { text }, _) => self.held.push_back(Held::Text(text)),
            (Chunk::Reasoning { text }, Some(Held::Thinking(held))) => held.push_str(&text),
            (Chunk::Reasoning { text }, _) => self.held.push_back(Held::Thinking(text)),
            (Chunk::ReasoningDetails { details }, _) => self.held.push_back(Held::Details(details)),
            (Chunk::ToolCall(delta), _) => self.hold_call(delta),
            _ => {}
        }
    }

    fn hold_call(&mut self, delta: ToolCallDelta) {
        let held = self.held.iter_mut().find_map(|held| match held {
            Held::Call(held) if held.index == delta.index => Some(held),
            _ => None,
        });
        match held {
            Some(held) => held.arguments.push_str(&delta.arguments),
            None => self.held.push_back(Held::Call(delta)),
        }
    }

    /// Writes what waited, up to a call that is not whole, or all of it.
    fn release(&mut self, all: bool, out: &mut Vec<u8>) {
        while all || !self.is_within_call(None) {
            let Some(held) = self.held.pop_front() else { break };
            match held {
                Held::Text(text) => self.text(&text, out),
                Held::Thinking(text) => self.thinking(&text, out),
                Held::Details(details) => self.details(&details, out),
                Held::Call(delta) => self.call(&delta, out),
            }
        }
        if self.held.is_empty() {
            self.held_bytes = 0;
        }
    }

    fn begin_block(&mut self, open: Open, block: &Value, out: &mut Vec<u8>) {
        self.close(out);
        self.blank.clear();
        let event = json!({"type": "content_block_start", "index": self.next, "content_block": block});
        named("content_block_start", &event, out);
        self.open = Some(open);
    }

    fn delta(&self, delta: &Value, out: &mut Vec<u8>) {
        let event = json!({"type": "content_block_delta", "index": self.next, "delta": delta});
        named("content_block_delta", &event, out);
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        let Some(open) = self.open.take() else { return };
        if let Open::Call(index, _) = open {
            self.closed.insert(index);
        }
        named("content_block_stop", &json!({"type": "content_block_stop", "index": self.next}), out);
        self.next += 1;
    }

    fn whole_block(&mut self, block: &Value, out: &mut Vec<u8>) {
        self.begin_block(Open::Text, block, out);
        self.close(out);
    }

    fn end(&mut self, reason: StopReason, out: &mut Vec<u8>) {
        self.release(true, out);
        self.close(out);
        let delta = json!({"stop_reason": stop_reason(reason), "stop_sequence": self.stop_at(reason)});
        let event = json!({"type": "message_delta", "delta": delta, "usage": counts(&self.counted.all())});
        named("message_delta", &event, out);
        named("message_stop", &json!({"type": "message_stop"}), out);
        self.is_over = true;
    }

    fn fail(&mut self, fault: &Fault, out: &mut Vec<u8>) {
        named("error", &fault.anthropic(), out);
        self.is_over = true;
    }

    /// The text that ended the answer, as far as that is known.
    fn stop_at(&self, reason: StopReason) -> Option<&str> {
        self.stop.as_deref().filter(|_| reason == StopReason::StopSequence)
    }

    fn message(&self, content: &[Value], reason: Option<StopReason>, usage: &Value) -> Value {
        json!({
            "id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": content,
            "stop_reason": reason.map(stop_reason), "stop_sequence": reason.and_then(|reason| self.stop_at(reason)),
            "usage": usage,
        })
    }
}

impl AnswerWriter for Script {
    fn expect(&mut self, input_tokens: u64) {
        self.counted.expect(input_tokens);
    }

    fn whole(&mut self, response: ChatResponse) -> serde_json::Result<Vec<u8>> {
        self.counted.take_whole(&response);
        let ChatResponse { text, reasoning, reasoning_parts, tool_calls, stop_reason: reason, .. } = response;
        let mut content: Vec<_> = reasoning_parts.iter().filter_map(thought).collect();
        if content.is_empty() && !reasoning.is_empty() {
            content.push(json!({"type": "thinking", "thinking": reasoning, "signature": ""}));
        }
        if !text.trim().is_empty() {
            content.push(json!({"type": "text", "text": text}));
        }
        content.extend(tool_calls.iter().map(|call| {
            json!({"type": "tool_use", "id": plain(&call.id), "name": call.name, "input": arguments_object(&call.arguments)})
        }));
        serde_json::to_vec(&self.message(&content, Some(reason), &counts(&self.counted.all())))
    }

    fn held(&self) -> usize {
        self.held_bytes
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        let usage = counts(&Usage { input_tokens: self.counted.expected(), ..Usage::default() });
        let event = json!({"type": "message_start", "message": self.message(&[], None, &usage)});
        named("message_start", &event, out);
    }

    fn chunk(&mut self, chunk: Chunk, out: &mut Vec<u8>) {
        if self.is_over {
            return;
        }
        self.counted.take_in(&chunk);
        match chunk {
            Chunk::Notice { text } => comment(&text, out),
            Chunk::Done { stop_reason } => self.end(stop_reason, out),
            Chunk::Error(info) => self.fail(&info.into(), out),
            // More of a call that is whole says nothing.
            Chunk::ToolCall(delta) if self.closed.contains(&delta.index) => {}
            Chunk::ToolCall(delta) if self.is_within_call(Some(delta.index)) => self.hold(Chunk::ToolCall(delta), out),
            Chunk::ToolCall(delta) => {
                self.call(&delta, out);
                self.release(false, out);
            }
            chunk if self.is_within_call(None) => self.hold(chunk, out),
            Chunk::Text { text } => self.text(&text, out),
            Chunk::Reasoning { text } => self.thinking(&text, out),
            Chunk::ReasoningDetails { details } => self.details(&details, out),
            // What this format has no place for, and kinds of a later version.
            _ => {}
        }
    }

    fn ping(&mut self, out: &mut Vec<u8>) {
        named("ping", &json!({"type": "ping"}), out);
    }
}

/// A part of the reasoning as a block.
fn thought(part: &Part) -> Option<Value> {
    let Part::Reasoning { text, details } = part else { return None };
    let detail = |name: &str| details.as_ref()?.get(name)?.as_str();
    if let Some(data) = detail("data") {
        return Some(json!({"type": "redacted_thinking", "data": data}));
    }
    let signature = detail("signature").unwrap_or_default();
    (!text.is_empty() || !signature.is_empty())
        .then(|| json!({"type": "thinking", "thinking": text, "signature": signature}))
}

fn stop_reason(reason: StopReason) -> &'static str {
    match reason {
        StopReason::StopSequence => "stop_sequence",
        StopReason::MaxTokens => "max_tokens",
        StopReason::ContextWindow => "model_context_window_exceeded",
        StopReason::ToolUse => "tool_use",
        StopReason::Refusal | StopReason::ContentFilter => "refusal",
        StopReason::PauseTurn => "pause_turn",
        StopReason::EndTurn | StopReason::Other => "end_turn",
    }
}

/// What an answer took: here what came from the cache, or went into it, is no part of the input.
fn counts(usage: &Usage) -> Value {
    let (read, written) = (usage.cache_read_tokens.unwrap_or(0), usage.cache_write_tokens.unwrap_or(0));
    json!({
        "input_tokens": usage.input_tokens.saturating_sub(read).saturating_sub(written),
        "output_tokens": usage.output_tokens,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
    })
}

#[cfg(test)]
mod tests;
