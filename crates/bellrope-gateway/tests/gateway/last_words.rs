//! What a provider says last of what an answer took: it counts, also where the answer failed.

use std::sync::Arc;

use bellrope_gateway::account::Outcome;
use bellrope_gateway::{ChatRequest, ProviderConfig, Way};
use serde_json::json;

use crate::exact::{Ledger, STREAM, read, send, stream, with_books};
use crate::fake::{Fake, soon};
use crate::pass::exact;
use crate::script::Format;

/// Answers that fail, and whether what they say of their tokens is a last word.
fn failures(format: Format) -> Vec<(&'static str, String)> {
    let said = format.half(&"0123456789".repeat(20));
    match format {
        Format::ChatCompletions => {
            let failed = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]});
            let usage = json!({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}});
            let mut both = failed.clone();
            both["usage"] = usage["usage"].clone();
            let error = json!({"error": {"message": "boom"}, "usage": usage["usage"]});
            vec![
                ("behind", format!("{said}data: {failed}\n\ndata: {usage}\n\ndata: [DONE]\n\n")),
                ("with the reason", format!("{said}data: {both}\n\ndata: [DONE]\n\n")),
                ("with an error", format!("{said}data: {error}\n\n")),
            ]
        }
        Format::Responses => {
            let usage = json!({"input_tokens": 3, "output_tokens": 2});
            let ended = |word: &str, error: serde_json::Value| {
                let response = json!({"id": "resp_1", "status": word, "error": error, "usage": usage});
                let event = json!({"type": format!("response.{word}"), "response": response});
                format!("{said}event: response.{word}\ndata: {event}\n\n")
            };
            vec![
                ("failed", ended("failed", json!({"code": "server_error", "message": "boom"}))),
                ("cancelled", ended("cancelled", json!(null))),
                ("incomplete", ended("incomplete", json!(null))),
            ]
        }
        Format::Messages => {
            let delta = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"},
                "usage": {"input_tokens": 3, "output_tokens": 2}});
            let error = json!({"type": "error", "error": {"type": "api_error", "message": "boom"}});
            let said = format!("{said}event: message_delta\ndata: {delta}\n\n");
            vec![("before the error", format!("{said}event: error\ndata: {error}\n\n")), ("and no end", said)]
        }
    }
}

#[tokio::test]
async fn a_providers_last_word_on_an_answer_that_failed_is_no_estimate() {
    for format in [Format::ChatCompletions, Format::Responses, Format::Messages] {
        for (what, answer) in failures(format) {
            let fake = Fake::streaming([&*answer]).await;
            for way in ["exact", "stream", "whole"] {
                // What says why it stopped, and breaks off then, is whole when it is put in order.
                let is_whole = what == "and no end" && way != "exact";
                let ledger = Arc::new(Ledger::default());
                if way == "exact" {
                    let gateway = with_books(exact(&fake, format), &ledger);
                    read(stream(send(&gateway, format, STREAM, None).await)).await;
                } else {
                    let gateway = with_books(fake.config(format), &ledger);
                    let asked = ChatRequest::user("Hi");
                    if way == "stream" {
                        soon(futures_util::StreamExt::collect::<Vec<_>>(gateway.chat_stream(asked))).await;
                    } else {
                        assert_eq!(soon(gateway.chat(asked)).await.is_ok(), is_whole, "{format:?} {what} {way}");
                    }
                }
                let (outcome, spent) = ledger.last();
                let usage = spent.usage.map(|usage| (usage.input_tokens, usage.output_tokens));
                let expected = if is_whole { Outcome::Done } else { Outcome::Cut };
                assert_eq!((outcome, usage), (expected, Some((3, 2))), "{format:?} {what} {way}");
                assert!(spent.is_final || is_whole, "{format:?} {what} {way}");
            }
        }
    }
}

#[tokio::test]
async fn the_most_tokens_that_are_set_for_a_provider_are_held_and_sent_where_a_budget_counts_an_exact_request() {
    for (format, field) in [(Format::ChatCompletions, "max_tokens"), (Format::Responses, "max_output_tokens")] {
        for (limit, expected) in [(None, json!(null)), (Some(900), json!(700)), (Some(300), json!(300))] {
            let fake = Fake::streaming([&*format.answer("a")]).await;
            let ledger = Arc::new(Ledger { limit, ..Ledger::default() });
            let config = ProviderConfig { max_tokens: Some(700), ..exact(&fake, format) };
            read(stream(send(&with_books(config, &ledger), format, STREAM, None).await)).await;
            assert_eq!(*ledger.said.lock().unwrap(), Some(700));
            let sent: serde_json::Value = serde_json::from_str(&fake.requests().last().unwrap().body).unwrap();
            assert_eq!(sent[field], expected, "{format:?} {limit:?}");
        }
    }
}

#[tokio::test]
async fn an_error_in_the_place_of_an_answer_that_no_tool_would_read_has_a_status() {
    for (format, event, status) in [
        (Format::ChatCompletions, r#"{"object":"error","message":"boom","code":400}"#, None),
        (Format::ChatCompletions, r#"{"detail":"boom"}"#, None),
        (Format::ChatCompletions, r#"{"error":{"message":"boom"}}"#, Some(200)),
        (Format::Responses, r#"{"detail":"boom"}"#, None),
        (Format::Responses, r#"{"type":"error","message":"boom"}"#, Some(200)),
        (Format::Messages, r#"{"error":{"message":"boom"}}"#, None),
        (Format::Messages, r#"{"type":"error","error":{"type":"api_error","message":"boom"}}"#, Some(200)),
    ] {
        let fake = Fake::streaming([&*format!("data: {event}\n\n")]).await;
        let gateway = with_books(exact(&fake, format), &Arc::default());
        let told = match send(&gateway, format, STREAM, None).await {
            Way::Refused(refusal) => Some(refusal.status),
            Way::Failed(error) => {
                assert!(error.to_string().contains("boom"), "{error}");
                None
            }
            way => panic!("{way:?}"),
        };
        assert_eq!(told, status, "{event}");
    }
}
