//! Every call ends exactly once, in one of the outcomes that the errors name, with blame and advice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::{Duration, Instant},
};

use super::running;
use bellrope::{
    AsyncClient, CallError, Client, HandlerError, Server,
    client::{Blame, CallOptions, CancelToken, Connection, Rejection, Retry},
    server::ServerConfig,
};
use bellrope_testkit::{
    local_server::LocalServer,
    support::{PATIENCE, TestServer, eventually, serve},
};

#[test]
fn each_outcome_is_typed_and_says_who_is_to_blame_and_whether_to_try_again() {
    let server = serve(ServerConfig::default());
    let client = Client::connect(&server.path).unwrap();
    let outcome = |name: &str, payload: &[u8]| client.call(name, payload).unwrap_err();
    let told = |error: &CallError| (error.blame(), error.is_retryable());

    let error = outcome("fail_with", b"");
    assert!(matches!(&error, CallError::Handler { code: 42, text } if text == "as agreed"), "{error}");
    assert_eq!(told(&error), (Blame::Handler, false));

    let error = outcome("panic", b"");
    assert!(matches!(&error, CallError::HandlerPanic { text } if text == "on purpose"), "{error}");
    assert_eq!(told(&error), (Blame::Handler, false));

    let error = outcome("refuse", b"");
    assert!(matches!(&error, CallError::InvalidRequest { text } if text == "not like this"), "{error}");
    assert_eq!(told(&error), (Blame::Caller, false));

    let error = outcome("no such thing", b"");
    assert!(matches!(&error, CallError::UnknownMessageType { .. }), "{error}");
    assert_eq!(told(&error), (Blame::Caller, false));

    let limit = 10 << 20;
    let error = outcome("echo", &vec![0; limit as usize + 1]);
    assert!(matches!(error, CallError::MessageTooLarge { size, limit: l } if size == limit + 1 && l == limit));
    let error = outcome("grow", b"20000000");
    assert!(matches!(error, CallError::MessageTooLarge { size: 20_000_000, limit: l } if l == limit), "{error}");
    assert_eq!(told(&error), (Blame::Caller, false));
    let error = outcome("grow_later", b"20000000");
    assert!(matches!(error, CallError::MessageTooLarge { size: 20_000_000, limit: l } if l == limit), "{error}");

    let error = client.call_within("never", b"", Duration::from_millis(20)).unwrap_err();
    assert!(matches!(error, CallError::DeadlineExceeded), "{error}");
    assert_eq!(told(&error), (Blame::Server, false));

    client.close();
    let error = outcome("echo", b"");
    assert!(matches!(error, CallError::Closed), "{error}");
    assert_eq!(told(&error), (Blame::Caller, false));
}

#[test]
fn what_failed_behind_a_handler_is_told_apart_from_its_own_failures() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let server =
        Server::builder().unary("ask", |_, _| Err(HandlerError::upstream("it is down").guarded())).bind(&path).unwrap();
    let client = Client::connect(&path).unwrap();
    // More than the breaker of the type would stand.
    for _ in 0..20 {
        let error = client.call("ask", b"").unwrap_err();
        assert!(matches!(&error, CallError::Handler { code: 0, text } if text == "it is down"), "{error}");
    }
    eventually("all are counted", || {
        let snapshot = server.metrics().snapshot();
        snapshot.types[0].outcomes.contains(&("upstream_error", 20))
    });
    let error = CallError::Io(std::io::Error::other("out of descriptors"));
    assert_eq!((error.blame(), error.to_string().contains("out of descriptors")), (Blame::System, true));
}

// Fault 33.
#[test]
fn a_call_over_the_in_flight_limit_is_rejected_with_the_limit() {
    let mut config = ServerConfig::default();
    config.max_in_flight = 2;
    let server = serve(config);
    let mut connection = Connection::connect(&server.path).unwrap();
    let never = connection.message_type("never").unwrap();
    connection.submit(never, b"").unwrap();
    connection.submit(never, b"").unwrap();
    let error = connection.submit(never, b"").unwrap_err();
    let busy = matches!(&error, CallError::Rejected { reason: Rejection::Busy, text, .. } if text.contains("the limit max_in_flight"));
    assert!(busy && error.is_retryable(), "{error}");
}

/// A server with a handler that holds the worker until it is let go, and one that counts how often it ran.
struct Blocking {
    _server: Server,
    home: tempfile::TempDir,
    runs: Arc<AtomicUsize>,
    /// Hears when a handler holds the worker.
    holds: mpsc::Receiver<()>,
    let_go: mpsc::Sender<()>,
}

