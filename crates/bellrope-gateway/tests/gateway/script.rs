//! The event sequences of the three wire formats, as their inventors send them.

use bellrope_gateway::{Chunk, ProviderKind, StopReason, Usage};
use serde_json::{Value, json};

/// What every answer takes.
pub(crate) const USAGE: (u64, u64) = (9, 4);

/// A wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    ChatCompletions,
    Responses,
    Messages,
}

impl Format {
    pub(crate) fn kind(self) -> ProviderKind {
        match self {
            Self::ChatCompletions => ProviderKind::OpenAi,
            Self::Responses => ProviderKind::OpenAiResponses,
            Self::Messages => ProviderKind::Anthropic,
        }
    }

    /// The name under which errors know the variables.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::ChatCompletions | Self::Responses => "OPENAI",
            Self::Messages => "ANTHROPIC",
        }
    }

    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/v1/chat/completions",
            Self::Responses => "/v1/responses",
            Self::Messages => "/v1/messages",
        }
    }

    /// The body of a refusal.
    pub(crate) fn error(self, kind: &str, message: &str) -> String {
        match self {
            Self::ChatCompletions | Self::Responses => {
                json!({"error": {"message": message, "type": kind, "param": null, "code": null}})
            }
            Self::Messages => {
                json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"})
            }
        }
        .to_string()
    }

    /// A keep-alive.
    pub(crate) fn ping(self) -> &'static str {
        match self {
            Self::ChatCompletions | Self::Responses => ": keep-alive\n\n",
            Self::Messages => "event: ping\ndata: {\"type\": \"ping\"}\n\n",
        }
    }

    /// A script to be continued.
    pub(crate) fn script(self) -> Script {
        Script { format: self, out: String::new(), events: 0, block: Block::None, blocks: 0, tools: Vec::new() }
    }

    /// An answer that says `text` and ends as it should.
    pub(crate) fn answer(self, text: &str) -> String {
        self.script().text(text).stop("stop").end()
    }

    /// An answer as far as it says `text`, and no further.
    pub(crate) fn half(self, text: &str) -> String {
        self.script().text(text).out
    }
}

/// What the editor gets of [`Format::answer`].
pub(crate) fn whole(texts: &[&str]) -> Vec<Chunk> {
    let usage = Usage { input_tokens: USAGE.0, output_tokens: USAGE.1, ..Usage::default() };
    let texts = texts.iter().map(|&text| Chunk::text(text));
    texts.chain([Chunk::Usage(usage), Chunk::Done { stop_reason: StopReason::EndTurn }]).collect()
}

/// Events, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    format: Format,
    pub(crate) out: String,
    events: u64,
    /// What the last event was about.
    block: Block,
    /// Blocks or items so far.
    blocks: u64,
    /// The tools called, by the caller's number: where their blocks are.
    tools: Vec<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    None,
    Text,
    Reasoning,
}

impl Script {
    /// Says more text.
    pub(crate) fn text(mut self, text: &str) -> Self {
        self.open(Block::Text);
        let at = self.blocks.saturating_sub(1);
        match self.format {
            Format::ChatCompletions => self.delta(&json!({"content": text})),
            Format::Responses => self.event(
                "response.output_text.delta",
                json!({"item_id": "msg_1", "output_index": at, "content_index": 0, "delta": text}),
            ),
            Format::Messages => {
                self.event("content_block_delta", json!({"index": at, "delta": {"type": "text_delta", "text": text}}));
            }
        }
        self
    }

    /// Thinks aloud.
    pub(crate) fn reasoning(mut self, text: &str) -> Self {
        self.open(Block::Reasoning);
        let at = self.blocks.saturating_sub(1);
        match self.format {
            Format::ChatCompletions => self.delta(&json!({"reasoning_content": text})),
            Format::Responses => self.event(
                "response.reasoning_summary_text.delta",
                json!({"item_id": "rs_1", "output_index": at, "summary_index": 0, "delta": text}),
            ),
            Format::Messages => self.event(
                "content_block_delta",
                json!({"index": at, "delta": {"type": "thinking_delta", "thinking": text}}),
            ),
        }
        self
    }

