//! The whole road to a real language model, when there is one.

use std::time::Duration;

use bellrope_testkit::skipped;
use serde_json::{Value, json};

use crate::{
    api_formats::exchange,
    api_port::address,
    support::{Home, Running},
};

/// Names the base URL of any OpenAI-compatible server, such as `http://127.0.0.1:8080`.
const URL: &str = "BELLROPE_REAL_MODEL_URL";

/// No bound is set on how much a small model may say.
const A_LONG_ANSWER: Duration = Duration::from_secs(600);

#[test]
fn a_real_model_answers_through_serve_and_chat() {
    let Ok(url) = std::env::var(URL) else {
        return skipped(&format!("{URL} is not set; no real model was asked"));
    };
    let given = |name: &str| std::env::var(name).unwrap_or_default();
    let (key, model) = (given("OPENAI_API_KEY"), given("OPENAI_MODEL"));
    let home = Home::new();
    let variables = [("OPENAI_BASE_URL", &*url), ("OPENAI_API_KEY", &*key), ("OPENAI_MODEL", &*model)];
    let server = home.serve_with(["--provider", "openai"], &variables);
    server.said("provider openai");
    let mut chat = home.command(["chat", "What is the capital of France? Answer in one short sentence."]);
    let finished = Running::start(&mut chat).finish_within(A_LONG_ANSWER);
    assert!(finished.stderr.contains("usage: "), "{finished:?}");
    let answer = finished.succeeded();
    assert!(answer.trim().len() > 1, "{answer:?}");
}

/// What the model is to answer with.
fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {"capital": {"type": "string", "maxLength": 20}, "is_large": {"type": "boolean"}},
        "required": ["capital", "is_large"],
        "additionalProperties": false,
    })
}

#[test]
fn a_real_model_keeps_to_a_json_schema_in_every_format_of_the_port() {
    let Ok(url) = std::env::var(URL) else {
        return skipped(&format!("{URL} is not set; no real model was asked"));
    };
    let home = Home::new();
    // llama.cpp reads no schema in its own responses.
    let config = home.config(&format!(
        "[gateway]\nprovider = \"chat\"\n[gateway.providers.chat]\nkind = \"openai\"\nbase_url = \"{url}\"\nmodel = \"real\"\n"
    ));
    let server = home.serve(["--api-port".as_ref(), "0".as_ref(), "--config".as_ref(), config.as_os_str()]);
    let address = address(&server);
    let question = json!([{"role": "user", "content": "What is the capital of France, and is it large?"}]);
    let named = json!({"name": "city", "strict": true, "schema": schema()});
    let asked = [
        (
            "/v1/chat/completions",
            json!({"model": "chat/real", "messages": question, "max_tokens": 60, "temperature": 0,
                    "response_format": {"type": "json_schema", "json_schema": named}}),
            "/choices/0/message/content",
        ),
        (
            "/v1/responses",
            json!({"model": "chat/real", "input": question, "max_output_tokens": 60, "temperature": 0,
                    "text": {"format": {"type": "json_schema", "name": "city", "strict": true, "schema": schema()}}}),
            "/output/0/content/0/text",
        ),
        (
            "/v1/messages",
            json!({"model": "chat/real", "messages": question, "max_tokens": 60, "temperature": 0,
                    "output_config": {"format": {"type": "json_schema", "schema": schema()}}}),
            "/content/0/text",
        ),
    ];
    for (path, body, place) in asked {
        let response = exchange(&address, "POST", path, "Content-Type: application/json\r\n", &body.to_string());
        assert_eq!(response.status, 200, "{path}: {}", response.body);
        let answer = response.json();
        let text = answer.pointer(place).and_then(Value::as_str).unwrap_or_else(|| panic!("{path}: {answer}"));
        let city: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("{path}: {answer}"));
        assert!(city["capital"].is_string() && city["is_large"].is_boolean(), "{path}: {city}");
    }
}
