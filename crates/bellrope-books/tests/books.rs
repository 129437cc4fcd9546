//! A gateway with books, before a provider that does as it is told, with a clock that the test moves.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

use bellrope_books::{
    BookSettings, Bookkeeper, Budget, By, Moment, Price, Tokens, UsageQuery, UsageRow, Window, usage,
};
use bellrope_gateway::{
    AnswerRoom, AnsweredBy, Asker, AskerKind, BoxFuture, Capabilities, ChatRequest, Chunk, EmbeddingRequest, Gateway,
    ModelInfo, Provider, ProviderError, ProviderHealth, ProviderStream, StopReason, Unsaid, Usage,
};
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::Semaphore;

const DAY: i64 = 86_400_000;
const START: i64 = 20_000 * DAY + 3_600_000;

/// A provider that gives the next of its answers, once it may.
struct Scripted {
    name: &'static str,
    answers: Mutex<VecDeque<Vec<Result<Chunk, ProviderError>>>>,
    asked: Mutex<Vec<ChatRequest>>,
    leave: Arc<Semaphore>,
    /// The tokens of an answer that is not set, if it may have as many.
    length: Option<u64>,
}

impl Scripted {
    fn named(name: &'static str) -> Arc<Self> {
        Self::long(name, None)
    }

    fn long(name: &'static str, length: Option<u64>) -> Arc<Self> {
        let leave = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        Arc::new(Self { name, answers: Mutex::default(), asked: Mutex::default(), leave, length })
    }

    fn will(&self, answer: Vec<Result<Chunk, ProviderError>>) {
        self.answers.lock().unwrap().push_back(answer);
    }

    fn asked(&self) -> Vec<ChatRequest> {
        self.asked.lock().unwrap().clone()
    }
}

impl Provider for Scripted {
    fn name(&self) -> &str {
        self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { default_model: Some("usual".into()), ..Capabilities::default() }
    }

    fn chat_stream(&self, request: ChatRequest) -> ProviderStream {
        let most = request.max_tokens.map_or(u64::MAX, u64::from);
        let usual = self.length.map_or_else(|| whole(10, 5), |length| whole(1, length.min(most)));
        self.asked.lock().unwrap().push(request);
        let answer = self.answers.lock().unwrap().pop_front().unwrap_or(usual);
        let leave = Arc::clone(&self.leave);
        let begin = async move { leave.acquire_owned().await.unwrap().forget() };
        Box::pin(stream::once(begin).flat_map(move |()| stream::iter(answer.clone()).chain(stream::pending())))
    }

    fn embed(&self, _: EmbeddingRequest) -> BoxFuture<'_, Result<Vec<u8>, ProviderError>> {
        Box::pin(async {
            Ok(br#"{"data":[{"index":0,"embedding":[0.5]}],"usage":{"prompt_tokens":8,"total_tokens":8}}"#.to_vec())
        })
    }

    fn models(&self) -> BoxFuture<'_, Result<Vec<ModelInfo>, ProviderError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn health(&self) -> BoxFuture<'_, ProviderHealth> {
        let health = ProviderHealth { provider: self.name.into(), healthy: true, latency: Duration::ZERO, error: None };
        Box::pin(async { health })
    }
}

fn whole(input: u64, output: u64) -> Vec<Result<Chunk, ProviderError>> {
    let usage = Usage { input_tokens: input, output_tokens: output, ..Usage::default() };
    vec![Ok(Chunk::text("Hello")), Ok(Chunk::Usage(usage)), Ok(done())]
}

fn done() -> Chunk {
    Chunk::Done { stop_reason: StopReason::EndTurn }
}

/// What all of a test use.
struct Stage {
    home: tempfile::TempDir,
    wall: Arc<AtomicI64>,
    steady_ms: Arc<AtomicU64>,
    settings: BookSettings,
}

