//! Breaker, rate limit and fallback: who is asked, and who is spared.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bellrope::breaker::{BreakerConfig, BreakerState};
use bellrope::{AsyncClient, Server};
use bellrope_gateway::{
    ChatRequest, Chunk, Content, EmbeddedProvider, Gateway, GatewaySettings, HttpProvider, Message, Part, PassThrough,
    ProviderConfig, ProviderSnapshot, Role, SequencedChunk, Way, register,
};
use futures_util::StreamExt;
use tokio::net::{TcpListener, TcpStream};

use crate::exact::send;
use crate::fake::{Fake, soon};
use crate::for_each_format;
use crate::script::{Format, whole};

/// A gateway that asks `first`, and `second` when that fails.
fn with_fallback(first: ProviderConfig, second: ProviderConfig) -> Gateway {
    let settings = GatewaySettings {
        provider: "first".to_owned(),
        fallback: vec!["second".to_owned()],
        providers: [("first".to_owned(), first), ("second".to_owned(), second)].into(),
        ..GatewaySettings::default()
    };
    let key = |name: &str| (name == "KEY").then(|| "sk-123456".to_owned());
    Gateway::from_settings_and_vars(settings, key).unwrap()
}

async fn answer(gateway: &Gateway, request: ChatRequest) -> Vec<SequencedChunk> {
    soon(gateway.chat_stream(request).collect()).await
}

/// The code of the error that is the whole answer.
async fn code(gateway: &Gateway) -> String {
    let pieces = answer(gateway, ChatRequest::user("Hello")).await;
    let [SequencedChunk { seq: 0, chunk: Chunk::Error(info) }] = &pieces[..] else { panic!("{pieces:?}") };
    info.code.clone()
}

/// Passes connections to this address on to the server at `url`.
async fn relay(address: SocketAddr, url: String) {
    let listener = TcpListener::bind(address).await.unwrap();
    let to = url.trim_start_matches("http://").trim_end_matches("/v1").to_owned();
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(&to).await.unwrap();
        tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
    }
}

fn counters(gateway: &Gateway, name: &str) -> ProviderSnapshot {
    gateway.snapshot().providers.into_iter().find(|seen| seen.provider == name).unwrap()
}

fn failures(seen: &ProviderSnapshot) -> Vec<(&'static str, u64)> {
    seen.failed.iter().copied().filter(|(_, count)| *count > 0).collect()
}

