//! The whole pipeline at once: server, client, breaker, counters and health, over real sockets and real memory.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::{Duration, Instant},
};

use bellrope::{CallError, Client, HandlerError, Server, client::Rejection, server::ServerConfig};
use bellrope_health::HealthServer;
use bellrope_testkit::support::{PATIENCE, eventually};
use serde_json::Value;
use tokio::sync::Semaphore;

/// The body of an answer of the health server.
fn get(address: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// What health and metrics say of one message type; both must agree on its breaker.
struct Seen {
    state: String,
    outcomes: BTreeMap<String, u64>,
    rejections: u64,
    status: String,
}

fn look(address: SocketAddr, name: &str) -> Option<Seen> {
    let health: Value = serde_json::from_str(&get(address, "/health")).unwrap();
    let metrics = get(address, "/metrics");
    let row = |rows: &str| health[rows].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap().clone();
    let (breaker, counts) = (row("breakers"), row("types"));
    let state = breaker["state"].as_str().unwrap().to_owned();
    // Asked one after the other, they may differ while the state changes: look again.
    if !metrics.contains(&format!("ipc_circuit_breaker_state{{type=\"{name}\",state=\"{state}\"}} 1\n")) {
        return None;
    }
    Some(Seen {
        state,
        outcomes: serde_json::from_value(counts["outcomes"].clone()).unwrap(),
        rejections: breaker["rejections"].as_u64().unwrap(),
        status: health["status"].as_str().unwrap().to_owned(),
    })
}

/// What the handler of `flaky` does with a call.
struct Flaky {
    healthy: AtomicBool,
    entered: AtomicUsize,
    /// A permit lets a call end that has entered a healthy handler.
    let_go: Semaphore,
}

impl Flaky {
    async fn answer(&self) -> Result<Vec<u8>, HandlerError> {
        if !self.healthy.load(SeqCst) {
            return Err(HandlerError::failure("as asked"));
        }
        self.entered.fetch_add(1, SeqCst);
        if let Ok(permit) = self.let_go.acquire().await {
            permit.forget();
        }
        Ok(b"well".to_vec())
    }
}

/// Calls of other types all the while, each of which must go well.
fn neighbours(client: Client, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut calls = 0;
        while !stop.load(SeqCst) {
            assert_eq!(client.call_within("echo", b"on", PATIENCE).unwrap(), b"on");
            calls += 1;
        }
        calls
    })
}

fn is_rejected(error: &CallError) -> bool {
    matches!(error, CallError::Rejected { reason: Rejection::Breaker, .. }) && error.is_retryable()
}

