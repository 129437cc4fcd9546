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
use crate::support::{eventually, serve};
use bellrope::{
    AsyncClient, Blame, CallError, CallOptions, CancelToken, Client, Connection, Rejection, Retry, Server, ServerConfig,
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
    let_go: mpsc::Sender<()>,
}

impl Blocking {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let runs = Arc::new(AtomicUsize::new(0));
        let (let_go, held) = mpsc::channel();
        let held = std::sync::Mutex::new(held);
        let counted = Arc::clone(&runs);
        let server = Server::builder()
            .unary("block", move |_, _| {
                let _ = held.lock().unwrap().recv_timeout(Duration::from_secs(10));
                Ok(())
            })
            .unary("count", move |_, _| {
                counted.fetch_add(1, SeqCst);
                Ok(())
            })
            .bind(home.path().join("run").join("test.sock"))
            .unwrap();
        Self { _server: server, home, runs, let_go }
    }

    fn connect(&self) -> Client {
        Client::connect(self.home.path().join("run").join("test.sock")).unwrap()
    }
}

#[test]
fn a_call_whose_deadline_passes_in_the_ring_is_not_run() {
    let server = Blocking::start();
    let (client, other) = (server.connect(), server.connect());
    std::thread::scope(|scope| {
        let blocked = scope.spawn(|| client.call("block", b""));
        // It is held once its own connection, which is served in order, does not answer any more.
        let late = loop {
            let begun = server.runs.load(SeqCst);
            if let Err(error) = other.call_within("count", b"", Duration::from_millis(30)) {
                break (error, begun);
            }
        };
        assert!(matches!(late.0, CallError::DeadlineExceeded), "{}", late.0);
        server.let_go.send(()).unwrap();
        blocked.join().unwrap().unwrap();
        other.call("count", b"").unwrap();
        assert_eq!(server.runs.load(SeqCst), late.1 + 1, "the late call was passed over");
    });
}

#[test]
fn a_token_cancels_calls_from_another_thread_whoever_leads() {
    let server = serve(ServerConfig::default());
    let client = Client::connect(&server.path).unwrap();
    let tokens: Vec<_> = (0..4).map(|_| CancelToken::new()).collect();
    std::thread::scope(|scope| {
        let calls: Vec<_> = tokens
            .iter()
            .map(|token| scope.spawn(|| client.call_with("never", b"", &CallOptions::new().cancel(token))))
            .collect();
        eventually("all calls are under way", || running(&server) == 4);
        for (token, call) in tokens.iter().zip(calls) {
            let cancelled = Instant::now();
            token.cancel();
            let error = call.join().unwrap().unwrap_err();
            assert!(matches!(error, CallError::Cancelled), "{error}");
            assert!(cancelled.elapsed() < Duration::from_millis(900), "woken, and not found by a sweep");
        }
    });
    eventually("every handler is dropped", || server.dropped() == 4);
    let error = client.call_with("echo", b"", &CallOptions::new().cancel(&tokens[0])).unwrap_err();
    assert!(matches!(error, CallError::Cancelled), "a token stays cancelled: {error}");
    assert_eq!(client.call("echo", b"on it goes").unwrap(), b"on it goes");
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
            let (cancelled, heard) = (call.cancelled(), heard.clone());
            async move {
                // On the runtime, but not part of the handler.
                tokio::spawn(async move {
                    let _ = heard.send("begun");
                    cancelled.wait().await;
                    let _ = heard.send("cancelled");
                });
                std::future::pending().await
            }
        })
        .bind(&path)
        .unwrap();
    let client = Client::connect(&path).unwrap();
    let next = || hears.recv_timeout(Duration::from_secs(10)).unwrap();

    let token = CancelToken::new();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| client.call_with("work", b"", &CallOptions::new().cancel(&token)));
        assert_eq!(next(), "begun");
        token.cancel();
        assert!(matches!(call.join().unwrap(), Err(CallError::Cancelled)));
    });
    assert_eq!(next(), "cancelled", "by a token");

    // A machine that is busy may take longer to begin than the deadline allows; then it is tried with more.
    let begun_within = |time: &u64| {
        assert!(client.call_within("work", b"", Duration::from_millis(*time)).is_err());
        hears.recv_timeout(Duration::from_millis(100 + time)).is_ok()
    };
    assert!([20, 100, 500, 2000].iter().any(begun_within));
    assert_eq!(next(), "cancelled", "by a deadline");

    let mut connection = Connection::connect(&path).unwrap();
    let work = connection.message_type("work").unwrap();
    connection.submit(work, b"").unwrap();
    assert_eq!(next(), "begun");
    drop(connection);
    assert_eq!(next(), "cancelled", "by the caller's end");
}

#[test]
fn only_what_has_not_run_is_sent_again_and_only_if_the_caller_allows() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let runs = Arc::new(AtomicUsize::new(0));
    let start = || {
        let runs = Arc::clone(&runs);
        Server::builder()
            .unary("count", |_, _| Ok(()))
            .unary_async("hang_once", move |_| {
                let first = runs.fetch_add(1, SeqCst) == 0;
                async move { if first { std::future::pending().await } else { Ok(b"second".to_vec()) } }
            })
            .bind(&path)
            .unwrap()
    };
    for (retry, wanted) in [(Retry::NotExecuted, "unknown"), (Retry::Idempotent, "second")] {
        runs.store(0, SeqCst);
        let server = start();
        let client = Client::connect(&path).unwrap();
        std::thread::scope(|scope| {
            let options = CallOptions::new().retry(retry);
            let call = scope.spawn(move || client.call_with("hang_once", b"", &options));
            eventually("the call runs", || runs.load(SeqCst) == 1);
            drop(server);
            let _again = start();
            let outcome = match call.join().unwrap() {
                Ok(answer) => String::from_utf8(answer).unwrap(),
                Err(CallError::Unknown) => "unknown".to_owned(),
                Err(error) => error.to_string(),
            };
            assert_eq!(outcome, wanted, "{retry:?}");
        });
    }
}