impl Blocking {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let runs = Arc::new(AtomicUsize::new(0));
        let (hold, holds) = mpsc::channel();
        let (let_go, held) = mpsc::channel();
        let held = std::sync::Mutex::new(held);
        let counted = Arc::clone(&runs);
        let mut config = ServerConfig::default();
        config.workers = 1;
        let server = Server::builder()
            .config(config)
            .unary("block", move |_, _| {
                let _ = hold.send(());
                let _ = held.lock().unwrap().recv_timeout(PATIENCE);
                Ok(())
            })
            .unary("count", move |_, _| {
                counted.fetch_add(1, SeqCst);
                Ok(())
            })
            .bind(home.path().join("run").join("test.sock"))
            .unwrap();
        Self { _server: server, home, runs, holds, let_go }
    }

    fn connect(&self) -> Client {
        Client::connect(self.home.path().join("run").join("test.sock")).unwrap()
    }
}

// Fault 40.
#[test]
fn a_call_whose_deadline_passes_in_the_ring_is_not_run() {
    let server = Blocking::start();
    let (client, other) = (server.connect(), server.connect());
    std::thread::scope(|scope| {
        let blocked = scope.spawn(|| client.call("block", b""));
        server.holds.recv_timeout(PATIENCE).unwrap();
        let late = other.call_within("count", b"", Duration::from_millis(30)).unwrap_err();
        assert!(matches!(late, CallError::DeadlineExceeded), "{late}");
        server.let_go.send(()).unwrap();
        blocked.join().unwrap().unwrap();
        other.call("count", b"").unwrap();
        assert_eq!(server.runs.load(SeqCst), 1, "the late call was passed over");
    });
}

#[test]
fn a_token_cancels_calls_from_another_thread_whoever_leads() {
    let server = serve(ServerConfig::default());
    let client = Client::connect(&server.path).unwrap();
    let tokens: Vec<_> = (0..4).map(|_| CancelToken::new()).collect();
    cancel_one_after_the_other(&server, &client, &tokens);
    // A busy machine may be slow for once. Whoever is not woken is found by a sweep, a second after the one before.
    let woken = || {
        let tokens: Vec<_> = (0..4).map(|_| CancelToken::new()).collect();
        cancel_one_after_the_other(&server, &client, &tokens) < Duration::from_millis(900)
    };
    assert!((0..5).any(|_| woken()), "all are found by a sweep");
    let error = client.call_with("echo", b"", &CallOptions::new().cancel(&tokens[0])).unwrap_err();
    assert!(matches!(error, CallError::Cancelled), "a token stays cancelled: {error}");
    assert_eq!(client.call("echo", b"on it goes").unwrap(), b"on it goes");
}

/// Has a call under way for each token and cancels them. Answers how long the slowest of them took to end.
fn cancel_one_after_the_other(server: &TestServer, client: &Client, tokens: &[CancelToken]) -> Duration {
    let dropped = server.dropped();
    let slowest = std::thread::scope(|scope| {
        let calls: Vec<_> = tokens
            .iter()
            .map(|token| scope.spawn(|| client.call_with("never", b"", &CallOptions::new().cancel(token))))
            .collect();
        eventually("all calls are under way", || running(server) == tokens.len() as u64);
        let took = tokens.iter().zip(calls).map(|(token, call)| {
            let cancelled = Instant::now();
            token.cancel();
            let error = call.join().unwrap().unwrap_err();
            assert!(matches!(error, CallError::Cancelled), "{error}");
            cancelled.elapsed()
        });
        took.max().unwrap()
    });
    eventually("every handler is dropped", || server.dropped() == dropped + tokens.len());
    eventually("no call is under way", || running(server) == 0);
    slowest
}

#[test]
fn a_token_cancels_a_stream() {
    let server = serve(ServerConfig::default());
    let client = Client::connect(&server.path).unwrap();
    let token = CancelToken::new();
    let mut stream = client.stream_with("endless", b"", &CallOptions::new().cancel(&token)).unwrap();
    stream.next().unwrap().unwrap();
    token.cancel();
    let error = stream.find_map(Result::err).unwrap();
    assert!(matches!(error, CallError::Cancelled), "{error}");
    eventually("the handler is dropped", || server.dropped() == 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_cancels_async_calls() {
    let server = serve(ServerConfig::default());
    let client = AsyncClient::connect(&server.path).await.unwrap();
    let token = CancelToken::new();
    let call = tokio::spawn({
        let (client, options) = (client.clone(), CallOptions::new().cancel(&token));
        async move { client.call_with("never", b"", &options).await }
    });
    while running(&server) == 0 {
        tokio::task::yield_now().await;
    }
    token.cancel();
    let error = call.await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Cancelled), "{error}");
    assert_eq!(client.call("echo", b"on").await.unwrap(), b"on");
}

