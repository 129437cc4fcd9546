//! Answers that survive their readers, behind a server.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bellrope::{AsyncClient, CallError, Server};
use bellrope_gateway::{
    AnswerSettings, AsyncChatClient, BoxFuture, Capabilities, ChatRequest, Chunk, Gateway, LiveGateway, ModelInfo,
    Owner, Provider, ProviderError, ProviderHealth, ProviderStream, StopReason, register,
};
use futures_util::stream;
use tempfile::TempDir;
use tokio::sync::{Mutex, mpsc};

/// A provider whose one answer says what it is told to.
struct Told(Mutex<Option<mpsc::Receiver<Chunk>>>);

impl Provider for Told {
    fn name(&self) -> &str {
        "told"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn chat_stream(&self, _: ChatRequest) -> ProviderStream {
        let chunks = self.0.try_lock().unwrap().take().expect("one answer");
        Box::pin(stream::unfold(chunks, async |mut chunks| Some((Ok(chunks.recv().await?), chunks))))
    }

    fn models(&self) -> BoxFuture<'_, Result<Vec<ModelInfo>, ProviderError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn health(&self) -> BoxFuture<'_, ProviderHealth> {
        let health = ProviderHealth { provider: "told".into(), healthy: true, latency: Duration::ZERO, error: None };
        Box::pin(async { health })
    }
}

struct Served {
    _server: Server,
    live: LiveGateway,
    path: PathBuf,
    say: mpsc::Sender<Chunk>,
    _home: TempDir,
}

fn serve(settings: AnswerSettings) -> Served {
    let (say, told) = mpsc::channel(64);
    let gateway = Gateway::new(Arc::new(Told(Mutex::new(Some(told))))).with_answers(settings);
    let live = LiveGateway::new(gateway);
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("ai.sock");
    let server = register(Server::builder(), live.clone()).bind(&path).unwrap();
    Served { _server: server, live, path, say, _home: home }
}

impl Served {
    async fn client(&self) -> AsyncChatClient {
        AsyncChatClient::connect(&self.path).await.unwrap()
    }

    async fn say(&self, text: &str) {
        self.say.send(Chunk::text(text)).await.unwrap();
    }

    async fn finish(&self) {
        self.say.send(Chunk::Done { stop_reason: StopReason::EndTurn }).await.unwrap();
    }
}

fn request() -> ChatRequest {
    ChatRequest { resumable: true, ..ChatRequest::user("Hello") }
}

/// The id that comes first.
async fn id(answer: &mut bellrope_gateway::client::AsyncChatStream) -> String {
    let first = answer.next().await.unwrap().unwrap();
    let (0, Chunk::Resumable { id }) = (first.seq, first.chunk) else { panic!("no id") };
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    id
}

/// What is left of an answer: its texts, and the code of an error.
async fn rest(mut answer: bellrope_gateway::client::AsyncChatStream) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(piece) = answer.next().await {
        match piece.unwrap().chunk {
            Chunk::Text { text } => texts.push(text),
            Chunk::Error(info) => texts.push(info.code),
            _ => {}
        }
    }
    texts
}

async fn text(answer: &mut bellrope_gateway::client::AsyncChatStream) -> (u64, String) {
    let piece = answer.next().await.unwrap().unwrap();
    let Chunk::Text { text } = piece.chunk else { panic!("{piece:?}") };
    (piece.seq, text)
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("it came within a minute")
}

#[tokio::test]
async fn a_reader_that_is_lost_goes_on_where_it_was() {
    let served = serve(AnswerSettings::default());
    let first = served.client().await;
    let mut answer = soon(first.chat_stream(&request())).await.unwrap();
    let id = soon(id(&mut answer)).await;
    served.say("one ").await;
    assert_eq!(soon(text(&mut answer)).await, (1, "one ".to_owned()));
    served.say("two ").await;
    // The connection goes before the stream does, as when a process dies.
    drop(first);
    std::mem::forget(answer);
    let second = served.client().await;
    let mut answer = soon(second.resume(&id, Some(1))).await.unwrap();
    assert_eq!(soon(text(&mut answer)).await, (2, "two ".to_owned()));
    served.say("three").await;
    served.finish().await;
    assert_eq!(soon(rest(answer)).await, ["three"]);
    // A reader that knows nothing gets all of it, as often as it likes.
    for _ in 0..2 {
        let mut whole = soon(second.resume(&id, None)).await.unwrap();
        soon(self::id(&mut whole)).await;
        assert_eq!(soon(rest(whole)).await, ["one ", "two ", "three"]);
    }
    assert_eq!(soon(rest(second.resume(&id, Some(4)).await.unwrap())).await, ["not_resumable"]);
    assert_eq!(soon(rest(second.resume(&id, Some(9)).await.unwrap())).await, ["not_resumable"]);
    assert!(!soon(second.cancel(&id)).await.unwrap(), "it is over");
}