impl Stage {
    fn new(settings: BookSettings) -> Self {
        let home = tempfile::tempdir().unwrap();
        let settings = BookSettings { path: Some(home.path().join("state").join("books.db")), ..settings };
        Self { home, wall: Arc::new(START.into()), steady_ms: Arc::default(), settings }
    }

    fn path(&self) -> PathBuf {
        self.settings.path.clone().unwrap()
    }

    fn tokens(&self) -> Tokens {
        Tokens::at(self.home.path().join("tokens.json"))
    }

    fn books(&self) -> Bookkeeper {
        let (wall, steady) = (Arc::clone(&self.wall), Arc::clone(&self.steady_ms));
        let clock = Arc::new(move || Moment {
            wall: UNIX_EPOCH + Duration::from_millis(wall.load(Relaxed).try_into().unwrap()),
            steady: Duration::from_millis(steady.load(Relaxed)),
        });
        Bookkeeper::with(self.settings.clone(), Some(self.tokens()), clock)
    }

    fn row(&self, by: By, of: &str) -> UsageRow {
        let report = usage(&self.path(), &UsageQuery { by, since: None }).unwrap();
        report.rows.iter().find(|row| row.of == of).unwrap_or_else(|| panic!("{report:?}")).clone()
    }

    fn total(&self) -> UsageRow {
        usage(&self.path(), &UsageQuery::default()).unwrap().total
    }
}

fn gateway(provider: &Arc<Scripted>, books: &Bookkeeper) -> Gateway {
    Gateway::new(Arc::clone(provider) as _).with_books(Arc::new(books.clone()))
}

fn price(provider: &str, model: &str, price: f64) -> Price {
    let row = serde_json::json!({"provider": provider, "model": model, "input": price, "output": price});
    serde_json::from_value(row).unwrap()
}

fn close(books: &Bookkeeper) {
    assert!(books.close(Duration::from_secs(60)), "{:?}", books.trouble());
}

fn from(name: &str) -> ChatRequest {
    ChatRequest { asker: Asker::new(AskerKind::Token, name, "/v1/messages"), ..ChatRequest::user("Hello") }
}

/// Sixteen requests at once for answers of so many tokens, with a budget of so many: how many are refused.
async fn ask_sixteen(limit: u64, length: u64, max_tokens: Option<u32>, prices: Vec<Price>) -> u64 {
    let budget = Budget { tokens: Some(limit), ..Budget::named("day", Window::Day) };
    let stage = Stage::new(BookSettings { budgets: vec![budget], prices, ..BookSettings::default() });
    let (books, provider) = (stage.books(), Scripted::long("p", Some(length)));
    let gateway = gateway(&provider, &books);
    // Nobody is answered before all have asked.
    provider.leave.forget_permits(Semaphore::MAX_PERMITS);
    let mut streams: Vec<_> = Vec::new();
    let mut refused = 0;
    for _ in 0..16 {
        let request = ChatRequest { max_tokens, ..ChatRequest::user("Hello") };
        let mut answer = gateway.chat_stream(request);
        match answer.next().now_or_never() {
            None => streams.push(answer),
            Some(Some(piece)) => {
                let Chunk::Error(error) = piece.chunk else { panic!("{piece:?}") };
                assert_eq!((&*error.code, error.retryable), ("budget_exceeded", true), "{error:?}");
                refused += 1;
            }
            Some(None) => panic!(),
        }
    }
    provider.leave.add_permits(16);
    for answer in streams {
        let last = answer.collect::<Vec<_>>().await.pop().unwrap().chunk;
        assert_eq!(last, done());
    }
    close(&books);
    let total = stage.total();
    assert!(total.input_tokens + total.output_tokens <= limit, "{total:?}");
    assert_eq!((total.done, total.refused), (16 - refused, refused));
    refused
}

// Row 59.
#[tokio::test]
async fn sixteen_requests_at_once_cannot_overrun_a_budget() {
    assert!(ask_sixteen(1_000, 100, Some(100), Vec::new()).await >= 6);
}