#[test]
fn what_a_cancelled_handler_started_elsewhere_hears_of_it() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let (heard, hears) = mpsc::channel();
    let _server = Server::builder()
        .unary_async("work", move |call| {
            let (cancelled, heard, of) = (call.cancelled(), heard.clone(), call.payload()[0]);
            async move {
                // On the runtime, but not part of the handler.
                tokio::spawn(async move {
                    let _ = heard.send((of, "begun"));
                    cancelled.wait().await;
                    let _ = heard.send((of, "cancelled"));
                });
                std::future::pending().await
            }
        })
        .bind(&path)
        .unwrap();
    let client = Client::connect(&path).unwrap();
    let next = || hears.recv_timeout(PATIENCE).unwrap();

    let token = CancelToken::new();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| client.call_with("work", &[0], &CallOptions::new().cancel(&token)));
        assert_eq!(next(), (0, "begun"));
        token.cancel();
        assert!(matches!(call.join().unwrap(), Err(CallError::Cancelled)));
    });
    assert_eq!(next(), (0, "cancelled"), "by a token");

    // A machine that is busy may take longer to begin than the deadline allows; then it is tried with more.
    let begun_within = |time: &u64| {
        assert!(client.call_within("work", &[1], Duration::from_millis(*time)).is_err());
        hears.recv_timeout(Duration::from_millis(100 + time)).is_ok()
    };
    assert!([20, 100, 500, 2000, 10_000].iter().any(begun_within));
    // One that was given up too early may have begun, too.
    while next() != (1, "cancelled") {}

    let mut connection = Connection::connect(&path).unwrap();
    let work = connection.message_type("work").unwrap();
    connection.submit(work, &[2]).unwrap();
    while next() != (2, "begun") {}
    drop(connection);
    while next() != (2, "cancelled") {}
}

// Fault 37.
#[test]
fn only_what_has_not_run_is_sent_again_and_only_if_the_caller_allows() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let runs = Arc::new(AtomicUsize::new(0));
    for (retry, wanted) in [(Retry::NotExecuted, "unknown"), (Retry::Idempotent, "second")] {
        runs.store(0, SeqCst);
        let server = hanging_once(&path, &runs);
        let client = Client::connect(&path).unwrap();
        std::thread::scope(|scope| {
            let options = CallOptions::new().retry(retry);
            let call = scope.spawn(move || client.call_with("hang_once", b"", &options));
            eventually("the call runs", || runs.load(SeqCst) == 1);
            drop(server);
            let _again = hanging_once(&path, &runs);
            assert_eq!(in_a_word(call.join().unwrap()), wanted, "{retry:?}");
        });
    }
}

#[test]
fn an_async_client_too_sends_again_only_what_has_not_run_and_only_if_the_caller_allows() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let runs = Arc::new(AtomicUsize::new(0));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (retry, wanted) in [(Retry::Never, "unknown"), (Retry::NotExecuted, "unknown"), (Retry::Idempotent, "second")] {
        runs.store(0, SeqCst);
        let server = hanging_once(&path, &runs);
        let client = runtime.block_on(AsyncClient::connect(&path)).unwrap();
        let options = CallOptions::new().retry(retry);
        let call = runtime.spawn(async move { client.call_with("hang_once", b"", &options).await });
        eventually("the call runs", || runs.load(SeqCst) == 1);
        drop(server);
        let _again = hanging_once(&path, &runs);
        assert_eq!(in_a_word(runtime.block_on(call).unwrap()), wanted, "{retry:?}");
    }
}

/// A server whose handler never answers the first of all its `runs`.
fn hanging_once(path: &std::path::Path, runs: &Arc<AtomicUsize>) -> Server {
    let runs = Arc::clone(runs);
    Server::builder()
        .unary("count", |_, _| Ok(()))
        .unary_async("hang_once", move |_| {
            let first = runs.fetch_add(1, SeqCst) == 0;
            async move { if first { std::future::pending().await } else { Ok(b"second".to_vec()) } }
        })
        .bind(path)
        .unwrap()
}

fn in_a_word(outcome: Result<Vec<u8>, CallError>) -> String {
    match outcome {
        Ok(answer) => String::from_utf8(answer).unwrap(),
        Err(CallError::Unknown) => "unknown".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_reply_takes_what_writes_into_a_writer_and_too_much_of_it_is_an_error() {
    use std::io::Write as _;

    let server = LocalServer::start(|builder| {
        builder
            .config(ServerConfig::new().max_message_bytes(1_000))
            .unary("words", |call, reply| Ok(write!(reply, "{:?} and {}", call.payload(), 0)?))
            .unary("flood", |_, reply| (0..300).try_for_each(|_| reply.write_all(b"12345678")).map_err(Into::into))
    });
    let client = Client::connect(server.socket()).unwrap();
    assert_eq!(client.call("words", b"a").unwrap(), b"[97] and 0");
    let error = client.call("flood", b"").unwrap_err();
    assert!(matches!(error, CallError::MessageTooLarge { size: 2_400, limit: 1_000 }), "{error:?}");
    assert_eq!(client.call("words", b"").unwrap(), b"[] and 0");
}