#[tokio::test]
async fn a_second_reader_takes_the_answer_over_and_the_first_is_told() {
    let served = serve(AnswerSettings::default());
    let (first, second) = (served.client().await, served.client().await);
    let mut answer = soon(first.chat_stream(&request())).await.unwrap();
    let id = soon(id(&mut answer)).await;
    let mut other = soon(second.resume(&id, None)).await.unwrap();
    soon(self::id(&mut other)).await;
    assert_eq!(soon(rest(answer)).await, ["superseded"]);
    served.say("one").await;
    served.finish().await;
    assert_eq!(soon(rest(other)).await, ["one"]);
}

// Fault 54.
#[tokio::test]
async fn a_cancel_by_id_or_of_the_call_drops_the_providers_stream_within_a_second() {
    for by_id in [true, false] {
        let served = serve(AnswerSettings::default());
        let client = served.client().await;
        let mut answer = soon(client.chat_stream(&request())).await.unwrap();
        let id = soon(id(&mut answer)).await;
        served.say("one").await;
        soon(text(&mut answer)).await;
        if by_id {
            assert!(soon(served.client().await.cancel(&id)).await.unwrap());
            assert_eq!(soon(rest(answer)).await, ["cancelled"]);
        } else {
            drop(answer);
        }
        tokio::time::timeout(Duration::from_secs(1), served.say.closed()).await.expect("the stream is dropped");
        let whole = soon(rest(client.resume(&id, None).await.unwrap())).await;
        assert_eq!(whole, ["one", "cancelled"]);
    }
}

// Fault 54.
#[tokio::test]
async fn every_other_request_ends_with_its_reader_within_a_second() {
    let served = serve(AnswerSettings::default());
    let client = served.client().await;
    let mut answer = soon(client.chat_stream(&ChatRequest::user("Hello"))).await.unwrap();
    served.say("one").await;
    assert_eq!(soon(text(&mut answer)).await, (0, "one".to_owned()));
    drop(client);
    drop(answer);
    tokio::time::timeout(Duration::from_secs(1), served.say.closed()).await.expect("the stream is dropped");
    assert_eq!(served.live.answers().size(), (0, 0));
}

#[tokio::test]
async fn an_answer_is_forgotten_after_its_time_and_one_cut_is_told_as_cut() {
    let served = serve(AnswerSettings { keep: Duration::from_secs(1), ..AnswerSettings::default() });
    let client = served.client().await;
    let mut answer = soon(client.chat_stream(&request())).await.unwrap();
    let id = soon(id(&mut answer)).await;
    let info = ProviderError::Disconnected { reason: "down".into() }.info();
    served.say("one").await;
    served.say.send(Chunk::Error(info)).await.unwrap();
    assert_eq!(soon(rest(answer)).await, ["one", "disconnected"]);
    assert_eq!(soon(rest(client.resume(&id, Some(1)).await.unwrap())).await, ["disconnected"]);
    soon(async {
        while served.live.answers().size() != (0, 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(soon(rest(client.resume(&id, None).await.unwrap())).await, ["unknown_answer"]);
    let error = soon(client.cancel(&id)).await.unwrap_err().to_string();
    assert!(error.contains("unknown_answer: no answer of this id is kept here for you"), "{error}");
}

#[tokio::test]
async fn another_users_answer_is_none_and_neither_is_one_of_an_earlier_server() {
    let served = serve(AnswerSettings::default());
    let client = served.client().await;
    // As if root had asked for it.
    let theirs = served.live.answers().begin(77, Owner::User(u32::MAX - 7), true, None, 0).unwrap();
    assert_eq!(soon(rest(client.resume(&theirs.id(), None).await.unwrap())).await, ["unknown_answer"]);
    assert!(soon(client.cancel(&theirs.id())).await.is_err());

    let mut answer = soon(client.chat_stream(&request())).await.unwrap();
    let id = soon(id(&mut answer)).await;
    let next = serve(AnswerSettings::default());
    let client = next.client().await;
    assert_eq!(soon(rest(client.resume(&id, None).await.unwrap())).await, ["unknown_answer"]);
}

#[tokio::test]
async fn what_cannot_be_kept_says_why_and_whole_answers_say_that_they_are_not() {
    let served = serve(AnswerSettings { keep_bytes: 0, ..AnswerSettings::default() });
    let client = served.client().await;
    assert_eq!(soon(rest(client.chat_stream(&request()).await.unwrap())).await, ["overloaded"]);
    served.finish().await;
    let whole = soon(client.chat(&request())).await.unwrap();
    assert_eq!(whole.notes, ["`resumable` was left out: only answers of ai.chat_stream are kept"]);
    let raw = AsyncClient::connect(&served.path).await.unwrap();
    let refused = raw.call("ai.cancel", b"{}").await.unwrap_err();
    assert!(matches!(&refused, CallError::InvalidRequest { text } if text.contains("missing field `id`")), "{refused}");
}
