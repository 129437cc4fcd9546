//! What models think before they call tools, which goes back to their providers whatever the tool's format.

use bellrope_gateway::ProviderConfig;
use bellrope_gateway::inbound::{Asked, ToolFormat};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::fake::{Fake, soon};
use crate::script::Format;
use crate::tools::{gateway, question, read};

/// What a provider such as `OpenRouter` says of thoughts that are signed, and of some that are encrypted.
fn details() -> [Value; 2] {
    [
        json!({"type": "reasoning.text", "text": "I have to look.", "signature": "c2ln", "format": "anthropic-claude-v1", "index": 0}),
        json!({"type": "reasoning.encrypted", "data": "eA==", "id": "rs_1", "format": "openai-responses-v1", "index": 1}),
    ]
}

/// An answer with them that calls a tool, in pieces. `is_late`: what is encrypted comes behind the call.
fn answer(is_late: bool) -> String {
    let [mut signed, encrypted] = details();
    let mut half = signed.clone();
    (half["text"], signed["text"]) = (json!("I have "), json!("to look."));
    half.as_object_mut().unwrap().remove("signature");
    let call = json!({"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}});
    let mut deltas = vec![
        json!({"reasoning": "I have ", "reasoning_details": [half]}),
        json!({"reasoning": "to look.", "reasoning_details": [signed]}),
        json!({"content": "", "reasoning_details": [encrypted]}),
        json!({"content": "Well."}),
        json!({"tool_calls": [call]}),
    ];
    if is_late {
        let encrypted = deltas.remove(2);
        deltas.push(encrypted);
    }
    let event = |delta: &Value| format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": delta}]}));
    let end = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]});
    format!("{}data: {end}\n\ndata: [DONE]\n\n", deltas.iter().map(event).collect::<String>())
}

/// The question once more, with the answer as the tool has it, and the result of the call.
fn next_turn(format: ToolFormat, answer: &Value) -> Value {
    let mut next = question(format);
    let mut add = |field: &str, more: Vec<Value>| next[field].as_array_mut().unwrap().extend(more);
    match format {
        ToolFormat::Responses => {
            let mut items = answer["output"].as_array().unwrap().clone();
            items.push(json!({"type": "function_call_output", "call_id": "c1", "output": "a bell"}));
            add("input", items);
        }
        ToolFormat::Messages => {
            let result = json!([{"type": "tool_result", "tool_use_id": "c1", "content": "a bell"}]);
            let said = json!({"role": "assistant", "content": answer["content"]});
            add("messages", vec![said, json!({"role": "user", "content": result})]);
        }
        _ => {
            let result = json!({"role": "tool", "tool_call_id": "c1", "content": "a bell"});
            add("messages", vec![answer["choices"][0]["message"].clone(), result]);
        }
    }
    next
}

