//! Tools that ask in one format, and providers that answer in another: every pair of them, streamed and whole.

use std::sync::Arc;

use bellrope_gateway::inbound::{Asked, ToolFormat, embedding_request};
use bellrope_gateway::{Chunk, Gateway, GatewaySettings, HttpProvider, ProviderConfig};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::fake::{Fake, soon};
use crate::script::{Format, USAGE};

pub(crate) const PROVIDERS: [Format; 3] = [Format::ChatCompletions, Format::Responses, Format::Messages];
pub(crate) const TOOLS: [ToolFormat; 3] = [ToolFormat::ChatCompletions, ToolFormat::Responses, ToolFormat::Messages];

/// A gateway whose only real provider is this one.
pub(crate) fn gateway(fake: &Fake, format: Format, config: ProviderConfig) -> Gateway {
    let config = ProviderConfig { kind: Some(format.kind()), base_url: fake.url(), ..config };
    Gateway::new(Arc::new(HttpProvider::new(config).unwrap()))
}

pub(crate) fn read(format: ToolFormat, body: &Value) -> Asked {
    format.read(body.to_string().as_bytes(), &[]).unwrap_or_else(|fault| panic!("{format:?}: {fault}"))
}

/// A question in a tool's format, with a tool to call.
pub(crate) fn question(format: ToolFormat) -> Value {
    let schema = json!({"type": "object", "properties": {"at": {"type": "number"}}});
    match format {
        ToolFormat::Responses => json!({
            "model": "m", "instructions": "Be brief.", "input": [{"role": "user", "content": "Look."}],
            "tools": [{"type": "function", "name": "look", "parameters": schema}],
        }),
        ToolFormat::Messages => json!({
            "model": "m", "max_tokens": 100, "system": "Be brief.", "messages": [{"role": "user", "content": "Look."}],
            "tools": [{"name": "look", "input_schema": schema}],
        }),
        _ => json!({
            "model": "m", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Look."}],
            "tools": [{"type": "function", "function": {"name": "look", "parameters": schema}}],
        }),
    }
}

/// What an answer says, whatever its format.
#[derive(Debug, PartialEq, Default)]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) reasoning: String,
    /// Id, name and arguments.
    pub(crate) calls: Vec<(String, String, Value)>,
    reason: String,
    tokens: (u64, u64),
}

impl Said {
    pub(crate) fn reason(&self) -> &str {
        &self.reason
    }

    fn call(&mut self, id: &Value, name: &Value, arguments: Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.calls.push((text(id), text(name), arguments));
    }

    pub(crate) fn in_whole(format: ToolFormat, answer: &Value) -> Self {
        let mut said = Self::default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let parsed = |value: &Value| serde_json::from_str(value.as_str().unwrap()).unwrap();
        match format {
            ToolFormat::Responses => {
                for item in answer["output"].as_array().unwrap() {
                    match item["type"].as_str().unwrap() {
                        "message" => said.text.push_str(&text(&item["content"][0]["text"])),
                        "reasoning" => said.reasoning.push_str(&text(&item["summary"][0]["text"])),
                        _ => said.call(&item["call_id"], &item["name"], parsed(&item["arguments"])),
                    }
                }
                said.reason = text(&answer["status"]);
                said.tokens = (number(&answer["usage"]["input_tokens"]), number(&answer["usage"]["output_tokens"]));
            }
            ToolFormat::Messages => {
                for block in answer["content"].as_array().unwrap() {
                    match block["type"].as_str().unwrap() {
                        "text" => said.text.push_str(&text(&block["text"])),
                        "thinking" => said.reasoning.push_str(&text(&block["thinking"])),
                        _ => said.call(&block["id"], &block["name"], block["input"].clone()),
                    }
                }
                said.reason = text(&answer["stop_reason"]);
                said.tokens = (number(&answer["usage"]["input_tokens"]), number(&answer["usage"]["output_tokens"]));
            }
            _ => {
                let choice = &answer["choices"][0];
                said.text = text(&choice["message"]["content"]);
                said.reasoning = text(&choice["message"]["reasoning_content"]);
                for call in choice["message"]["tool_calls"].as_array().into_iter().flatten() {
                    said.call(&call["id"], &call["function"]["name"], parsed(&call["function"]["arguments"]));
                }
                said.reason = text(&choice["finish_reason"]);
                said.tokens =
                    (number(&answer["usage"]["prompt_tokens"]), number(&answer["usage"]["completion_tokens"]));
            }
        }
        said
    }