// Row 59.
#[tokio::test]
async fn sixteen_requests_at_once_that_name_no_number_cannot_overrun_a_budget() {
    // Far from its end, near it, and too small for any.
    for limit in [10_000_000, 1_000_000, 920_000, 200_000, 140_000, 70_000, 10_000, 1_000] {
        let refused = ask_sixteen(limit, 100_000, None, Vec::new()).await;
        assert!(limit < 70_000 || refused == 0, "{limit}: {refused} were refused");
    }
    let most = Price { max_output: Some(8_000), ..price("*", "*", 1.0) };
    assert_eq!(ask_sixteen(33_000, 8_000, None, vec![most]).await, 12);
}

#[tokio::test]
async fn a_budget_that_is_spent_refuses_with_when_its_window_ends_and_counts_again_from_then_on() {
    let budget = Budget { cost: Some(0.001), ..Budget::named("money", Window::Day) };
    let settings =
        BookSettings { budgets: vec![budget], prices: vec![price("p", "usual", 10.0)], ..BookSettings::default() };
    let stage = Stage::new(settings);
    let (books, provider) = (stage.books(), Scripted::named("p"));
    let gateway = gateway(&provider, &books);
    provider.will(whole(20, 60));
    gateway.chat(ChatRequest { max_tokens: Some(64), ..from("codex") }).await.unwrap();
    let answer = gateway.chat(ChatRequest { max_tokens: Some(8), ..from("codex") }).await.unwrap();
    assert!(
        answer.notes[0].starts_with("of the budget `money` 0.0008 of 0.001 USD are spent until 2024-10-05"),
        "{answer:?}"
    );
    let error = gateway.chat(ChatRequest { max_tokens: Some(64), ..from("codex") }).await.unwrap_err();
    assert_eq!(error.code(), "budget_exceeded");
    assert_eq!(error.retry_after(), Some(Duration::from_millis((DAY - 3_600_000) as u64)));
    let text = error.to_string();
    let expected = "the budget `money` allows no more: 0.00095 of 0.001 USD are spent (this request costs at least ";
    assert!(text.starts_with(expected) && text.contains("this day ends at 2024-10-05 00:00 UTC"), "{text}");
    assert!(!error.retryable(), "nobody waits for a day");
    stage.wall.fetch_add(DAY, Relaxed);
    gateway.chat(ChatRequest { max_tokens: Some(64), ..from("codex") }).await.unwrap();
    close(&books);
    let codex = stage.row(By::Client, "codex");
    assert_eq!((codex.done, codex.refused, codex.kind.as_deref()), (3, 1, Some("token")));
}

