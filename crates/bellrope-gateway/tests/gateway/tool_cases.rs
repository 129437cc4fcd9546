//! What breaks where tools stand behind a gateway, as far as no other test has it: the rows of docs/tool-cases.md.

use std::sync::Arc;
use std::time::Duration;

use bellrope_gateway::inbound::ToolFormat;
use bellrope_gateway::{Chunk, Gateway, HttpProvider, ProviderConfig, ProviderError, StopReason, ToolCallDelta};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::fake::{Fake, soon};
use crate::script::Format;
use crate::tools::gateway;

/// The events of an answer of these chunks, as a tool of this format gets it.
fn events(format: ToolFormat, chunks: Vec<Chunk>) -> Vec<Value> {
    let body = json!({"model": "m", "max_tokens": 9, "stream": true, "input": "Hi", "messages": [{"role": "user", "content": "Hi"}]});
    let mut writer = format.read(body.to_string().as_bytes(), &[]).unwrap().writer;
    let mut out = Vec::new();
    writer.begin(&mut out);
    for chunk in chunks {
        writer.chunk(chunk, &mut out);
    }
    let text = String::from_utf8(out).unwrap();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}

fn done(stop_reason: StopReason) -> Chunk {
    Chunk::Done { stop_reason }
}

fn call(index: u32, id: Option<&str>, arguments: &str) -> Chunk {
    let id = id.map(str::to_owned);
    let name = id.is_some().then(|| "look".to_owned());
    Chunk::ToolCall(ToolCallDelta { index, id, name, arguments: arguments.to_owned() })
}

/// What a provider of this format is sent for the request of a tool.
async fn sent(tool: ToolFormat, provider: Format, body: &Value) -> Value {
    let fake = Fake::streaming([&*provider.answer("a")]).await;
    let chat = tool.read(body.to_string().as_bytes(), &[]).unwrap().chat;
    soon(gateway(&fake, provider, fake.config(provider)).chat(chat)).await.unwrap();
    serde_json::from_str(&fake.requests().pop().unwrap().body).unwrap()
}

// Row 1.
#[test]
fn an_item_of_responses_begins_with_all_its_lists_and_a_part_with_its_text() {
    let chunks = vec![Chunk::reasoning("hm"), Chunk::text("Hi"), done(StopReason::EndTurn)];
    let events = events(ToolFormat::Responses, chunks);
    let of = |kind: &str| events.iter().filter(|event| event["type"] == kind).collect::<Vec<_>>();
    let items = of("response.output_item.added");
    assert!(items.iter().all(|event| event["item"]["id"].as_str().is_some_and(|id| !id.is_empty())));
    assert_eq!((&items[0]["item"]["summary"], &items[1]["item"]["content"]), (&json!([]), &json!([])));
    assert_eq!(of("response.content_part.added")[0]["part"]["text"], "");
    assert_eq!(of("response.reasoning_summary_part.added")[0]["part"]["text"], "");
}

// Row 3.
#[test]
fn every_count_of_responses_is_a_number_whatever_the_provider_says() {
    let events = events(ToolFormat::Responses, vec![Chunk::text("Hi"), done(StopReason::EndTurn)]);
    let expected = json!({
        "input_tokens": 5, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 1, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 6,
    });
    assert_eq!(events.last().unwrap()["response"]["usage"], expected);
}

// Row 5.
#[test]
fn a_tool_of_responses_learns_from_the_one_end_whether_and_when_to_try_again() {
    let refused = |status, retryable: bool, message: &str| ProviderError::Refused {
        status,
        code: None,
        message: message.into(),
        retry_after: retryable.then_some(Duration::from_secs(2)),
        retryable,
        fix: None,
    };
    for (error, code, words) in [
        (refused(429, true, "slow down"), "rate_limit_exceeded", "try again in 2 s"),
        (refused(400, false, "this exceeds the context window"), "context_length_exceeded", "context window"),
        (refused(503, true, "no"), "server_error", "try again"),
    ] {
        let chunks = vec![Chunk::text("Hi"), error.into(), Chunk::text("more"), done(StopReason::EndTurn)];
        let events = events(ToolFormat::Responses, chunks);
        let is_end = |event: &&Value| {
            let kind = event["type"].as_str().unwrap();
            ["completed", "incomplete", "failed"].iter().any(|end| kind == format!("response.{end}"))
        };
        let ends: Vec<_> = events.iter().filter(is_end).collect();
        assert_eq!((ends.len(), &ends[0]["response"]["error"]["code"]), (1, &json!(code)), "{ends:?}");
        let message = ends[0]["response"]["error"]["message"].as_str().unwrap();
        assert!(message.contains(words), "{message}");
    }
}