    /// What the events of a stream say, as a tool puts them together.
    pub(crate) fn in_stream(format: ToolFormat, text: &str) -> Self {
        let events = text.split_terminator("\n\n").filter(|event| !event.starts_with(':'));
        let events = events.map(|event| event.split_once("data: ").unwrap().1).filter(|data| *data != "[DONE]");
        let events: Vec<Value> = events.map(|data| serde_json::from_str(data).unwrap()).collect();
        match format {
            // Its last event has all of it.
            ToolFormat::Responses => Self::in_whole(format, &events.last().unwrap()["response"]),
            ToolFormat::Messages => {
                let mut content: Vec<Value> = Vec::new();
                let mut arguments = String::new();
                for event in &events {
                    let Some(index) = event["index"].as_u64() else { continue };
                    let delta = &event["delta"];
                    match event["type"].as_str().unwrap() {
                        "content_block_start" => {
                            assert_eq!(index as usize, content.len());
                            content.push(event["content_block"].clone());
                            arguments.clear();
                        }
                        "content_block_stop" if content[index as usize]["type"] == "tool_use" => {
                            content[index as usize]["input"] = serde_json::from_str(&arguments).unwrap();
                        }
                        "content_block_stop" => {}
                        _ if delta["type"] == "input_json_delta" => {
                            arguments.push_str(delta["partial_json"].as_str().unwrap());
                        }
                        _ => {
                            let field = if delta["type"] == "text_delta" { "text" } else { "thinking" };
                            let block = &mut content[index as usize];
                            let more = block[field].as_str().unwrap().to_owned() + delta[field].as_str().unwrap();
                            block[field] = more.into();
                        }
                    }
                }
                let delta = &events[events.len() - 2];
                let whole =
                    json!({"content": content, "stop_reason": delta["delta"]["stop_reason"], "usage": delta["usage"]});
                Self::in_whole(format, &whole)
            }
            _ => {
                let (mut message, mut calls) = (json!({"content": "", "reasoning_content": ""}), Vec::<Value>::new());
                let mut reason = Value::Null;
                for choice in events.iter().map(|event| &event["choices"][0]).filter(|choice| choice.is_object()) {
                    let delta = &choice["delta"];
                    for field in ["content", "reasoning_content"] {
                        let more = delta[field].as_str().unwrap_or_default();
                        message[field] = (message[field].as_str().unwrap().to_owned() + more).into();
                    }
                    for call in delta["tool_calls"].as_array().into_iter().flatten() {
                        let at = call["index"].as_u64().unwrap() as usize;
                        if at == calls.len() {
                            calls.push(call.clone());
                            continue;
                        }
                        let function = &mut calls[at]["function"];
                        let more = call["function"]["arguments"].as_str().unwrap();
                        function["arguments"] = (function["arguments"].as_str().unwrap().to_owned() + more).into();
                    }
                    if !choice["finish_reason"].is_null() {
                        reason = choice["finish_reason"].clone();
                    }
                }
                message["tool_calls"] = calls.into();
                let usage = events.last().unwrap()["usage"].clone();
                let whole = json!({"choices": [{"message": message, "finish_reason": reason}], "usage": usage});
                Self::in_whole(format, &whole)
            }
        }
    }
}

/// The whole stream of an answer.
pub(crate) async fn streamed(gateway: &Gateway, asked: Asked) -> String {
    let Asked { chat, mut writer, .. } = asked;
    let mut pieces = gateway.chat_stream(chat);
    let mut out = Vec::new();
    writer.begin(&mut out);
    while let Some(piece) = soon(pieces.next()).await {
        writer.chunk(piece.chunk, &mut out);
    }
    String::from_utf8(out).unwrap()
}