for_each_format! {
    async fn a_provider_that_fails_before_its_first_token_is_replaced_by_its_fallback(format: Format) {
        let down = Fake::replying("503 Busy", "", "").await;
        let well = Fake::streaming([&format.answer("instead")]).await;
        let first = ProviderConfig { max_retries: 0, ..down.config(format) };
        let gateway = with_fallback(first, ProviderConfig { model: Some("other".to_owned()), ..well.config(format) });
        let request = ChatRequest { model: Some("named".to_owned()), ..ChatRequest::user("Hello") };
        // Whose answer it is, and that its model is another one, is said.
        let text = "`second` was asked with its own model, as `first` could not answer (overloaded)".to_owned();
        let expected: Vec<_> = [Chunk::Notice { text }]
            .into_iter()
            .chain(whole(&["instead"]))
            .enumerate()
            .map(|(seq, chunk)| SequencedChunk { seq: seq as u64, chunk })
            .collect();
        assert_eq!(answer(&gateway, request.clone()).await, expected);
        assert_eq!(soon(gateway.chat(request)).await.unwrap().text, "instead");
        assert!(down.requests().iter().all(|request| request.body.contains("\"named\"")));
        assert!(well.requests().iter().all(|request| request.body.contains("\"other\"")));
        let (first, second) = (counters(&gateway, "first"), counters(&gateway, "second"));
        assert_eq!((first.requests, first.passed_on, failures(&first)), (2, 2, vec![("overloaded", 2)]));
        assert_eq!((second.requests, second.done, second.in_flight), (2, 2, 0));
    }

    async fn after_the_first_token_nobody_else_is_asked(format: Format) {
        let breaking = Fake::streaming([&format.half("half an")]).await;
        let well = Fake::streaming([&format.answer("instead")]).await;
        let gateway = with_fallback(breaking.config(format), well.config(format));
        let pieces = answer(&gateway, ChatRequest::user("Hello")).await;
        let [text, error] = &pieces[..] else { panic!("{pieces:?}") };
        assert_eq!(text.chunk, Chunk::text("half an"));
        assert!(matches!(&error.chunk, Chunk::Error(info) if info.code == "truncated"), "{error:?}");
        assert!(well.requests().is_empty());
        let seen = counters(&gateway, "first");
        assert_eq!((seen.requests, seen.passed_on, failures(&seen)), (1, 0, vec![("truncated", 1)]));
    }

    async fn the_callers_own_mistakes_go_to_nobody_else(format: Format) {
        let strict = Fake::replying("400 Bad Request", "", "").await;
        let well = Fake::streaming([&format.answer("instead")]).await;
        let gateway = with_fallback(strict.config(format), well.config(format));
        assert_eq!(code(&gateway).await, "invalid_request");
        // Nor does a request that names its provider, nor one that names a model which is not there.
        let gone = Fake::replying("404 Not Found", "", "").await;
        let gateway = with_fallback(gone.config(format), well.config(format));
        for request in [
            ChatRequest { provider: Some("first".to_owned()), ..ChatRequest::user("Hello") },
            ChatRequest { model: Some("named".to_owned()), ..ChatRequest::user("Hello") },
        ] {
            assert_eq!(soon(gateway.chat(request)).await.unwrap_err().code(), "not_found");
        }
        assert!(well.requests().is_empty());
        assert_eq!(soon(gateway.chat(ChatRequest::user("Hello"))).await.unwrap().text, "instead");
    }

    async fn a_provider_that_fails_again_and_again_is_spared_and_tried_after_a_pause(format: Format) {
        let fake = Fake::start(move |number, mut peer| async move {
            if number < 5 {
                return peer.reply("503 Oops", "connection: close\r\n", "").await;
            }
            peer.begin_events().await;
            peer.chunk(format.answer("well again")).await;
            peer.end().await;
        })
        .await;
        let mut breaker = BreakerConfig::default();
        breaker.timeout = Duration::from_millis(2_000);
        let config = ProviderConfig { max_retries: 0, breaker, ..fake.config(format) };
        let gateway = Gateway::new(Arc::new(HttpProvider::new(config).unwrap()));
        let name = gateway.names()[0].clone();
        for _ in 0..5 {
            assert_eq!(code(&gateway).await, "overloaded");
        }
        // Open for 1,500 to 2,000 ms; on a machine that is that slow this proves less.
        let spared = counters(&gateway, &name).breaker == BreakerState::Open;
        let code = if spared { code(&gateway).await } else { String::new() };
        let recovered = async {
            while soon(gateway.chat(ChatRequest::user("Hello"))).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        soon(recovered).await;
        assert!(!spared || code == "unavailable", "{code}");
        let seen = counters(&gateway, &name);
        assert_eq!((seen.requests, failures(&seen)), (6, vec![("overloaded", 5)]));
        assert_eq!((seen.done, seen.breaker, fake.requests().len()), (1, BreakerState::HalfOpen, 6));
        soon(gateway.chat(ChatRequest::user("Hello"))).await.unwrap();
        assert_eq!(counters(&gateway, &name).breaker, BreakerState::Closed);
    }

    async fn a_provider_that_is_spared_is_not_called_healthy(format: Format) {
        let fake = Fake::start(move |_, mut peer| async move {
            // Only the list of models is there.
            let status = if peer.last_request().starts_with("GET ") { "200 OK" } else { "503 Busy" };
            peer.reply(status, "connection: close\r\ncontent-type: application/json\r\n", "{\"data\":[]}").await;
        })
        .await;
        let config = ProviderConfig { max_retries: 0, local_probe: Duration::ZERO, ..fake.config(format) };
        let gateway = Gateway::new(Arc::new(HttpProvider::new(config).unwrap()));
        assert!(soon(gateway.health()).await.providers[0].healthy);
        for _ in 0..5 {
            code(&gateway).await;
        }
        let health = soon(gateway.health()).await.providers.remove(0);
        assert!(!health.healthy, "{health:?}");
        assert_eq!(health.error.unwrap().code, "unavailable");
    }

    async fn a_server_error_that_one_client_meets_keeps_that_client_away_alone(format: Format) {
        let fake = Fake::replying("500 Oops", "", "").await;
        let config = ProviderConfig { max_retries: 0, local_probe: Duration::ZERO, ..fake.config(format) };
        let gateway = Arc::new(Gateway::new(Arc::new(HttpProvider::new(config).unwrap())));
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run").join("ai.sock");
        let _server = register(Server::builder(), Arc::clone(&gateway)).bind(&path).unwrap();
        let client = AsyncClient::connect(&path).await.unwrap();
        let request = serde_json::to_vec(&ChatRequest::user("Hello")).unwrap();
        for number in 0..6 {
            let error = client.call("ai.chat", &request).await.unwrap_err().to_string();
            assert_eq!(error.contains("unavailable"), number == 5, "{number}: {error}");
        }
        assert_eq!(code(&gateway).await, "provider_error", "who asks from elsewhere is let through");
        assert_eq!(gateway.snapshot().providers[0].breaker, BreakerState::Closed);
    }

    async fn what_is_no_failure_of_the_provider_does_not_open_its_breaker(format: Format) {
        for status in ["400 Bad Request", "401 Unauthorized", "404 Not Found", "429 Too Many Requests"] {
            let fake = Fake::replying(status, "", "").await;
            let config = ProviderConfig { max_retries: 0, ..fake.config(format) };
            let gateway = Gateway::new(Arc::new(HttpProvider::new(config).unwrap()));
            for _ in 0..10 {
                code(&gateway).await;
            }
            let seen = &gateway.snapshot().providers[0];
            assert_eq!((seen.requests, seen.breaker), (10, BreakerState::Closed), "{status}");
        }
    }

    async fn what_depends_on_one_request_closes_the_provider_for_nobody(format: Format) {
        for fake in [
            Fake::streaming([""]).await,
            Fake::streaming(["data: {no json\n\n"]).await,
            Fake::streaming([&format.script().fail("server_error", "no").out]).await,
            Fake::replying("200 OK", "content-type: text/html\r\n", "<p>").await,
            Fake::replying("413 Too Large", "", "").await,
            Fake::replying("422 No", "", "").await,
            Fake::replying("402 Pay", "", "").await,
        ] {
            let config = ProviderConfig { max_retries: 0, ..fake.config(format) };
            let gateway = Gateway::new(Arc::new(HttpProvider::new(config).unwrap()));
            for _ in 0..10 {
                code(&gateway).await;
            }
            let seen = &gateway.snapshot().providers[0];
            assert_eq!((seen.requests, seen.breaker), (10, BreakerState::Closed), "{seen:?}");
        }
    }

    async fn one_editor_gets_the_fallback_every_time_while_the_first_provider_refuses_connections(format: Format) {
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let well = Fake::streaming([&format.answer("instead")]).await;
        let first = ProviderConfig { base_url: format!("http://{nobody}"), ..well.config(format) };
        let gateway = with_fallback(first, well.config(format));
        for _ in 0..20 {
            assert_eq!(soon(gateway.chat(ChatRequest::user("Hello"))).await.unwrap().text, "instead");
        }
        let (first, second) = (counters(&gateway, "first"), counters(&gateway, "second"));
        assert_eq!((first.passed_on, first.requests + first.suspended, second.done), (20, 20, 20));
        assert!(failures(&first).iter().all(|(code, _)| *code == "connect") && first.requests >= 5, "{first:?}");
    }

    async fn a_server_on_this_machine_that_is_started_again_is_asked_again_soon(format: Format) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let well = Fake::streaming([&format.answer("again")]).await;
        let config = ProviderConfig { base_url: format!("http://{address}"), max_retries: 0, ..well.config(format) };
        let gateway = Gateway::new(Arc::new(HttpProvider::new(config).unwrap()));
        for _ in 0..5 {
            assert_eq!(code(&gateway).await, "connect");
        }
        // The server is there now; the minute of the usual setting would be too long for this.
        let server = tokio::spawn(relay(address, well.url()));
        let back = async {
            while gateway.chat(ChatRequest::user("Hello")).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let back = tokio::time::timeout(Duration::from_secs(30), back).await;
        assert!(back.is_ok(), "{:?}", gateway.snapshot());
        server.abort();
    }

    async fn an_answer_that_nobody_waits_for_counts_as_cancelled(format: Format) {
        let fake = Fake::start(move |_, mut peer| async move {
            peer.begin_events().await;
            peer.chunk(format.half("a")).await;
            peer.closed().await;
        })
        .await;
        let gateway = Gateway::new(Arc::new(fake.provider(format)));
        for _ in 0..10 {
            let mut stream = gateway.chat_stream(ChatRequest::user("Hello"));
            soon(stream.next()).await.unwrap();
            assert_eq!(gateway.snapshot().providers[0].in_flight, 1);
        }
        let seen = &gateway.snapshot().providers[0];
        assert_eq!((seen.requests, seen.cancelled, seen.in_flight, seen.breaker), (10, 10, 0, BreakerState::Closed));
    }
}

#[tokio::test]
async fn a_fallback_that_has_no_place_for_the_request_is_skipped() {
    let down = Fake::replying("503 Busy", "", "").await;
    let strange = Fake::streaming([&Format::Messages.answer("no")]).await;
    let well = Fake::streaming([&Format::ChatCompletions.answer("instead")]).await;
    let of = |names: &[&str]| {
        let first = ProviderConfig { max_retries: 0, ..down.config(Format::ChatCompletions) };
        let providers = [
            ("first".to_owned(), first),
            ("second".to_owned(), strange.config(Format::Messages)),
            ("third".to_owned(), well.config(Format::ChatCompletions)),
        ];
        let settings = GatewaySettings {
            provider: "first".to_owned(),
            fallback: names.iter().map(|name| (*name).to_owned()).collect(),
            providers: providers.into(),
            ..GatewaySettings::default()
        };
        Gateway::from_settings_and_vars(settings, |name| (name == "KEY").then(|| "sk-123456".to_owned())).unwrap()
    };
    let json = serde_json::json!({"type": "json_object"});
    let request = ChatRequest { response_format: Some(json), ..ChatRequest::user("Hello") };
    let response = soon(of(&["second", "third"]).chat(request.clone())).await.unwrap();
    assert_eq!(response.text, "instead");
    assert!(response.notes.iter().any(|note| note.contains("`second` was skipped")), "{:?}", response.notes);
    // What the first one says counts where no other can be asked.
    let error = soon(of(&["second"]).chat(request)).await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), ("overloaded", true));
    assert!(strange.requests().is_empty());
}

