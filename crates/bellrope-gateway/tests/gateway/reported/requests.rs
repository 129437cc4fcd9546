//! What tools ask, read in their format and sent to a provider of each. The words are ours.

use std::sync::Arc;

use bellrope_gateway::inbound::{Asked, ToolFormat};
use bellrope_gateway::{Gateway, HttpProvider};
use serde_json::{Value, json};

use super::called;
use crate::fake::{Fake, soon};
use crate::script::Format;
use crate::tools::{PROVIDERS, TOOLS};

/// What came of a request: the body that a provider of this format got, and what was noted.
struct Sent {
    format: Format,
    body: Value,
    notes: Vec<String>,
}

impl Sent {
    /// The turns of the conversation, or its items.
    fn turns(&self) -> &[Value] {
        self.body[if self.format == Format::Responses { "input" } else { "messages" }].as_array().unwrap()
    }

    /// The only call: its id, that of its result, its arguments, the result.
    fn call(&self) -> [&Value; 4] {
        let turns = self.turns();
        match self.format {
            Format::ChatCompletions => {
                let (call, result) = (&turns[1]["tool_calls"][0], &turns[2]);
                [&call["id"], &result["tool_call_id"], &call["function"]["arguments"], &result["content"]]
            }
            Format::Responses => {
                [&turns[1]["call_id"], &turns[2]["call_id"], &turns[1]["arguments"], &turns[2]["output"]]
            }
            Format::Messages => {
                let (call, result) = (&turns[1]["content"][0], &turns[2]["content"][0]);
                [&call["id"], &result["tool_use_id"], &call["input"], &result["content"]]
            }
        }
    }
}

/// Sends what a tool wrote, byte for byte, to a provider of each format.
async fn sent(tool: ToolFormat, body: &str) -> Vec<Sent> {
    let mut all = Vec::new();
    for format in PROVIDERS {
        let fake = Fake::streaming([&*format.answer("a")]).await;
        let gateway = Gateway::new(Arc::new(HttpProvider::new(fake.config(format)).unwrap()));
        let asked = tool.read(body.as_bytes(), &[]);
        let Asked { chat, .. } = asked.unwrap_or_else(|fault| panic!("{tool:?} to {format:?}: {fault}: {body}"));
        let response = soon(gateway.chat(chat)).await.unwrap_or_else(|error| panic!("{tool:?} to {format:?}: {error}"));
        let body = serde_json::from_str(&fake.requests().last().unwrap().body).unwrap();
        all.push(Sent { format, body, notes: response.notes });
    }
    all
}

/// A question without tools, with these fields of a tool's format beside it.
fn plain(tool: ToolFormat, text: &str, fields: &Value) -> String {
    let turns = json!([{"role": "user", "content": "TEXT"}]);
    let mut body = match tool {
        ToolFormat::Responses => json!({"model": "m", "input": turns}),
        ToolFormat::Messages => json!({"model": "m", "max_tokens": 100, "messages": turns}),
        _ => json!({"model": "m", "messages": turns}),
    };
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    // As it stands: no library writes half a pair.
    body.to_string().replace("TEXT", text)
}

// Rows 19 and 20.
// Fault 74.
#[tokio::test]
async fn reported_arguments_and_ids_of_calls_reach_every_provider_as_it_takes_them() {
    for tool in TOOLS {
        for sent in sent(tool, &called(tool, "t1", "{\"a\":", &json!("4")).to_string()).await {
            let arguments = sent.call()[2];
            match sent.format {
                Format::Messages => assert!(arguments.is_object(), "{tool:?}: {arguments}"),
                _ => assert_eq!(arguments, "{\"a\":", "{tool:?}: the text as it was"),
            }
        }
        for id in ["functions.f:0", "call|1", "ü"] {
            for sent in sent(tool, &called(tool, id, "{}", &json!("4")).to_string()).await {
                let [of_call, of_result, ..] = sent.call();
                assert_eq!(of_call, of_result, "{tool:?} to {:?}", sent.format);
                let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                let id = of_call.as_str().unwrap();
                assert!(!id.is_empty() && (sent.format != Format::Messages || id.chars().all(is_plain)), "{id}");
            }
        }
    }
}

// Row 21.
// Fault 74.
#[tokio::test]
async fn reported_blank_turns_reach_no_provider_that_refuses_them() {
    for tool in TOOLS {
        let turns = json!([
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "\n\n"},
            {"role": "user", "content": "go on"},
        ]);
        let body = match tool {
            ToolFormat::Responses => json!({"model": "m", "input": turns}),
            _ => json!({"model": "m", "max_tokens": 100, "messages": turns}),
        };
        for sent in sent(tool, &body.to_string()).await {
            let is_blank = |text: &Value| text.as_str().is_some_and(|text| text.trim().is_empty());
            let blanks = sent.turns().iter().filter(|turn| {
                is_blank(&turn["content"])
                    || turn["content"].as_array().is_some_and(|parts| parts.iter().any(|part| is_blank(&part["text"])))
            });
            assert!(sent.format != Format::Messages || blanks.count() == 0, "{tool:?}: {}", sent.body);
        }
    }
}

