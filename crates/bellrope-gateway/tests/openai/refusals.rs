//! What an OpenAI-compatible server answers instead of a stream, when it is asked again, and what the user is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellrope_gateway::{
    Blame, ChatRequest, Chunk, Gateway, OpenAiConfig, OpenAiProvider, Phase, Provider, ProviderError, Secret,
    StopReason,
};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::fake::{Fake, KEY, answer, soon};

async fn ask(provider: &OpenAiProvider) -> Result<String, ProviderError> {
    soon(provider.chat(ChatRequest::user("Hello"))).await.map(|response| response.text)
}

async fn refusal(fake: &Fake) -> ProviderError {
    ask(&fake.provider()).await.unwrap_err()
}

/// Refuses the first `refusals` requests with this response, then answers.
async fn refusing(refusals: usize, status: &'static str, headers: &'static str, body: &'static str) -> Fake {
    Fake::start(move |number, mut peer| async move {
        if number < refusals {
            peer.reply(status, &format!("{headers}connection: close\r\n"), body).await;
        } else {
            peer.begin_events().await;
            peer.chunk(answer("at last")).await;
            peer.end().await;
        }
    })
    .await
}

#[tokio::test]
async fn nothing_is_connected_before_it_is_asked() {
    let fake = Fake::streaming([&answer("a")]).await;
    let provider = fake.provider();
    let stream = provider.chat_stream(ChatRequest::user("Hello"));
    drop((stream, provider));
    assert!(fake.requests().is_empty());
}

#[tokio::test]
async fn a_wrong_key_is_told_with_its_mend_and_without_the_key() {
    let body = format!(
        r#"{{"error":{{"message":"Incorrect API key provided: {KEY}.\u001b[31m","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}}}"#
    );
    let fake = Fake::replying("401 Unauthorized", "content-type: application/json\r\n", &body).await;
    let error = refusal(&fake).await;
    assert_eq!(
        error.to_string(),
        "the provider answered 401 (invalid_api_key): Incorrect API key provided: [secret].\\u{1b}[31m; \
         check OPENAI_API_KEY"
    );
    assert_eq!((error.code(), error.blame()), ("authentication", Blame::Configuration));
    assert_eq!(fake.requests().len(), 1, "it was asked again");
    assert!(!format!("{error:?} {:?} {:?}", fake.provider(), fake.config()).contains(KEY));
}

