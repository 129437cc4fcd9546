//! What providers really send, and what is made of it: one line for each oddity, in all formats.
//! The events of a row stand in lines; an answer is `text Hi | call t1 read {} | done tool_use`, an error `error CODE words`.

mod lists;
mod notes;
mod siblings;

use std::collections::VecDeque;

use super::translate::{Frames, Progress, Translate};
use super::{chat_completions, messages, responses};
use crate::error::ProviderError;
use crate::message::{Chunk, ToolCallDelta};
use crate::sse::SseEvent;

/// What is made of events, and what is noted.
fn told<F: Frames + Default>(events: &str) -> (String, Vec<String>) {
    let mut translator = F::default();
    let mut out = VecDeque::new();
    let mut lines = events.lines().map(str::trim);
    let ended = loop {
        let Some(data) = lines.next() else { break translator.end(None, "fin".into(), &mut out) };
        match translator.event(SseEvent { name: "message", data }, &mut out) {
            Ok(Progress::Continues) => {}
            ended => break ended,
        }
    };
    let notes = translator.answer().notes().to_vec();
    let told = out.iter().filter(|chunk| matches!(chunk, Chunk::Notice { .. })).count();
    assert!(ended.is_err() || told == notes.len(), "what is noted is told: {out:?}");
    (written(out, ended.map(drop)), notes)
}

/// What is made of a whole answer.
fn read<F: Frames + Default>(document: &str) -> String {
    let mut translator = F::default();
    let mut out = VecDeque::new();
    match translator.document(document, &mut out) {
        Ok(false) => "no answer".to_owned(),
        Ok(true) => written(out, Ok(())),
        Err(error) => written(out, Err(error)),
    }
}

fn written(out: VecDeque<Chunk>, ended: Result<(), ProviderError>) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut calls: Vec<(u32, usize)> = Vec::new();
    for chunk in out {
        let (what, more) = match chunk {
            Chunk::Text { text } => ("text", text),
            Chunk::Reasoning { text } => ("reasoning", text),
            Chunk::ToolCall(ToolCallDelta { index, id: Some(id), name: Some(name), arguments }) => {
                calls.push((index, parts.len()));
                parts.push(format!("call {id} {name} {arguments}"));
                continue;
            }
            Chunk::ToolCall(ToolCallDelta { index, arguments, .. }) => {
                let (_, at) = calls.iter().find(|(known, _)| *known == index).expect("a call that has begun");
                parts[*at].push_str(&arguments);
                continue;
            }
            Chunk::Usage(usage) => ("usage", format!("{}/{}", usage.input_tokens, usage.output_tokens)),
            Chunk::Done { stop_reason } => {
                let word = serde_json::to_value(stop_reason).unwrap();
                ("done", word.as_str().unwrap().to_owned())
            }
            Chunk::Notice { .. } | Chunk::ReasoningDetails { .. } => continue,
            other => panic!("{other:?}"),
        };
        match parts.last_mut().filter(|last| matches!(what, "text" | "reasoning") && last.starts_with(what)) {
            Some(last) => last.push_str(&more),
            None => parts.push(format!("{what} {more}")),
        }
    }
    if let Err(error) = ended {
        parts.push(format!("error {} {error}", error.code()));
    }
    parts.join(" | ")
}

#[track_caller]
fn check<F: Frames + Default>(rows: &[(&str, &str, &str)]) {
    for (what, events, expected) in rows {
        let (found, _) = told::<F>(events);
        let is_same = expected.strip_suffix('…').map_or(found == *expected, |head| found.starts_with(head));
        assert!(is_same, "{what}\n expected {expected}\n found    {found}");
    }
}

/// The same oddity in the words of each format: what is told is the same.
#[track_caller]
fn check_all(what: &str, [chat, response, message]: [&str; 3], expected: &str) {
    check::<chat_completions::Translator>(&[(what, chat, expected)]);
    check::<responses::Translator>(&[(what, response, expected)]);
    check::<messages::Translator>(&[(what, message, expected)]);
}

const BROKE_OFF: &str = "the answer broke off before its end:";
const REPORTED: &str = "the provider broke off with an error";
const EMPTY: &str = "error provider_error the provider broke off with an error: the answer is empty: no text, no reasoning and no call of a tool";

