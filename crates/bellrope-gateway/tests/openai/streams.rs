//! What comes in over the wire of an OpenAI-compatible server, right or wrong, and what goes on to the editor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bellrope_gateway::{
    ChatRequest, Chunk, OpenAiConfig, OpenAiProvider, Phase, Provider, ProviderError, StopReason, ToolCall, Usage,
};
use futures_util::StreamExt;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::fake::{Fake, KEY, STOP, answer, event, says, soon};

type Items = Vec<Result<Chunk, ProviderError>>;

async fn items(provider: &OpenAiProvider) -> Items {
    soon(provider.chat_stream(ChatRequest::user("Hello")).collect()).await
}

async fn items_of(fake: &Fake) -> Items {
    items(&fake.provider()).await
}

/// The error that a stream ends with, after these texts.
#[track_caller]
fn error_after(texts: &[&str], mut items: Items) -> ProviderError {
    let error = items.pop().expect("an item").expect_err("an error at the end");
    let expected: Items = texts.iter().map(|&text| Ok(Chunk::text(text))).collect();
    assert_eq!(items, expected);
    error
}

fn whole(texts: &[&str]) -> Items {
    let texts = texts.iter().map(|&text| Ok(Chunk::text(text)));
    texts.chain([Ok(Chunk::Done { stop_reason: StopReason::EndTurn })]).collect()
}