pub(crate) async fn whole(gateway: &Gateway, asked: Asked) -> Value {
    let Asked { chat, mut writer, .. } = asked;
    let response = soon(gateway.chat(chat)).await.unwrap();
    serde_json::from_slice(&writer.whole(response).unwrap()).unwrap()
}

/// The word for a reason to stop in a tool's format.
fn word(format: ToolFormat, reason: &str) -> String {
    let words = match reason {
        "tools" => ["tool_calls", "completed", "tool_use"],
        _ => ["stop", "completed", "end_turn"],
    };
    words[TOOLS.iter().position(|tool| *tool == format).unwrap()].to_owned()
}

#[tokio::test]
async fn every_tool_gets_of_every_provider_what_it_says_thinks_and_calls() {
    for provider in PROVIDERS {
        for reason in ["tools", "stop"] {
            let mut script = provider.script().reasoning("hm").text("I lo").text("ok.");
            if reason == "tools" {
                script = script.tool(0, "c1", "look").arguments(0, "{\"at\"").arguments(0, ":1}");
                script = script.tool(1, "c2", "look").arguments(1, "{}");
            }
            let answer = script.stop(reason).end();
            let fake = Fake::streaming([&*answer]).await;
            let gateway = gateway(&fake, provider, fake.config(provider));
            for tool in TOOLS {
                let mut question = question(tool);
                if tool == ToolFormat::ChatCompletions {
                    question["stream_options"] = json!({"include_usage": true});
                }
                let call = |id: &str, arguments| (id.to_owned(), "look".to_owned(), arguments);
                let calls = match reason {
                    "tools" => vec![call("c1", json!({"at": 1})), call("c2", json!({}))],
                    _ => Vec::new(),
                };
                let expected = Said {
                    text: "I look.".into(),
                    reasoning: "hm".into(),
                    calls,
                    reason: word(tool, reason),
                    tokens: USAGE,
                };
                let stream = streamed(&gateway, read(tool, &question)).await;
                assert_eq!(Said::in_stream(tool, &stream), expected, "{tool:?} of {provider:?}: {stream}");
                let answer = whole(&gateway, read(tool, &question)).await;
                assert_eq!(Said::in_whole(tool, &answer), expected, "{tool:?} of {provider:?}: {answer}");
            }
        }
    }
}

#[tokio::test]
async fn what_a_provider_signs_goes_back_to_it_as_it_came() {
    let thought = r#"event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"c2ln"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"c1","name":"look","input":{}}}

event: content_block_stop
data: {"type":"content_block_stop","index":1}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":4}}

event: message_stop
data: {"type":"message_stop"}

"#;
    let fake = Fake::streaming([thought]).await;
    let gateway = gateway(&fake, Format::Messages, fake.config(Format::Messages));
    let mut question = question(ToolFormat::Messages);
    question["thinking"] = json!({"type": "enabled", "budget_tokens": 1024});
    question["max_tokens"] = json!(4_096);
    let answer = whole(&gateway, read(ToolFormat::Messages, &question)).await;
    let content = json!([
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "tool_use", "id": "c1", "name": "look", "input": {}},
    ]);
    assert_eq!(answer["content"], content);
    let result =
        json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "a bell"}]});
    let messages = question["messages"].as_array_mut().unwrap();
    messages.extend([json!({"role": "assistant", "content": content}), result.clone()]);
    whole(&gateway, read(ToolFormat::Messages, &question)).await;
    let sent: Value = serde_json::from_str(&fake.requests().last().unwrap().body).unwrap();
    assert_eq!((&sent["messages"][1]["content"], &sent["messages"][2]), (&content, &result));
    assert_eq!(sent["thinking"], question["thinking"]);
}

