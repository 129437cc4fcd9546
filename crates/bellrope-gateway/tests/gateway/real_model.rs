//! The whole way to a real model, in each wire format, when there is one.
//!
//! `BELLROPE_REAL_MODEL_URL` names the base URL of a server that speaks chat completions, responses and messages, such as
//! `http://127.0.0.1:8080/v1` of a llama.cpp server. Without it the tests say that they were skipped.

use std::time::Duration;

use bellrope_gateway::{
    ChatRequest, Chunk, CompletionRequest, Gateway, GatewaySettings, ProviderConfig, ProviderKind, SequencedChunk,
    StopReason,
};
use futures_util::StreamExt;
use tokio::time::timeout;

const URL: &str = "BELLROPE_REAL_MODEL_URL";

/// The gateway's only use here is this provider.
const NAME: &str = "real";

/// A gateway that asks the real model in this format; `None`, said loudly, without one.
fn gateway(kind: ProviderKind) -> Option<Gateway> {
    let Ok(base_url) = std::env::var(URL) else {
        bellrope_testkit::skipped(&format!("{URL} is not set; no real model was asked"));
        return None;
    };
    let model = Some("real-model".to_owned());
    let config = ProviderConfig { kind: Some(kind), base_url, model, ..ProviderConfig::default() };
    let settings = GatewaySettings {
        provider: NAME.to_owned(),
        providers: [(NAME.to_owned(), config)].into(),
        ..GatewaySettings::default()
    };
    Some(Gateway::from_settings_and_vars(settings, |_| None).unwrap())
}

fn question() -> ChatRequest {
    ChatRequest {
        system: Some("You answer in one short sentence.".to_owned()),
        max_tokens: Some(48),
        temperature: Some(0.0),
        ..ChatRequest::user("What is the capital of France?")
    }
}

fn text_of(pieces: &[SequencedChunk]) -> String {
    pieces
        .iter()
        .filter_map(|piece| match &piece.chunk {
            Chunk::Text { text } => Some(text.as_str()),
            _ => None,
        })
        .collect()
}

async fn converse(kind: ProviderKind) {
    let Some(gateway) = gateway(kind) else { return };
    let conversation = async {
        let models = gateway.models().await;
        assert!(models.models.iter().any(|model| model.provider == NAME), "{models:?}");
        let health = gateway.health().await;
        assert!(health.providers.iter().any(|seen| seen.provider == NAME && seen.healthy), "{health:?}");

        let pieces: Vec<_> = gateway.chat_stream(question()).collect().await;
        let numbers: Vec<_> = pieces.iter().map(|piece| piece.seq).collect();
        assert_eq!(numbers, (0..pieces.len() as u64).collect::<Vec<_>>());
        assert!(text_of(&pieces).contains("Paris"), "{pieces:?}");
        let [text @ .., usage, done] = &pieces[..] else { panic!("{pieces:?}") };
        assert!(text.len() > 1 && text.iter().all(|piece| matches!(piece.chunk, Chunk::Text { .. })), "{pieces:?}");
        assert!(matches!(&usage.chunk, Chunk::Usage(usage) if usage.input_tokens > 0 && usage.output_tokens > 0));
        assert_eq!(done.chunk, Chunk::Done { stop_reason: StopReason::EndTurn });

        // Dropped in mid-answer, so that the server is told to stop; it answers the next request at once.
        let mut stream = gateway.chat_stream(ChatRequest { max_tokens: Some(1500), ..question() });
        for _ in 0..3 {
            assert!(matches!(stream.next().await.unwrap().chunk, Chunk::Text { .. }));
        }
        drop(stream);

        let completion = CompletionRequest { max_tokens: Some(4), ..CompletionRequest::new("Count:") };
        let response = gateway.complete(completion).await.unwrap();
        assert!(!response.text.is_empty());
        match kind {
            // llama.cpp says of every response that it is completed.
            ProviderKind::OpenAiResponses => {}
            _ => assert_eq!(response.stop_reason, StopReason::MaxTokens),
        }
        let snapshot = gateway.snapshot();
        let seen = snapshot.providers.iter().find(|seen| seen.provider == NAME).unwrap();
        assert_eq!((seen.requests, seen.done, seen.cancelled, seen.in_flight), (3, 2, 1, 0), "{seen:?}");
    };
    timeout(Duration::from_secs(300), conversation).await.expect("the model took longer than five minutes");
}

#[tokio::test]
async fn a_real_model_answers_in_chat_completions() {
    converse(ProviderKind::OpenAi).await;
}

#[tokio::test]
async fn a_real_model_answers_in_responses() {
    converse(ProviderKind::OpenAiResponses).await;
}

#[tokio::test]
async fn a_real_model_answers_in_messages() {
    converse(ProviderKind::Anthropic).await;
}

#[tokio::test]
async fn all_formats_give_the_same_answer_of_a_real_model() {
    let mut answers = Vec::new();
    for kind in [ProviderKind::OpenAi, ProviderKind::OpenAiResponses, ProviderKind::Anthropic] {
        let Some(gateway) = gateway(kind) else { return };
        let pieces: Vec<_> =
            timeout(Duration::from_secs(300), gateway.chat_stream(question()).collect()).await.expect("five minutes");
        answers.push(text_of(&pieces));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}
