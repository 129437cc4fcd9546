//! Every limit is enforced, and refused with its name and value.

use std::{
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use bellrope::{
    Call, CallError, Client, Reply, Server,
    client::{ClientConfig, ConnectError, Connection},
    server::ServerConfig,
};
use bellrope_proto::{
    connection::{AnswerKind, ClientConnection},
    frame::{ErrorCode, Header, Kind},
    handshake::{ANSWER_HEAD_LEN, AnswerHead, HELLO_LEN, Hello, Style},
    layout::RECORDS,
};
use bellrope_shm::{View, socket::Socket, sync::Ordering};

use bellrope_testkit::raw::shake_hands;
use bellrope_testkit::support::{PATIENCE, TestServer, eventually, serve};

fn refusal(server: &TestServer, config: ClientConfig) -> String {
    match Client::with(config).unwrap_err() {
        error @ ConnectError::Handshake(_) => error.to_string(),
        error => panic!("not refused in the handshake: {error} (of {:?})", server.path),
    }
}

// Fault 20.
#[test]
fn connections_over_a_limit_are_refused_in_the_handshake_with_limit_and_value() {
    let mut config = ServerConfig::default();
    config.max_connections = 3;
    config.max_connections_per_uid = 2;
    config.max_priority_connections = 1;
    let server = serve(config);
    let normal = ClientConfig::new(&server.path);
    let mut priority = normal.clone();
    priority.priority = true;

    let held = Client::with(priority.clone()).unwrap();
    let error = refusal(&server, priority.clone());
    assert!(error.contains("1 connections have priority, the limit max_priority_connections"), "{error}");
    let _other = Client::with(normal.clone()).unwrap();
    let error = refusal(&server, normal);
    assert!(error.contains("has 2 connections open, the limit max_connections_per_uid"), "{error}");
    drop(held);
    eventually("a place with priority is free again", || Client::with(priority.clone()).is_ok());
}

// Fault 19.
#[test]
fn a_hello_that_does_not_come_is_given_up_and_too_many_at_once_are_refused() {
    let mut config = ServerConfig::default();
    config.max_half_open = 2;
    // All three are to be there before the first one's time is up.
    config.handshake_timeout = Duration::from_millis(3_000);
    let server = serve(config);
    let connect = || {
        let socket = Socket::connect(&server.path).unwrap();
        socket.set_nonblocking(false).unwrap();
        socket
    };
    let silent = [connect(), connect()];
    let half = connect();
    // It may be the one that is refused, and then the server does not listen any more.
    let _ = half.send(&Hello::default().encode()[..HELLO_LEN / 2]);
    let refused = |socket: &Socket| {
        let mut answer = vec![0; 4096];
        let count = socket.receive(&mut answer).unwrap();
        let (head, body) = answer[..count].split_first_chunk::<ANSWER_HEAD_LEN>().unwrap();
        AnswerHead::decode(head).unwrap().with_body(body).unwrap_err().to_string()
    };
    // Which of the three came last is the kernel's choice.
    let told: Vec<_> = silent.iter().chain([&half]).map(refused).collect();
    assert_eq!(
        told.iter().filter(|text| text.contains("2 handshakes are under way, the limit max_half_open")).count(),
        1
    );
    let late = told.iter().filter(|text| text.contains("within 3000 ms, the limit handshake_timeout_ms")).count();
    assert_eq!(late, 2, "{told:?}");
    assert_eq!(Client::connect(&server.path).unwrap().call("echo", b"served").unwrap(), b"served");
}

#[test]
fn settings_that_contradict_each_other_are_refused_by_name() {
    let mut config = ServerConfig::default();
    config.buffer_budget_bytes = 1000;
    let error = Server::builder().config(config).bind("unused").unwrap_err().to_string();
    assert!(
        error.starts_with("the setting buffer_budget_bytes is 1000, and must be at least max_message_bytes"),
        "{error}"
    );
    // To the byte: fifteen sixteenths of the budget.
    for (message, may) in [(15_000, true), (15_001, false)] {
        let config = ServerConfig::new().max_message_bytes(message).buffer_budget_bytes(16_000);
        let error = Server::builder().config(config).bind("/nowhere/at/all").unwrap_err().to_string();
        assert_eq!(!error.contains("buffer_budget_bytes"), may, "{error}");
    }
    for (set, expected) in [
        ((|config| config.workers = 1025) as fn(&mut ServerConfig), "workers is 1025, and must be at most 1024"),
        (|config| config.max_message_bytes = 0, "max_message_bytes is 0, and must be from 1 to 1073741824"),
        (|config| config.max_message_bytes = (1 << 30) + 1, "max_message_bytes is 1073741825, and must be from 1"),
        (|config| config.max_in_flight = 0, "max_in_flight is 0, and must be at least 1"),
    ] {
        let mut config = ServerConfig::default();
        set(&mut config);
        let error = Server::builder().config(config).bind("unused").unwrap_err().to_string();
        assert!(error.starts_with(&format!("the setting {expected}")), "{error}");
    }
    let mut config = ServerConfig::default();
    config.breaker.failure_threshold = 0;
    let error = Server::builder().config(config).bind("unused").unwrap_err().to_string();
    assert!(error.contains("failure_threshold is 0"), "{error}");
    let mut config = ServerConfig::default();
    config.violation_pause = Duration::from_millis(60_001);
    let error = Server::builder().config(config).bind("unused").unwrap_err().to_string();
    assert!(error.starts_with("the setting violation_pause_ms is 60001, and must be at most 60000"), "{error}");
    let mut config = ServerConfig::default();
    config.violation_allowance = 10_001;
    let error = Server::builder().config(config).bind("unused").unwrap_err().to_string();
    assert!(error.contains("violation_allowance is 10001"), "{error}");
}

/// A client that does as it likes with its memory.
struct Raw {
    socket: Socket,
    requests: View,
}

impl Raw {
    fn connect(server: &TestServer) -> Self {
        let (socket, memory, welcome) = shake_hands(&server.path, "raw");
        Self { socket, requests: memory.view(welcome.terms.geometry.requests()) }
    }

    /// Writes a record of `len` bytes at `offset`, and rings.
    fn write(&self, offset: usize, kind: Kind, id: u64, extension: Option<u64>, len: u32) {
        let header =
            Header { len, message_type: u16::from(kind == Kind::Request), kind, extended: extension.is_some() };
        self.requests.store(RECORDS + offset + 8, id, Ordering::Relaxed);
        if let Some(extension) = extension {
            self.requests.store(RECORDS + offset + 16, extension, Ordering::Relaxed);
        }
        self.requests.store(RECORDS + offset, header.encode(), Ordering::Release);
        self.socket.ring();
    }
}

// Fault 31.
#[test]
fn a_large_request_that_is_never_finished_is_closed_and_gives_its_memory_back() {
    let server = serve(ServerConfig::default());
    let raw = Raw::connect(&server);
    let metrics = server.server.metrics();
    raw.write(0, Kind::Fragment, 1, Some(1_000_000), 1000);
    eventually("its memory is reserved", || metrics.snapshot().buffers.unwrap().0 == 1_000_000);
    let mut impatient = ServerConfig::default();
    impatient.stall_timeout = Duration::from_millis(50);
    server.server.reload(&impatient).unwrap();
    eventually("it is closed", || metrics.snapshot().stalled == 1);
    eventually("its memory is given back", || metrics.snapshot().buffers.unwrap().0 == 0);
}

// Fault 34.
#[test]
fn senders_that_stall_on_all_of_the_budget_hold_up_nobody_for_long() {
    let mut config = ServerConfig::default();
    config.max_message_bytes = 1 << 20;
    // As much as one process gets, and what is kept for others.
    config.buffer_budget_bytes = (2 << 20) + (1 << 18);
    config.budget_wait = Duration::from_millis(60_000);
    config.budget_grace = Duration::from_millis(50);
    config.stall_timeout = Duration::from_millis(600_000);
    let server = serve(config);
    let metrics = server.server.metrics();
    let used = || metrics.snapshot().buffers.unwrap().0;
    let stalling = [Raw::connect(&server), Raw::connect(&server)];
    let honest = Client::connect(&server.path).unwrap();
    let payload = vec![7; 1 << 20];
    for round in 0..3 {
        let at = round as usize * (1024 + 16);
        for raw in &stalling {
            raw.write(at, Kind::Fragment, round, Some(1 << 20), 1000);
        }
        eventually("they hold all of the budget, again", || used() == 2 << 20);
        assert!(honest.call_within("echo", &payload, Duration::from_secs(30)).unwrap() == payload);
        for raw in &stalling {
            raw.write(at + 1024, Kind::Cancel, round, None, 0);
        }
    }
    assert_eq!(metrics.active_connections(), 3, "nobody is closed for it");
    let rejected = || {
        let snapshot = metrics.snapshot();
        // What has no whole request yet has no known type.
        let row = snapshot.types.iter().find(|row| row.name == "unknown").unwrap();
        row.outcomes.iter().find(|(name, _)| *name == "rejected").unwrap().1
    };
    eventually("at least one of them loses its room in each round, and that is counted", || rejected() >= 3);
    assert!(rejected() <= 6, "each is rejected at most once a round: {}", rejected());
}

// Fault 34.
#[test]
fn a_request_that_announces_too_much_is_refused_before_memory_is_reserved() {
    let server = serve(ServerConfig::default());
    let raw = Raw::connect(&server);
    raw.write(0, Kind::Fragment, 1, Some(u64::MAX), 1000);
    let metrics = server.server.metrics();
    let refused = || metrics.snapshot().types.iter().any(|row| row.outcomes.contains(&("message_too_large", 1)));
    eventually("it is refused", refused);
    assert_eq!(metrics.snapshot().buffers.unwrap().0, 0);
    assert_eq!(Client::connect(&server.path).unwrap().call("echo", b"fine").unwrap(), b"fine");
}

#[test]
fn a_large_request_of_a_type_that_nobody_offers_is_refused_and_gives_its_memory_back() {
    let server = serve(ServerConfig::default());
    let (socket, memory, welcome) = shake_hands(&server.path, "raw");
    let mut connection = ClientConnection::new(&memory, welcome.terms);
    let payload = vec![7; 200_000];
    let mut sending = connection.begin_large(Style::Unary, payload.len()).unwrap();
    eventually("all of it is sent", || {
        let all = connection.push_large(&mut sending, 999, &payload, None).unwrap();
        let _ = connection.commit();
        socket.ring();
        all
    });
    let mut answer = None;
    eventually("it is answered", || {
        answer = connection.next_answer().unwrap();
        answer.is_some()
    });
    let kind = answer.unwrap().kind;
    assert!(matches!(kind, AnswerKind::Error { code: ErrorCode::UnknownMessageType, .. }), "{kind:?}");
    let snapshot = || server.server.metrics().snapshot();
    eventually("its memory is given back", || snapshot().buffers.unwrap().0 == 0);
    assert!(snapshot().types.last().unwrap().outcomes.contains(&("unknown_message_type", 1)));
}

#[test]
fn a_call_with_priority_comes_in_between_the_calls_of_anothers_batch() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let order = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&order);
    let mut config = ServerConfig::default();
    config.workers = 1;
    let note = move |call: &Call<'_>, _: &mut Reply<'_>| {
        noted.lock().unwrap().push(call.payload()[0]);
        Ok(())
    };
    let _server = Server::builder().config(config).unary("note", note).bind(&path).unwrap();
    let mut config = ClientConfig::new(&path);
    config.priority = true;
    let (mut urgent, mut plain) = (Connection::with(&config).unwrap(), Connection::connect(&path).unwrap());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let note = urgent.message_type("note").unwrap();
            while !done.load(Ordering::Relaxed) {
                urgent.call(note, &[0], &mut Vec::new()).unwrap();
            }
        });
        let note = plain.message_type("note").unwrap();
        eventually("it comes in between", || {
            order.lock().unwrap().clear();
            // They are all there at once, and would be one turn.
            (1..=64_u8).for_each(|number| assert!(plain.queue(note, &[number]).unwrap().is_some()));
            plain.flush();
            (1..=64).for_each(|_| plain.wait(&mut Vec::new()).unwrap().outcome.unwrap());
            let order = order.lock().unwrap();
            let place = |number| order.iter().position(|noted| *noted == number).unwrap();
            let within = order[place(1)..place(64)].contains(&0);
            done.store(within, Ordering::Relaxed);
            within
        });
    });
}