#[tokio::test]
async fn an_answer_that_breaks_off_has_one_end_which_is_an_error() {
    for provider in PROVIDERS {
        let fake = Fake::streaming([&*provider.half("I lo")]).await;
        let gateway = gateway(&fake, provider, ProviderConfig { max_retries: 0, ..fake.config(provider) });
        for (tool, end) in TOOLS.into_iter().zip(["data: {\"error\":", "event: response.failed", "event: error"]) {
            let stream = streamed(&gateway, read(tool, &question(tool))).await;
            assert_eq!(stream.matches(end).count(), 1, "{stream}");
            for whole in ["[DONE]", "response.completed", "message_stop"] {
                assert!(!stream.contains(whole), "{tool:?} of {provider:?}: {stream}");
            }
        }
    }
}

#[tokio::test]
async fn a_prompt_is_continued_where_the_provider_speaks_completions_and_refused_in_words_elsewhere() {
    let answer = "data: {\"choices\":[{\"index\":0,\"text\":\"x: \",\"finish_reason\":null}]}\n\n\
                  data: {\"choices\":[{\"index\":0,\"text\":\"i32\",\"finish_reason\":\"stop\"}],\
                  \"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4}}\n\ndata: [DONE]\n\n";
    let request = json!({"model": "m", "prompt": "fn a(", "suffix": ") {}", "max_tokens": 9, "seed": 7});
    for provider in PROVIDERS {
        let fake = Fake::streaming([answer]).await;
        let gateway = gateway(&fake, provider, fake.config(provider));
        let Asked { chat, mut writer, .. } = read(ToolFormat::Completions, &request);
        let outcome = soon(gateway.chat(chat)).await;
        if provider != Format::ChatCompletions {
            let error = outcome.unwrap_err();
            assert_eq!((error.code(), fake.requests().len()), ("invalid_request", 0));
            assert!(error.to_string().contains("continues no prompt"), "{error}");
            continue;
        }
        let whole: Value = serde_json::from_slice(&writer.whole(outcome.unwrap()).unwrap()).unwrap();
        assert_eq!((&whole["choices"][0]["text"], &whole["usage"]["total_tokens"]), (&json!("x: i32"), &json!(13)));
        let sent = fake.requests().pop().unwrap();
        assert!(sent.head.starts_with("POST /v1/completions "), "{}", sent.head);
        let expected = json!({
            "model": "m", "prompt": "fn a(", "suffix": ") {}", "max_tokens": 9, "seed": 7,
            "stream": true, "stream_options": {"include_usage": true},
        });
        assert_eq!(serde_json::from_str::<Value>(&sent.body).unwrap(), expected);
        let stream = streamed(&gateway, read(ToolFormat::Completions, &request)).await;
        assert!(stream.contains("\"text\":\"x: \"") && stream.ends_with("data: [DONE]\n\n"), "{stream}");
    }
}

#[tokio::test]
async fn tokens_are_counted_by_the_provider_that_can_and_a_failure_of_it_harms_nobody() {
    for (status, body, expected) in [
        ("200 OK", "{\"input_tokens\":42}", Some(42)),
        ("404 Not Found", "{\"type\":\"error\",\"error\":{\"type\":\"not_found_error\",\"message\":\"no\"}}", None),
        ("200 OK", "{}", None),
    ] {
        let fake = Fake::start(move |_, mut peer| async move {
            peer.reply(status, "content-type: application/json\r\n", body).await;
        })
        .await;
        let gateway =
            gateway(&fake, Format::Messages, ProviderConfig { max_retries: 0, ..fake.config(Format::Messages) });
        let asked = read(ToolFormat::Messages, &question(ToolFormat::Messages));
        assert_eq!(soon(gateway.count_tokens(asked.chat)).await.unwrap(), expected);
        let sent = fake.requests().pop().unwrap();
        assert!(sent.head.starts_with("POST /v1/messages/count_tokens "), "{}", sent.head);
        let sent: Value = serde_json::from_str(&sent.body).unwrap();
        assert!(sent["tools"].is_array() && sent["system"].is_string() && sent["messages"].is_array(), "{sent}");
        assert!(sent.get("max_tokens").is_none() && sent.get("stream").is_none(), "{sent}");
        let snapshot = gateway.snapshot();
        let failed: u64 = snapshot.providers[0].failed.iter().map(|(_, count)| count).sum();
        assert_eq!((snapshot.providers[0].requests, failed), (0, 0));
    }
    let fake = Fake::streaming([""]).await;
    let gateway = gateway(&fake, Format::Responses, fake.config(Format::Responses));
    let asked = read(ToolFormat::Messages, &question(ToolFormat::Messages));
    assert_eq!((soon(gateway.count_tokens(asked.chat)).await.unwrap(), fake.requests().len()), (None, 0));
}