#[tokio::test]
async fn other_refusals_have_their_own_codes() {
    for (status, code, mend) in [
        ("400 Bad Request", "invalid_request", None),
        ("402 Payment Required", "billing", None),
        ("403 Forbidden", "permission", Some("check OPENAI_API_KEY")),
        ("404 Not Found", "not_found", Some("check OPENAI_BASE_URL and the model's name")),
        ("413 Payload Too Large", "too_large", None),
    ] {
        let fake = Fake::replying(status, "", "").await;
        let error = refusal(&fake).await;
        assert_eq!((error.code(), error.mend(), error.retryable()), (code, mend, false), "{status}");
        assert_eq!(fake.requests().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_long_error_is_cut() {
    let fake = Fake::replying("400 Bad Request", "", &"<p>".repeat(100_000)).await;
    let message = refusal(&fake).await.to_string();
    assert!(message.chars().count() < 600 && message.ends_with('…'), "{message}");
}

#[tokio::test]
async fn a_web_page_instead_of_events_is_typed() {
    let page = "<!doctype html><title>Sign in</title>";
    let fake = Fake::replying("200 OK", "content-type: text/html; charset=utf-8\r\n", page).await;
    let error = refusal(&fake).await;
    assert_eq!(
        error.to_string(),
        format!(
            "the provider answered with `text/html; charset=utf-8` instead of an event stream: {page}; \
             check OPENAI_BASE_URL"
        )
    );
    assert_eq!(error.code(), "unexpected_content");
}

#[tokio::test]
async fn json_instead_of_events_is_typed() {
    let body = r#"{"error":{"message":"streaming is off","code":"x"}}"#;
    let fake = Fake::replying("200 OK", "content-type: application/json\r\n", body).await;
    let error = refusal(&fake).await;
    assert_eq!(error.code(), "unexpected_content");
    assert!(error.to_string().contains("streaming is off"), "{error}");
}

#[tokio::test]
async fn a_compressed_answer_is_typed() {
    let headers = "content-type: text/event-stream\r\ncontent-encoding: gzip\r\n";
    let fake = Fake::replying("200 OK", headers, "\u{1f}\u{8b}").await;
    let error = refusal(&fake).await;
    assert!(error.to_string().starts_with("the provider answered with `gzip` instead of an event stream"), "{error}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Fake::streaming([&answer("stolen")]).await;
    let headers = format!("location: {}\r\n", elsewhere.url());
    let fake = Fake::replying("307 Temporary Redirect", &headers, "").await;
    let error = refusal(&fake).await;
    assert!(error.to_string().contains("are not followed; check OPENAI_BASE_URL"), "{error}");
    assert!(elsewhere.requests().is_empty(), "the key went elsewhere");
}

#[tokio::test]
async fn a_rate_limit_is_waited_out_as_long_as_the_provider_asks() {
    let fake = refusing(1, "429 Too Many Requests", "retry-after-ms: 300\r\n", "").await;
    let started = Instant::now();
    assert_eq!(ask(&fake.provider()).await.as_deref(), Ok("at last"));
    assert!(started.elapsed() >= Duration::from_millis(300), "{:?}", started.elapsed());
    assert_eq!(fake.requests().len(), 2);
}

#[tokio::test]
async fn what_may_pass_is_asked_again_up_to_two_times() {
    for status in ["408 Request Timeout", "409 Conflict", "429 Too Many Requests", "500 Oops", "503 Busy", "529 Over"] {
        let fake = refusing(2, status, "", "").await;
        assert_eq!(ask(&fake.provider()).await.as_deref(), Ok("at last"), "{status}");
        let fake = refusing(3, status, "", "").await;
        let error = refusal(&fake).await;
        assert!(error.retryable(), "{error}");
        assert_eq!(fake.requests().len(), 3, "{status}");
    }
}

#[tokio::test]
async fn an_unreasonable_pause_is_told_rather_than_waited() {
    let fake = refusing(1, "429 Too Many Requests", "retry-after: 3600\r\n", "").await;
    let error = refusal(&fake).await;
    assert_eq!((error.code(), error.retry_after()), ("rate_limited", Some(Duration::from_secs(3600))));
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn the_providers_own_verdict_decides() {
    let fake = refusing(1, "500 Oops", "x-should-retry: false\r\n", "").await;
    assert!(!refusal(&fake).await.retryable());
    assert_eq!(fake.requests().len(), 1);
    let fake = refusing(1, "400 Bad Request", "x-should-retry: true\r\n", "").await;
    assert_eq!(ask(&fake.provider()).await.as_deref(), Ok("at last"));
}

#[tokio::test]
async fn an_empty_account_is_not_asked_again() {
    let body = r#"{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}"#;
    let fake = refusing(1, "429 Too Many Requests", "", body).await;
    let error = refusal(&fake).await;
    assert_eq!(error.mend(), Some("check the plan and the balance of the account"));
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn a_connection_lost_before_the_answer_is_tried_again() {
    let fake = Fake::start(|number, mut peer| async move {
        if number == 0 {
            return peer.reset();
        }
        peer.begin_events().await;
        peer.chunk(answer("at last")).await;
        peer.end().await;
    })
    .await;
    assert_eq!(ask(&fake.provider()).await.as_deref(), Ok("at last"));
    let fake = Fake::start(|_, peer| async move { peer.reset() }).await;
    assert_eq!(refusal(&fake).await.code(), "disconnected");
    assert_eq!(fake.requests().len(), 3);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_with_its_mend() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let base_url = format!("http://{address}");
    let config = OpenAiConfig { base_url, retry_delay: Duration::from_millis(1), ..OpenAiConfig::default() };
    let provider = OpenAiProvider::new(config).unwrap();
    let error = ask(&provider).await.unwrap_err();
    assert_eq!((error.code(), error.blame()), ("connect", Blame::Network));
    let message = error.to_string();
    assert!(message.contains("Connection refused") && message.ends_with("check OPENAI_BASE_URL"), "{message}");
    assert!(!soon(provider.health()).await.healthy);
}

#[tokio::test]
async fn a_plain_server_behind_an_https_address_is_told_and_never_sees_the_key() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("https://{}", listener.local_addr().unwrap());
    let config = OpenAiConfig { base_url, api_key: Some(Secret::new(KEY)), max_retries: 0, ..OpenAiConfig::default() };
    let provider = OpenAiProvider::new(config).unwrap();
    let request = ChatRequest { model: Some("m".to_owned()), ..ChatRequest::user("Hello") };
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut hello = vec![0; 4096];
        let taken = stream.read(&mut hello).await.unwrap();
        assert!(!hello[..taken].windows(KEY.len()).any(|window| window == KEY.as_bytes()));
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        std::future::pending::<()>().await;
    };
    let answered = async {
        tokio::select! {
            answer = provider.chat(request) => answer,
            () = serve => unreachable!(),
        }
    };
    let error = soon(answered).await.unwrap_err();
    // A machine without root certificates says that instead.
    assert!(matches!(error, ProviderError::Connect { .. } | ProviderError::Setup { .. }), "{error}");
}

#[tokio::test]
async fn a_head_that_does_not_come_runs_into_its_time_out_once() {
    let fake = Fake::start(|_, mut peer| async move { peer.closed().await }).await;
    let config = OpenAiConfig { first_byte_timeout: Duration::from_millis(100), ..fake.config() };
    let provider = OpenAiProvider::new(config).unwrap();
    let error = ask(&provider).await.unwrap_err();
    assert_eq!(error, ProviderError::TimedOut { phase: Phase::FirstByte, after: Duration::from_millis(100) });
    assert_eq!(fake.requests().len(), 1, "a provider at work was asked again");
    let health = soon(provider.health()).await;
    assert_eq!(health.error.unwrap().code, "timeout");
}

#[tokio::test]
async fn openai_itself_needs_a_key_and_a_model_before_anything_is_sent() {
    let provider = OpenAiProvider::new(OpenAiConfig::default()).unwrap();
    let error = ask(&provider).await.unwrap_err();
    assert_eq!(error.to_string(), "OpenAI needs a key; set OPENAI_API_KEY");
    let config = OpenAiConfig { api_key: Some(Secret::new(KEY)), ..OpenAiConfig::default() };
    let error = ask(&OpenAiProvider::new(config).unwrap()).await.unwrap_err();
    assert_eq!(error.mend(), Some("name a model in the request, or set OPENAI_MODEL"));
}

#[tokio::test]
async fn another_server_needs_neither() {
    let fake = Fake::streaming([&answer("a")]).await;
    let config = OpenAiConfig { base_url: fake.url(), ..OpenAiConfig::default() };
    assert_eq!(ask(&OpenAiProvider::new(config).unwrap()).await.as_deref(), Ok("a"));
    let request = &fake.requests()[0];
    assert!(!request.head.contains("authorization"), "{}", request.head);
    assert!(!request.body.contains("\"model\""), "{}", request.body);
}

#[tokio::test]
async fn models_and_health_come_from_the_list_of_models() {
    let body = r#"{"object":"list","data":[{"id":"m1","object":"model","owned_by":"me"},{"id":"m2"}]}"#;
    let fake = Fake::replying("200 OK", "content-type: application/json\r\n", body).await;
    let models = soon(fake.provider().models()).await.unwrap();
    let found: Vec<_> = models.iter().map(|model| (model.id.as_str(), model.owner.as_deref())).collect();
    assert_eq!(found, [("m1", Some("me")), ("m2", None)]);
    let health = soon(fake.provider().health()).await;
    assert!(health.healthy && health.error.is_none());
    assert!(fake.requests().iter().all(|request| request.head.starts_with("GET /v1/models ")));
}

#[tokio::test]
async fn a_list_of_models_that_is_none_is_typed() {
    let json = "content-type: application/json\r\n";
    for (headers, body, code) in [
        (json, "{}", "malformed"),
        ("content-type: text/html\r\n", "<p>", "unexpected_content"),
        (json, &" ".repeat(9 << 20), "too_large"),
    ] {
        let fake = Fake::replying("200 OK", headers, body).await;
        assert_eq!(soon(fake.provider().models()).await.unwrap_err().code(), code);
    }
}

#[tokio::test]
async fn a_failing_provider_reaches_the_editor_as_one_error_chunk() {
    let fake = Fake::replying("404 Not Found", "", r#"{"error":"model `x` not found"}"#).await;
    let gateway = Gateway::new(Arc::new(fake.provider()));
    let pieces: Vec<_> = soon(gateway.chat_stream(ChatRequest::user("Hello")).collect()).await;
    let [piece] = &pieces[..] else { panic!("{pieces:?}") };
    assert_eq!(piece.seq, 0);
    let Chunk::Error(info) = &piece.chunk else { panic!("{piece:?}") };
    assert_eq!((info.code.as_str(), info.retryable), ("not_found", false));
    assert!(info.message.contains("model `x` not found"), "{}", info.message);
    let fake = Fake::streaming([&answer("a")]).await;
    let gateway = gateway.with_provider(Arc::new(fake.provider()));
    let pieces: Vec<_> = soon(gateway.chat_stream(ChatRequest::user("Hello")).collect()).await;
    assert_eq!(pieces[1].chunk, Chunk::Done { stop_reason: StopReason::EndTurn });
}