#[tokio::test]
async fn a_whole_answer_arrives_as_text_usage_and_done() {
    let usage = event(r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#);
    let (stop, done) = (event(STOP), event("[DONE]"));
    let fake = Fake::streaming([&says("Hel"), &says("lo"), &stop, &usage, &done]).await;
    let expected = [
        Chunk::text("Hel"),
        Chunk::text("lo"),
        Chunk::Usage(Usage { input_tokens: 3, output_tokens: 2, ..Usage::default() }),
        Chunk::Done { stop_reason: StopReason::EndTurn },
    ];
    assert_eq!(items_of(&fake).await, expected.map(Ok));

    let request = &fake.requests()[0];
    assert!(request.head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{}", request.head);
    assert!(request.head.contains(&format!("authorization: Bearer {KEY}\r\n")), "{}", request.head);
    assert!(request.head.contains("accept-encoding: identity\r\n"), "{}", request.head);
    let body: serde_json::Value = serde_json::from_str(&request.body).unwrap();
    assert_eq!(body["model"], "fake-model");
    assert_eq!(body["messages"], serde_json::json!([{"role": "user", "content": "Hello"}]));
}

#[tokio::test]
async fn an_answer_in_single_bytes_is_the_same_answer() {
    let fake = Fake::start(|_, mut peer| async move {
        peer.begin_events().await;
        for byte in answer("grüß Gott 🔔").replace('\n', "\r\n").bytes() {
            peer.chunk([byte]).await;
        }
        peer.end().await;
    })
    .await;
    assert_eq!(items_of(&fake).await, whole(&["grüß Gott 🔔"]));
}

#[tokio::test]
async fn line_ends_marks_comments_and_multi_line_data_are_understood() {
    let stop = event(STOP);
    for (what, body) in [
        ("CRLF", answer("a").replace('\n', "\r\n")),
        ("lone CR", answer("a").replace('\n', "\r")),
        ("byte order mark", format!("\u{feff}{}", answer("a"))),
        ("comments", format!(": OPENROUTER PROCESSING\n\n:\n\n{}", answer("a"))),
        (
            "multi-line data",
            format!("data: {{\"choices\":[{{\ndata: \"delta\":{{\"content\":\"a\"}}}}]}}\n\n{stop}data: [DONE]\n\n"),
        ),
        ("no space", answer("a").replace("data: ", "data:")),
        ("no last empty line", format!("{}{stop}data: [DONE]", says("a"))),
    ] {
        let fake = Fake::streaming([&body]).await;
        assert_eq!(items_of(&fake).await, whole(&["a"]), "{what}");
    }
}

#[tokio::test]
async fn fin_without_a_terminator_is_truncated() {
    let fake = Fake::start(|_, mut peer| async move {
        peer.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await;
        peer.send(says("half an")).await;
        peer.send("data: {\"choices\":[{\"del").await;
    })
    .await;
    let error = error_after(&["half an"], items_of(&fake).await);
    assert_eq!(error.code(), "truncated");
    assert!(error.retryable(), "by the editor, who knows what it has shown");
}

#[tokio::test]
async fn fin_after_the_reason_to_stop_is_whole() {
    let stop = event(STOP);
    let fake = Fake::streaming([&says("a"), &stop]).await;
    assert_eq!(items_of(&fake).await, whole(&["a"]));
}

#[tokio::test]
async fn a_cut_chunked_body_is_truncated() {
    let fake = Fake::start(|_, mut peer| async move {
        peer.begin_events().await;
        peer.chunk(says("a")).await;
        peer.send("40\r\ndata: {").await;
    })
    .await;
    assert_eq!(error_after(&["a"], items_of(&fake).await).code(), "truncated");
}

#[tokio::test]
async fn a_reset_is_truncated_and_never_asked_again_after_a_token() {
    let shown = Arc::new(Notify::new());
    let may_reset = Arc::clone(&shown);
    let fake = Fake::start(move |_, mut peer| {
        let may_reset = Arc::clone(&may_reset);
        async move {
            peer.begin_events().await;
            peer.chunk(says("a")).await;
            // A reset throws away what was not read yet.
            may_reset.notified().await;
            peer.reset();
        }
    })
    .await;
    let mut stream = fake.provider().chat_stream(ChatRequest::user("Hello"));
    assert_eq!(soon(stream.next()).await, Some(Ok(Chunk::text("a"))));
    shown.notify_one();
    let error = soon(stream.next()).await.unwrap().unwrap_err();
    assert_eq!(error.code(), "truncated");
    assert!(soon(stream.next()).await.is_none());
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn silence_runs_into_the_idle_time_out() {
    let fake = Fake::start(|_, mut peer| async move {
        peer.begin_events().await;
        peer.chunk(says("a")).await;
        peer.closed().await;
    })
    .await;
    let config = OpenAiConfig { idle_timeout: Duration::from_millis(100), ..fake.config() };
    let error = error_after(&["a"], items(&OpenAiProvider::new(config).unwrap()).await);
    assert_eq!(error, ProviderError::TimedOut { phase: Phase::Idle, after: Duration::from_millis(100) });
}

#[tokio::test]
async fn silence_after_the_reason_to_stop_is_no_error() {
    let fake = Fake::start(|_, mut peer| async move {
        peer.begin_events().await;
        peer.chunk(says("a")).await;
        peer.chunk(event(STOP)).await;
        peer.closed().await;
    })
    .await;
    let config = OpenAiConfig { idle_timeout: Duration::from_millis(100), ..fake.config() };
    assert_eq!(items(&OpenAiProvider::new(config).unwrap()).await, whole(&["a"]));
}

/// Sends keep-alives, at most this often, until the client hangs up; then, or after `pings`, the answer.
async fn pinging(pings: usize) -> Fake {
    Fake::start(move |_, mut peer| async move {
        peer.begin_events().await;
        for _ in 0..pings {
            peer.chunk(": ping\n\n").await;
            if timeout(Duration::from_millis(20), peer.closed()).await.is_ok() {
                return;
            }
        }
        peer.chunk(answer("a")).await;
        peer.end().await;
    })
    .await
}

#[tokio::test]
async fn pings_keep_a_slow_answer_alive() {
    // Together they take longer than the server may be silent.
    let fake = pinging(60).await;
    let config = OpenAiConfig { idle_timeout: Duration::from_secs(1), ..fake.config() };
    assert_eq!(items(&OpenAiProvider::new(config).unwrap()).await, whole(&["a"]));
}

#[tokio::test]
async fn pings_alone_run_into_the_event_time_out() {
    let fake = pinging(usize::MAX).await;
    let config = OpenAiConfig { event_timeout: Duration::from_millis(200), ..fake.config() };
    let error = error_after(&[], items(&OpenAiProvider::new(config).unwrap()).await);
    assert_eq!(error, ProviderError::TimedOut { phase: Phase::Event, after: Duration::from_millis(200) });
}

#[tokio::test]
async fn an_error_frame_after_200_is_an_error() {
    let failed = event(r#"{"error":{"message":"The server had an error","type":"server_error","code":null}}"#);
    let fake = Fake::streaming([&says("a"), &failed, &says("late"), &event("[DONE]")]).await;
    let error = error_after(&["a"], items_of(&fake).await);
    assert_eq!(error.to_string(), "the provider broke off with an error (server_error): The server had an error");
    assert!(error.retryable());
}

#[tokio::test]
async fn interleaved_tool_calls_are_put_together() {
    let call = |json: &str| event(&format!(r#"{{"choices":[{{"index":0,"delta":{{"tool_calls":[{json}]}}}}]}}"#));
    let pieces = [
        call(r#"{"index":1,"id":"b","type":"function","function":{"name":"grep","arguments":""}}"#),
        call(r#"{"index":0,"id":"a","type":"function","function":{"name":"ls","arguments":"{\"p"}}"#),
        call(r#"{"index":1,"function":{"arguments":"{}"}},{"index":0,"function":{"arguments":"ath\":1}"}}"#),
        event(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#),
        event("[DONE]"),
    ]
    .concat();
    let fake = Fake::streaming([&pieces]).await;
    let response = soon(fake.provider().chat(ChatRequest::user("Hello"))).await.unwrap();
    let expected = [("b", "grep", "{}"), ("a", "ls", r#"{"path":1}"#)].map(|(id, name, arguments)| ToolCall {
        id: id.into(),
        name: name.into(),
        arguments: arguments.into(),
    });
    assert_eq!(response.tool_calls, expected);
    assert_eq!(response.stop_reason, StopReason::ToolUse);
    assert_eq!(response.model.as_deref(), Some("fake-model"));
}

#[tokio::test]
async fn an_event_of_a_megabyte_arrives_and_one_beyond_the_limit_is_refused() {
    let large = "x".repeat(1 << 20);
    let fake = Fake::streaming([&answer(&large)]).await;
    assert_eq!(items_of(&fake).await, whole(&[&large]));
    let fake = Fake::streaming([&answer(&"x".repeat(5 << 20))]).await;
    assert_eq!(error_after(&[], items_of(&fake).await).code(), "too_large");
}

#[tokio::test]
async fn nothing_follows_the_terminator() {
    let fake = Fake::streaming([&answer("a"), &says("late"), &event("[DONE]")]).await;
    assert_eq!(items_of(&fake).await, whole(&["a"]));
}

#[tokio::test]
async fn json_that_is_cut_or_wrong_is_malformed() {
    let fake = Fake::streaming([&says("a"), &event("{\"choices\":[")]).await;
    let error = error_after(&["a"], items_of(&fake).await);
    assert_eq!(error.code(), "malformed");
    assert!(error.to_string().contains(r#"{"choices":["#), "{error}");
}

#[tokio::test]
async fn dropping_the_stream_closes_the_socket() {
    let closed = Arc::new(Notify::new());
    let tell = Arc::clone(&closed);
    let fake = Fake::start(move |number, mut peer| {
        let tell = Arc::clone(&tell);
        async move {
            if number == 1 {
                peer.begin_events().await;
                peer.chunk(says("a")).await;
            }
            peer.closed().await;
            tell.notify_one();
        }
    })
    .await;
    let provider = fake.provider();
    // While the head of the response is awaited.
    let mut stream = provider.chat_stream(ChatRequest::user("Hello"));
    let asked = async {
        while fake.requests().is_empty() {
            assert!(timeout(Duration::from_millis(5), stream.next()).await.is_err());
        }
    };
    soon(asked).await;
    drop(stream);
    soon(closed.notified()).await;
    // In the midst of the answer.
    let mut stream = provider.chat_stream(ChatRequest::user("Hello"));
    assert_eq!(soon(stream.next()).await, Some(Ok(Chunk::text("a"))));
    drop(stream);
    soon(closed.notified()).await;
}

#[tokio::test]
async fn a_slow_consumer_slows_the_provider_down() {
    const EVENTS: usize = 512;
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let text = "x".repeat(64 * 1024);
    let body = says(&text).repeat(EVENTS) + &answer("end");
    let total = body.len();
    let fake = Fake::start(move |_, mut peer| {
        let (counter, body) = (Arc::clone(&counter), body.clone());
        async move {
            peer.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await;
            peer.send_counting(body.as_bytes(), |sent| counter.store(sent, Ordering::Relaxed)).await;
        }
    })
    .await;
    let mut stream = fake.provider().chat_stream(ChatRequest::user("Hello"));
    assert_eq!(soon(stream.next()).await, Some(Ok(Chunk::text(text.as_str()))));
    // Without anybody who polls, the provider comes to a halt. (Should it only seem so, the test merely proves less.)
    let halted = async {
        let mut before = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = sent.load(Ordering::Relaxed);
            if now == before {
                break now;
            }
            before = now;
        }
    };
    let halted_at = soon(halted).await;
    assert!(halted_at < total, "all {total} bytes were taken from a provider nobody listened to");
    // As soon as somebody does, all the rest comes.
    let rest: Vec<_> = soon(stream.collect()).await;
    assert_eq!(rest.len(), EVENTS - 1 + 2);
    assert_eq!(rest.last(), whole(&[]).last());
    assert_eq!(sent.load(Ordering::Relaxed), total);
}

#[tokio::test]
async fn a_whole_answer_gives_its_connection_back() {
    let reused = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&reused);
    let fake = Fake::start(move |_, mut peer| {
        let tell = Arc::clone(&tell);
        async move {
            loop {
                peer.begin_events().await;
                peer.chunk(answer("a")).await;
                peer.end().await;
                if !peer.next_request().await {
                    break;
                }
                tell.store(true, Ordering::Relaxed);
            }
        }
    })
    .await;
    let provider = fake.provider();
    // The connection comes back in the background: not always in time for the very next request, but soon.
    let asked = async {
        while !reused.load(Ordering::Relaxed) {
            assert_eq!(items(&provider).await, whole(&["a"]));
        }
    };
    soon(asked).await;
}
