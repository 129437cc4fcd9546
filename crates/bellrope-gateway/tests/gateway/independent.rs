//! The way to a server that nobody here wrote: LLM Katan, from PyPI, with its echo backend.
//!
//! `BELLROPE_KATAN_URL` names its address, such as `http://127.0.0.1:8000`. It must have been started with
//! `--backend echo --model echo-model --providers openai,anthropic,azure_openai --validate-keys --api-keys
//! openai=katan-openai-key,anthropic=katan-anthropic-key,azure_openai=katan-azure-key`. Without the variable the tests
//! say that they were skipped.

use std::time::Duration;

use bellrope_gateway::{
    ChatRequest, Chunk, HttpProvider, Provider, ProviderConfig, ProviderError, ProviderKind, Secret, StopReason, Tool,
};
use futures_util::StreamExt;
use tokio::time::timeout;

const URL: &str = "BELLROPE_KATAN_URL";

/// The server in each format that it speaks, with its key.
const FORMATS: [(ProviderKind, &str); 3] = [
    (ProviderKind::OpenAi, "katan-openai-key"),
    (ProviderKind::Anthropic, "katan-anthropic-key"),
    (ProviderKind::Azure, "katan-azure-key"),
];

/// The server's address; `None`, said loudly, without one.
fn address() -> Option<String> {
    let address = std::env::var(URL).ok();
    if address.is_none() {
        bellrope_testkit::skipped(&format!("{URL} is not set; no independent server was asked"));
    }
    address
}

fn provider(address: &str, kind: ProviderKind, key: &str) -> HttpProvider {
    HttpProvider::new(ProviderConfig {
        kind: Some(kind),
        base_url: address.to_owned(),
        api_key: Some(Secret::new(key)),
        model: Some("echo-model".to_owned()),
        ..ProviderConfig::default()
    })
    .unwrap()
}

async fn answer(provider: &HttpProvider, request: ChatRequest) -> Result<Vec<Chunk>, ProviderError> {
    let items: Vec<_> =
        timeout(Duration::from_secs(60), provider.chat_stream(request).collect()).await.expect("it took over a minute");
    items.into_iter().collect()
}

#[tokio::test]
async fn an_independent_server_streams_its_answer_in_every_format() {
    let Some(address) = address() else { return };
    for (kind, key) in FORMATS {
        let pieces = answer(&provider(&address, kind, key), ChatRequest::user("ring the bell")).await.unwrap();
        let [text @ .., done] = &pieces[..] else { panic!("{pieces:?}") };
        assert_eq!(*done, Chunk::Done { stop_reason: StopReason::EndTurn }, "{kind:?}");
        let text: Vec<_> = text
            .iter()
            .filter_map(|piece| match piece {
                Chunk::Text { text } => Some(text.as_str()),
                Chunk::Usage(usage) => {
                    assert!(usage.input_tokens > 0 && usage.output_tokens > 0, "{kind:?}");
                    None
                }
                other => panic!("{kind:?}: {other:?}"),
            })
            .collect();
        assert!(text.len() > 5 && text.concat().contains("ring the bell"), "{kind:?}: {text:?}");
    }
}

#[tokio::test]
async fn an_independent_server_refuses_a_wrong_key_and_the_error_names_the_setting_and_not_the_key() {
    let Some(address) = address() else { return };
    for (kind, _) in FORMATS {
        let error = answer(&provider(&address, kind, "wrong-key-123"), ChatRequest::user("x")).await.unwrap_err();
        assert_eq!(error.code(), "authentication", "{kind:?}: {error}");
        let text = error.to_string();
        assert!(text.contains("_API_KEY") && !text.contains("wrong-key-123"), "{kind:?}: {text}");
    }
}

fn with_a_tool() -> ChatRequest {
    let tools = vec![Tool { name: "weather".to_owned(), parameters: serde_json::json!({}), ..Tool::default() }];
    ChatRequest { tools, ..ChatRequest::user("What is the weather in Bern?") }
}

#[tokio::test]
async fn an_independent_server_calls_a_tool_in_messages() {
    let Some(address) = address() else { return };
    let (kind, key) = FORMATS[1];
    let provider = provider(&address, kind, key);
    let response = timeout(Duration::from_secs(60), provider.chat(with_a_tool()));
    let response = response.await.expect("it took over a minute").unwrap();
    let [call] = &response.tool_calls[..] else { panic!("{response:?}") };
    assert!(call.name == "weather" && !call.id.is_empty(), "{call:?}");
    assert!(serde_json::from_str::<serde_json::Value>(&call.arguments).is_ok_and(|json| json.is_object()), "{call:?}");
    assert_eq!(response.stop_reason, StopReason::ToolUse);
}

#[tokio::test]
async fn an_independent_server_that_answers_whole_instead_of_streaming_is_read_as_a_stream() {
    let Some(address) = address() else { return };
    // In chat completions it never streams the calls of tools.
    for (kind, key) in [FORMATS[0], FORMATS[2]] {
        let chunks = answer(&provider(&address, kind, key), with_a_tool()).await.unwrap();
        let called = |chunk: &Chunk| matches!(chunk, Chunk::ToolCall(call) if call.name.as_deref() == Some("weather"));
        assert!(chunks.iter().any(called), "{kind:?}: {chunks:?}");
        assert_eq!(chunks.last(), Some(&Chunk::Done { stop_reason: StopReason::ToolUse }), "{kind:?}");
    }
}