// Fault 31.
#[test]
fn a_client_that_reads_no_answers_stalls_itself_alone_and_is_evicted() {
    let mut config = ServerConfig::default();
    config.ring_bytes = 4096;
    config.stall_timeout = Duration::from_millis(50);
    let server = serve(config);
    let raw = Raw::connect(&server);
    for call in 0..4 {
        raw.write(call * 1016, Kind::Request, call as u64 + 1, None, 1000);
    }
    let other = Client::connect(&server.path).unwrap();
    let metrics = server.server.metrics();
    eventually("it is evicted", || {
        assert_eq!(other.call_within("echo", b"fine", PATIENCE).unwrap(), b"fine");
        metrics.snapshot().stalled == 1
    });
    assert_eq!(metrics.active_connections(), 1);
}

// Fault 47.
#[test]
fn an_open_breaker_rejects_one_type_at_once_and_leaves_the_others_alone() {
    let mut config = ServerConfig::default();
    config.breaker.timeout = Duration::from_millis(60_000);
    let server = serve(config);
    let client = Client::connect(&server.path).unwrap();
    for name in ["broken", "panic_later"] {
        for _ in 0..5 {
            let error = client.call(name, b"").unwrap_err();
            assert!(matches!(error, CallError::Handler { .. } | CallError::HandlerPanic { .. }), "{error}");
        }
        let error = client.call(name, b"").unwrap_err();
        let CallError::Rejected { reason: bellrope::client::Rejection::Breaker, retry_after: Some(after), .. } = &error
        else {
            panic!("not rejected by the breaker: {error}");
        };
        assert!(!after.is_zero() && *after <= Duration::from_secs(60) && error.is_retryable());
    }
    assert_eq!(client.call("echo", b"on").unwrap(), b"on");
    for _ in 0..10 {
        assert!(matches!(client.call("refuse", b"").unwrap_err(), CallError::InvalidRequest { .. }));
    }
}

