use super::*;
use crate::inbound::responses::tools::tools;
use crate::inbound::wire::Told;
use crate::message::{ErrorInfo, Usage};
use crate::testing::call;

fn names() -> Names {
    let wire = json!([
        {"type": "custom", "name": "apply_patch"},
        {"type": "namespace", "name": "files", "tools": [{"type": "function", "name": "read"}]},
    ]);
    let mut names = Names::default();
    tools(serde_json::from_value(wire).unwrap(), &mut names, &mut Told::default()).unwrap();
    names
}

fn script() -> Script {
    Script::new(Echo { model: "p/m".into(), ..Echo::default() }, names())
}

/// The events of an answer, with their names and numbers checked.
fn events(chunks: Vec<Chunk>) -> Vec<Value> {
    let mut script = script();
    let mut out = Vec::new();
    script.begin(&mut out);
    for chunk in chunks {
        script.chunk(chunk, &mut out);
    }
    let text = String::from_utf8(out).unwrap();
    let events = text.split_terminator("\n\n").filter(|event| !event.starts_with(':'));
    (0..)
        .zip(events)
        .map(|(number, event)| {
            let (name, data) = event.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
            let data: Value = serde_json::from_str(data).unwrap();
            assert_eq!((&data["type"], &data["sequence_number"]), (&json!(name), &json!(number)));
            data
        })
        .collect()
}

fn names_of(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap().strip_prefix("response.").unwrap()).collect()
}

fn done(stop_reason: StopReason) -> Chunk {
    Chunk::Done { stop_reason }
}

#[test]
fn a_stream_has_the_form_that_tools_know() {
    let usage = Usage { input_tokens: 9, output_tokens: 4, cache_read_tokens: Some(5), ..Usage::default() };
    let seen = events(vec![
        Chunk::reasoning("h"),
        Chunk::reasoning("m"),
        Chunk::ReasoningDetails { details: json!({"id": "rs_1", "encrypted_content": "QUJD"}) },
        Chunk::text("H"),
        Chunk::Notice { text: "a note".into() },
        Chunk::text("i"),
        call(7, Some("c"), Some("ls"), "{\"a\""),
        call(8, Some("d"), Some("files__read"), "{}"),
        call(7, None, None, ":1}"),
        Chunk::Usage(usage),
        done(StopReason::ToolUse),
    ]);
    let expected = [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ];
    assert_eq!(names_of(&seen), expected);
    let added: Vec<_> = seen.iter().filter(|event| event["type"] == "response.output_item.added").collect();
    assert_eq!((&added[0]["item"]["summary"], &added[1]["item"]["content"]), (&json!([]), &json!([])));
    assert!(added.iter().all(|event| event["item"]["id"].is_string()), "{added:?}");
    assert_eq!(added[2]["item"]["arguments"], "");
    assert_eq!(seen[10]["part"]["text"], "");
    let finished: Vec<_> = seen.iter().filter(|event| event["type"] == "response.output_item.done").collect();
    let last = &seen.last().unwrap()["response"];
    let items: Vec<_> = finished.iter().map(|event| &event["item"]).collect();
    assert_eq!(last["output"].as_array().unwrap().iter().collect::<Vec<_>>(), items);
    assert_eq!(items[0]["encrypted_content"], "QUJD");
    assert!(items[0]["id"].as_str().unwrap().starts_with(OWN_REASONING));
    assert_eq!(items[0]["summary"], json!([{"type": "summary_text", "text": "hm"}]));
    assert_eq!(items[1]["content"][0]["text"], "Hi");
    assert_eq!((&items[2]["call_id"], &items[2]["arguments"]), (&json!("c"), &json!("{\"a\":1}")));
    assert_eq!((&items[3]["name"], &items[3]["namespace"]), (&json!("read"), &json!("files")));
    assert!(finished.iter().zip(0..).all(|(event, at)| event["output_index"] == at), "{finished:?}");
    let expected = json!({
        "input_tokens": 9, "input_tokens_details": {"cached_tokens": 5},
        "output_tokens": 4, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 13,
    });
    assert_eq!((&last["usage"], &last["status"], &last["store"]), (&expected, &json!("completed"), &json!(false)));
}