// Row 56: a cancelled stream is no zero, and a zero is no absence.
#[tokio::test]
async fn every_end_is_counted_as_what_it_was() {
    let stage = Stage::new(BookSettings { prices: vec![price("*", "*", 1.0)], ..BookSettings::default() });
    let (books, provider) = (stage.books(), Scripted::named("p"));
    let gateway = gateway(&provider, &books);
    let long = || Ok(Chunk::text("x".repeat(400)));
    let ask = |name: &str, answer| {
        provider.will(answer);
        gateway.chat_stream(from(name))
    };
    let broken = || Err(ProviderError::Disconnected { reason: "gone".into() });

    let mut cancelled = ask("cancelled", vec![long()]);
    assert!(cancelled.next().await.is_some());
    drop(cancelled);
    let placeholder = Usage { input_tokens: 9, output_tokens: 1, ..Usage::default() };
    let mut early = ask("placeholder", vec![long(), Ok(Chunk::Usage(placeholder))]);
    assert!(early.next().await.is_some() && early.next().await.is_some());
    drop(early);
    // Of two counts one cannot be read.
    let half = Usage { input_tokens: 9, unsaid: Unsaid { output: true, ..Unsaid::default() }, ..Usage::default() };
    for (name, answer) in [
        ("cut", vec![long(), broken()]),
        ("failed", vec![broken()]),
        ("silent", vec![long(), Ok(done())]),
        ("zero", whole(0, 0)),
        ("half", vec![long(), Ok(Chunk::Usage(half)), Ok(done())]),
        ("done", whole(7, 3)),
    ] {
        ask(name, answer).collect::<Vec<_>>().await;
    }
    for (name, answer) in [("whole-cut", vec![long(), broken()]), ("whole-failed", vec![broken()])] {
        provider.will(answer);
        gateway.chat(from(name)).await.unwrap_err();
    }
    close(&books);
    let row = |name: &str| stage.row(By::Client, name);
    let counts = |row: &UsageRow| (row.input_tokens, row.output_tokens, row.estimated);
    for (name, expected) in [
        ("cancelled", (6, 100, 1)),
        ("placeholder", (9, 100, 1)),
        ("cut", (6, 100, 1)),
        ("failed", (0, 0, 0)),
        ("silent", (6, 100, 1)),
        ("zero", (0, 0, 0)),
        ("half", (9, 100, 1)),
        ("done", (7, 3, 0)),
        ("whole-cut", (6, 100, 1)),
        ("whole-failed", (0, 0, 0)),
    ] {
        assert_eq!(counts(&row(name)), expected, "{name}");
    }
    assert_eq!(
        (row("cancelled").cancelled, row("placeholder").cancelled, row("cut").cut, row("failed").failed),
        (1, 1, 1, 1)
    );
    assert_eq!((row("silent").done, row("zero").done), (1, 1));
    assert_eq!((row("whole-cut").cut, row("whole-failed").failed), (1, 1));
    assert_eq!(row("cancelled").costs[0].micros, 106);
}

#[tokio::test]
async fn a_price_that_is_not_known_is_unknown_and_not_nothing_and_a_providers_own_counts() {
    let stage = Stage::new(BookSettings { prices: vec![price("p", "known", 2.0)], ..BookSettings::default() });
    let (books, provider) = (stage.books(), Scripted::named("p"));
    let gateway = gateway(&provider, &books);
    for model in ["known", "strange"] {
        gateway.chat(ChatRequest { model: Some(model.into()), ..from("a") }).await.unwrap();
    }
    let said = Usage { input_tokens: 1, output_tokens: 1, total_cost: Some(0.5), ..Usage::default() };
    provider.will(vec![Ok(Chunk::text("a")), Ok(Chunk::Usage(said)), Ok(done())]);
    gateway.chat(ChatRequest { model: Some("said".into()), ..from("a") }).await.unwrap();
    // What took nothing lacks no price.
    provider.will(vec![Err(ProviderError::Disconnected { reason: "gone".into() })]);
    gateway.chat(ChatRequest { model: Some("failing".into()), ..from("a") }).await.unwrap_err();
    close(&books);
    let of = |model| stage.row(By::Model, model);
    assert_eq!((of("known").costs[0].micros, of("known").without_price), (30, 0));
    assert_eq!((of("strange").costs.len(), of("strange").without_price), (0, 1));
    assert_eq!((of("said").costs[0].micros, of("said").without_price), (500_000, 0));
    assert_eq!((of("failing").failed, of("failing").without_price), (1, 0));
    assert_eq!((stage.total().requests, stage.total().without_price), (4, 1));
}

#[tokio::test]
async fn an_answer_of_others_has_the_price_of_who_gave_it_else_that_of_whom_was_asked() {
    let prices = [("openai", "large", 4.0), ("p", "asked", 3.0), ("*", "*", 2.0)];
    let prices = prices.map(|(provider, model, each)| price(provider, model, each)).to_vec();
    let stage = Stage::new(BookSettings { prices, ..BookSettings::default() });
    let (books, provider) = (stage.books(), Scripted::named("p"));
    let gateway = gateway(&provider, &books);
    let long = "n".repeat(1_000);
    for (asked, theirs, model) in [
        ("asked", "openai", Some("large")),
        ("asked", "openai", Some("small")),
        ("other", "openai", Some("tiny")),
        ("other", "openai", None),
        ("other", &*long, None),
    ] {
        let by = AnsweredBy { provider: theirs.to_owned(), model: model.map(str::to_owned) };
        let usage = Usage { input_tokens: 10, output_tokens: 5, answered_by: Some(Box::new(by)), ..Usage::default() };
        provider.will(vec![Ok(Chunk::text("a")), Ok(Chunk::Usage(usage)), Ok(done())]);
        gateway.chat(ChatRequest { model: Some(asked.into()), ..from("a") }).await.unwrap();
    }
    close(&books);
    let of = |model: &str| stage.row(By::Model, model).costs[0].micros;
    assert_eq!((of("openai/large"), of("openai/small"), of("openai/tiny")), (60, 45, 30));
    assert_eq!((of("openai"), of(&long[..256])), (30, 30));
}