#[tokio::test]
async fn a_fallback_that_refuses_the_request_ends_it_for_no_other_and_is_not_what_the_tool_is_told() {
    const CHAT: Format = Format::ChatCompletions;
    let json = "content-type: application/json\r\n";
    let down = Fake::replying("503 Busy", "", "").await;
    // Its context is shorter, which says nothing of that of the first one.
    let small = Fake::replying("400 Bad Request", json, &CHAT.error("context_length_exceeded", "too long")).await;
    let well = Fake::streaming([&*CHAT.answer("instead")]).await;
    let of = |names: &[&str], mode: PassThrough| {
        let config = |fake: &Fake| ProviderConfig {
            max_retries: 0,
            model: Some("usual".to_owned()),
            pass_through: Some(mode),
            ..fake.config(CHAT)
        };
        let fakes = [("first", &down), ("second", &small), ("third", &well)];
        let settings = GatewaySettings {
            provider: "first".to_owned(),
            fallback: names.iter().map(|name| (*name).to_owned()).collect(),
            providers: fakes.into_iter().map(|(name, fake)| (name.to_owned(), config(fake))).collect(),
            ..GatewaySettings::default()
        };
        Gateway::from_settings_and_vars(settings, |name| (name == "KEY").then(|| "sk-123456".to_owned())).unwrap()
    };
    let request = ChatRequest::user("Hello");
    let repaired = |names: &[&str]| of(names, PassThrough::Repaired);
    let response = soon(repaired(&["second", "third"]).chat(request.clone())).await.unwrap();
    assert_eq!(response.text, "instead");
    assert!(response.notes.iter().any(|note| note.contains("`second` was skipped")), "{:?}", response.notes);
    let error = soon(repaired(&["second"]).chat(request)).await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), ("overloaded", true));

    // The same where requests go through as they came.
    let body = serde_json::json!({"messages": [{"role": "user", "content": "Hello"}], "stream": true}).to_string();
    let pass = async |names: &[&str]| send(&of(names, PassThrough::Exact), CHAT, &body, None).await;
    assert!(matches!(pass(&["second", "third"]).await, Way::Passed(_)));
    match pass(&["second"]).await {
        Way::Failed(error) => assert_eq!((error.code(), error.retryable()), ("overloaded", true)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_rate_limit_refuses_with_the_time_to_wait_or_sends_to_the_fallback() {
    let format = Format::ChatCompletions;
    let fake = Fake::streaming([&format.answer("a")]).await;
    let config = ProviderConfig { requests_per_minute: 1, burst: 2, ..fake.config(format) };
    let gateway = Gateway::new(Arc::new(
        HttpProvider::named("metered", ProviderConfig { kind: Some(format.kind()), ..config.clone() }).unwrap(),
    ));
    for _ in 0..2 {
        soon(gateway.chat(ChatRequest::user("Hello"))).await.unwrap();
    }
    let error = soon(gateway.chat(ChatRequest::user("Hello"))).await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), ("rate_limited", true));
    assert!(error.retry_after().is_some_and(|after| after <= Duration::from_secs(60)), "{error}");
    assert!(error.to_string().ends_with("or raise gateway.providers.metered.requests_per_minute"), "{error}");
    let seen = counters(&gateway, "metered");
    assert_eq!((seen.requests, seen.limited, seen.breaker), (2, 1, BreakerState::Closed));

    let gateway = with_fallback(ProviderConfig { burst: 1, ..config }, fake.config(format));
    for _ in 0..3 {
        soon(gateway.chat(ChatRequest::user("Hello"))).await.unwrap();
    }
    assert_eq!((counters(&gateway, "first").requests, counters(&gateway, "second").requests), (1, 2));
}