// Rows 22, 24 and 30.
// Fault 74.
#[tokio::test]
async fn reported_fields_are_left_out_clamped_or_whole_numbers() {
    for tool in TOOLS {
        let choice = if tool == ToolFormat::Messages { json!({"type": "auto"}) } else { json!("auto") };
        for sent in sent(tool, &plain(tool, "hi", &json!({"tools": [], "tool_choice": choice}))).await {
            assert_eq!((&sent.body["tools"], &sent.body["tool_choice"]), (&Value::Null, &Value::Null), "{tool:?}");
        }
        for sent in sent(tool, &plain(tool, "hi", &json!({"temperature": 1.7}))).await {
            if sent.format == Format::Messages {
                assert_eq!(sent.body["temperature"], 1.0, "{tool:?}");
                assert!(sent.notes.iter().any(|note| note.contains("temperature 1.7")), "{tool:?}: {:?}", sent.notes);
            } else {
                assert_eq!(sent.body["temperature"], 1.7, "{tool:?}");
            }
        }
        let limit = if tool == ToolFormat::Responses { "max_output_tokens" } else { "max_tokens" };
        for (given, expected) in [(json!(-1), Value::Null), (json!(100.0), json!(100))] {
            for sent in sent(tool, &plain(tool, "hi", &json!({ limit: given }))).await {
                let found = ["max_tokens", "max_completion_tokens", "max_output_tokens"]
                    .into_iter()
                    .find_map(|name| sent.body.get(name));
                match (&expected, sent.format) {
                    // It has to have one.
                    (Value::Null, Format::Messages) => assert!(found.unwrap().as_u64().unwrap() > 0, "{tool:?}"),
                    (Value::Null, _) => assert_eq!(found, None, "{tool:?}"),
                    _ => assert_eq!(found, Some(&expected), "{tool:?} to {:?}", sent.format),
                }
            }
        }
    }
}

// Rows 25 and 26.
// Fault 74.
#[tokio::test]
async fn reported_thoughts_and_signatures_of_earlier_turns_go_back_where_there_is_a_place() {
    let google = json!({"google": {"thought_signature": "QUJD"}});
    let mut body = called(ToolFormat::ChatCompletions, "t1", "{}", &json!("4"));
    body["messages"][1]["reasoning_content"] = json!("I look first.");
    body["messages"][1]["tool_calls"][0]["extra_content"] = google.clone();
    for sent in sent(ToolFormat::ChatCompletions, &body.to_string()).await {
        if sent.format == Format::ChatCompletions {
            let said = &sent.turns()[1];
            assert_eq!(said["reasoning_content"], "I look first.");
            assert_eq!(said["tool_calls"][0]["extra_content"], google);
            assert!(sent.notes.is_empty(), "{:?}", sent.notes);
        } else {
            assert!(sent.notes.len() >= 2, "what finds no place is named: {:?}", sent.notes);
        }
    }
    // And what the other formats call so.
    let mut body = called(ToolFormat::Messages, "t1", "{}", &json!("4"));
    let thought = json!({"type": "thinking", "thinking": "I look first.", "signature": "c2ln"});
    body["messages"][1]["content"].as_array_mut().unwrap().insert(0, thought.clone());
    for sent in sent(ToolFormat::Messages, &body.to_string()).await {
        match sent.format {
            Format::Messages => assert_eq!(sent.turns()[1]["content"][0], thought),
            Format::ChatCompletions => assert_eq!(sent.turns()[1]["reasoning_content"], "I look first."),
            Format::Responses => assert!(!sent.notes.is_empty(), "it is named"),
        }
    }
}

// Row 29.
// Fault 70.
#[tokio::test]
async fn reported_half_pairs_in_questions_are_replaced() {
    for tool in TOOLS {
        for sent in sent(tool, &plain(tool, "cut \\ud83d here", &json!({}))).await {
            assert!(sent.body.to_string().contains("cut \u{fffd} here"), "{tool:?}: {}", sent.body);
        }
    }
}

// Row 45.
// Fault 74.
#[tokio::test]
async fn reported_pictures_in_results_of_tools_are_passed_on_or_named() {
    for tool in TOOLS {
        let result = match tool {
            ToolFormat::Responses => json!([
                {"type": "input_text", "text": "seen"},
                {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
            ]),
            ToolFormat::Messages => json!([
                {"type": "text", "text": "seen"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
            ]),
            _ => json!([
                {"type": "text", "text": "seen"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
            ]),
        };
        for sent in sent(tool, &called(tool, "t1", "{}", &result).to_string()).await {
            let found = sent.call()[3].to_string();
            assert!(found.contains("seen"), "{tool:?} to {:?}: {found}", sent.format);
            match sent.format {
                Format::ChatCompletions => assert!(found.contains("A picture stood here"), "{tool:?}: {found}"),
                _ => assert!(found.contains("AA=="), "{tool:?} to {:?}: {found}", sent.format),
            }
        }
    }
}