// Row 9.
#[tokio::test]
async fn a_picture_that_a_tool_gave_is_no_text_and_comes_after_all_results() {
    let picture = "data:image/png;base64,AAAA";
    let call = |id: &str| json!({"type": "function_call", "call_id": id, "name": "look", "arguments": "{}"});
    let output = json!([{"type": "input_text", "text": "seen"}, {"type": "input_image", "image_url": picture}]);
    let body = json!({"input": [
        {"role": "user", "content": "Look."}, call("a"), call("b"),
        {"type": "function_call_output", "call_id": "a", "output": output},
        {"type": "function_call_output", "call_id": "b", "output": "nothing"},
        {"role": "user", "content": "Well?"},
    ], "tools": [{"type": "function", "name": "look", "parameters": {"type": "object"}}]});
    let sent = sent(ToolFormat::Responses, Format::ChatCompletions, &body).await;
    let messages = sent["messages"].as_array().unwrap();
    let roles: Vec<_> = messages.iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant", "tool", "tool", "user", "user"]);
    assert_eq!(messages[4]["content"][1], json!({"type": "image_url", "image_url": {"url": picture}}));
    assert!(!messages[2]["content"].to_string().contains("base64"), "{}", messages[2]);
}

// Row 28.
#[tokio::test]
async fn no_cache_mark_is_added_to_those_of_the_tool() {
    let mark = json!({"type": "ephemeral"});
    let body = json!({
        "model": "m", "max_tokens": 9,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": mark}],
        "tools": [{"name": "look", "input_schema": {"type": "object"}, "cache_control": mark}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "One.", "cache_control": mark}]},
            {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": [{"type": "text", "text": "Two.", "cache_control": mark}]},
        ],
    });
    let sent = sent(ToolFormat::Messages, Format::Messages, &body).await;
    assert_eq!(sent.to_string().matches("cache_control").count(), 4, "{sent}");
}

