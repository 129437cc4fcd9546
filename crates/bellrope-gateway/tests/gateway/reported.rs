//! What users of similar software reported in public, played for real: each oddity in the words of every format, from a
//! provider over HTTP to every tool, streamed and whole; and what tools ask, on its way to every provider.
//!
//! `docs/reported.md` has a row for each.

use bellrope_gateway::ProviderConfig;
use bellrope_gateway::inbound::ToolFormat;
use serde_json::{Value, json};

use crate::fake::Fake;
use crate::tools::{PROVIDERS, Said, TOOLS, gateway, question, read, streamed, whole};

mod answers;
mod requests;

use answers::{ANSWERS, Becomes};

/// The same oddity as each format's server would send it, in the order of [`PROVIDERS`].
pub(crate) type InEach = [&'static str; 3];

/// Events as a stream of these.
fn stream(events: &str) -> String {
    events.lines().map(|data| format!("data: {}\n\n", data.trim())).collect()
}

/// Plays an answer to every tool, streamed and whole.
async fn play(row: &str, provider: usize, fake: &Fake, becomes: &Becomes) {
    let format = PROVIDERS[provider];
    let gateway = gateway(fake, format, ProviderConfig { max_retries: 0, ..fake.config(format) });
    for tool in TOOLS {
        let place = format!("{row}: {format:?} to {tool:?}");
        let asked = question(tool);
        let streamed = streamed(&gateway, read(tool, &asked)).await;
        match becomes {
            Becomes::Fails(words) => {
                let ends = ["data: {\"error\":", "event: response.failed", "event: error"];
                let end = ends[TOOLS.iter().position(|other| *other == tool).unwrap()];
                assert_eq!(streamed.matches(end).count(), 1, "{place}: {streamed}");
                assert!(streamed.contains(words), "{place}: {streamed}");
                for whole in ["[DONE]", "response.completed", "message_stop"] {
                    assert!(!streamed.contains(whole), "{place}: {streamed}");
                }
                let asked = read(tool, &asked);
                let error = crate::fake::soon(gateway.chat(asked.chat)).await.expect_err(&place);
                assert!(error.to_string().contains(words), "{place}: {error}");
            }
            _ => {
                becomes.check(&place, &Said::in_stream(tool, &streamed));
                becomes.check(&place, &Said::in_whole(tool, &whole(&gateway, read(tool, &asked)).await));
            }
        }
    }
}

// Faults 70, 71, 72, 73.
#[tokio::test]
async fn every_reported_answer_is_told_to_every_tool_as_it_was_meant() {
    let mut wrong = Vec::new();
    for answer in ANSWERS {
        for (provider, name) in PROVIDERS.iter().enumerate() {
            for (form, body) in [("events", answer.events[provider]), ("a document", answer.document[provider])] {
                if body.is_empty() {
                    continue;
                }
                // In a task of its own, so that all rows are played whatever comes of one.
                let played = tokio::spawn(async move {
                    let fake = match form {
                        "events" => Fake::streaming([&*stream(body)]).await,
                        _ => Fake::replying("200 OK", "content-type: application/json\r\n", body).await,
                    };
                    play(answer.row, provider, &fake, &answer.becomes).await;
                });
                if let Err(error) = played.await {
                    wrong.push(format!("{}, as {form} of {name:?}: {error}", answer.row));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A conversation in which a tool was called, as a tool sends it back: with this id, these arguments as text, and this result
/// in the words of its format.
fn called(tool: ToolFormat, id: &str, arguments: &str, result: &Value) -> Value {
    let schema = json!({"type": "object", "properties": {}});
    match tool {
        ToolFormat::Responses => json!({
            "model": "m",
            "input": [
                {"role": "user", "content": "hi"},
                {"type": "function_call", "call_id": id, "name": "f", "arguments": arguments},
                {"type": "function_call_output", "call_id": id, "output": result},
            ],
            "tools": [{"type": "function", "name": "f", "parameters": schema}],
        }),
        ToolFormat::Messages => json!({
            "model": "m", "max_tokens": 100,
            "messages": [
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": [{
                    "type": "tool_use", "id": id, "name": "f",
                    "input": serde_json::from_str(arguments).unwrap_or_else(|_| Value::from(arguments)),
                }]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": result}]},
            ],
            "tools": [{"name": "f", "input_schema": schema}],
        }),
        _ => json!({
            "model": "m",
            "messages": [
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": null, "tool_calls": [
                    {"id": id, "type": "function", "function": {"name": "f", "arguments": arguments}},
                ]},
                {"role": "tool", "tool_call_id": id, "content": result},
            ],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}],
        }),
    }
}