#[test]
fn a_tool_that_takes_a_text_gets_the_text() {
    for (written, input) in [
        ("{\"input\":\"*** Begin\\n\"}", "*** Begin\n"),
        ("{\"input\":\"a\\ud83d b\"}", "a\u{fffd} b"),
        ("no JSON", "no JSON"),
        ("{\"other\":1}", "{\"other\":1}"),
        // Of a call without arguments this is what is made.
        ("{}", ""),
    ] {
        let (first, rest) = written.split_at(1);
        let seen = events(vec![
            call(0, Some("c"), Some("apply_patch"), first),
            call(0, None, None, rest),
            done(StopReason::ToolUse),
        ]);
        let names = names_of(&seen);
        let expected = [
            "output_item.added",
            "custom_tool_call_input.delta",
            "custom_tool_call_input.done",
            "output_item.done",
            "completed",
        ];
        assert_eq!(names[2..], expected);
        assert_eq!((&seen[2]["item"]["input"], &seen[3]["delta"]), (&json!(""), &json!(input)));
        let item = &seen[5]["item"];
        assert_eq!(
            (&item["type"], &item["input"], &item["call_id"]),
            (&json!("custom_tool_call"), &json!(input), &json!("c"))
        );
    }
}

#[test]
fn every_reason_to_stop_has_its_ending_and_the_output_is_kept() {
    for (reason, name, why) in [
        (StopReason::EndTurn, "completed", Value::Null),
        (StopReason::StopSequence, "completed", Value::Null),
        (StopReason::ToolUse, "completed", Value::Null),
        (StopReason::Refusal, "completed", Value::Null),
        (StopReason::Other, "completed", Value::Null),
        (StopReason::MaxTokens, "incomplete", json!({"reason": "max_output_tokens"})),
        (StopReason::ContextWindow, "incomplete", json!({"reason": "max_output_tokens"})),
        (StopReason::ContentFilter, "incomplete", json!({"reason": "content_filter"})),
    ] {
        let seen = events(vec![Chunk::text("a"), done(reason), done(reason)]);
        let last = seen.last().unwrap();
        assert_eq!(last["type"], format!("response.{name}"));
        let response = &last["response"];
        assert_eq!((&response["status"], &response["incomplete_details"]), (&json!(name), &why));
        let item = &response["output"][0];
        assert_eq!((&item["content"][0]["text"], &item["status"]), (&json!("a"), &json!(name)));
        assert_eq!(response["usage"]["total_tokens"], 1, "an estimate");
        let whole = json!({"text": "a", "stop_reason": reason});
        let whole = script().whole(serde_json::from_value(whole).unwrap()).unwrap();
        let whole: Value = serde_json::from_slice(&whole).unwrap();
        assert_eq!((&whole["status"], &whole["incomplete_details"]), (&json!(name), &why));
        assert_eq!(whole["output"][0]["status"], name);
    }
}

#[test]
fn a_failure_is_the_only_end_and_has_the_code_by_which_tools_decide() {
    for (code, message, expected) in [
        ("rate_limited", "slow down; try again in 2 s", "rate_limit_exceeded"),
        ("billing", "no money", "insufficient_quota"),
        ("invalid_request", "This model's maximum context length is 9 tokens", "context_length_exceeded"),
        ("invalid_request", "prompt is too long: 9 tokens > 8 maximum", "context_length_exceeded"),
        ("invalid_request", "no", "invalid_prompt"),
        ("truncated", "it broke off", "server_error"),
        ("budget_exceeded", "of the budget `b` all is held", "rate_limit_exceeded"),
        ("budget_exceeded", "the budget `b` allows no more until tomorrow", "insufficient_quota"),
    ] {
        let retryable = !message.contains("tomorrow");
        let info = ErrorInfo { code: code.into(), message: message.into(), retryable, ..ErrorInfo::default() };
        let told = script().tells_in_stream(&info.clone().into());
        assert_eq!(told, matches!(expected, "context_length_exceeded" | "insufficient_quota"), "{code}");
        let seen = events(vec![Chunk::text("a"), Chunk::Error(info), Chunk::text("b"), done(StopReason::EndTurn)]);
        let last = seen.last().unwrap();
        assert_eq!(last["type"], "response.failed");
        let error = &last["response"]["error"];
        assert_eq!((&error["code"], &error["message"]), (&json!(expected), &json!(message)));
        assert_eq!(names_of(&seen).iter().filter(|name| ["completed", "failed"].contains(name)).count(), 1);
    }
}