/// Set in a process that is one more client of the server at this path.
const OTHER_PROCESS: &str = "BELLROPE_TEST_SERVER";

/// Fails five times if it is let, as another process than the one that runs the test.
fn be_another_process(path: &std::ffi::OsStr) {
    let client = Client::connect(std::path::Path::new(path)).unwrap();
    for time in 0..5 {
        let error = client.call("panic_later", b"").unwrap_err();
        // Its fourth failure is the fifth in a row, with what the other one has left.
        let rejected = matches!(error, CallError::Rejected { reason: bellrope::client::Rejection::Breaker, .. });
        assert_eq!(rejected, time == 4, "{time}: {error}");
        assert!(!error.to_string().contains("alone"), "{error}");
    }
}

// Fault 60.
#[test]
fn one_process_that_meets_failures_is_refused_and_others_are_not() {
    if let Some(path) = std::env::var_os(OTHER_PROCESS) {
        return be_another_process(&path);
    }
    let server = serve(ServerConfig::default());
    let row = || {
        let snapshot = server.server.metrics().snapshot();
        snapshot.breakers.into_iter().find(|(name, _)| name == "panic_later").unwrap().1
    };
    // All connections of a process are one caller.
    for _ in 0..5 {
        let client = Client::connect(&server.path).unwrap();
        assert!(matches!(client.call("panic_later", b"").unwrap_err(), CallError::HandlerPanic { .. }));
    }
    let client = Client::connect(&server.path).unwrap();
    let error = client.call("panic_later", b"").unwrap_err();
    assert!(error.to_string().contains("open for this caller alone") && error.is_retryable(), "{error}");
    let seen = row();
    assert_eq!((seen.state, seen.rejections, seen.caller_rejections), (bellrope::breaker::BreakerState::Closed, 1, 1));
    let process = format!("process {}", std::process::id());
    assert_eq!(seen.callers.iter().map(|refused| refused.caller.to_string()).collect::<Vec<_>>(), [process]);

    let mut other = std::process::Command::new(std::env::current_exe().unwrap());
    let name = "limits::one_process_that_meets_failures_is_refused_and_others_are_not";
    let ended = other.args([name, "--exact"]).env(OTHER_PROCESS, &server.path).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
    assert_eq!(row().state, bellrope::breaker::BreakerState::Open, "two callers' failures open it for all");
}

// Faults 47, 60.
#[test]
fn a_handlers_no_and_a_callers_deadline_open_nothing() {
    let mut config = ServerConfig::default();
    config.breaker.slow_call = Duration::from_millis(1);
    let server = serve(config);
    let client = Client::connect(&server.path).unwrap();
    for _ in 0..20 {
        assert!(matches!(client.call("fail", b"").unwrap_err(), CallError::Handler { .. }));
        assert!(matches!(client.call("refuse", b"").unwrap_err(), CallError::InvalidRequest { .. }));
        let late = client.call_within("never", b"", Duration::from_millis(5)).unwrap_err();
        assert!(matches!(late, CallError::DeadlineExceeded), "{late}");
    }
    let breakers = server.server.metrics().snapshot().breakers;
    assert!(breakers.iter().all(|(_, row)| row.rejections == 0 && row.callers.is_empty()), "{breakers:?}");
}