#[test]
fn only_a_known_reason_or_the_end_itself_ends_a_chat_completion() {
    let text = r#"{"choices":[{"index":0,"delta":{"content":"The bridge"},"finish_reason":""}]}"#;
    let cut = format!("text The bridge | error truncated {BROKE_OFF} fin");
    let call = r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t1","type":"function","function":{"name":"look","arguments":"{\"at\":"}}]},"finish_reason":""}]}"#;
    let whole_call =
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"t1","function":{"name":"ls","arguments":"{}"}}]}}]}"#;
    let reason = |word: &str| format!(r#"{{"choices":[{{"index":0,"delta":{{}},"finish_reason":{word}}}]}}"#);
    let with = |events: &[&str]| events.join("\n");
    check::<chat_completions::Translator>(&[
        ("an empty reason", text, &cut),
        ("an empty reason, half a call", call, &format!("call t1 look {{\"at\": | error truncated {BROKE_OFF} fin")),
        ("an unknown reason", &with(&[text, &reason("\"bored\"")]), &cut),
        ("null", &with(&[text, &reason("null")]), &cut),
        (
            "an unknown reason and the end",
            &with(&[text, &reason("\"bored\""), "[DONE]"]),
            "text The bridge | done other",
        ),
        (
            "a reason that was given stays",
            &with(&[text, &reason("\"length\""), &reason("\"\""), &reason("\"stop\"")]),
            "text The bridge | done max_tokens",
        ),
        (
            "half a call and the end, without a reason",
            &with(&[call, "[DONE]"]),
            &format!("call t1 look {{\"at\": | error truncated {BROKE_OFF} it ends within a call of a tool"),
        ),
        (
            "`error`",
            &with(&[text, &reason("\"error\""), "[DONE]"]),
            &format!("text The bridge | error provider_error {REPORTED}: the answer stopped with `error`"),
        ),
        ("calls and `stop`", &with(&[whole_call, &reason("\"stop\""), "[DONE]"]), "call t1 ls {} | done tool_use"),
        ("calls and `length`", &with(&[whole_call, &reason("\"length\"")]), "call t1 ls {} | done max_tokens"),
        (
            "calls and a filter",
            &with(&[whole_call, &reason("\"content_filter\"")]),
            "call t1 ls {} | done content_filter",
        ),
        ("calls and the end alone", &with(&[whole_call, "[DONE]"]), "call t1 ls {} | done tool_use"),
        ("nothing at all", &with(&[&reason("\"stop\""), "[DONE]"]), EMPTY),
        ("nothing but a limit", &with(&[&reason("\"length\""), "[DONE]"]), "done max_tokens"),
    ]);
}