#[tokio::test]
async fn vectors_come_from_providers_of_openais_format_and_are_refused_in_words_elsewhere() {
    let body = "{\"object\":\"list\",\"data\":[{\"index\":0,\"embedding\":[1.0]}]}";
    for provider in PROVIDERS {
        let fake = Fake::start(move |_, mut peer| async move {
            peer.reply("200 OK", "content-type: application/json\r\n", body).await;
        })
        .await;
        let gateway = gateway(&fake, provider, fake.config(provider));
        let request = json!({"model": "v", "input": "Hi", "dimensions": 3});
        let (request, _) = embedding_request(request.to_string().as_bytes(), &[]).unwrap();
        let outcome = soon(gateway.embed(request)).await;
        if provider == Format::Messages {
            let error = outcome.unwrap_err();
            assert!(error.to_string().contains("no embeddings"), "{error}");
            continue;
        }
        assert_eq!(outcome.unwrap(), body.as_bytes());
        let sent = fake.requests().pop().unwrap();
        assert!(sent.head.starts_with("POST /v1/embeddings "), "{}", sent.head);
        let sent: Value = serde_json::from_str(&sent.body).unwrap();
        assert_eq!(sent, json!({"model": "v", "input": "Hi", "dimensions": 3}));
        assert_eq!(gateway.snapshot().providers[0].done, 1);
    }
    let embedded = Gateway::from_settings_and_vars(GatewaySettings::default(), |_| None).unwrap();
    let (request, _) = embedding_request(b"{\"input\":\"Hi\"}", &[]).unwrap();
    assert!(embedded.embed(request).await.unwrap_err().to_string().contains("`embedded` has no embeddings"));
}

#[tokio::test]
async fn an_error_in_the_place_of_vectors_is_one() {
    for (body, code, words) in [
        (r#"{"error":{"message":"boom","code":429}}"#, "rate_limited", "boom"),
        (r#"{"data":[],"error":"boom"}"#, "provider_error", "boom"),
        ("<html><body>Not here</body></html>", "malformed", "expected value"),
        (r#"{"data":[{"index":0,"embedding":[0.1"#, "truncated", "cut off"),
        (r#"{"data":[{"index":0,"embedding":[NaN]}]}"#, "malformed", ""),
        (r#"{"data":[{"index":0,"embedding":[1.0]},{"index":1,"embedding":[1.0]}]}"#, "malformed", "2 vectors came"),
    ] {
        let fake = Fake::replying("200 OK", "content-type: application/json\r\n", body).await;
        let gateway = gateway(&fake, Format::ChatCompletions, fake.config(Format::ChatCompletions));
        let (request, _) = embedding_request(b"{\"input\":\"Hi\"}", &[]).unwrap();
        let error = soon(gateway.embed(request)).await.unwrap_err();
        assert!(error.code() == code && error.to_string().contains(words), "{body}: {error}");
        assert_eq!(gateway.snapshot().providers[0].done, 0, "{body}");
    }
}

#[tokio::test]
async fn a_note_is_a_comment_that_no_tool_reads() {
    for tool in TOOLS {
        let mut writer = read(tool, &question(tool)).writer;
        let mut out = Vec::new();
        writer.begin(&mut out);
        let before = out.len();
        writer.chunk(Chunk::Notice { text: "a\nnote".into() }, &mut out);
        writer.chunk(Chunk::Unknown, &mut out);
        assert_eq!(&out[before..], b": a note\n\n");
    }
}