#[tokio::test]
async fn a_budget_sends_requests_on_to_another_model_of_another_provider_and_says_so() {
    let cheap = Budget { tokens: Some(10), model: Some("local/llama".into()), ..Budget::named("dear", Window::Hour) };
    let stage = Stage::new(BookSettings { budgets: vec![cheap], ..BookSettings::default() });
    let (books, dear, local) = (stage.books(), Scripted::named("dear"), Scripted::named("local"));
    let gateway = gateway(&dear, &books).with_provider(Arc::clone(&local) as _);
    gateway.chat(ChatRequest { max_tokens: Some(1), ..from("a") }).await.unwrap();
    let answer = gateway.chat(from("a")).await.unwrap();
    assert!(
        answer.notes[0].starts_with("asked local/llama instead: of the budget `dear` 15 of 10 tokens are spent"),
        "{answer:?}"
    );
    assert_eq!((dear.asked().len(), local.asked()[0].model.as_deref()), (1, Some("llama")));
    close(&books);
    assert_eq!((stage.row(By::Provider, "dear").requests, stage.row(By::Provider, "local").requests), (1, 1));
}

#[tokio::test]
async fn the_most_tokens_of_an_answer_are_lowered_to_what_is_left() {
    let budget = Budget { tokens: Some(1_000), ..Budget::named("b", Window::Day) };
    let stage = Stage::new(BookSettings { budgets: vec![budget], ..BookSettings::default() });
    let (books, provider) = (stage.books(), Scripted::named("p"));
    let gateway = gateway(&provider, &books);
    let answer = gateway.chat(ChatRequest { max_tokens: Some(32_000), ..from("a") }).await.unwrap();
    assert_eq!(provider.asked()[0].max_tokens, Some(994));
    assert_eq!(answer.notes, ["the answer has at most 994 tokens: a budget has no more left"]);
    let answer = gateway.chat(ChatRequest { max_tokens: Some(500), ..from("a") }).await.unwrap();
    assert_eq!((provider.asked()[1].max_tokens, answer.notes.len()), (Some(500), 0));
    close(&books);
}

#[tokio::test]
async fn what_was_spent_before_a_restart_and_by_another_server_counts() {
    let budget = Budget { tokens: Some(100), ..Budget::named("b", Window::Day) };
    let stage = Stage::new(BookSettings { budgets: vec![budget], ..BookSettings::default() });
    let (first, provider) = (stage.books(), Scripted::named("p"));
    provider.will(whole(50, 45));
    gateway(&provider, &first).chat(ChatRequest { max_tokens: Some(50), ..from("a") }).await.unwrap();
    close(&first);
    let second = stage.books();
    let error = gateway(&provider, &second).chat(ChatRequest { max_tokens: Some(5), ..from("a") }).await.unwrap_err();
    assert!(error.to_string().contains("95 of 100 tokens are spent"), "{error}");
    close(&second);
}