#[test]
fn an_empty_unknown_or_failed_end_is_the_same_in_the_other_formats() {
    let text = r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}"#;
    let reason = |word: &str| format!("{text}\n{{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":{word}}}}}");
    let stop = r#"{"type":"message_stop"}"#;
    check::<messages::Translator>(&[
        ("an empty reason", &reason("\"\""), &format!("text a | error truncated {BROKE_OFF} fin")),
        ("an unknown reason", &reason("\"bored\""), &format!("text a | error truncated {BROKE_OFF} fin")),
        ("an unknown reason and the end", &format!("{}\n{stop}", reason("\"bored\"")), "text a | done other"),
        (
            "`error`",
            &reason("\"error\""),
            &format!("text a | error provider_error {REPORTED}: the answer stopped with `error`"),
        ),
        (
            "nothing at all",
            &format!("{{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"end_turn\"}}}}\n{stop}"),
            EMPTY,
        ),
    ]);
    let text = r#"{"type":"response.output_text.delta","delta":"a"}"#;
    let ended =
        |kind: &str, response: &str| format!("{text}\n{{\"type\":\"response.{kind}\",\"response\":{response}}}");
    check::<responses::Translator>(&[
        ("completed", &ended("completed", r#"{"status":"completed","error":null}"#), "text a | done end_turn"),
        (
            "completed, but incomplete",
            &ended("completed", r#"{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"}}"#),
            "text a | done max_tokens",
        ),
        (
            "completed, but failed",
            &ended("completed", r#"{"status":"failed","error":{"code":"server_error","message":"m"}}"#),
            &format!("text a | error provider_error {REPORTED} (server_error): m"),
        ),
        (
            "completed, but failed without a word",
            &ended("completed", r#"{"status":"failed"}"#),
            &format!("text a | error provider_error {REPORTED}: the response ended as `failed`"),
        ),
        (
            "completed with an error",
            &ended("completed", r#"{"status":"completed","error":{"message":"m"}}"#),
            &format!("text a | error provider_error {REPORTED}: m"),
        ),
        (
            "completed, but in progress",
            &ended("completed", r#"{"status":"in_progress"}"#),
            &format!("text a | error truncated {BROKE_OFF} the response ended while it is `in_progress`"),
        ),
        (
            "incomplete without details",
            &ended("incomplete", r#"{"status":"incomplete"}"#),
            &format!("text a | error truncated {BROKE_OFF} the provider calls it incomplete and does not say why"),
        ),
        (
            "incomplete for a later reason",
            &ended("incomplete", r#"{"incomplete_details":{"reason":"bored"}}"#),
            "text a | done max_tokens",
        ),
        (
            "failed without a word",
            &ended("failed", "{}"),
            &format!("text a | error provider_error {REPORTED}: the response ended as `response.failed`"),
        ),
        (
            "cut at the limit that it echoes",
            &ended(
                "completed",
                r#"{"status":"completed","max_output_tokens":5,"usage":{"input_tokens":1,"output_tokens":5}}"#,
            ),
            "text a | usage 1/5 | done max_tokens",
        ),
        (
            "below the limit",
            &ended(
                "completed",
                r#"{"status":"completed","max_output_tokens":5,"usage":{"input_tokens":1,"output_tokens":4}}"#,
            ),
            "text a | usage 1/4 | done end_turn",
        ),
        ("nothing at all", r#"{"type":"response.completed","response":{"status":"completed","output":[]}}"#, EMPTY),
    ]);
    let mut translator = responses::Translator::default();
    translator.limit(Some(5));
    let mut out = VecDeque::new();
    for data in ended("completed", r#"{"status":"completed","usage":{"output_tokens":5}}"#).lines() {
        translator.event(SseEvent { name: "message", data }, &mut out).unwrap();
    }
    assert_eq!(written(out, Ok(())), "text a | usage 0/5 | done max_tokens", "the limit of the request");
}

#[test]
fn every_field_that_reports_a_failure_makes_an_error() {
    let chat = [
        (
            r#"{"choices":null,"error_type":"BadRequestError","error_message":"the context is too long"}"#,
            "error invalid_request the provider broke off with an error (BadRequestError): the context is too long",
        ),
        (r#"{"error":"gone"}"#, "error provider_error the provider broke off with an error: gone"),
        (r#"{"detail":"Not found"}"#, "error provider_error the provider broke off with an error: Not found"),
        (
            r#"{"object":"error","message":"Slow","code":429}"#,
            "error rate_limited the provider broke off with an error (429): Slow",
        ),
        (
            r#"{"base_resp":{"status_code":1004,"status_msg":"login fail"},"choices":[]}"#,
            "error provider_error the provider broke off with an error (1004): login fail",
        ),
        (
            r#"{"choices":[{"delta":{"content":""},"finish_reason":"error","error":{"code":502,"message":"down"}}]}"#,
            "error provider_error the provider broke off with an error (502): down",
        ),
        (
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Full"}}"#,
            "error overloaded the provider broke off with an error (overloaded_error): Full",
        ),
    ];
    for (event, expected) in chat {
        check::<chat_completions::Translator>(&[("an error", &format!("{event}\n[DONE]"), expected)]);
        assert_eq!(read::<chat_completions::Translator>(event), expected, "as a whole answer");
    }
    let error = r#"{"error":{"message":"Slow","code":429}}"#;
    check_all("an error without a type", [error; 3], &format!("error rate_limited {REPORTED} (429): Slow"));
    assert_eq!(read::<responses::Translator>(error), format!("error rate_limited {REPORTED} (429): Slow"));
    assert_eq!(read::<messages::Translator>(error), format!("error rate_limited {REPORTED} (429): Slow"));
}

#[test]
fn half_a_surrogate_pair_is_joined_or_replaced_in_text_reasoning_and_arguments() {
    check_all(
        "a lone half",
        [
            "{\"choices\":[{\"delta\":{\"content\":\"cut \\ud83d here\"},\"finish_reason\":\"stop\"}]}",
            "{\"type\":\"response.output_text.delta\",\"delta\":\"cut \\ud83d here\"}\n{\"type\":\"response.completed\"}",
            "{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"cut \\ud83d here\"}}\n{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}",
        ],
        "text cut \u{fffd} here | done end_turn",
    );
    check_all(
        "a pair over two deltas",
        [
            "{\"choices\":[{\"delta\":{\"reasoning\":\"a \\ud83d\"}}]}\n{\"choices\":[{\"delta\":{\"reasoning\":\"\\udd14\",\"content\":\"b \\ud83d\"}}]}\n{\"choices\":[{\"delta\":{\"content\":\"\\udd14 c \\ud83d\"},\"finish_reason\":\"stop\"}]}",
            "{\"type\":\"response.reasoning_text.delta\",\"delta\":\"a \\ud83d\"}\n{\"type\":\"response.reasoning_text.delta\",\"delta\":\"\\udd14\"}\n{\"type\":\"response.output_text.delta\",\"delta\":\"b \\ud83d\"}\n{\"type\":\"response.output_text.delta\",\"delta\":\"\\udd14 c \\ud83d\"}\n{\"type\":\"response.completed\"}",
            "{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"a \\ud83d\"}}\n{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"\\udd14\"}}\n{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"b \\ud83d\"}}\n{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"\\udd14 c \\ud83d\"}}\n{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}",
        ],
        "reasoning a 🔔 | text b 🔔 c \u{fffd} | done end_turn",
    );
    check_all(
        "arguments",
        [
            "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"t1\",\"function\":{\"name\":\"say\",\"arguments\":\"{\\\"a\\\":\\\"\\ud83d\"}}]}}]}\n{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"\\udd14 \\ud83d!\\\"}\"}}]},\"finish_reason\":\"tool_calls\"}]}",
            "{\"type\":\"response.output_item.added\",\"output_index\":0,\"item\":{\"type\":\"function_call\",\"call_id\":\"t1\",\"name\":\"say\"}}\n{\"type\":\"response.function_call_arguments.delta\",\"output_index\":0,\"delta\":\"{\\\"a\\\":\\\"\\ud83d\"}\n{\"type\":\"response.function_call_arguments.delta\",\"output_index\":0,\"delta\":\"\\udd14 \\ud83d!\\\"}\"}\n{\"type\":\"response.completed\"}",
            "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"say\",\"input\":{}}}\n{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"a\\\":\\\"\\ud83d\"}}\n{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"\\udd14 \\ud83d!\\\"}\"}}\n{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\"}}",
        ],
        "call t1 say {\"a\":\"🔔 \u{fffd}!\"} | done tool_use",
    );
}

#[test]
fn calls_of_chat_completions_come_out_as_they_were_meant() {
    let calls = |lists: &[&str]| {
        let event = |list: &&str| format!(r#"{{"choices":[{{"index":0,"delta":{{"tool_calls":{list}}}}}]}}"#);
        lists.iter().map(event).chain(["[DONE]".to_owned()]).collect::<Vec<_>>().join("\n")
    };
    let reused = [
        r#"[{"index":0,"id":"t1","function":{"name":"read","arguments":"{\"path\":\"a\"}"}}]"#,
        r#"[{"index":0,"id":"t2","function":{"name":"read","arguments":"{\"path\":\"b\"}"}}]"#,
    ];
    let two = "call t1 read {\"path\":\"a\"} | call t2 read {\"path\":\"b\"} | done tool_use";
    let one = "call t1 read {\"a\":1} | done tool_use";
    let at = |index: &str| {
        let first = format!(r#"[{{"index":{index},"id":"t1","function":{{"name":"read","arguments":"{{\"a\""}}}}]"#);
        let then = format!(r#"[{{"index":{index},"function":{{"arguments":":1}}"}}}}]"#);
        calls(&[&first, &then])
    };
    check::<chat_completions::Translator>(&[
        ("an index that is used again", &calls(&reused), two),
        (
            "id and name repeated",
            &calls(&[
                r#"[{"index":0,"id":"t1","function":{"name":"read","arguments":"{\"a\""}}]"#,
                r#"[{"index":0,"id":"t1","function":{"name":"read","arguments":":1}"}}]"#,
            ]),
            one,
        ),
        ("no id", &calls(&[r#"[{"index":0,"function":{"name":"read","arguments":"{}"}}]"#]), "call call_…"),
        (
            "no arguments",
            &calls(&[r#"[{"index":0,"id":"t1","function":{"name":"now","arguments":""}}]"#]),
            "call t1 now {} | done tool_use",
        ),
        (
            "arguments as an object",
            &calls(&[r#"[{"index":0,"id":"t1","function":{"name":"read","arguments":{"a":1}}}]"#]),
            one,
        ),
        (
            "a call in place of a list",
            &calls(&[r#"{"id":"t1","function":{"name":"read","arguments":"{\"a\":1}"}}"#]),
            one,
        ),
        (
            "name and arguments without `function`",
            &calls(&[r#"[{"id":"t1","name":"read","arguments":"{\"a\":1}"}]"#]),
            one,
        ),
        (
            "an id that is a number",
            &calls(&[r#"[{"id":7,"function":{"name":"read","arguments":"{\"a\":1}"}}]"#]),
            "call 7 read {\"a\":1} | done tool_use",
        ),
        ("a negative index", &at("-1"), one),
        ("null for an index", &at("null"), one),
        ("an index in words", &at("\"0\""), one),
        ("a huge index", &at("99999999999999999999"), one),
        ("an index beyond 32 bits", &at("4294967296"), one),
        ("an index that is an object", &at("{}"), one),
        ("a fraction", &at("0.0"), one),
        (
            "the form before there were lists",
            "{\"choices\":[{\"delta\":{\"function_call\":{\"name\":\"ls\",\"arguments\":\"{\\\"a\\\"\"}}}]}\n{\"choices\":[{\"delta\":{\"function_call\":{\"arguments\":\":1}\"}},\"finish_reason\":\"function_call\"}]}",
            "call call_…",
        ),
    ]);
    let stream =
        told::<chat_completions::Translator>(&calls(&[r#"[{"index":0,"function":{"name":"read","arguments":"{}"}}]"#]))
            .0;
    let whole = r#"{"choices":[{"message":{"tool_calls":[{"function":{"name":"read","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}"#;
    assert_eq!(
        read::<chat_completions::Translator>(whole),
        stream,
        "a made id is the same in a stream and a whole answer"
    );
}

#[test]
fn content_comes_as_parts_under_other_names_and_in_other_places() {
    check::<chat_completions::Translator>(&[
        (
            "parts",
            r#"{"choices":[{"delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"Two twos."}]}]}}]}
               {"choices":[{"delta":{"content":[{"type":"text","text":"Four."},{"type":"output_text","text":"!"}]},"finish_reason":"stop"}]}"#,
            "reasoning Two twos. | text Four.! | done end_turn",
        ),
        (
            "`message` for `delta`",
            "{\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Four.\"},\"finish_reason\":\"stop\"}]}\n[DONE]",
            "text Four. | done end_turn",
        ),
        (
            "`message` after deltas",
            "{\"choices\":[{\"delta\":{\"content\":\"Four.\"}}]}\n{\"choices\":[{\"message\":{\"content\":\"Four.\"},\"finish_reason\":\"stop\"}]}",
            "text Four. | done end_turn",
        ),
        (
            "`message` in every event",
            "{\"choices\":[{\"message\":{\"content\":\"ha\"}}]}\n{\"choices\":[{\"message\":{\"content\":\"ha\"},\"finish_reason\":\"stop\"}]}",
            "text haha | done end_turn",
        ),
        (
            "the text of a completion",
            r#"{"choices":[{"text":"Four.","finish_reason":"stop"}]}"#,
            "text Four. | done end_turn",
        ),
        (
            "reasoning details",
            r#"{"choices":[{"delta":{"reasoning_details":[{"type":"reasoning.text","text":"hm"}],"content":"a"},"finish_reason":"stop"}]}"#,
            "reasoning hm | text a | done end_turn",
        ),
        (
            "reasoning under two names",
            r#"{"choices":[{"delta":{"reasoning":"hm","reasoning_content":"hm","content":"a"},"finish_reason":"stop"}]}"#,
            "reasoning hm | text a | done end_turn",
        ),
        (
            "`thinking`",
            r#"{"choices":[{"delta":{"thinking":"hm","content":"a"},"finish_reason":"stop"}]}"#,
            "reasoning hm | text a | done end_turn",
        ),
        (
            "a refusal as a part",
            r#"{"choices":[{"delta":{"content":[{"type":"refusal","refusal":"No."}]},"finish_reason":"stop"}]}"#,
            "text No. | done refusal",
        ),
        (
            "NUL and control characters",
            "{\"choices\":[{\"delta\":{\"content\":\"a\\u0000b\u{1}c\"},\"finish_reason\":\"stop\"}]}",
            "text a\0b\u{1}c | done end_turn",
        ),
    ]);
}

#[test]
fn odd_side_fields_never_lose_an_answer() {
    for odd in ["null", "[]", "{}", "-1", "1e99", "\"x\"", "true", "[[{}]]", "\"\\ud83d\"", "99999999999999999999999"] {
        let chat = format!(
            r#"{{"id":{odd},"created":{odd},"model":{odd},"system_fingerprint":{odd},"usage":{odd},"choices":[{{"index":-1,"logprobs":{odd},"delta":{{"role":{odd},"content":"a"}},"finish_reason":"stop"}}]}}"#
        );
        let response = format!(
            "{{\"type\":\"response.output_text.delta\",\"output_index\":{odd},\"item_id\":{odd},\"content_index\":{odd},\"sequence_number\":{odd},\"delta\":\"a\"}}\n{{\"type\":\"response.completed\",\"response\":{{\"id\":{odd},\"status\":\"completed\",\"usage\":{odd},\"max_output_tokens\":{odd}}}}}"
        );
        let message = format!(
            "{{\"type\":\"message_start\",\"message\":{{\"id\":{odd},\"model\":{odd},\"usage\":{odd}}}}}\n{{\"type\":\"content_block_delta\",\"index\":{odd},\"delta\":{{\"type\":\"text_delta\",\"text\":\"a\"}}}}\n{{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"end_turn\",\"stop_sequence\":{odd}}},\"usage\":{odd}}}"
        );
        for found in [
            told::<chat_completions::Translator>(&chat).0,
            told::<responses::Translator>(&response).0,
            told::<messages::Translator>(&message).0,
        ] {
            let without_usage = found.replace("usage 0/0 | ", "");
            assert_eq!(without_usage, "text a | done end_turn", "{odd}");
        }
    }
    let costly = "{\"choices\":[{\"delta\":{\"content\":\"Four.\"},\"finish_reason\":\"stop\"}]}\n{\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2,\"cost\":{\"total_cost\":0.06}}}";
    check::<chat_completions::Translator>(&[(
        "a cost that is an object",
        costly,
        "text Four. | usage 5/2 | done end_turn",
    )]);
}

#[test]
fn a_whole_answer_is_read_as_a_stream_is() {
    let chat = r#"{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","reasoning_content":"hm","content":"Four.","tool_calls":[{"id":"t1","type":"function","function":{"name":"ls","arguments":"{}"}},{"id":"t2","function":{"name":"ls","arguments":"{\"a\":1}"}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
    let response = r#"{"id":"x","object":"response","status":"completed","error":null,"output":[{"type":"reasoning","summary":[{"type":"summary_text","text":"hm"}]},{"type":"message","content":[{"type":"output_text","text":"Four.","annotations":[]}]},{"type":"function_call","id":"fc_1","call_id":"t1","name":"ls","arguments":"{}"},{"type":"function_call","id":"fc_2","call_id":"t2","name":"ls","arguments":"{\"a\":1}"}],"usage":{"input_tokens":1,"output_tokens":2}}"#;
    let message = r#"{"id":"x","type":"message","role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":"Four."},{"type":"tool_use","id":"t1","name":"ls","input":{}},{"type":"tool_use","id":"t2","name":"ls","input":{"a":1}}],"stop_reason":"tool_use","usage":{"input_tokens":1,"output_tokens":2}}"#;
    let expected = "reasoning hm | text Four. | call t1 ls {} | call t2 ls {\"a\":1} | usage 1/2 | done tool_use";
    assert_eq!(read::<chat_completions::Translator>(chat), expected);
    assert_eq!(read::<responses::Translator>(response), expected);
    assert_eq!(read::<messages::Translator>(message), expected);
    for cut in [20, 60, 100] {
        assert!(read::<chat_completions::Translator>(&chat[..cut]).starts_with("error truncated"), "{cut}");
    }
    for no_answer in ["{}", "[]", "[1,{}]", r#"{"data":[]}"#, "{x"] {
        assert_eq!(read::<chat_completions::Translator>(no_answer), "no answer", "{no_answer}");
        assert_eq!(read::<responses::Translator>(no_answer), "no answer", "{no_answer}");
        assert_eq!(read::<messages::Translator>(no_answer), "no answer", "{no_answer}");
    }
    // The end of a stream repeats it, or is all there is.
    let completed = format!("{{\"type\":\"response.completed\",\"response\":{response}}}");
    assert_eq!(told::<responses::Translator>(&completed).0, expected);
    let repeated = format!(
        "{}\n{}\n{completed}",
        r#"{"type":"response.output_text.delta","output_index":1,"delta":"Four."}"#,
        r#"{"type":"response.output_item.added","output_index":2,"item":{"type":"function_call","call_id":"t1","name":"ls","arguments":""}}"#
    );
    assert_eq!(
        told::<responses::Translator>(&repeated).0,
        "text Four. | call t1 ls {} | reasoning hm | call t2 ls {\"a\":1} | usage 1/2 | done tool_use"
    );
}