    /// Begins the call of a tool; `number` tells calls apart.
    pub(crate) fn tool(mut self, number: u64, id: &str, name: &str) -> Self {
        self.open(Block::None);
        match self.format {
            Format::ChatCompletions => {
                let function = json!({"name": name, "arguments": ""});
                self.delta(
                    &json!({"tool_calls": [{"index": number, "id": id, "type": "function", "function": function}]}),
                );
            }
            Format::Responses => {
                let item = json!({"type": "function_call", "id": format!("fc_{id}"), "call_id": id, "name": name,
                    "arguments": "", "status": "in_progress"});
                self.event("response.output_item.added", json!({"output_index": self.blocks, "item": item}));
            }
            Format::Messages => {
                let block = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
                self.event("content_block_start", json!({"index": self.blocks, "content_block": block}));
            }
        }
        self.tools.push((number, self.blocks));
        self.blocks += 1;
        self
    }

    /// Says more of a tool's arguments.
    pub(crate) fn arguments(mut self, number: u64, json: &str) -> Self {
        let at = self.tools.iter().find(|(known, _)| *known == number).expect("a tool that was begun").1;
        match self.format {
            Format::ChatCompletions => {
                self.delta(&json!({"tool_calls": [{"index": number, "function": {"arguments": json}}]}));
            }
            Format::Responses => {
                let data = json!({"item_id": "fc", "output_index": at, "delta": json});
                self.event("response.function_call_arguments.delta", data);
            }
            Format::Messages => {
                let delta = json!({"type": "input_json_delta", "partial_json": json});
                self.event("content_block_delta", json!({"index": at, "delta": delta}));
            }
        }
        self
    }

    /// Says why it stops, where that is said before the end: `stop` or `tools`.
    pub(crate) fn stop(mut self, why: &str) -> Self {
        self.open(Block::None);
        match self.format {
            Format::ChatCompletions => {
                let reason = if why == "tools" { "tool_calls" } else { "stop" };
                self.chunk(&json!([{"index": 0, "delta": {}, "finish_reason": reason}]), &Value::Null);
                let usage = json!({"prompt_tokens": USAGE.0, "completion_tokens": USAGE.1,
                    "total_tokens": USAGE.0 + USAGE.1});
                self.chunk(&json!([]), &usage);
            }
            Format::Responses => {
                for (_, at) in self.tools.clone() {
                    let item = json!({"type": "function_call", "status": "completed"});
                    self.event("response.output_item.done", json!({"output_index": at, "item": item}));
                }
            }
            Format::Messages => {
                for (_, at) in self.tools.clone() {
                    self.event("content_block_stop", json!({"index": at}));
                }
                let reason = if why == "tools" { "tool_use" } else { "end_turn" };
                let delta = json!({"stop_reason": reason, "stop_sequence": null});
                self.event("message_delta", json!({"delta": delta, "usage": {"output_tokens": USAGE.1}}));
            }
        }
        self
    }

    /// The terminator, and all that came before.
    pub(crate) fn end(mut self) -> String {
        match self.format {
            Format::ChatCompletions => self.out.push_str("data: [DONE]\n\n"),
            Format::Responses => {
                let usage =
                    json!({"input_tokens": USAGE.0, "output_tokens": USAGE.1, "total_tokens": USAGE.0 + USAGE.1});
                let response = json!({"id": "resp_1", "status": "completed", "incomplete_details": null,
                    "output": [], "usage": usage});
                self.event("response.completed", json!({ "response": response }));
            }
            Format::Messages => self.event("message_stop", json!({})),
        }
        self.out
    }

    /// An error in the midst of the answer.
    pub(crate) fn fail(mut self, kind: &str, message: &str) -> Self {
        match self.format {
            Format::ChatCompletions => {
                let error = self.format.error(kind, message);
                self.out.push_str(&format!("data: {error}\n\n"));
            }
            Format::Responses => {
                self.event("error", json!({"code": kind, "message": message, "param": null}));
            }
            Format::Messages => {
                let error = self.format.error(kind, message);
                self.out.push_str(&format!("event: error\ndata: {error}\n\n"));
            }
        }
        self
    }

