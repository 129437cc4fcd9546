//! The gateway behind a server: what editors get over shared memory.

use std::{
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bellrope::{AsyncClient, CallError, Server, client::Style};
use bellrope_gateway::{
    AsyncChatClient, BoxFuture, Capabilities, ChatClient, ChatError, ChatRequest, ChatResponse, Chunk,
    CompletionRequest, EmbeddedProvider, EmbeddedSettings, Gateway, HealthReport, MAX_CHUNK, MESSAGE_TYPES, ModelInfo,
    ModelList, Provider, ProviderError, ProviderHealth, ProviderStream, SequencedChunk, StopReason, ToolCallDelta,
    register,
};
use futures_core::Stream;
use serde::Serialize;
use tempfile::TempDir;

/// A server with nothing but the gateway.
struct Served {
    server: Server,
    path: PathBuf,
    _home: TempDir,
}

fn serve(gateway: Gateway) -> Served {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("ai.sock");
    let server = register(Server::builder(), Arc::new(gateway)).bind(&path).unwrap();
    Served { server, path, _home: home }
}

fn embedded(script: Vec<Chunk>) -> Gateway {
    Gateway::new(Arc::new(EmbeddedProvider::new(EmbeddedSettings { script, ..EmbeddedSettings::default() })))
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

/// All pieces of a stream that ends well.
async fn pieces(client: &AsyncClient, name: &str, request: &impl Serialize) -> Vec<SequencedChunk> {
    let mut stream = client.stream(name, &json(request)).await.unwrap();
    let mut pieces = Vec::new();
    while let Some(bytes) = stream.next().await {
        let bytes = bytes.unwrap();
        assert!(bytes.len() <= MAX_CHUNK);
        pieces.push(serde_json::from_slice(&bytes).unwrap());
    }
    pieces
}

/// The handler's own words about a mistake of the caller's.
fn words(error: CallError) -> String {
    match error {
        CallError::InvalidRequest { text } => text,
        other => panic!("not said to be the caller's mistake: {other}"),
    }
}

/// Waits until a condition holds, at most a minute.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come true within a minute");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn every_message_type_is_there_and_answers_as_documented() {
    let served = serve(embedded(Vec::new()));
    let client = AsyncClient::connect(&served.path).await.unwrap();
    let types = client.message_types();
    let names: Vec<_> = types.iter().map(|(name, _)| name.as_str()).collect();
    // The last one says what the others take.
    assert_eq!(names, [&MESSAGE_TYPES[..], &["bellrope.schema"]].concat());
    for (name, style) in &types {
        let streams = name.ends_with("_stream") || name == "ai.resume";
        assert_eq!(*style == Style::ServerStream, streams, "{name}");
    }

    let answer = client.call("ai.chat", &json(&ChatRequest::user("Hello"))).await.unwrap();
    let answer: ChatResponse = serde_json::from_slice(&answer).unwrap();
    assert!(answer.text.ends_with("You asked: Hello"), "{answer:?}");
    assert_eq!((answer.stop_reason, answer.model.as_deref()), (StopReason::EndTurn, Some("embedded")));

    let answer = client.call("ai.complete", &json(&CompletionRequest::new("fn main"))).await.unwrap();
    let answer: ChatResponse = serde_json::from_slice(&answer).unwrap();
    assert!(answer.text.ends_with("fn main"), "{answer:?}");

    for payload in [&b""[..], b"{}", br#"{"version":1}"#] {
        let models: ModelList = serde_json::from_slice(&client.call("ai.models", payload).await.unwrap()).unwrap();
        assert_eq!(models.models[0].id, "embedded");
        let health: HealthReport = serde_json::from_slice(&client.call("ai.health", payload).await.unwrap()).unwrap();
        assert!(health.default_provider == "embedded" && health.providers[0].healthy, "{health:?}");
    }
}

#[tokio::test]
async fn a_streamed_answer_is_that_of_the_provider_numbered_from_zero() {
    let served = serve(embedded(Vec::new()));
    let client = AsyncClient::connect(&served.path).await.unwrap();
    let chat = pieces(&client, "ai.chat_stream", &ChatRequest::user("/tokens 3")).await;
    assert_eq!(chat, pieces(&client, "ai.complete_stream", &CompletionRequest::new("/tokens 3")).await);
    let numbers: Vec<_> = chat.iter().map(|piece| piece.seq).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
    let [Chunk::Text { .. }, Chunk::Text { .. }, Chunk::Text { .. }, Chunk::Usage(usage), Chunk::Done { stop_reason }] =
        &chat.iter().map(|piece| piece.chunk.clone()).collect::<Vec<_>>()[..]
    else {
        panic!("{chat:?}")
    };
    assert_eq!((usage.output_tokens, *stop_reason), (3, StopReason::EndTurn));
}

#[tokio::test]
async fn a_piece_too_large_for_a_chunk_comes_whole_in_several() {
    let long = "bell\u{1}é".repeat(100_000);
    let done = Chunk::Done { stop_reason: StopReason::EndTurn };
    let served = serve(embedded(vec![Chunk::text(&long), done.clone()]));
    let client = AsyncClient::connect(&served.path).await.unwrap();
    let pieces = pieces(&client, "ai.chat_stream", &ChatRequest::user("x")).await;
    assert!(pieces.iter().enumerate().all(|(index, piece)| piece.seq == index as u64));
    let text: String = pieces
        .iter()
        .filter_map(|piece| match &piece.chunk {
            Chunk::Text { text } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert!(text == long, "{} bytes of {}", text.len(), long.len());
    assert_eq!(pieces.last().unwrap().chunk, done);
}

#[tokio::test]
async fn a_piece_that_no_cut_makes_small_enough_ends_the_stream_with_an_error() {
    let name = Some("x".repeat(MAX_CHUNK));
    let call = Chunk::ToolCall(ToolCallDelta { index: 0, id: None, name, arguments: String::new() });
    let served = serve(embedded(vec![Chunk::text("Look:"), call, Chunk::text("unheard")]));
    let client = AsyncClient::connect(&served.path).await.unwrap();
    let pieces = pieces(&client, "ai.chat_stream", &ChatRequest::user("x")).await;
    let [first, SequencedChunk { seq: 1, chunk: Chunk::Error(error) }] = &pieces[..] else { panic!("{pieces:?}") };
    assert_eq!(first.chunk, Chunk::text("Look:"));
    assert_eq!(error.code, "answer_too_large");
    assert_eq!(error.message, "a piece of the answer is larger than 16384 bytes");
}

#[tokio::test]
async fn a_request_that_cannot_be_read_is_answered_with_what_is_wrong_and_where() {
    let served = serve(embedded(Vec::new()));
    let client = AsyncClient::connect(&served.path).await.unwrap();
    for name in ["ai.chat", "ai.complete"] {
        let text = words(client.call(name, b"{\n  oops").await.unwrap_err());
        assert_eq!(text, "the request cannot be read: key must be a string at line 2 column 3");
    }
    for name in ["ai.models", "ai.health"] {
        let text = words(client.call(name, br#"{"version":9}"#).await.unwrap_err());
        assert_eq!(text, "unsupported_version: the request has version 9; this gateway speaks version 1");
    }
    let unknown_role = format!(r#"{{"messages":[{{"role":"\u001b[2J{}"}}]}}"#, "x".repeat(5000));
    let mut stream = client.stream("ai.chat_stream", unknown_role.as_bytes()).await.unwrap();
    let text = words(stream.next().await.unwrap().unwrap_err());
    assert!(text.contains(r"unknown variant `\u{1b}[2Jxxx"), "{text}");
    assert!(text.len() < 1024 && text.ends_with('…') && !text.contains('\u{1b}'), "{text}");
    assert!(stream.next().await.is_none());
}

// Faults 70, 75.
#[tokio::test]
async fn a_field_that_nobody_knows_is_told_of_in_answers_and_streams_and_half_a_pair_is_read() {
    let served = serve(embedded(vec![Chunk::text("a"), Chunk::Done { stop_reason: StopReason::EndTurn }]));
    let client = AsyncClient::connect(&served.path).await.unwrap();
    let told = |field: &str| format!("`{field}` was left out: no such field is known here");
    let chat = br#"{"messages":[{"role":"user","content":"cut \ud83d here","mood":1}],"verbosity":"low","store":null}"#;
    let complete = br#"{"prompt":"cut \ud83d here","messages":null,"logprobs":true,"seed":7}"#;
    for (kind, request, fields) in
        [("ai.chat", &chat[..], ["messages.mood", "verbosity"]), ("ai.complete", &complete[..], ["logprobs", "seed"])]
    {
        let answer: ChatResponse = serde_json::from_slice(&client.call(kind, request).await.unwrap()).unwrap();
        assert_eq!((answer.text.as_str(), &answer.notes[..]), ("a", &fields.map(told)[..]));
        let mut stream = client.stream(&format!("{kind}_stream"), request).await.unwrap();
        let mut chunks = Vec::new();
        while let Some(chunk) = stream.next().await {
            let chunk: SequencedChunk = serde_json::from_slice(&chunk.unwrap()).unwrap();
            assert_eq!(chunk.seq, chunks.len() as u64);
            chunks.push(chunk.chunk);
        }
        let notices = fields.map(|field| Chunk::Notice { text: told(field) });
        assert_eq!((&chunks[..2], &chunks[2]), (&notices[..], &Chunk::text("a")));
    }
    for n in ["2", "\"3\""] {
        let several = format!(r#"{{"messages":[{{"role":"user","content":"a"}}],"n":{n}}}"#);
        let text = words(client.call("ai.chat", several.as_bytes()).await.unwrap_err());
        assert!(text.starts_with("invalid_request: ") && text.contains("n is "), "{text}");
    }
    let many = br#"{"messages":[{"role":"user","content":"a"}],"max_tokens":"many"}"#;
    let text = words(client.call("ai.chat", many).await.unwrap_err());
    assert!(text.starts_with("the request cannot be read: max_tokens: invalid value"), "{text}");
}

#[tokio::test]
async fn a_providers_error_ends_a_stream_as_a_chunk_and_a_call_as_an_error() {
    let script = vec![Chunk::text("Half an"), ProviderError::Truncated { reason: "the line went dead".into() }.into()];
    let served = serve(embedded(script.clone()));
    let client = AsyncClient::connect(&served.path).await.unwrap();
    let chunks: Vec<_> =
        pieces(&client, "ai.chat_stream", &ChatRequest::user("x")).await.into_iter().map(|piece| piece.chunk).collect();
    assert_eq!(chunks, script);

    let request = ChatRequest { provider: Some("delphi".into()), ..ChatRequest::user("x") };
    let text = words(client.call("ai.chat", &json(&request)).await.unwrap_err());
    assert_eq!(text, "unknown_provider: there is no provider `delphi`; known: embedded");
}

#[tokio::test]
async fn the_typed_clients_speak_every_message_type() {
    let served = serve(embedded(Vec::new()));
    let (chat, complete) = (ChatRequest::user("/tokens 3"), CompletionRequest::new("/tokens 3"));
    let ai = AsyncChatClient::connect(&served.path).await.unwrap();
    let answer = ai.chat(&chat).await.unwrap();
    assert_eq!(answer, ai.complete(&complete).await.unwrap());
    assert_eq!(ai.models().await.unwrap().models[0].id, "embedded");
    assert!(ai.health().await.unwrap().providers[0].healthy);
    let mut pieces = Vec::new();
    let mut stream = ai.chat_stream(&chat).await.unwrap();
    while let Some(piece) = stream.next().await {
        pieces.push(piece.unwrap());
    }
    assert_eq!(pieces.len(), 5);
    let mut stream = ai.complete_stream(&complete).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), pieces[0]);

    let path = served.path.clone();
    let blocking = move || {
        let ai = ChatClient::connect(&path).unwrap();
        assert_eq!(ai.chat(&chat).unwrap(), answer);
        assert_eq!(ai.complete(&complete).unwrap(), answer);
        assert_eq!(ai.models().unwrap().models[0].id, "embedded");
        assert!(ai.health().unwrap().providers[0].healthy);
        for stream in [ai.chat_stream(&chat), ai.complete_stream(&complete)] {
            assert_eq!(stream.unwrap().map(Result::unwrap).collect::<Vec<_>>(), pieces);
        }
        let unknown = ChatRequest { provider: Some("delphi".into()), ..chat };
        let Err(ChatError::Call(error)) = ai.chat(&unknown) else { panic!("it was answered") };
        assert!(words(error).starts_with("unknown_provider: "));
    };
    tokio::task::spawn_blocking(blocking).await.unwrap();
}

/// A provider whose answers never end, and that counts.
#[derive(Default)]
struct Endless {
    /// Pieces of an answer after which nothing more comes; absent if they never stop coming.
    silent_after: Option<usize>,
    /// Pieces asked for.
    pulled: Arc<AtomicUsize>,
    /// Streams dropped.
    dropped: Arc<AtomicUsize>,
}

struct EndlessStream {
    left: Option<usize>,
    pulled: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
}

impl Stream for EndlessStream {
    type Item = Result<Chunk, ProviderError>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(left) = &mut self.left {
            if *left == 0 {
                return Poll::Pending;
            }
            *left -= 1;
        }
        self.pulled.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(Some(Ok(Chunk::text("x".repeat(1000)))))
    }
}

impl Drop for EndlessStream {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

impl Provider for Endless {
    fn name(&self) -> &str {
        "endless"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn chat_stream(&self, _: ChatRequest) -> ProviderStream {
        Box::pin(EndlessStream {
            left: self.silent_after,
            pulled: Arc::clone(&self.pulled),
            dropped: Arc::clone(&self.dropped),
        })
    }

    fn models(&self) -> BoxFuture<'_, Result<Vec<ModelInfo>, ProviderError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn health(&self) -> BoxFuture<'_, ProviderHealth> {
        let health = ProviderHealth { provider: "endless".into(), healthy: true, latency: Duration::ZERO, error: None };
        Box::pin(async { health })
    }
}

#[tokio::test]
async fn a_reader_that_stops_reading_stops_its_provider() {
    let endless = Endless::default();
    let pulled = Arc::clone(&endless.pulled);
    let served = serve(Gateway::new(Arc::new(endless)));
    let client = AsyncClient::connect(&served.path).await.unwrap();
    let mut stream = client.stream("ai.chat_stream", &json(&ChatRequest::user("x"))).await.unwrap();
    for read in 1..=200 {
        stream.next().await.unwrap().unwrap();
        // A window of 64 KiB, the chunks that may wait before it, the one in the handler's hand.
        let ahead = pulled.load(Ordering::SeqCst) - read;
        assert!(ahead <= 64 + bellrope::server::ChunkSender::AHEAD + 1, "{ahead} pieces ahead of the reader");
    }
    // Other calls take their turns on the same thread as the stream's handler: it has had every chance to run on.
    for _ in 0..200 {
        client.call("ai.health", b"").await.unwrap();
    }
    let ahead = pulled.load(Ordering::SeqCst) - 200;
    assert!(ahead <= 64 + bellrope::server::ChunkSender::AHEAD + 1, "{ahead} pieces ahead of the reader");
}

#[tokio::test]
async fn a_cancelled_or_abandoned_answer_drops_the_stream_of_its_provider() {
    let request = json(&ChatRequest::user("x"));
    // The handler waits for its reader, or for its provider.
    for silent_after in [None, Some(1)] {
        let endless = Endless { silent_after, ..Endless::default() };
        let dropped = Arc::clone(&endless.dropped);
        let served = serve(Gateway::new(Arc::new(endless)));
        let client = AsyncClient::connect(&served.path).await.unwrap();

        let mut stream = client.stream("ai.chat_stream", &request).await.unwrap();
        stream.next().await.unwrap().unwrap();
        drop(stream);
        eventually("the drop after a cancel", || dropped.load(Ordering::SeqCst) == 1).await;

        let mut stream = client.stream("ai.chat_stream", &request).await.unwrap();
        stream.next().await.unwrap().unwrap();
        drop((stream, client));
        eventually("the drop after a hang-up", || dropped.load(Ordering::SeqCst) == 2).await;
        eventually("the end of the connection", || served.server.metrics().active_connections() == 0).await;
    }
}

#[tokio::test]
async fn an_answer_past_its_deadline_drops_the_stream_of_its_provider() {
    let endless = Endless { silent_after: Some(1), ..Endless::default() };
    let dropped = Arc::clone(&endless.dropped);
    let served = serve(Gateway::new(Arc::new(endless)));
    let client = AsyncClient::connect(&served.path).await.unwrap();
    let request = json(&ChatRequest::user("x"));
    // On a busy machine a deadline may pass before the provider is asked.
    let until = Instant::now() + Duration::from_secs(60);
    while dropped.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < until, "no stream of the provider was dropped");
        let error = client.call_within("ai.chat", &request, Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, CallError::DeadlineExceeded), "{error}");
    }
}