// Rows 30, 33.
#[test]
fn no_block_is_opened_before_it_has_content_and_each_call_has_its_own() {
    let chunks = vec![call(0, Some("a"), ""), call(1, Some("b"), "{}"), call(0, None, "{}"), done(StopReason::ToolUse)];
    let events = events(ToolFormat::Messages, chunks);
    let begun: Vec<_> = events.iter().filter(|event| event["type"] == "content_block_start").collect();
    assert!(begun.iter().all(|event| event["content_block"]["type"] == "tool_use"), "{begun:?}");
    let numbers: Vec<_> = begun.iter().map(|event| event["index"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [0, 1]);
}

// Row 46.
#[tokio::test]
async fn what_led_to_a_call_goes_back_to_the_provider_that_said_it_whatever_its_name() {
    let format = Format::ChatCompletions;
    let answer =
        format.script().reasoning("I have to look.").tool(0, "c1", "look").arguments(0, "{}").stop("tools").end();
    let body = |messages: Value| {
        json!({"model": "m", "messages": messages,
            "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]})
        .to_string()
    };
    let call = json!({"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}});
    let later = json!([{"role": "user", "content": "Look."}, {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "a bell"}]);
    let thought = || json!("I have to look.");
    for (name, message_extras, restored) in [
        ("deepseek", None, thought()),
        ("work", None, thought()),
        ("vllm", None, thought()),
        ("strict", Some(false), Value::Null),
    ] {
        for streams in [true, false] {
            let fake = Fake::streaming([&*answer]).await;
            let config = ProviderConfig { message_extras, ..fake.config(format) };
            let gateway = Gateway::new(Arc::new(HttpProvider::named(name, config).unwrap()));
            let chat = |messages| ToolFormat::ChatCompletions.read(body(messages).as_bytes(), &[]).unwrap().chat;
            let first = chat(json!([{"role": "user", "content": "Look."}]));
            if streams {
                soon(gateway.chat_stream(first).collect::<Vec<_>>()).await;
            } else {
                soon(gateway.chat(first)).await.unwrap();
            }
            soon(gateway.chat(chat(later.clone()))).await.unwrap();
            let sent: Value = serde_json::from_str(&fake.requests().pop().unwrap().body).unwrap();
            assert_eq!(sent["messages"][1]["reasoning_content"], restored, "{name}: {sent}");
        }
    }
}

// Row 6.
#[test]
fn an_answer_that_ran_out_of_tokens_is_incomplete_and_keeps_what_it_said() {
    let events = events(ToolFormat::Responses, vec![Chunk::text("Half an"), done(StopReason::MaxTokens)]);
    let end = events.last().unwrap();
    assert_eq!(end["type"], "response.incomplete");
    assert_eq!(end["response"]["incomplete_details"]["reason"], "max_output_tokens");
    assert_eq!(end["response"]["output"][0]["content"][0]["text"], "Half an");
}

#[tokio::test]
async fn a_tool_whose_name_is_too_long_for_a_provider_is_called_by_its_own_name_all_the_same() {
    let name = "mcp__a_server_with_a_long_name__a_tool_whose_name_is_as_long_as_claude_takes_them";
    let tools = json!([{"name": name, "input_schema": {"type": "object"}}, {"name": "look", "input_schema": {"type": "object"}}]);
    let asked = json!({
        "model": "m", "max_tokens": 9, "tools": tools, "tool_choice": {"type": "tool", "name": name},
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": name, "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "a bell"}]},
        ],
    });
    for provider in [Format::ChatCompletions, Format::Responses] {
        let sent = sent(ToolFormat::Messages, provider, &asked).await;
        let tool = &sent["tools"][0];
        let seen = tool["name"].as_str().or_else(|| tool["function"]["name"].as_str()).unwrap().to_owned();
        assert!(seen.len() <= 64 && !sent.to_string().contains(name), "{sent}");
        assert_eq!(sent.to_string().matches(&*seen).count(), 3, "{sent}");
        let fake =
            Fake::streaming([&*provider.script().tool(0, "c", &seen).arguments(0, "{}").stop("tools").end()]).await;
        let chat = ToolFormat::Messages.read(asked.to_string().as_bytes(), &[]).unwrap().chat;
        let answer = soon(gateway(&fake, provider, fake.config(provider)).chat(chat)).await.unwrap();
        assert_eq!(answer.tool_calls[0].name, name);
    }
}

// Row 40.
#[tokio::test]
async fn a_file_of_text_is_read_however_it_comes() {
    let messages = |source: Value| {
        json!({"model": "m", "max_tokens": 9, "messages": [
            {"role": "user", "content": [{"type": "document", "source": source}]},
        ]})
    };
    let data = "QSBsZXR0ZXIu";
    for source in [
        json!({"type": "text", "media_type": "text/plain", "data": "A letter."}),
        json!({"type": "base64", "media_type": "text/plain", "data": data}),
        json!({"type": "base64", "media_type": "text/markdown; charset=utf-8", "data": data}),
    ] {
        let sent = sent(ToolFormat::Messages, Format::ChatCompletions, &messages(source)).await;
        assert_eq!(sent["messages"][0]["content"], "A letter.");
    }
    let url = format!("data:text/plain;base64,{data}");
    let responses = json!({"model": "m", "input": [{"role": "user", "content": [
        {"type": "input_file", "filename": "a.txt", "file_data": url},
    ]}]});
    let to_messages = sent(ToolFormat::Responses, Format::Messages, &responses).await;
    assert!(to_messages["messages"].to_string().contains("A letter."), "{to_messages}");
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": [
        {"type": "file", "file": {"filename": "a.txt", "file_data": url}},
    ]}]});
    let to_responses = sent(ToolFormat::ChatCompletions, Format::Responses, &chat).await;
    assert!(to_responses["input"].to_string().contains("A letter."), "{to_responses}");
    let pdf = json!({"type": "base64", "media_type": "application/pdf", "data": "AA=="});
    let refused = ToolFormat::Messages.read(messages(pdf).to_string().as_bytes(), &[]).err().unwrap();
    assert!(refused.status == 400 && refused.to_string().contains("application/pdf"), "{refused}");
}

// Row 21.
#[tokio::test]
async fn what_a_conversation_was_compacted_to_goes_back_to_a_provider_of_responses_in_its_place() {
    for kind in ["compaction", "compaction_summary"] {
        let item = json!({"type": kind, "id": "cmp_1", "encrypted_content": "QUJD"});
        let input = json!([item, {"role": "user", "content": "Go on."}]);
        let asked = json!({"model": "m", "input": input});
        let sent_back = sent(ToolFormat::Responses, Format::Responses, &asked).await;
        let expected = json!({"type": "compaction", "id": "cmp_1", "encrypted_content": "QUJD"});
        assert_eq!(sent_back["input"][0], expected, "{sent_back}");
        assert!(sent_back["input"][1].to_string().contains("Go on."), "{sent_back}");
        let elsewhere = sent(ToolFormat::Responses, Format::ChatCompletions, &asked).await;
        assert_eq!(elsewhere["messages"].as_array().unwrap().len(), 1, "{elsewhere}");
    }
}
