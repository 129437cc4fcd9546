use super::*;
use crate::message::ErrorInfo;
use crate::testing::call;

fn script(model: String, estimate: u64) -> Script {
    let mut script = Script::new(model, &[]);
    script.expect(estimate);
    script
}

/// The events of an answer, each with its name checked.
fn events(chunks: Vec<Chunk>) -> Vec<Value> {
    let mut script = script("p/m".into(), 21);
    let mut out = Vec::new();
    script.begin(&mut out);
    for chunk in chunks {
        script.chunk(chunk, &mut out);
    }
    let text = String::from_utf8(out).unwrap();
    text.split_terminator("\n\n")
        .filter(|event| !event.starts_with(':'))
        .map(|event| {
            let (name, data) = event.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
            let data: Value = serde_json::from_str(data).unwrap();
            assert_eq!(data["type"], name);
            data
        })
        .collect()
}

/// The blocks that the events make, as a tool puts them together, with their starts and stops checked.
fn blocks(events: &[Value]) -> Vec<Value> {
    let mut blocks: Vec<Value> = Vec::new();
    let mut arguments = String::new();
    let mut open = None;
    for event in events {
        match event["type"].as_str().unwrap() {
            "content_block_start" => {
                assert_eq!((open, &event["index"]), (None, &json!(blocks.len())));
                open = Some(blocks.len());
                blocks.push(event["content_block"].clone());
                arguments.clear();
            }
            "content_block_delta" => {
                assert_eq!(Some(event["index"].as_u64().unwrap() as usize), open);
                let block = blocks.last_mut().unwrap();
                let delta = &event["delta"];
                let field = match delta["type"].as_str().unwrap() {
                    "text_delta" => "text",
                    "thinking_delta" => "thinking",
                    "signature_delta" => "signature",
                    _ => {
                        arguments.push_str(delta["partial_json"].as_str().unwrap());
                        continue;
                    }
                };
                let more = format!("{}{}", block[field].as_str().unwrap(), delta[field].as_str().unwrap());
                block[field] = more.into();
            }
            "content_block_stop" => {
                assert_eq!(open.take(), Some(event["index"].as_u64().unwrap() as usize));
                let block = blocks.last_mut().unwrap();
                if block["type"] == "tool_use" {
                    block["input"] = serde_json::from_str(&arguments).unwrap();
                }
            }
            _ => assert_eq!(open, None),
        }
    }
    blocks
}

fn done(stop_reason: StopReason) -> Chunk {
    Chunk::Done { stop_reason }
}

#[test]
fn a_stream_has_the_form_that_tools_know() {
    let usage = Usage {
        input_tokens: 17,
        output_tokens: 7,
        cache_read_tokens: Some(5),
        cache_write_tokens: Some(3),
        ..Usage::default()
    };
    let events = events(vec![
        Chunk::reasoning("h"),
        Chunk::reasoning("m"),
        Chunk::ReasoningDetails { details: json!({"signature": "c2ln"}) },
        Chunk::ReasoningDetails { details: json!({"data": "eA=="}) },
        Chunk::text("Hi"),
        Chunk::Notice { text: "a note".into() },
        call(7, Some("c"), Some("ls"), ""),
        call(7, None, None, "{\"a\""),
        call(7, None, None, ":1}"),
        Chunk::Usage(usage),
        done(StopReason::ToolUse),
    ]);
    let start = &events[0]["message"];
    assert_eq!((&start["model"], &start["content"], &start["stop_reason"]), (&json!("p/m"), &json!([]), &Value::Null));
    assert_eq!(start["usage"]["input_tokens"], 21, "an estimate, until the provider has counted");
    let expected = [
        json!({"type": "thinking", "thinking": "hm", "signature": "c2ln"}),
        json!({"type": "redacted_thinking", "data": "eA=="}),
        json!({"type": "text", "text": "Hi"}),
        json!({"type": "tool_use", "id": "c", "name": "ls", "input": {"a": 1}}),
    ];
    assert_eq!(blocks(&events), expected);
    let [.., delta, stop] = &events[..] else { panic!("{events:?}") };
    assert_eq!((&delta["delta"]["stop_reason"], &stop["type"]), (&json!("tool_use"), &json!("message_stop")));
    let expected = json!({
        "input_tokens": 9, "output_tokens": 7, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 5,
    });
    assert_eq!(delta["usage"], expected);
    let of_call: Vec<_> = events.iter().filter(|event| event["delta"]["type"] == "input_json_delta").collect();
    assert_eq!(of_call.len(), 2, "pieces go on as they come");
}