#[test]
fn what_is_kept_for_the_end_is_bounded() {
    let seen = events((0..9).map(|_| Chunk::text("x".repeat(1 << 20))).collect());
    assert_eq!(seen.last().unwrap()["type"], "response.failed");
    let seen = events((0..5000).map(|index| call(index, Some("b"), Some("ls"), "{}")).collect());
    assert_eq!(seen.last().unwrap()["type"], "response.failed");
}

#[test]
fn a_whole_answer_has_the_items_of_a_stream() {
    let response = json!({
        "text": "Hi", "reasoning": "hm", "stop_reason": "tool_use", "usage": {"input_tokens": 5, "output_tokens": 2},
        "reasoning_parts": [{"type": "reasoning", "text": "hm", "details": {"encrypted_content": "x"}}],
        "tool_calls": [{"id": "c", "name": "files__read", "arguments": "{\"a\":1}"}],
    });
    let whole = script().whole(serde_json::from_value(response).unwrap()).unwrap();
    let whole: Value = serde_json::from_slice(&whole).unwrap();
    let [thought, said, called] = &whole["output"].as_array().unwrap()[..] else { panic!("{whole}") };
    assert_eq!((&thought["encrypted_content"], &thought["summary"][0]["text"]), (&json!("x"), &json!("hm")));
    assert_eq!((&said["content"][0]["text"], &said["status"]), (&json!("Hi"), &json!("completed")));
    assert_eq!((&called["name"], &called["namespace"]), (&json!("read"), &json!("files")));
    assert_eq!(whole["usage"]["total_tokens"], 7);
}

#[test]
fn the_likelihood_of_tokens_stands_beside_their_text_and_in_the_end() {
    let token: TokenLogprob = serde_json::from_value(json!({"token": "Hi", "logprob": -0.5,
        "top_logprobs": [{"token": "Ho", "logprob": -1.5, "bytes": [72, 111]}]}))
    .unwrap();
    let told = json!([{"token": "Hi", "logprob": -0.5, "bytes": [72, 105],
        "top_logprobs": [{"token": "Ho", "logprob": -1.5, "bytes": [72, 111]}]}]);
    let events = events(vec![
        Chunk::text("Hi"),
        Chunk::Logprobs { tokens: vec![token.clone()] },
        Chunk::Done { stop_reason: StopReason::EndTurn },
    ]);
    let of = |name: &str| events.iter().filter(|event| event["type"] == name).collect::<Vec<_>>();
    let deltas = of("response.output_text.delta");
    assert_eq!((&deltas[0]["logprobs"], &deltas[1]["logprobs"], &deltas[1]["delta"]), (&json!([]), &told, &json!("")));
    assert_eq!(of("response.output_text.done")[0]["logprobs"], told);
    let output = &of("response.completed")[0]["response"]["output"];
    assert_eq!(output[0]["content"][0]["logprobs"], told);
    let response = ChatResponse {
        logprobs: vec![token],
        ..serde_json::from_value(json!({"text": "Hi", "stop_reason": "end_turn"})).unwrap()
    };
    let whole = Script::new(Echo::default(), Names::default()).whole(response).unwrap();
    let whole: Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!(whole["output"][0]["content"][0]["logprobs"], told);
}