#[test]
fn a_failing_type_is_cut_off_probed_and_back_while_all_others_flow_and_every_call_is_counted() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let flaky = Arc::new(Flaky { healthy: false.into(), entered: 0.into(), let_go: Semaphore::new(0) });
    let handler = Arc::clone(&flaky);
    let mut config = ServerConfig::default();
    // Long enough that what follows its opening is surely over before it ends.
    config.breaker.timeout = Duration::from_millis(4_000);
    // All clients are of one process.
    config.breaker.min_callers = 1;
    let server = Server::builder()
        .config(config)
        .unary("echo", |call, reply| {
            reply.put(call.payload());
            Ok(())
        })
        .unary("panic", |_, _| panic!("on purpose"))
        .unary_async("flaky", move |_| {
            let flaky = Arc::clone(&handler);
            async move { flaky.answer().await }
        })
        .bind(&path)
        .unwrap();
    let health = HealthServer::start(([127, 0, 0, 1], 0).into(), server.metrics()).unwrap();
    let address = health.local_addr();
    let state_is = |state: &str| {
        eventually(&format!("health and metrics show it {state}"), || {
            look(address, "flaky").is_some_and(|seen| seen.state == state)
        });
    };
    let client = Client::connect(&path).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let neighbours = neighbours(Client::connect(&path).unwrap(), Arc::clone(&stop));
    let call = |name: &str| client.call_within(name, b"", PATIENCE);
    state_is("closed");

    // Five failures in a row open it.
    for _ in 0..5 {
        assert!(matches!(call("flaky").unwrap_err(), CallError::Handler { .. }));
    }
    let opened = Instant::now();
    // A call is rejected at once, and has not run; when it may be tried again is said.
    let mut rejected = 0;
    for _ in 0..10 {
        let error = call("flaky").unwrap_err();
        assert!(is_rejected(&error), "{error}, {:?} after it opened", opened.elapsed());
        rejected += 1;
    }
    assert_eq!(flaky.entered.load(SeqCst), 0);
    state_is("open");
    // A panic in between, of another type, harms nobody.
    assert!(matches!(call("panic").unwrap_err(), CallError::HandlerPanic { .. }));
    assert_eq!(look(address, "echo").map(|seen| (seen.state, seen.status)), Some(("closed".into(), "healthy".into())));
    assert!(get(address, "/ready").contains("ready") && get(address, "/live").contains("alive"));

    // When its time is up three calls are let in as probes, and no fourth one.
    flaky.healthy.store(true, SeqCst);
    let (results, probes) = mpsc::channel();
    for _ in 0..3 {
        let (client, results) = (client.clone(), results.clone());
        std::thread::spawn(move || {
            let mut rejected = 0_u64;
            let answer = loop {
                match client.call_within("flaky", b"", PATIENCE) {
                    Err(CallError::Rejected { retry_after: Some(after), .. }) => {
                        rejected += 1;
                        // No longer than the server advises: that is when it may be let in.
                        std::thread::sleep(after.min(Duration::from_millis(50)));
                    }
                    answer => break answer,
                }
            };
            let _ = results.send((answer, rejected));
        });
    }
    eventually("three probes are under way", || flaky.entered.load(SeqCst) == 3);
    let error = call("flaky").unwrap_err();
    assert!(is_rejected(&error), "{error}");
    rejected += 1;
    state_is("half_open");

    // One that goes well does not close it, the second one does.
    flaky.let_go.add_permits(1);
    let mut ended = |answer: (Result<Vec<u8>, CallError>, u64)| {
        assert_eq!(answer.0.unwrap(), b"well");
        rejected += answer.1;
    };
    ended(probes.recv_timeout(PATIENCE).unwrap());
    assert_eq!(look(address, "flaky").map(|seen| seen.state).as_deref(), Some("half_open"));
    flaky.let_go.add_permits(2);
    (0..2).for_each(|_| ended(probes.recv_timeout(PATIENCE).unwrap()));
    state_is("closed");
    flaky.let_go.add_permits(4);
    for _ in 0..4 {
        assert_eq!(call("flaky").unwrap(), b"well");
    }

    // Every call that was made is counted once, as what it was.
    stop.store(true, SeqCst);
    let echoed = neighbours.join().unwrap();
    // A call is answered before it is counted.
    let counts = || serde_json::from_str::<Value>(&get(address, "/health")).unwrap();
    eventually("all calls are counted", || counts()["total_requests"] == echoed + 13 + rejected);
    let seen = look(address, "flaky").unwrap();
    let counted = |name: &str| seen.outcomes.get(name).copied().unwrap_or(0);
    assert_eq!((counted("ok"), counted("handler_error"), counted("rejected")), (7, 5, rejected));
    assert_eq!(seen.rejections, rejected);
    assert_eq!(seen.outcomes.values().sum::<u64>(), 12 + rejected);
    let outcomes = |name: &str| look(address, name).unwrap().outcomes;
    assert_eq!(outcomes("echo").get("ok"), Some(&echoed));
    assert_eq!(outcomes("panic").get("handler_panic"), Some(&1));
    let metrics = get(address, "/metrics");
    for line in [
        format!("ipc_requests_total{{type=\"flaky\",outcome=\"rejected\"}} {rejected}\n"),
        format!("ipc_circuit_breaker_rejections_total{{type=\"flaky\"}} {rejected}\n"),
        "ipc_circuit_breaker_transitions_total{type=\"flaky\",from=\"closed\",to=\"open\"} 1\n".to_owned(),
        "ipc_circuit_breaker_transitions_total{type=\"flaky\",from=\"open\",to=\"half_open\"} 1\n".to_owned(),
        "ipc_circuit_breaker_transitions_total{type=\"flaky\",from=\"half_open\",to=\"closed\"} 1\n".to_owned(),
    ] {
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
}