    /// All so far.
    pub(crate) fn bytes(self) -> String {
        self.out
    }

    /// Anything else.
    pub(crate) fn raw(mut self, bytes: &str) -> Self {
        self.out.push_str(bytes);
        self
    }

    /// Ends what is open and begins what comes next.
    fn open(&mut self, next: Block) {
        if self.events == 0 {
            self.begin();
        }
        if self.block == next {
            return;
        }
        let at = self.blocks.saturating_sub(1);
        match (self.format, self.block) {
            (_, Block::None) | (Format::ChatCompletions, _) => {}
            (Format::Responses, Block::Text) => {
                let item = json!({"type": "message", "id": "msg_1", "status": "completed", "role": "assistant"});
                self.event("response.content_part.done", json!({"item_id": "msg_1", "output_index": at}));
                self.event("response.output_item.done", json!({"output_index": at, "item": item}));
            }
            (Format::Responses, Block::Reasoning) => {
                let item = json!({"type": "reasoning", "id": "rs_1", "summary": []});
                self.event("response.output_item.done", json!({"output_index": at, "item": item}));
            }
            (Format::Messages, _) => self.event("content_block_stop", json!({"index": at})),
        }
        self.block = next;
        match (self.format, next) {
            (Format::ChatCompletions, _) | (_, Block::None) => return,
            (Format::Responses, Block::Text) => {
                let item = json!({"type": "message", "id": "msg_1", "status": "in_progress", "role": "assistant",
                    "content": []});
                self.event("response.output_item.added", json!({"output_index": self.blocks, "item": item}));
                let part = json!({"type": "output_text", "text": "", "annotations": []});
                self.event(
                    "response.content_part.added",
                    json!({"item_id": "msg_1", "output_index": self.blocks, "content_index": 0, "part": part}),
                );
            }
            (Format::Responses, Block::Reasoning) => {
                let item = json!({"type": "reasoning", "id": "rs_1", "summary": []});
                self.event("response.output_item.added", json!({"output_index": self.blocks, "item": item}));
            }
            (Format::Messages, Block::Text) => {
                let block = json!({"type": "text", "text": ""});
                self.event("content_block_start", json!({"index": self.blocks, "content_block": block}));
            }
            (Format::Messages, Block::Reasoning) => {
                let block = json!({"type": "thinking", "thinking": "", "signature": ""});
                self.event("content_block_start", json!({"index": self.blocks, "content_block": block}));
            }
        }
        self.blocks += 1;
    }

    /// What stands ahead of everything.
    fn begin(&mut self) {
        match self.format {
            Format::ChatCompletions => self.delta(&json!({"role": "assistant", "content": ""})),
            Format::Responses => {
                for name in ["response.created", "response.in_progress"] {
                    let response = json!({"id": "resp_1", "object": "response", "status": "in_progress",
                        "incomplete_details": null, "error": null, "output": [], "usage": null});
                    self.event(name, json!({ "response": response }));
                }
            }
            Format::Messages => {
                let usage = json!({"input_tokens": USAGE.0, "output_tokens": 1});
                let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "fake-model",
                    "content": [], "stop_reason": null, "stop_sequence": null, "usage": usage});
                self.event("message_start", json!({ "message": message }));
                self.event("ping", json!({}));
            }
        }
    }

    fn delta(&mut self, delta: &Value) {
        self.chunk(&json!([{"index": 0, "delta": delta, "finish_reason": null}]), &Value::Null);
    }

    /// A chunk of a chat completion.
    fn chunk(&mut self, choices: &Value, usage: &Value) {
        self.events += 1;
        let chunk = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000,
            "model": "fake-model", "choices": choices, "usage": usage});
        self.out.push_str(&format!("data: {chunk}\n\n"));
    }

    /// A named event.
    fn event(&mut self, name: &str, mut data: Value) {
        data["type"] = name.into();
        if self.format == Format::Responses {
            data["sequence_number"] = self.events.into();
        }
        self.events += 1;
        self.out.push_str(&format!("event: {name}\ndata: {data}\n\n"));
    }
}
