//! The whole way to a real model, when there is one.
//!
//! `BELLROPE_REAL_MODEL_URL` names the base URL of any OpenAI-compatible server, such as `http://127.0.0.1:8080/v1` of a
//! llama.cpp server. Without it the test says that it was skipped.

use std::io::Write;
use std::time::Duration;

use bellrope_gateway::{ChatRequest, Chunk, CompletionRequest, Gateway, GatewaySettings, StopReason};
use futures_util::StreamExt;
use tokio::time::timeout;

const URL: &str = "BELLROPE_REAL_MODEL_URL";

#[tokio::test]
async fn a_real_model_answers_through_the_gateway() {
    let Ok(url) = std::env::var(URL) else {
        // Straight to the stream: what is printed by a test that passes is not shown.
        writeln!(std::io::stderr(), "SKIPPED: {URL} is not set; no real model was asked").unwrap();
        return;
    };
    let settings = GatewaySettings { provider: "openai".to_owned(), ..GatewaySettings::default() };
    let gateway = Gateway::from_settings_and_vars(settings, |name| match name {
        "OPENAI_BASE_URL" => Some(url.clone()),
        name => std::env::var(name).ok(),
    })
    .unwrap();
    timeout(Duration::from_secs(300), converse(&gateway)).await.expect("the model took longer than five minutes");
}

async fn converse(gateway: &Gateway) {
    let models = gateway.models().await;
    let Some(model) = models.models.iter().find(|model| model.provider == "openai") else { panic!("{models:?}") };
    let model = model.id.clone();
    let health = gateway.health().await;
    assert!(health.providers.iter().all(|provider| provider.healthy), "{health:?}");

    let question = ChatRequest {
        model: Some(model.clone()),
        system: Some("You answer in one short sentence.".to_owned()),
        max_tokens: Some(48),
        temperature: Some(0.0),
        ..ChatRequest::user("What is the capital of France?")
    };
    let pieces: Vec<_> = gateway.chat_stream(question.clone()).collect().await;
    let numbers: Vec<_> = pieces.iter().map(|piece| piece.seq).collect();
    assert_eq!(numbers, (0..pieces.len() as u64).collect::<Vec<_>>());
    let text: String = pieces
        .iter()
        .filter_map(|piece| match &piece.chunk {
            Chunk::Text { text } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert!(text.contains("Paris"), "{text}");
    let [.., usage, done] = &pieces[..] else { panic!("{pieces:?}") };
    assert!(matches!(&usage.chunk, Chunk::Usage(usage) if usage.input_tokens > 0 && usage.output_tokens > 0));
    assert!(matches!(done.chunk, Chunk::Done { .. }), "{done:?}");

    // Dropped after the first piece, so that the server is told to stop; it answers the next request at once.
    let endless = ChatRequest { max_tokens: Some(1500), ..question };
    let mut stream = gateway.chat_stream(endless);
    assert!(matches!(stream.next().await.unwrap().chunk, Chunk::Text { .. }));
    drop(stream);

    let completion = CompletionRequest { model: Some(model), max_tokens: Some(4), ..CompletionRequest::new("Count:") };
    let response = gateway.complete(completion).await.unwrap();
    assert_eq!(response.stop_reason, StopReason::MaxTokens);
    assert!(!response.text.is_empty());
}