#[tokio::test]
async fn a_token_brings_its_budget_along_as_soon_as_it_is_made() {
    let stage = Stage::new(BookSettings::default());
    let (books, provider) = (stage.books(), Scripted::named("p"));
    let gateway = gateway(&provider, &books);
    gateway.chat(from("codex")).await.unwrap();
    stage.tokens().add("codex", &["1requests/day".to_owned()]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let error = loop {
        match gateway.chat(from("codex")).await {
            Ok(_) => assert!(Instant::now() < deadline, "its budget does not count"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.starts_with("the budget `codex: 1requests/day` allows no more: 1 of 1 requests are made"), "{error}");
    gateway.chat(from("other")).await.unwrap();
    close(&books);
}

#[tokio::test]
async fn a_clock_that_jumps_back_makes_no_request_last_for_ever_and_erases_nothing() {
    let stage = Stage::new(BookSettings { keep: Duration::from_secs(86_400), ..BookSettings::default() });
    let (books, provider) = (stage.books(), Scripted::named("p"));
    let gateway = gateway(&provider, &books);
    gateway.chat(from("before")).await.unwrap();
    let mut answer = gateway.chat_stream(from("during"));
    assert!(answer.next().await.is_some());
    stage.wall.fetch_sub(10 * DAY, Relaxed);
    stage.steady_ms.fetch_add(1_500, Relaxed);
    answer.collect::<Vec<_>>().await;
    // Years ahead: what is kept by the day would be too old.
    stage.wall.fetch_add(3_000 * DAY, Relaxed);
    gateway.chat(from("after")).await.unwrap();
    close(&books);
    assert_eq!(stage.total().requests, 3);
}

#[tokio::test]
async fn vectors_have_their_row() {
    let stage = Stage::new(BookSettings::default());
    let (books, first) = (stage.books(), Scripted::named("first"));
    let gateway = gateway(&first, &books);
    let vectors = EmbeddingRequest {
        provider: None,
        model: Some("vectors".into()),
        fields: r#"{"input":"Hi"}"#.into(),
        texts: Some(1),
        caller: None,
        asker: Asker::new(AskerKind::Program, "indexer", "/v1/embeddings"),
        key: None,
        room: AnswerRoom::default(),
    };
    gateway.embed(vectors).await.unwrap();
    close(&books);
    let row = stage.row(By::Client, "indexer");
    assert_eq!((row.input_tokens, row.output_tokens, row.kind.as_deref()), (8, 0, Some("program")));
}

#[tokio::test]
async fn a_count_that_no_request_has_is_estimated_and_spends_no_budget() {
    let budget = Budget { tokens: Some(1_000_000), ..Budget::named("b", Window::Day) };
    let stage = Stage::new(BookSettings { budgets: vec![budget], ..BookSettings::default() });
    let (books, provider) = (stage.books(), Scripted::named("p"));
    let gateway = gateway(&provider, &books);
    for (input, output) in [(1_000_000_000_000_000_000, 7), (9, u64::MAX), (u64::MAX, u64::MAX)] {
        provider.will(whole(input, output));
        gateway.chat(ChatRequest { max_tokens: Some(10), ..from("a") }).await.unwrap();
    }
    provider.will(whole(9, 7));
    gateway.chat(ChatRequest { max_tokens: Some(10), ..from("a") }).await.unwrap();
    close(&books);
    let total = stage.total();
    assert!((16..200).contains(&(total.input_tokens + total.output_tokens)), "{total:?}");
    assert_eq!((total.done, total.estimated), (4, 3));
}

#[tokio::test]
async fn without_a_ledger_budgets_count_in_memory_and_no_file_is_made() {
    let budget = Budget { requests: Some(1), ..Budget::named("b", Window::Day) };
    let stage = Stage::new(BookSettings { budgets: vec![budget], ..BookSettings::default() });
    let settings = BookSettings { path: None, ..stage.settings.clone() };
    let books = Bookkeeper::start(settings, None);
    let provider = Scripted::named("p");
    let gateway = gateway(&provider, &books);
    gateway.chat(from("a")).await.unwrap();
    assert_eq!(gateway.chat(from("a")).await.unwrap_err().code(), "budget_exceeded");
    assert!(books.close(Duration::ZERO) && !stage.path().exists());
}