#[tokio::test]
async fn what_is_signed_or_encrypted_of_thoughts_reaches_every_tool_and_goes_back_as_it_was() {
    for format in [ToolFormat::ChatCompletions, ToolFormat::Messages, ToolFormat::Responses] {
        for is_late in [false, true] {
            let fake = Fake::streaming([&*answer(is_late)]).await;
            let gateway = gateway(&fake, Format::ChatCompletions, fake.config(Format::ChatCompletions));
            let Asked { chat, mut writer, .. } = read(format, &question(format));
            let response = soon(gateway.chat(chat)).await.unwrap();
            assert_eq!((&*response.reasoning, &*response.notes), ("I have to look.", &[][..]));
            let whole: Value = serde_json::from_slice(&writer.whole(response).unwrap()).unwrap();
            match format {
                ToolFormat::Messages => {
                    let thought = json!({"type": "thinking", "thinking": "I have to look.", "signature": "c2ln"});
                    let hidden = json!({"type": "redacted_thinking", "data": "eA=="});
                    assert_eq!([&whole["content"][0], &whole["content"][1]], [&thought, &hidden]);
                }
                ToolFormat::Responses => {
                    let sealed = [0, 1].map(|at| whole["output"][at]["encrypted_content"].clone());
                    assert_eq!(sealed, ["c2ln", "eA=="]);
                }
                _ => assert_eq!(whole["choices"][0]["message"]["reasoning_details"], json!(details())),
            }
            // A tool that keeps nothing of thoughts gets them back all the same.
            let mut without = whole.clone();
            match format {
                ToolFormat::Messages => {
                    without["content"].as_array_mut().unwrap().retain(|block| block["type"] == "tool_use");
                }
                ToolFormat::Responses => {
                    without["output"].as_array_mut().unwrap().retain(|item| item["type"] == "function_call");
                }
                _ => {
                    let message = without["choices"][0]["message"].as_object_mut().unwrap();
                    message.retain(|name, _| !name.starts_with("reasoning"));
                }
            }
            for answer in [&whole, &without] {
                soon(gateway.chat(read(format, &next_turn(format, answer)).chat)).await.unwrap();
                let sent: Value = serde_json::from_str(&fake.requests().pop().unwrap().body).unwrap();
                let message = &sent["messages"][2];
                assert_eq!(message["reasoning_details"], json!(details()), "{format:?} {is_late} {sent}");
                assert_eq!(message["reasoning_content"], "I have to look.", "{format:?} {is_late}");
            }
        }
    }
}

#[tokio::test]
async fn a_stream_brings_them_too_and_another_provider_is_not_sent_them() {
    let fake = Fake::streaming([&*answer(false)]).await;
    let config = fake.config(Format::ChatCompletions);
    let asked = |format| read(format, &question(format));
    let events = async |format| {
        let Asked { chat, mut writer, .. } = asked(format);
        let gateway = gateway(&fake, Format::ChatCompletions, config.clone());
        let mut pieces = gateway.chat_stream(chat);
        let mut out = Vec::new();
        writer.begin(&mut out);
        while let Some(piece) = soon(pieces.next()).await {
            writer.chunk(piece.chunk, &mut out);
        }
        let text = String::from_utf8(out).unwrap();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
        data.map(|data| serde_json::from_str::<Value>(data).unwrap()).collect::<Vec<_>>()
    };
    let told: Vec<_> = events(ToolFormat::ChatCompletions)
        .await
        .into_iter()
        .flat_map(|event| event["choices"][0]["delta"]["reasoning_details"].as_array().cloned().unwrap_or_default())
        .collect();
    assert_eq!(told, details());
    let blocks = events(ToolFormat::Messages).await;
    let has = |block: Value| blocks.iter().any(|event| event["delta"] == block || event["content_block"] == block);
    assert!(has(json!({"type": "signature_delta", "signature": "c2ln"})), "{blocks:?}");
    assert!(has(json!({"type": "redacted_thinking", "data": "eA=="})), "{blocks:?}");

    let strict = ProviderConfig { message_extras: Some(false), ..config.clone() };
    let gateway = gateway(&fake, Format::ChatCompletions, strict);
    let answer =
        json!({"choices": [{"message": {"role": "assistant", "content": "Well.", "reasoning_details": details()}}]});
    let mut next = next_turn(ToolFormat::ChatCompletions, &answer);
    next["messages"].as_array_mut().unwrap().pop();
    next["messages"].as_array_mut().unwrap().push(json!({"role": "user", "content": "Go on."}));
    let response = soon(gateway.chat(read(ToolFormat::ChatCompletions, &next).chat)).await.unwrap();
    assert!(!fake.requests().pop().unwrap().body.contains("reasoning"));
    assert!(response.notes.iter().any(|note| note.contains("reasoning")), "{:?}", response.notes);
}

