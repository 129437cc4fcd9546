//! The same oddities where they were not reported: in the other formats, in other places, and next to each other.

use super::*;

const A: &str = r#"{\"path\":\"a\"}"#;
const B: &str = r#"{\"path\":\"b\"}"#;

fn chat_calls(lists: &[String]) -> String {
    let event = |list: &String| format!(r#"{{"choices":[{{"index":0,"delta":{{"tool_calls":{list}}}}}]}}"#);
    lists.iter().map(event).chain(["[DONE]".to_owned()]).collect::<Vec<_>>().join("\n")
}

fn chat_call(index: u32, id: &str, arguments: &str) -> String {
    format!(r#"[{{"index":{index},"id":"{id}","function":{{"name":"read","arguments":"{arguments}"}}}}]"#)
}

fn response_call(index: u32, id: &str, arguments: &str) -> String {
    format!(
        "{{\"type\":\"response.output_item.added\",\"output_index\":{index},\"item\":{{\"type\":\"function_call\",\"call_id\":\"{id}\",\"name\":\"read\",\"arguments\":\"\"}}}}\n\
         {{\"type\":\"response.function_call_arguments.delta\",\"output_index\":{index},\"delta\":\"{arguments}\"}}\n\
         {{\"type\":\"response.output_item.done\",\"output_index\":{index},\"item\":{{\"type\":\"function_call\",\"call_id\":\"{id}\",\"name\":\"read\",\"arguments\":\"{arguments}\"}}}}"
    )
}

fn block_call(index: u32, id: &str, arguments: &str) -> String {
    format!(
        "{{\"type\":\"content_block_start\",\"index\":{index},\"content_block\":{{\"type\":\"tool_use\",\"id\":\"{id}\",\"name\":\"read\",\"input\":{{}}}}}}\n\
         {{\"type\":\"content_block_delta\",\"index\":{index},\"delta\":{{\"type\":\"input_json_delta\",\"partial_json\":\"{arguments}\"}}}}\n\
         {{\"type\":\"content_block_stop\",\"index\":{index}}}"
    )
}

const COMPLETED: &str = r#"{"type":"response.completed","response":{"status":"completed"}}"#;
const STOPPED: &str = r#"{"type":"message_delta","delta":{"stop_reason":"tool_use"}}
                         {"type":"message_stop"}"#;

#[test]
fn calls_with_one_id_or_one_place_are_told_apart_alike_in_all_formats() {
    let once = r#"call t1 read {"path":"a"} | done tool_use"#;
    let two = r#"call t1 read {"path":"a"} | call t2 read {"path":"b"} | done tool_use"#;
    let same = r#"call t1 read {"path":"a"} | call t2 read {"path":"a"} | done tool_use"#;
    for (what, calls, expected) in [
        ("a whole call once more at another place", [(0, "t1", A), (1, "t1", A)], once),
        ("a whole call once more at its place", [(0, "t1", A), (0, "t1", A)], once),
        ("two ids at one place", [(0, "t1", A), (0, "t2", B)], two),
        ("two ids that say the same", [(0, "t1", A), (1, "t2", A)], same),
        ("places that go backwards", [(7, "t1", A), (2, "t2", B)], two),
    ] {
        let chat = chat_calls(&calls.map(|(index, id, arguments)| chat_call(index, id, arguments)));
        let response = calls.map(|(index, id, arguments)| response_call(index, id, arguments)).join("\n");
        let blocks = calls.map(|(index, id, arguments)| block_call(index, id, arguments)).join("\n");
        let (response, blocks) = (format!("{response}\n{COMPLETED}"), format!("{blocks}\n{STOPPED}"));
        check_all(what, [&chat, &response, &blocks], expected);
    }
}

#[test]
fn the_entries_of_a_whole_answer_are_calls_of_their_own_in_every_format() {
    for id in ["\"t1\"", "null"] {
        let entry = format!(r#"{{"id":{id},"function":{{"name":"roll","arguments":"{A}"}}}}"#);
        let item = format!(r#"{{"type":"function_call","call_id":{id},"name":"roll","arguments":"{A}"}}"#);
        let block = format!(r#"{{"type":"tool_use","id":{id},"name":"roll","input":{{"path":"a"}}}}"#);
        let answer = format!(r#"{{"message":{{"tool_calls":[{entry},{entry}]}},"finish_reason":"tool_calls"}}"#);
        let chat = format!(r#"{{"choices":[{answer}]}}"#);
        let response = format!(r#"{{"object":"response","status":"completed","output":[{item},{item}]}}"#);
        let message = format!(r#"{{"type":"message","content":[{block},{block}],"stop_reason":"tool_use"}}"#);
        for made in [
            read::<chat_completions::Translator>(&chat),
            read::<responses::Translator>(&response),
            read::<messages::Translator>(&message),
        ] {
            let parts: Vec<_> = made.split(" | ").collect();
            let [first, second, "done tool_use"] = parts[..] else { panic!("{made}") };
            assert!(first != second && [first, second].iter().all(|call| call.contains(" roll {\"path\"")), "{made}");
        }
        // The list at the end of a stream repeats what came of it.
        let events =
            [0, 1].map(|at| format!(r#"{{"type":"response.output_item.done","output_index":{at},"item":{item}}}"#));
        let completed = format!(r#"{{"type":"response.completed","response":{response}}}"#);
        let (made, _) = told::<responses::Translator>(&format!("{}\n{completed}", events.join("\n")));
        assert!(made.matches(" roll ").count() == 2, "{made}");
    }
}

#[test]
fn arguments_are_found_in_every_form() {
    let once = r#"call t1 read {"path":"a"} | done tool_use"#;
    for call in [
        r#"{"id":"t1","function":{"name":"read","arguments":{"path":"a"}}}"#,
        r#"{"id":"t1","function":{"name":"read","input":{"path":"a"}}}"#,
        r#"{"id":"t1","function":{"name":"read","parameters":{"path":"a"}}}"#,
        r#"{"id":"t1","function":{"name":"read","arguments":null,"args":{"path":"a"}}}"#,
        r#"{"id":"t1","name":"read","input":{"path":"a"}}"#,
        r#"{"id":"t1","type":"function","name":"read","parameters":{"path":"a"}}"#,
    ] {
        check::<chat_completions::Translator>(&[(call, &chat_calls(&[format!("[{call}]")]), once)]);
    }
    for item in [
        r#""arguments":{"path":"a"}"#,
        r#""arguments":"{\"path\":\"a\"}""#,
        r#""input":{"path":"a"}"#,
        r#""arguments":null,"input":"{\"path\":\"a\"}""#,
    ] {
        let item = format!(r#"{{"type":"function_call","call_id":"t1","name":"read",{item}}}"#);
        let done = format!(r#"{{"type":"response.output_item.done","output_index":0,"item":{item}}}"#);
        check::<responses::Translator>(&[(&item, &format!("{done}\n{COMPLETED}"), once)]);
    }
    for (input, delta) in [
        (r#"{"path":"a"}"#, ""),
        (r#""{\"path\":\"a\"}""#, ""),
        ("{}", r#"{"path":"a"}"#),
        ("null", r#""{\"path\":\"a\"}""#),
    ] {
        let begin = format!(
            r#"{{"type":"content_block_start","index":0,"content_block":{{"type":"tool_use","id":"t1","name":"read","input":{input}}}}}"#
        );
        let more = format!(
            r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"input_json_delta","partial_json":{delta}}}}}"#
        );
        let more = if delta.is_empty() { String::new() } else { more };
        check::<messages::Translator>(&[(input, &format!("{begin}\n{more}\n{STOPPED}"), once)]);
    }
}

#[test]
fn text_comes_as_parts_in_every_format() {
    check_all(
        "a list of parts",
        [
            r#"{"choices":[{"delta":{"content":[{"type":"text","text":"Four"},"."]},"finish_reason":"stop"}]}"#,
            "{\"type\":\"response.output_text.delta\",\"delta\":[{\"type\":\"text\",\"text\":\"Four\"},\".\"]}\n{\"type\":\"response.completed\"}",
            "{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":[{\"type\":\"text\",\"text\":\"Four\"},\".\"]}}\n{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}",
        ],
        "text Four. | done end_turn",
    );
    check_all(
        "thoughts in a list of parts",
        [
            r#"{"choices":[{"delta":{"reasoning":[{"type":"text","text":"hm"}],"content":"a"},"finish_reason":"stop"}]}"#,
            "{\"type\":\"response.reasoning_text.delta\",\"delta\":[{\"text\":\"hm\"}]}\n{\"type\":\"response.output_text.delta\",\"delta\":\"a\"}\n{\"type\":\"response.completed\"}",
            "{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"thinking_delta\",\"thinking\":[{\"text\":\"hm\"}]}}\n{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}",
        ],
        "reasoning hm | text a | done end_turn",
    );
}

#[test]
fn what_the_end_of_a_response_says_beyond_its_pieces_is_handed_out() {
    let delta = |text: &str| {
        format!(r#"{{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"{text}"}}"#)
    };
    let done = r#"{"type":"response.output_text.done","output_index":0,"content_index":0,"text":"Hello 🔔"}"#;
    let item = r#"{"type":"message","content":[{"type":"output_text","text":"Hello 🔔"}]}"#;
    let item_done = format!(r#"{{"type":"response.output_item.done","output_index":0,"item":{item}}}"#);
    let completed = format!(r#"{{"type":"response.completed","response":{{"status":"completed","output":[{item}]}}}}"#);
    for (what, end) in [("text", done), ("item", &*item_done), ("response", &*completed)] {
        for came in ["", "H", "Hello ", "Hello 🔔", "Hello \\ud83d\\udd14"] {
            let events = format!("{}\n{end}\n{completed}", delta(came));
            let (found, notes) = told::<responses::Translator>(&events);
            assert_eq!((&*found, notes.len()), ("text Hello 🔔 | done end_turn", 0), "{what} {came}");
        }
        let (found, notes) = told::<responses::Translator>(&format!("{}\n{end}\n{completed}", delta("Good")));
        assert_eq!((&*found, notes.len()), ("text Good | done end_turn", 1), "{what}");
    }
    // Pieces of two items, each with an end of its own.
    let other = r#"{"type":"response.output_text.delta","output_index":1,"content_index":0,"delta":"B"}"#;
    let end = r#"{"type":"response.completed","response":{"status":"completed","output":[
        {"type":"message","content":[{"type":"output_text","text":"A"}]},
        {"type":"message","content":[{"type":"output_text","text":"Be"}]}]}}"#
        .replace('\n', "");
    let events = format!("{}\n{other}\n{end}", delta("A"));
    assert_eq!(told::<responses::Translator>(&events).0, "text ABe | done end_turn");
}

#[test]
fn every_whole_item_of_a_response_is_taken() {
    let message = |text: &str| format!(r#"{{"type":"message","content":[{{"type":"output_text","text":"{text}"}}]}}"#);
    let thought =
        |text: &str| format!(r#"{{"type":"reasoning","summary":[{{"type":"summary_text","text":"{text}"}}]}}"#);
    let call = format!(r#"{{"type":"function_call","call_id":"t1","name":"read","arguments":"{A}"}}"#);
    let items = [thought("so"), message("Look: "), call, thought(" then"), message("done.")];
    let response = format!(r#"{{"object":"response","status":"completed","output":[{}]}}"#, items.join(","));
    let sorted = |made: &str| {
        let all = |what: &str| {
            let said = made.split(" | ").filter_map(|part| part.strip_prefix(what));
            said.collect::<String>()
        };
        ["reasoning ", "text ", "call ", "done "].map(all)
    };
    let expected = ["so then", "Look: done.", r#"t1 read {"path":"a"}"#, "tool_use"];
    assert_eq!(sorted(&read::<responses::Translator>(&response)), expected);
    let completed = format!(r#"{{"type":"response.completed","response":{response}}}"#);
    let events = items
        .iter()
        .enumerate()
        .map(|(at, item)| format!(r#"{{"type":"response.output_item.done","output_index":{at},"item":{item}}}"#));
    let events: Vec<_> = events.chain([completed.clone()]).collect();
    for events in [events.join("\n"), completed] {
        let (made, notes) = told::<responses::Translator>(&events);
        assert_eq!((sorted(&made), notes.len()), (expected.map(str::to_owned), 0));
    }
}

#[test]
fn a_cut_answer_is_whole_by_no_word_of_another_format() {
    let cut = format!("text a | error truncated {BROKE_OFF} fin");
    let text = r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}"#;
    let reason = r#"{"type":"message_delta","delta":{"stop_reason":"max_tokens"}}"#;
    check::<messages::Translator>(&[
        ("a word of chat completions", &format!("{text}\n[DONE]"), &cut),
        ("after a reason", &format!("{text}\n{reason}\n[DONE]"), "text a | done max_tokens"),
    ]);
    let text = r#"{"type":"response.output_text.delta","delta":"a"}"#;
    check::<responses::Translator>(&[("a word of chat completions", &format!("{text}\n[DONE]"), &cut)]);
    for reason in ["max_tool_calls", "turn_limit", "bored", "stop", "completed"] {
        let details = format!(r#"{{"status":"incomplete","incomplete_details":{{"reason":"{reason}"}}}}"#);
        for kind in ["incomplete", "completed"] {
            let events = format!("{text}\n{{\"type\":\"response.{kind}\",\"response\":{details}}}");
            let (found, notes) = told::<responses::Translator>(&events);
            assert_eq!((&*found, notes.len()), ("text a | done max_tokens", 1), "{reason} {kind}");
        }
        let whole = format!(
            r#"{{"object":"response","status":"incomplete","incomplete_details":{{"reason":"{reason}"}},"output":[{{"type":"message","content":[{{"type":"output_text","text":"a"}}]}}]}}"#
        );
        assert_eq!(read::<responses::Translator>(&whole), "text a | done max_tokens", "{reason}");
    }
}

#[test]
fn an_empty_account_is_one_wherever_a_provider_says_so() {
    let error = r#"{"error":{"message":"Add money","type":"insufficient_quota","code":"insufficient_quota"}}"#;
    let expected = format!("error billing {REPORTED} (insufficient_quota): Add money");
    check_all("an event", [error; 3], &expected);
    check::<responses::Translator>(&[
        (
            "an event of its own",
            r#"{"type":"error","error":{"code":"insufficient_quota","message":"Add money"}}"#,
            &expected,
        ),
        ("a flat one", r#"{"type":"error","code":"insufficient_quota","message":"Add money"}"#, &expected),
        (
            "a failed response",
            r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"insufficient_quota","message":"Add money"}}}"#,
            &expected,
        ),
    ]);
    check::<messages::Translator>(&[(
        "Anthropic's words",
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the API"}}"#,
        &format!("error billing {REPORTED} (invalid_request_error): Your credit balance is too low to access the API"),
    )]);
    assert_eq!(read::<chat_completions::Translator>(error), expected);
}

#[test]
fn an_answer_of_nothing_is_one_where_the_model_meant_it() {
    let chat = |usage: &str| format!(r#"{{"choices":[{{"delta":{{"content":""}},"finish_reason":"stop"}}]{usage}}}"#);
    let response = |usage: &str| {
        format!(r#"{{"type":"response.completed","response":{{"status":"completed","output":[]{usage}}}}}"#)
    };
    let message = |usage: &str| format!(r#"{{"type":"message_delta","delta":{{"stop_reason":"end_turn"}}{usage}}}"#);
    let [of_chat, of_others] = ["completion_tokens", "output_tokens"]
        .map(|name| move |count: u32| format!(r#","usage":{{"prompt_tokens":9,"{name}":{count}}}"#));
    let counted = [chat(&of_chat(1)), response(&of_others(1)), message(&of_others(1))];
    check_all("with counted tokens", counted.each_ref().map(String::as_str), "usage 9/1 | done end_turn");
    let nothing = [chat(&of_chat(0)), response(&of_others(0)), message(&of_others(0))];
    check_all("without any", nothing.each_ref().map(String::as_str), EMPTY);
    let stopped = r#"{"type":"message_delta","delta":{"stop_reason":"stop_sequence"}}"#;
    check::<messages::Translator>(&[("at a stop text", stopped, "done stop_sequence")]);
    // Where nothing may be inserted, and where it is the reader's business.
    let mut translator = chat_completions::Translator::default();
    translator.may_be_empty();
    let mut out = VecDeque::new();
    for data in [&*chat(""), "[DONE]"] {
        translator.event(SseEvent { name: "message", data }, &mut out).unwrap();
    }
    assert_eq!(written(out, Ok(())), "done end_turn");
    // Without a reason to stop it is nothing there, too.
    let mut translator = chat_completions::Translator::default();
    translator.may_be_empty();
    let nothing = translator.event(SseEvent { name: "message", data: "[DONE]" }, &mut VecDeque::new());
    assert!(nothing.is_err(), "{nothing:?}");
}