#[test]
fn calls_that_interleave_have_a_block_each_one_after_another() {
    let seen = events(vec![
        call(0, Some("a"), Some("ls"), "{\"p\":\"}"),
        call(1, Some("b"), Some("cat"), "{\"q\""),
        Chunk::text("So"),
        call(2, Some("c"), Some("now"), "{}"),
        call(1, None, None, ":2}"),
        call(0, None, None, "\"}"),
        call(0, None, None, " "),
        Chunk::text(" it is"),
        done(StopReason::ToolUse),
    ]);
    let call = |id: &str, name: &str, input: Value| json!({"type": "tool_use", "id": id, "name": name, "input": input});
    let text = |text: &str| json!({"type": "text", "text": text});
    let expected = [
        call("a", "ls", json!({"p": "}"})),
        call("b", "cat", json!({"q": 2})),
        text("So"),
        call("c", "now", json!({})),
        text(" it is"),
    ];
    assert_eq!(blocks(&seen), expected);
}

// Row 30.
#[test]
fn blanks_make_no_block_of_their_own_and_those_before_a_text_are_its_beginning() {
    let made = |chunks: Vec<Chunk>| blocks(&events(chunks));
    let looks = || vec![call(0, Some("c"), Some("look"), "{}"), done(StopReason::ToolUse)];
    let calls = json!({"type": "tool_use", "id": "c", "name": "look", "input": {}});
    let blank_first = |texts: &[&str]| texts.iter().map(|text| Chunk::text(*text)).chain(looks()).collect();
    assert_eq!(made(blank_first(&["\n", "\n "])), std::slice::from_ref(&calls));
    let said = json!({"type": "text", "text": "\n Hi\n"});
    assert_eq!(made(blank_first(&["\n", " Hi", "\n"])), [said, calls.clone()]);
    let thinks = json!({"type": "thinking", "thinking": "Hm", "signature": ""});
    let chunks =
        vec![Chunk::text("\n"), Chunk::reasoning("Hm"), Chunk::text("\t"), call(0, Some("c"), Some("look"), "{}")];
    assert_eq!(made([chunks, vec![done(StopReason::ToolUse)]].concat()), [thinks, calls]);
    let response = json!({"text": " \n", "stop_reason": StopReason::EndTurn});
    let whole = script("p/m".into(), 21).whole(serde_json::from_value(response).unwrap()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&whole).unwrap()["content"], json!([]));
}

#[test]
fn what_waits_for_a_call_that_is_never_whole_comes_at_the_end() {
    let seen = events(vec![
        call(0, Some("a"), Some("ls"), "{\"a\":1"),
        Chunk::text("So"),
        call(0, None, None, "}"),
        call(1, Some("b"), Some("cat"), "{}"),
        done(StopReason::MaxTokens),
    ]);
    assert_eq!(blocks(&seen).len(), 3);
    assert_eq!(seen[seen.len() - 2]["delta"]["stop_reason"], "max_tokens");
}

#[test]
fn every_reason_to_stop_has_its_word() {
    for (reason, word) in [
        (StopReason::EndTurn, "end_turn"),
        (StopReason::StopSequence, "stop_sequence"),
        (StopReason::MaxTokens, "max_tokens"),
        (StopReason::ContextWindow, "model_context_window_exceeded"),
        (StopReason::ToolUse, "tool_use"),
        (StopReason::Refusal, "refusal"),
        (StopReason::ContentFilter, "refusal"),
        (StopReason::Other, "end_turn"),
        (StopReason::PauseTurn, "pause_turn"),
    ] {
        let seen = events(vec![Chunk::text("a"), done(reason)]);
        assert_eq!(seen[seen.len() - 2]["delta"]["stop_reason"], word);
        let response = json!({"text": "a", "stop_reason": reason});
        let whole = script("m".into(), 0).whole(serde_json::from_value(response).unwrap()).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&whole).unwrap()["stop_reason"], word);
    }
}