#[tokio::test]
async fn what_came_with_a_call_goes_back_with_it_whatever_the_tool_keeps() {
    let extra = json!({"google": {"thought_signature": "SIGSIG"}});
    let function = json!({"name": "look", "arguments": "{}"});
    let call = json!({"index": 0, "id": "call:1", "type": "function", "function": function, "extra_content": extra});
    let delta = json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]});
    for format in [ToolFormat::ChatCompletions, ToolFormat::Messages, ToolFormat::Responses] {
        for streams in [true, false] {
            let fake = Fake::streaming([&*format!("data: {delta}\n\ndata: [DONE]\n\n")]).await;
            let gateway = gateway(&fake, Format::ChatCompletions, fake.config(Format::ChatCompletions));
            let chat = read(format, &question(format)).chat;
            if streams {
                soon(gateway.chat_stream(chat.clone()).collect::<Vec<_>>()).await;
            }
            let Asked { mut writer, .. } = read(format, &question(format));
            let other = crate::tools::gateway(&fake, Format::ChatCompletions, fake.config(Format::ChatCompletions));
            let response = soon(if streams { &other } else { &gateway }.chat(chat)).await.unwrap();
            let whole = serde_json::from_slice(&writer.whole(response).unwrap()).unwrap();
            let mut next = next_turn(format, &whole);
            // Of a chat the tool forgets it.
            if format == ToolFormat::ChatCompletions {
                next["messages"][2]["tool_calls"][0].as_object_mut().unwrap().remove("extra_content");
            }
            let id = if format == ToolFormat::Messages { &whole["content"][0]["id"] } else { &json!("call:1") };
            let text = next.to_string().replace("\"c1\"", &id.to_string());
            soon(gateway.chat(read(format, &serde_json::from_str(&text).unwrap()).chat)).await.unwrap();
            let sent: Value = serde_json::from_str(&fake.requests().pop().unwrap().body).unwrap();
            assert_eq!(sent["messages"][2]["tool_calls"][0]["extra_content"], extra, "{format:?} {streams} {sent}");
        }
    }
}

/// As after a restart of the server, which has forgotten whose signature it is.
#[tokio::test]
async fn signatures_that_a_provider_refuses_are_left_out_with_a_note() {
    for (format, said) in [
        (Format::Messages, "messages.1.content.0: Invalid `signature` in `thinking` block"),
        (Format::Responses, "The encrypted content could not be verified."),
    ] {
        let refusal = json!({"error": {"type": "invalid_request_error", "message": said}}).to_string();
        let answer = format.answer("Well.");
        let fake = Fake::start(move |_, mut peer| {
            let (refusal, answer) = (refusal.clone(), answer.clone());
            async move {
                if peer.last_body().contains("c2ln") {
                    return peer.reply("400 Bad Request", "Content-Type: application/json\r\n", &refusal).await;
                }
                peer.begin_events().await;
                peer.chunk(&answer).await;
                peer.end().await;
            }
        })
        .await;
        let gateway =
            gateway(&fake, format, ProviderConfig { model: Some("m".to_owned()), ..ProviderConfig::default() });
        let details = json!({"signature": "c2ln", "encrypted_content": "c2ln"});
        let said = json!([{"type": "reasoning", "text": "hm", "details": details}, {"type": "text", "text": "Yes."}]);
        let request: bellrope_gateway::ChatRequest = serde_json::from_value(json!({"messages": [
            {"role": "user", "content": "Hi"}, {"role": "assistant", "content": said}, {"role": "user", "content": "And?"},
        ]}))
        .unwrap();
        let response = soon(gateway.chat(request.clone())).await.unwrap();
        assert_eq!(response.text, "Well.");
        assert!(response.notes.iter().any(|note| note.contains("the provider refuses them")), "{:?}", response.notes);
        let pieces: Vec<_> = soon(gateway.chat_stream(request).collect()).await;
        assert!(matches!(pieces.last().unwrap().chunk, bellrope_gateway::Chunk::Done { .. }), "{pieces:?}");
        assert_eq!(fake.requests().len(), 4, "each was sent once more");
    }
}
