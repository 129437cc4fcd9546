//! A provider that speaks one of the three wire formats, and answers by a script that knows none of them.

use std::{io::Write, net::TcpStream, sync::Arc};

use serde_json::{Value, json};

use crate::provider::{Provider, say};

/// A wire format of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    ChatCompletions,
    Responses,
    Messages,
}

/// What the model says next.
pub(crate) enum Said {
    Text(&'static str),
    /// A call of a tool, with its arguments.
    Call(String, Value),
}

/// What a script sees of a request.
pub(crate) struct Asked<'a> {
    /// The names of the tools that it offers.
    pub(crate) tools: Vec<&'a str>,
    /// What the last call of a tool gave, as JSON.
    pub(crate) result: Option<String>,
}

impl Wire {
    /// Its kind in the settings of a provider.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::ChatCompletions => "openai",
            Self::Responses => "openai-responses",
            Self::Messages => "anthropic",
        }
    }

    /// A provider that answers by this script.
    pub(crate) fn provider(self, script: fn(&Asked<'_>) -> Said) -> Provider {
        Provider::start(Arc::new(move |body, stream| {
            let said = script(&self.asked(body));
            match self {
                Self::ChatCompletions => chat_completions(stream, said),
                Self::Responses => responses(stream, said),
                Self::Messages => messages(stream, said),
            }
        }))
    }

    /// What a request of this format asks.
    pub(crate) fn asked(self, body: &Value) -> Asked<'_> {
        let tools = body["tools"].as_array().into_iter().flatten();
        let names = tools.filter_map(|tool| match self {
            Self::ChatCompletions => tool["function"]["name"].as_str(),
            Self::Responses | Self::Messages => tool["name"].as_str(),
        });
        let all = |field: &str| body[field].as_array().cloned().unwrap_or_default();
        let results: Vec<Value> = match self {
            Self::ChatCompletions => all("messages").into_iter().filter(|message| message["role"] == "tool").collect(),
            Self::Responses => all("input").into_iter().filter(|item| item["type"] == "function_call_output").collect(),
            Self::Messages => {
                let parts = |message: Value| message["content"].as_array().cloned().unwrap_or_default();
                all("messages").into_iter().flat_map(parts).filter(|part| part["type"] == "tool_result").collect()
            }
        };
        Asked { tools: names.collect(), result: results.last().map(Value::to_string) }
    }
}

fn chat_completions(stream: &mut TcpStream, said: Said) {
    let mut chunk = |delta: Value, reason: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": reason});
        say(
            stream,
            &json!({"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}).to_string(),
        );
    };
    match said {
        Said::Text(text) => chunk(json!({ "content": text }), json!("stop")),
        Said::Call(name, arguments) => {
            let arguments = arguments.to_string();
            let (begun, rest) = arguments.split_at(arguments.len() / 2);
            let function = json!({"name": name, "arguments": begun});
            let call = json!({"index": 0, "id": "call:1", "type": "function", "function": function});
            chunk(json!({"tool_calls": [call]}), Value::Null);
            let more = json!({"index": 0, "function": {"arguments": rest}});
            chunk(json!({"tool_calls": [more]}), json!("tool_calls"));
        }
    }
    say(stream, &json!({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}).to_string());
    say(stream, "[DONE]");
}

/// An event whose name is the type of its data.
fn event(stream: &mut TcpStream, data: &Value) {
    let name = data["type"].as_str().unwrap();
    // That nobody reads any more is no fault of a test.
    let _ = write!(stream, "event: {name}\ndata: {data}\n\n");
}

fn responses(stream: &mut TcpStream, said: Said) {
    let response = |status: &str, output: &[Value]| {
        let usage = json!({"input_tokens": 5, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 7,
            "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 12});
        json!({"id": "resp_1", "object": "response", "created_at": 1, "status": status, "model": "m", "output": output,
            "usage": if output.is_empty() { Value::Null } else { usage }})
    };
    let mut number = 0;
    let mut next = |kind: &str, mut fields: Value| {
        fields["type"] = json!(kind);
        fields["sequence_number"] = json!(number);
        number += 1;
        event(stream, &fields);
    };
    next("response.created", json!({"response": response("in_progress", &[])}));
    let item = match said {
        Said::Text(text) => {
            let begun =
                json!({"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []});
            next("response.output_item.added", json!({"output_index": 0, "item": begun}));
            let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": []});
            let at = json!({"item_id": "msg_1", "output_index": 0, "content_index": 0});
            let with = |name: &str, value: Value| {
                let mut at = at.clone();
                at[name] = value;
                at
            };
            next("response.content_part.added", with("part", part("")));
            next("response.output_text.delta", with("delta", json!(text)));
            next("response.output_text.done", with("text", json!(text)));
            next("response.content_part.done", with("part", part(text)));
            json!({"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part(text)]})
        }
        Said::Call(name, arguments) => {
            let call = |arguments: &str, status: &str| {
                json!({"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": name, "arguments": arguments,
                    "status": status})
            };
            let arguments = arguments.to_string();
            next("response.output_item.added", json!({"output_index": 0, "item": call("", "in_progress")}));
            let at = json!({"item_id": "fc_1", "output_index": 0, "delta": arguments});
            next("response.function_call_arguments.delta", at);
            let at = json!({"item_id": "fc_1", "output_index": 0, "arguments": arguments});
            next("response.function_call_arguments.done", at);
            call(&arguments, "completed")
        }
    };
    next("response.output_item.done", json!({"output_index": 0, "item": item}));
    next("response.completed", json!({"response": response("completed", &[item])}));
}

fn messages(stream: &mut TcpStream, said: Said) {
    let usage = json!({"input_tokens": 5, "output_tokens": 1});
    let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": usage});
    let (block, delta, reason) = match said {
        Said::Text(text) => {
            (json!({"type": "text", "text": ""}), json!({"type": "text_delta", "text": text}), "end_turn")
        }
        Said::Call(name, arguments) => (
            json!({"type": "tool_use", "id": "toolu_1", "name": name, "input": {}}),
            json!({"type": "input_json_delta", "partial_json": arguments.to_string()}),
            "tool_use",
        ),
    };
    event(stream, &json!({"type": "message_start", "message": message}));
    event(stream, &json!({"type": "content_block_start", "index": 0, "content_block": block}));
    event(stream, &json!({"type": "ping"}));
    event(stream, &json!({"type": "content_block_delta", "index": 0, "delta": delta}));
    event(stream, &json!({"type": "content_block_stop", "index": 0}));
    let delta = json!({"stop_reason": reason, "stop_sequence": null});
    event(stream, &json!({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 7}}));
    event(stream, &json!({"type": "message_stop"}));
}
