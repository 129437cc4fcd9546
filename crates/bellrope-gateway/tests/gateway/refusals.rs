//! What a provider answers instead of a stream, and what the user is told.

use std::sync::Arc;
use std::time::Duration;

use bellrope_gateway::{
    Blame, ChatRequest, Chunk, Gateway, HttpProvider, Phase, Provider, ProviderConfig, ProviderError, Secret,
};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

use crate::fake::{Fake, KEY, ask, soon};
use crate::for_each_format;
use crate::script::Format;

const JSON: &str = "content-type: application/json\r\n";

async fn refusal(fake: &Fake, format: Format) -> ProviderError {
    ask(&fake.provider(format)).await.unwrap_err()
}

/// The setting that names the address.
fn base_setting(format: Format) -> String {
    format!("{}_BASE_URL (gateway.providers.{}.base_url)", format.prefix(), format.kind().name())
}

for_each_format! {
    async fn nothing_is_connected_before_it_is_asked(format: Format) {
        let fake = Fake::streaming([&format.answer("a")]).await;
        let provider = fake.provider(format);
        let stream = provider.chat_stream(ChatRequest::user("Hello"));
        drop((stream, provider));
        assert!(fake.requests().is_empty());
    }

    async fn a_wrong_key_is_told_with_its_fix_and_without_the_key(format: Format) {
        let body = format.error("authentication_error", &format!("Incorrect API key provided: {KEY}.\u{1b}[31m"));
        let fake = Fake::replying("401 Unauthorized", JSON, &body).await;
        let error = refusal(&fake, format).await;
        let prefix = format.prefix();
        assert_eq!(
            error.to_string(),
            format!(
                "the provider answered 401 (authentication_error): Incorrect API key provided: [secret].\\u{{1b}}[31m; \
                 check {prefix}_API_KEY"
            )
        );
        assert_eq!((error.code(), error.blame()), ("authentication", Blame::Configuration));
        assert_eq!(fake.requests().len(), 1, "it was asked again");
    }

    async fn an_unknown_model_is_told_in_the_providers_words(format: Format) {
        let body = format.error("not_found_error", "model: gpt-0 does not exist");
        let fake = Fake::replying("404 Not Found", JSON, &body).await;
        let error = refusal(&fake, format).await;
        assert_eq!((error.code(), error.blame()), ("not_found", Blame::Configuration));
        let fix = format!("check the model's name and {}", base_setting(format));
        assert!(error.to_string().contains("model: gpt-0 does not exist"), "{error}");
        assert_eq!(error.fix(), Some(fix.as_str()));
    }

    async fn other_refusals_have_their_own_codes(format: Format) {
        let key = format!("check {}_API_KEY", format.prefix());
        for (status, code, fix) in [
            ("400 Bad Request", "invalid_request", None),
            ("402 Payment Required", "billing", Some("check the plan and the balance of the account")),
            ("403 Forbidden", "permission", Some(key.as_str())),
            ("413 Payload Too Large", "too_large", None),
            ("418 I'm a teapot", "invalid_request", None),
        ] {
            let fake = Fake::replying(status, "", "").await;
            let error = refusal(&fake, format).await;
            assert_eq!((error.code(), error.fix(), error.retryable()), (code, fix, false), "{status}");
            assert_eq!(fake.requests().len(), 1, "{status}");
        }
    }

    async fn a_quota_is_told_with_its_cause_and_the_time_to_try_again(format: Format) {
        let limit = format.error("rate_limit_error", "Rate limit reached. Please try again in 1m5.2s.");
        let quota = r#"{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}"#;
        let credit = format.error("invalid_request_error", "Your credit balance is too low to access the API.");
        let spent = "nothing left to spend";
        for (status, headers, body, code, retryable, words) in [
            ("429 Too Many", "", &*limit, "rate_limited", true, "429, too many requests (rate_limit_error): Rate"),
            ("429 Too Many", "", &limit, "rate_limited", true, "; try again in 66 s"),
            ("429 Too Many", "retry-after: 9\r\n", "", "rate_limited", true, "; try again in 9 s"),
            ("429 Too Many", "retry-after: 9\r\n", quota, "billing", false, spent),
            ("400 Bad Request", "", &credit, "billing", false, spent),
            ("402 Payment Required", "", "", "billing", false, spent),
            ("403 Forbidden", "", "", "permission", false, "check "),
            ("503 Busy", "retry-after-ms: 7000\r\n", "", "overloaded", true, "503, overloaded: no message; try again in 7 s"),
            ("529 Overloaded", "", "", "overloaded", true, "529, overloaded"),
        ] {
            let fake = Fake::replying(status, headers, body).await;
            let config = ProviderConfig { max_retries: 0, ..fake.config(format) };
            let error = ask(&HttpProvider::new(config).unwrap()).await.unwrap_err();
            let text = error.to_string();
            assert_eq!((error.code(), error.retryable()), (code, retryable), "{text}");
            assert!(text.contains(words) && (retryable || !text.contains("try again")), "{text}");
        }
    }

    async fn a_path_that_is_not_there_is_named_where_a_web_page_says_so(format: Format) {
        let fake = Fake::replying("404 Not Found", "content-type: text/html\r\n", "<html>nothing</html>").await;
        let config = ProviderConfig { base_url: fake.url().replace("/v1", "/api/v1"), ..fake.config(format) };
        let error = ask(&HttpProvider::new(config).unwrap()).await.unwrap_err();
        let path = format!("/api{}", format.path());
        assert_eq!(error.fix(), Some(format!("check {} (`{path}` was asked for)", base_setting(format)).as_str()));
    }

    async fn a_long_or_hostile_error_is_cut_and_escaped(format: Format) {
        let fake = Fake::replying("400 Bad Request", "", &"<p>\u{202e}\u{7}".repeat(50_000)).await;
        let message = refusal(&fake, format).await.to_string();
        assert!(message.chars().count() < 600 && message.ends_with('…'), "{message}");
        assert!(!message.contains(['\u{202e}', '\u{7}']), "{message}");
    }

    // Fault 53.
    async fn a_web_page_with_200_is_typed_and_names_the_address_to_fix(format: Format) {
        let page = "<!doctype html><title>Sign in</title>";
        let fake = Fake::replying("200 OK", "content-type: text/html; charset=utf-8\r\n", page).await;
        let error = refusal(&fake, format).await;
        let setting = base_setting(format);
        assert_eq!(
            error.to_string(),
            format!(
                "the provider answered with `text/html; charset=utf-8` instead of an event stream: {page}; check {setting}"
            )
        );
        assert_eq!((error.code(), error.blame()), ("unexpected_content", Blame::Configuration));
    }

    async fn json_with_200_is_typed_and_its_error_told(format: Format) {
        let fake = Fake::replying("200 OK", JSON, &format.error("x", "streaming is off")).await;
        let error = refusal(&fake, format).await;
        assert_eq!(error.code(), "provider_error");
        assert!(error.to_string().ends_with(": streaming is off"), "{error}");
    }

    async fn a_compressed_answer_is_typed(format: Format) {
        let headers = "content-type: text/event-stream\r\ncontent-encoding: gzip\r\n";
        let fake = Fake::replying("200 OK", headers, "\u{1f}\u{8b}").await;
        let error = refusal(&fake, format).await;
        assert!(error.to_string().starts_with("the provider answered with `gzip` instead of an event stream"), "{error}");
    }

    async fn a_redirect_is_not_followed(format: Format) {
        let elsewhere = Fake::streaming([&format.answer("stolen")]).await;
        let headers = format!("location: {}\r\n", elsewhere.url());
        let fake = Fake::replying("307 Temporary Redirect", &headers, "").await;
        let error = refusal(&fake, format).await;
        assert!(error.to_string().contains("are not followed; check "), "{error}");
        assert!(elsewhere.requests().is_empty(), "the key went elsewhere");
    }

    async fn a_server_that_is_not_there_is_told_with_its_fix(format: Format) {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let provider = HttpProvider::new(ProviderConfig {
            kind: Some(format.kind()),
            base_url: format!("http://{address}"),
            model: Some("m".to_owned()),
            retry_delay: Duration::from_millis(1),
            ..ProviderConfig::default()
        })
        .unwrap();
        let error = ask(&provider).await.unwrap_err();
        assert_eq!((error.code(), error.blame()), ("connect", Blame::Network));
        let message = error.to_string();
        assert!(message.contains("Connection refused"), "{message}");
        assert!(message.ends_with(&format!("; check {}", base_setting(format))), "{message}");
        assert_eq!(error.fix(), Some(format!("check {}", base_setting(format)).as_str()));
        let health = soon(provider.health()).await;
        assert_eq!((health.healthy, health.error.unwrap().code.as_str()), (false, "connect"));
    }

    async fn a_head_that_does_not_come_runs_into_its_time_out_once(format: Format) {
        let fake = Fake::start(|_, mut peer| async move { peer.closed().await }).await;
        // Time enough for the request to be seen.
        let after = Duration::from_secs(1);
        let provider = HttpProvider::new(ProviderConfig { first_byte_timeout: after, ..fake.config(format) }).unwrap();
        let error = ask(&provider).await.unwrap_err();
        assert_eq!(error, ProviderError::TimedOut { phase: Phase::FirstByte, after });
        assert_eq!(fake.requests().len(), 1, "a provider at work was asked again");
        let health = soon(provider.health()).await;
        assert_eq!(health.error.unwrap().code, "timeout");
    }

    async fn a_list_of_models_that_is_none_is_typed(format: Format) {
        for (headers, body, code) in [
            (JSON, "{}", "malformed"),
            ("content-type: text/html\r\n", "<p>", "unexpected_content"),
            (JSON, &" ".repeat(9 << 20), "answer_too_large"),
        ] {
            let fake = Fake::replying("200 OK", headers, body).await;
            assert_eq!(soon(fake.provider(format).models()).await.unwrap_err().code(), code);
        }
    }

    async fn a_list_of_models_that_does_not_come_whole_is_told_as_what_stopped_it(format: Format) {
        let fake = Fake::start(|number, mut peer| async move {
            peer.send("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{").await;
            if number == 0 {
                peer.closed().await;
            }
        })
        .await;
        let after = Duration::from_millis(200);
        let provider = HttpProvider::new(ProviderConfig { idle_timeout: after, ..fake.config(format) }).unwrap();
        let error = soon(provider.models()).await.unwrap_err();
        assert_eq!(error, ProviderError::TimedOut { phase: Phase::Idle, after });
        assert_eq!(soon(fake.provider(format).models()).await.unwrap_err().code(), "truncated");
    }

    async fn a_failing_provider_reaches_the_editor_as_one_error_chunk(format: Format) {
        let fake = Fake::replying("404 Not Found", "", r#"{"error":"model `x` not found"}"#).await;
        let gateway = Gateway::new(Arc::new(fake.provider(format)));
        let pieces: Vec<_> = soon(gateway.chat_stream(ChatRequest::user("Hello")).collect()).await;
        let [piece] = &pieces[..] else { panic!("{pieces:?}") };
        assert_eq!(piece.seq, 0);
        let Chunk::Error(info) = &piece.chunk else { panic!("{piece:?}") };
        assert_eq!((info.code.as_str(), info.retryable), ("not_found", false));
        assert!(info.message.contains("model `x` not found"), "{}", info.message);
    }
}

#[tokio::test]
async fn a_server_that_takes_no_connection_runs_into_its_own_time_out() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let knock = || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200));
    let waiting: Vec<_> = (0..64).map_while(|_| knock().ok()).collect();
    assert!(waiting.len() < 64, "the queue has no end");
    let connect_timeout = Duration::from_millis(200);
    let base_url = format!("http://{address}");
    let (kind, model) = (Some(Format::ChatCompletions.kind()), Some("m".to_owned()));
    let config = ProviderConfig { kind, base_url, model, connect_timeout, max_retries: 0, ..ProviderConfig::default() };
    let error = ask(&HttpProvider::new(config).unwrap()).await.unwrap_err();
    assert_eq!(error, ProviderError::TimedOut { phase: Phase::Connect, after: connect_timeout });
}

#[tokio::test]
async fn a_plain_server_behind_an_https_address_is_told_and_never_sees_the_key() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("https://{}", listener.local_addr().unwrap());
    let config =
        ProviderConfig { base_url, api_key: Some(Secret::new(KEY)), max_retries: 0, ..ProviderConfig::default() };
    let provider = HttpProvider::new(config).unwrap();
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
