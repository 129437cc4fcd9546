//! The whole road to a real language model, when there is one.

use std::{io::Write, time::Duration};

use crate::support::{Home, Running};

/// Names the base URL of any OpenAI-compatible server, such as `http://127.0.0.1:8080`.
const URL: &str = "BELLROPE_REAL_MODEL_URL";

/// No bound is set on how much a small model may say.
const A_LONG_ANSWER: Duration = Duration::from_secs(600);

#[test]
fn a_real_model_answers_through_serve_and_chat() {
    let Ok(url) = std::env::var(URL) else {
        // Straight to the stream: what is printed by a test that passes is not shown.
        writeln!(std::io::stderr(), "SKIPPED: {URL} is not set; no real model was asked").unwrap();
        return;
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