#[test]
fn a_stream_that_fails_ends_with_the_error_and_nothing_after_it() {
    let info = ErrorInfo { code: "overloaded".into(), message: "busy".into(), retryable: true, ..ErrorInfo::default() };
    let seen = events(vec![Chunk::text("Hi"), Chunk::Error(info), Chunk::text("more"), done(StopReason::EndTurn)]);
    let last = seen.last().unwrap();
    assert_eq!((&last["type"], &last["error"]["type"]), (&json!("error"), &json!("overloaded_error")));
    assert_eq!(last["error"]["message"], "busy");
}

#[test]
fn what_waits_is_bounded() {
    let mut chunks = vec![call(0, Some("a"), Some("ls"), "{")];
    chunks.extend((0..9).map(|_| Chunk::text("x".repeat(1 << 20))));
    let seen = events(chunks);
    assert_eq!(seen.last().unwrap()["type"], "error");
    let mut chunks = vec![call(0, Some("a"), Some("ls"), "{")];
    chunks.extend((1..5000).map(|index| call(index, Some("b"), Some("ls"), "{")));
    assert_eq!(events(chunks).last().unwrap()["type"], "error");
}

#[test]
fn a_whole_answer_has_the_form_that_tools_know() {
    let response = json!({
        "text": "Hi", "reasoning": "hm", "stop_reason": "tool_use", "usage": {"input_tokens": 5, "output_tokens": 2},
        "reasoning_parts": [
            {"type": "reasoning", "text": "hm", "details": {"signature": "c2ln"}},
            {"type": "reasoning", "text": "", "details": {"data": "eA=="}},
            {"type": "reasoning", "text": "", "details": {"encrypted_content": "x"}},
        ],
        "tool_calls": [{"id": "Bash:0", "name": "ls", "arguments": "{\"a\":1}"}, {"id": "d", "name": "ls", "arguments": "no"}],
    });
    let whole = script("p/m".into(), 0).whole(serde_json::from_value(response).unwrap()).unwrap();
    let whole: Value = serde_json::from_slice(&whole).unwrap();
    let expected = json!([
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "eA=="},
        {"type": "text", "text": "Hi"},
        {"type": "tool_use", "id": plain("Bash:0"), "name": "ls", "input": {"a": 1}},
        {"type": "tool_use", "id": "d", "name": "ls", "input": {"text": "no"}},
    ]);
    assert_eq!((&whole["content"], &whole["model"], &whole["type"]), (&expected, &json!("p/m"), &json!("message")));
    assert_eq!((&whole["usage"]["input_tokens"], &whole["usage"]["output_tokens"]), (&json!(5), &json!(2)));
    let plain = json!({"text": "", "reasoning": "hm", "stop_reason": "end_turn"});
    let whole = script("m".into(), 9).whole(serde_json::from_value(plain).unwrap()).unwrap();
    let whole: Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!(whole["content"], json!([{"type": "thinking", "thinking": "hm", "signature": ""}]));
    assert_eq!(whole["usage"]["input_tokens"], 9);
}

#[test]
fn the_only_text_that_may_have_ended_an_answer_is_named() {
    for (stops, reason, expected) in [
        (&["END"][..], StopReason::StopSequence, json!("END")),
        (&["END"], StopReason::EndTurn, Value::Null),
        (&["END", "STOP"], StopReason::StopSequence, Value::Null),
        (&[], StopReason::StopSequence, Value::Null),
    ] {
        let stops: Vec<_> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut out = Vec::new();
        let mut script = Script::new("m".into(), &stops);
        script.chunk(Chunk::text("a"), &mut out);
        script.chunk(done(reason), &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(&format!("\"stop_sequence\":{expected}")), "{text}");
        let response = serde_json::from_value(json!({"text": "a", "stop_reason": reason})).unwrap();
        let whole = Script::new("m".into(), &stops).whole(response).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&whole).unwrap()["stop_sequence"], expected);
    }
}