#[tokio::test]
async fn tokens_and_the_time_to_the_first_piece_are_counted_for_each_provider() {
    let format = Format::Messages;
    let fake = Fake::streaming([&format.answer("a")]).await;
    let gateway = Gateway::new(Arc::new(fake.provider(format))).with_provider(Arc::new(EmbeddedProvider::default()));
    for _ in 0..3 {
        answer(&gateway, ChatRequest::user("Hello")).await;
    }
    soon(gateway.chat(ChatRequest::user("Hello"))).await.unwrap();
    let seen = counters(&gateway, "anthropic");
    assert_eq!((seen.requests, seen.done, seen.in_flight), (4, 4, 0));
    assert_eq!((seen.input_tokens, seen.output_tokens), (4 * 9, 4 * 4));
    assert_eq!(seen.first_piece.buckets.iter().sum::<u64>(), 4);
    assert!(!seen.first_piece.sum.is_zero());
    assert_eq!(counters(&gateway, "embedded").requests, 0);
    let json = serde_json::to_value(gateway.snapshot()).unwrap();
    assert_eq!(json["providers"][0]["breaker"], "closed");
}

#[tokio::test]
async fn reasoning_that_one_provider_signed_goes_to_no_other() {
    let answer = Format::Messages.script().reasoning("hm").text("Ding").stop("stop").end();
    let thinking = "{\"index\":0,\"delta\":{\"signature\":\"c2lnbmVk\",\"type\":\"signature_delta\"},\"type\":\"content_block_delta\"}";
    let signed = answer.replacen(
        "event: content_block_stop",
        &format!("event: content_block_delta\ndata: {thinking}\n\nevent: content_block_stop"),
        1,
    );
    assert_ne!(signed, answer);
    let (one, other) = (Fake::streaming([&*signed]).await, Fake::streaming([&*answer]).await);
    let config = |fake: &Fake| serde_json::json!({"kind": "anthropic", "base_url": fake.url(), "model": "m"});
    let settings = serde_json::json!({"provider": "one", "providers": {"one": config(&one), "other": config(&other)}});
    let gateway = Gateway::from_settings_and_vars(serde_json::from_value(settings).unwrap(), |_| None).unwrap();
    let said = soon(gateway.chat(ChatRequest::user("Hi"))).await.unwrap();
    assert!(!said.reasoning_parts.is_empty(), "{said:?}");
    for (provider, fake, is_sent) in [("one", &one, true), ("other", &other, false)] {
        let mut request = ChatRequest::user("Hi");
        let mut parts = said.reasoning_parts.clone();
        parts.push(Part::text("Ding"));
        request.messages.push(Message { content: Content::Parts(parts), ..Message::new(Role::Assistant, "") });
        request.messages.extend(ChatRequest::user("Again").messages);
        request.provider = Some(provider.to_owned());
        let answer = soon(gateway.chat(request)).await.unwrap();
        assert_eq!(fake.requests().last().unwrap().body.contains("c2lnbmVk"), is_sent, "{provider}");
        assert_eq!(answer.notes.iter().any(|note| note.contains("signature")), !is_sent, "{:?}", answer.notes);
    }
}
