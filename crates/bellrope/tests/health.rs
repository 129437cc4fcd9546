//! The health server over real TCP, in front of a real server.

mod support;

use std::{
    collections::{BTreeMap, HashSet},
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bellrope::{Breaker, BreakerConfig, Client, HealthServer, Server, ServerConfig};
use serde_json::Value;
use support::{TestServer, eventually, serve};

/// Those that are answered whole.
const PATHS: [&str; 10] =
    ["/", "/page.css", "/page.js", "/health", "/healthz", "/metrics", "/ready", "/readyz", "/live", "/livez"];

/// A health server on a free port of loopback.
fn watch(server: &TestServer) -> HealthServer {
    HealthServer::start(([127, 0, 0, 1], 0).into(), server.server.metrics()).unwrap()
}

/// An answer, taken apart.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json");
        serde_json::from_str(&self.body).unwrap()
    }
}

fn connect(addr: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(addr).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

/// Sends these bytes and reads until the server closes. `None`: it closed without an answer.
fn send(addr: SocketAddr, bytes: &[u8]) -> Option<Answer> {
    let mut socket = connect(addr);
    // The server may close, with a reset too, before it has read everything.
    let _ = socket.write_all(bytes);
    let mut text = Vec::new();
    match socket.read_to_end(&mut text) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("the server neither answers nor closes"),
        _ => {}
    }
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
    let headers = lines.map(|line| line.split_once(": ").unwrap());
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    Some(Answer { status, headers, body: body.to_owned() })
}

fn request(addr: SocketAddr, method: &str, path: &str) -> Answer {
    send(addr, format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap()
}

fn get(addr: SocketAddr, path: &str) -> Answer {
    request(addr, "GET", path)
}

#[test]
fn every_path_is_answered_whole_uncached_and_once() {
    let server = serve(ServerConfig::default());
    let health = watch(&server);
    for path in PATHS {
        let answer = get(health.local_addr(), path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert_eq!(answer.headers["content-length"], answer.body.len().to_string(), "{path}");
        assert_eq!(answer.headers["cache-control"], "no-store", "{path}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(answer.headers["connection"], "close", "{path}");
        assert!(answer.body.ends_with('\n'), "{path}");
    }
    assert_eq!(get(health.local_addr(), "/live?verbose=1").json()["status"], "alive");
    assert_eq!(
        get(health.local_addr(), "/metrics").headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
}

#[test]
fn head_is_get_without_the_body() {
    let server = serve(ServerConfig::default());
    let health = watch(&server);
    for path in PATHS {
        let (head, get) = (request(health.local_addr(), "HEAD", path), get(health.local_addr(), path));
        assert_eq!((head.status, head.body.as_str()), (get.status, ""), "{path}");
        assert_eq!(head.headers["content-type"], get.headers["content-type"], "{path}");
        assert!(head.headers["content-length"].parse::<usize>().unwrap() > 0, "{path}");
    }
}

#[test]
fn other_methods_and_paths_are_refused_with_what_there_is() {
    let server = serve(ServerConfig::default());
    let health = watch(&server);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"] {
        let answer = request(health.local_addr(), method, "/health");
        assert_eq!((answer.status, answer.headers["allow"].as_str()), (405, "GET, HEAD"), "{method}");
    }
    for path in ["//", "/healt", "/health/", "/../health", "/metrics%00"] {
        let answer = get(health.local_addr(), path);
        assert_eq!(answer.status, 404, "{path}");
        for path in PATHS.iter().chain(&["/events"]) {
            assert!(answer.json()["paths"].as_array().unwrap().iter().any(|known| known == path), "{path}");
        }
    }
}

#[test]
fn a_body_is_not_waited_for() {
    let server = serve(ServerConfig::default());
    let health = watch(&server);
    let began = Instant::now();
    let head = "POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n";
    assert_eq!(send(health.local_addr(), head.as_bytes()).unwrap().status, 405);
    let whole = [head.as_bytes(), &vec![b'x'; 1_000_000]].concat();
    assert_eq!(send(health.local_addr(), &whole).unwrap().status, 405);
    assert!(began.elapsed() < Duration::from_secs(4), "took {:?}", began.elapsed());
}

#[test]
fn health_and_metrics_count_the_calls_made() {
    let server = serve(ServerConfig::default());
    let health = watch(&server);
    let client = Client::connect(&server.path).unwrap();
    for _ in 0..100 {
        client.call("echo", b"again").unwrap();
    }
    for _ in 0..4 {
        client.call("fail", b"").unwrap_err();
    }
    for _ in 0..3 {
        client.call("panic", b"").unwrap_err();
    }
    for _ in 0..5 {
        client.call("later", b"").unwrap();
    }
    let mut stream = client.stream("endless", b"").unwrap();
    stream.next().unwrap().unwrap();
    drop(stream);
    eventually("the stream's handler is dropped", || server.dropped() == 1);

    // A call is answered before it is counted.
    let page = || get(health.local_addr(), "/health").json();
    eventually("all calls are counted", || page()["total_requests"] == 113);
    let page = page();
    assert_eq!(page["status"], "healthy");
    assert_eq!((&page["active_connections"], &page["max_connections"]), (&1.into(), &10_000.into()));
    assert_eq!(page["version"], env!("CARGO_PKG_VERSION"));
    assert!(page["uptime_seconds"].as_u64().unwrap() < 600);
    let memory = |field: &str| page["memory"][field].as_u64().unwrap();
    assert_eq!(memory("rss_kb"), memory("anon_kb") + memory("file_kb") + memory("shmem_kb"));
    let row = |name: &str| page["types"].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap();
    assert_eq!((&row("echo")["total"], &row("echo")["outcomes"]["ok"]), (&100.into(), &100.into()));
    assert_eq!(row("fail")["outcomes"]["handler_error"], 4);
    assert_eq!(row("endless")["outcomes"]["cancelled"], 1);
    assert_eq!(row("unknown")["total"], 0);

    let exposition = Exposition::parse(&get(health.local_addr(), "/metrics").body);
    let calls = |of: &str, outcome: &str| exposition.value("ipc_requests_total", &[("type", of), ("outcome", outcome)]);
    assert_eq!(
        [calls("echo", "ok"), calls("fail", "handler_error"), calls("panic", "handler_panic")],
        [100.0, 4.0, 3.0]
    );
    assert_eq!([calls("later", "ok"), calls("endless", "cancelled"), calls("count", "ok")], [5.0, 1.0, 0.0]);
    assert_eq!(exposition.sum("ipc_requests_total"), 113.0);
    assert_eq!(exposition.value("ipc_errors_total", &[("kind", "handler_error")]), 4.0);
    assert_eq!(exposition.sum("ipc_errors_total"), 7.0);
    assert_eq!(exposition.value("ipc_active_connections", &[]), 1.0);
    // Calls that run on tokio are all timed, and none of these takes less than 5 ms.
    let later = |le: &str| exposition.value("ipc_latency_microseconds_bucket", &[("type", "later"), ("le", le)]);
    assert_eq!((later("1000"), later("+Inf")), (0.0, 5.0));
    assert!(exposition.value("ipc_latency_microseconds_sum", &[("type", "later")]) >= 25_000.0);
}

#[test]
fn what_runs_is_seen_while_it_runs_and_counted_when_it_has_ended() {
    let server = serve(ServerConfig::default());
    let health = watch(&server);
    let running = |of: &str| {
        let page = get(health.local_addr(), "/health").json();
        page["types"].as_array().unwrap().iter().find(|row| row["name"] == of).unwrap()["running"].as_u64().unwrap()
    };
    let metric = |of: &str| {
        Exposition::parse(&get(health.local_addr(), "/metrics").body).value("ipc_running_calls", &[("type", of)])
    };
    let client = Client::connect(&server.path).unwrap();
    let streams: Vec<_> = (0..3).map(|_| client.stream("endless", b"").unwrap()).collect();
    let other = Client::connect(&server.path).unwrap();
    let lost = other.stream("endless", b"").unwrap();
    eventually("all four run", || running("endless") == 4);
    assert_eq!((metric("endless"), metric("later")), (4.0, 0.0));
    drop((lost, other));
    eventually("the one whose client is gone has ended", || running("endless") == 3);
    drop(streams);
    eventually("the cancelled ones have ended", || running("endless") == 0);
    client.call("later", b"").unwrap();
    eventually("an answered call has ended", || running("later") == 0);
}

#[test]
fn health_shows_limits_and_breakers() {
    let mut config = ServerConfig::default();
    config.max_in_flight = 77;
    let server = serve(config);
    let health = watch(&server);
    let breaker = std::sync::Arc::new(Breaker::new(BreakerConfig::default()).unwrap());
    server.server.metrics().watch_breaker("a provider", std::sync::Arc::clone(&breaker));
    let page = || get(health.local_addr(), "/health").json();
    assert_eq!(page()["limits"]["max_in_flight"], 77);
    let row = || page()["breakers"].as_array().unwrap().iter().find(|row| row["name"] == "a provider").unwrap().clone();
    assert_eq!(row()["state"], "closed");
    breaker.force_open();
    assert_eq!((&row()["state"], &row()["forced"], &row()["opened"]), (&"open".into(), &true.into(), &1.into()));
    let exposition = Exposition::parse(&get(health.local_addr(), "/metrics").body);
    let labels = [("type", "a provider"), ("state", "open")];
    assert_eq!(exposition.value("ipc_circuit_breaker_state", &labels), 1.0);
}

#[test]
fn live_fails_while_a_handler_holds_a_worker_up_and_recovers_with_it() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("stuck.sock");
    let (enter, entered) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let server = Server::builder()
        .unary("stuck", move |_, _| {
            let _ = enter.send(());
            let _ = released.lock().unwrap().recv();
            Ok(())
        })
        .bind(&path)
        .unwrap();
    let health = HealthServer::start(([127, 0, 0, 1], 0).into(), server.metrics()).unwrap();
    let (ready, live) = (|| get(health.local_addr(), "/ready"), || get(health.local_addr(), "/live"));
    eventually("the server has begun", || ready().status == 200);
    assert_eq!(live().status, 200);

    let client = Client::connect(&path).unwrap();
    let caller = std::thread::spawn(move || client.call("stuck", b""));
    entered.recv_timeout(Duration::from_secs(10)).unwrap();
    let reason = "worker 0 does not answer: a handler holds it up, or its thread is gone";
    assert_eq!((live().status, &live().json()["reason"]), (503, &reason.into()));
    assert_eq!((ready().status, &ready().json()["reason"]), (503, &reason.into()));
    assert_eq!(get(health.local_addr(), "/health").json()["status"], "wedged");
    assert_eq!(server.metrics().wedged_workers(Duration::from_millis(20)), [0]);

    release.send(()).unwrap();
    caller.join().unwrap().unwrap();
    eventually("the worker answers again", || live().status == 200 && ready().status == 200);
    assert!(server.metrics().wedged_workers(Duration::from_secs(10)).is_empty());
}

#[test]
fn listeners_hear_of_the_server_every_second_and_there_are_at_most_sixteen() {
    let server = serve(ServerConfig::default());
    let health = watch(&server);
    let listen = || {
        let mut socket = BufReader::new(connect(health.local_addr()));
        socket.get_mut().write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut status = String::new();
        socket.read_line(&mut status).unwrap();
        (status.split(' ').nth(1).unwrap().to_owned(), socket)
    };
    let event = |socket: &mut BufReader<TcpStream>| -> Value {
        let mut line = String::new();
        while !line.starts_with("data: ") {
            line.clear();
            assert!(socket.read_line(&mut line).unwrap() > 0, "the stream of events has ended");
        }
        serde_json::from_str(&line[6..]).unwrap()
    };
    let mut listeners: Vec<_> = (0..16).map(|_| listen()).collect();
    assert!(listeners.iter().all(|(status, _)| status == "200"));
    assert_eq!(listen().0, "503");

    let client = Client::connect(&server.path).unwrap();
    for _ in 0..50 {
        client.call("echo", b"").unwrap();
    }
    client.call("fail", b"").unwrap_err();
    let (_, socket) = &mut listeners[0];
    let began = Instant::now();
    let told = loop {
        let told = event(socket);
        if told["health"]["total_requests"] == 51 {
            break told;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{told}");
    };
    assert_eq!(told["errors"]["handler_error"], 1);
    assert_eq!(told["buckets"].as_array().unwrap().len(), told["health"]["types"].as_array().unwrap().len());
    assert!(event(socket)["at_ms"].as_u64() > told["at_ms"].as_u64());
    assert_eq!(get(health.local_addr(), "/live").status, 200, "others are served meanwhile");
    listeners.truncate(15);
    eventually("a free place is taken again", || listen().0 == "200");
}

#[test]
fn the_page_takes_nothing_from_elsewhere() {
    let server = serve(ServerConfig::default());
    let health = watch(&server);
    let page = get(health.local_addr(), "/");
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    assert!(page.headers["content-security-policy"].starts_with("default-src 'none'; script-src 'self';"));
    for path in ["/", "/page.css", "/page.js"] {
        let text = get(health.local_addr(), path).body.replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains("http:") && !text.contains("https:"), "{path}");
        assert!(!text.contains("innerHTML") && !text.contains(" style="), "{path}");
    }
}

#[test]
fn a_refused_connection_is_counted() {
    let server = serve(ServerConfig::default());
    let health = watch(&server);
    let mut stranger = std::os::unix::net::UnixStream::connect(&server.path).unwrap();
    stranger.write_all(&[0xff; 4096]).unwrap();
    let refused = || {
        let page = get(health.local_addr(), "/metrics").body;
        Exposition::parse(&page).value("ipc_errors_total", &[("kind", "connection_refused")])
    };
    eventually("the refusal is counted", || refused() == 1.0);
}

#[test]
fn metrics_are_well_formed_and_there_from_the_start() {
    let server = serve(ServerConfig::default());
    let health = watch(&server);
    let exposition = Exposition::parse(&get(health.local_addr(), "/metrics").body);
    for name in ["ipc_requests_total", "ipc_latency_microseconds_count", "ipc_errors_total", "ipc_active_connections"] {
        assert_eq!(exposition.sum(name), 0.0, "{name}");
    }
    for name in ["echo", "count", "unknown"] {
        exposition.value("ipc_requests_total", &[("type", name), ("outcome", "rejected")]);
        exposition.value("ipc_latency_microseconds_bucket", &[("type", name), ("le", "10")]);
    }
    for (name, runs_on) in [("echo", "worker"), ("later", "tokio"), ("count", "tokio")] {
        assert_eq!(exposition.value("ipc_type_info", &[("type", name), ("runs_on", runs_on)]), 1.0);
    }
    assert_eq!(exposition.sum("ipc_queued_requests"), 0.0);
    for kind in ["protocol_violation", "connection_refused", "handler_panic"] {
        exposition.value("ipc_errors_total", &[("kind", kind)]);
    }
    assert_eq!(exposition.value("ipc_max_connections", &[]), 10_000.0);
    assert_eq!(exposition.value("ipc_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_open_fds",
        "process_max_fds",
    ] {
        assert!(exposition.value(name, &[]) > 0.0, "{name}");
    }
}

#[test]
fn ready_says_no_while_the_server_is_full_and_after_its_end() {
    let mut config = ServerConfig::default();
    config.max_connections = 2;
    let server = serve(config);
    let health = watch(&server);
    let ready = || get(health.local_addr(), "/ready");
    assert_eq!(ready().status, 200);
    let _first = Client::connect(&server.path).unwrap();
    let second = Client::connect(&server.path).unwrap();
    eventually("the server is full", || ready().status == 503);
    assert_eq!(ready().json()["reason"], "2 connections are open, the limit max_connections");
    drop(second);
    eventually("the server has room again", || ready().status == 200);
    server.server.shutdown();
    assert_eq!(ready().status, 503);
    assert_eq!(ready().json()["reason"], "the server is stopping");
    assert_eq!(get(health.local_addr(), "/live").status, 200);
}

#[test]
fn the_65th_connection_is_closed_at_once_and_a_free_place_is_used_again() {
    let server = serve(ServerConfig::default());
    let health = watch(&server);
    let mut flood: Vec<_> = (0..70).map(|_| connect(health.local_addr())).collect();
    for socket in &flood {
        socket.set_nonblocking(true).unwrap();
    }
    let closed = |mut socket: &TcpStream| match socket.read(&mut [0; 1]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    };
    eventually("six are closed", || flood[64..].iter().all(closed));
    assert!(!flood[..64].iter().any(closed), "one of the first 64 was closed too");

    drop(flood.pop());
    flood.truncate(63);
    eventually("the free place is used", || {
        send(health.local_addr(), b"GET /live HTTP/1.1\r\n\r\n").is_some_and(|answer| answer.status == 200)
    });
}

#[test]
fn a_slow_loris_blocks_nobody_and_is_closed_after_five_seconds() {
    let server = serve(ServerConfig::default());
    let health = watch(&server);
    let began = Instant::now();
    let mut slow: Vec<_> = (0..40).map(|_| connect(health.local_addr())).collect();
    for socket in &mut slow {
        socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        socket.write_all(b"GET /live HTTP/1.1\r\nX-Slow: ").unwrap();
    }
    while !slow.is_empty() {
        // Well before the ten seconds that any connection may last.
        assert!(began.elapsed() < Duration::from_secs(9), "{} are still open", slow.len());
        let asked = Instant::now();
        assert_eq!(get(health.local_addr(), "/live").status, 200);
        assert!(asked.elapsed() < Duration::from_secs(3), "an honest client waited {:?}", asked.elapsed());
        slow.retain_mut(|socket| match socket.read(&mut [0; 64]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => socket.write_all(b"a").is_ok(),
            end => {
                assert!(!matches!(end, Ok(count) if count > 0), "half a request was answered");
                assert!(began.elapsed() > Duration::from_secs(4), "closed after {:?}", began.elapsed());
                false
            }
        });
    }
}

#[test]
fn an_endless_or_broken_head_is_refused() {
    let server = serve(ServerConfig::default());
    let health = watch(&server);
    let many: String = (0..200).map(|number| format!("X-{number}: 1\r\n")).collect();
    let heads = [
        format!("GET /live HTTP/1.1\r\nX-Huge: {}\r\n\r\n", "a".repeat(1_000_000)),
        format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1_000_000)),
        format!("GET /live HTTP/1.1\r\n{many}\r\n"),
        "\u{7f}ELF\r\n\r\n".to_owned(),
        "GET /live HTTP/9.9\r\n\r\n".to_owned(),
        "GET /live\r\n\r\n".to_owned(),
    ];
    for head in heads {
        let shown = &head[..head.len().min(40)];
        if let Some(answer) = send(health.local_addr(), head.as_bytes()) {
            assert!((400..500).contains(&answer.status), "{shown:?}: {answer:?}");
        }
    }
    assert_eq!(get(health.local_addr(), "/live").status, 200);
}

#[test]
fn dropping_it_closes_everything_and_frees_the_port() {
    let server = serve(ServerConfig::default());
    let health = watch(&server);
    let addr = health.local_addr();
    let mut idle = connect(addr);
    assert_eq!(get(addr, "/live").status, 200);
    drop(health);
    assert!(!matches!(idle.read(&mut [0; 1]), Ok(1..)), "an idle connection was answered");
    assert_eq!(TcpStream::connect(addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let again = HealthServer::start(addr, server.server.metrics()).unwrap();
    assert_eq!(get(again.local_addr(), "/live").status, 200);
}

/// Needs Prometheus's `promtool` (Debian package `prometheus`).
#[test]
fn promtool_finds_nothing_but_the_unit_of_the_latencies() {
    let server = serve(ServerConfig::default());
    let health = watch(&server);
    Client::connect(&server.path).unwrap().call("later", b"").unwrap();
    let breaker = std::sync::Arc::new(Breaker::new(BreakerConfig::default()).unwrap());
    server.server.metrics().watch_breaker("later", breaker);
    let started = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match started {
        Ok(promtool) => promtool,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            writeln!(std::io::stderr(), "SKIPPED: promtool is not installed (Debian package prometheus)").unwrap();
            return;
        }
        Err(error) => panic!("promtool: {error}"),
    };
    let page = get(health.local_addr(), "/metrics").body;
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    let complaints: Vec<_> = said.lines().filter(|line| !line.is_empty()).collect();
    let only = "ipc_latency_microseconds use base unit \"seconds\" instead of \"microseconds\"";
    assert_eq!(complaints, [only]);
}

type Labels = Vec<(String, String)>;

/// A page of metrics, checked while it is read.
struct Exposition {
    samples: Vec<(String, Labels, f64)>,
}

impl Exposition {
    fn parse(page: &str) -> Self {
        let (mut samples, mut families, mut seen) = (Vec::new(), HashSet::new(), HashSet::new());
        let (mut family, mut kind) = ("", "");
        for line in page.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split_once(' ').unwrap().0;
                kind = "";
                assert!(families.insert(family.to_owned()), "{family} comes twice");
            } else if let Some(text) = line.strip_prefix("# TYPE ") {
                let (name, of) = text.split_once(' ').unwrap();
                assert_eq!(name, family, "{line}");
                assert!(["counter", "gauge", "histogram"].contains(&of), "{line}");
                assert_eq!(of == "counter", name.ends_with("_total"), "{line}");
                kind = of;
            } else {
                let (name, labels, value) = parse_sample(line);
                let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line}: not of {family}"));
                let suffixes: &[_] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
                assert!(suffixes.contains(&suffix) && !kind.is_empty(), "{line}");
                assert!(seen.insert((name.clone(), labels.clone())), "{line}: comes twice");
                samples.push((name, labels, value));
            }
        }
        let page = Self { samples };
        page.check_histograms();
        page
    }

    /// Buckets rise, end with +Inf, and that equals the count.
    fn check_histograms(&self) {
        let mut last: Option<(&str, f64, f64)> = None;
        for (name, labels, value) in &self.samples {
            let label = |wanted: &str| labels.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
            if name.ends_with("_bucket") {
                let of = label("type").unwrap();
                let le: f64 = label("le").unwrap().parse().unwrap();
                if let Some((_, bound, below)) = last.filter(|(last, ..)| *last == of) {
                    assert!(le > bound && *value >= below, "{labels:?}");
                }
                last = Some((of, le, *value));
            } else if name.ends_with("_count") {
                assert_eq!(last, Some((label("type").unwrap(), f64::INFINITY, *value)), "{labels:?}");
            }
        }
    }

    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let same =
            |have: &Labels| have.iter().map(|(name, value)| (name.as_str(), value.as_str())).eq(labels.iter().copied());
        let sample = self.samples.iter().find(|(sample, have, _)| sample == name && same(have));
        sample.unwrap_or_else(|| panic!("no {name} {labels:?}")).2
    }

    fn sum(&self, name: &str) -> f64 {
        let values = self.samples.iter().filter(|(sample, ..)| sample == name).map(|(_, _, value)| value);
        assert!(values.clone().count() > 0, "no {name}");
        values.sum()
    }
}

/// Takes `name{label="value",...} number` apart.
fn parse_sample(line: &str) -> (String, Labels, f64) {
    let is_name = |text: &str| {
        text.starts_with(|char: char| char.is_ascii_alphabetic() || char == '_')
            && text.chars().all(|char| char.is_ascii_alphanumeric() || char == '_')
    };
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}: no value"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = Vec::new();
    while let Some(label) = rest.strip_prefix(['{', ',']) {
        let (label, text) = label.split_once("=\"").unwrap();
        assert!(is_name(label), "{line}");
        let (mut value, mut chars) = (String::new(), text.chars());
        loop {
            match chars.next().unwrap_or_else(|| panic!("{line}: a value without an end")) {
                '"' => break,
                '\\' => match chars.next() {
                    Some('n') => value.push('\n'),
                    Some(char @ ('\\' | '"')) => value.push(char),
                    other => panic!("{line}: escaped {other:?}"),
                },
                char => value.push(char),
            }
        }
        labels.push((label.to_owned(), value));
        rest = chars.as_str();
    }
    let number = if labels.is_empty() { rest } else { rest.strip_prefix('}').unwrap() };
    let value: f64 = number.strip_prefix(' ').unwrap().parse().unwrap();
    assert!(value >= 0.0, "{line}");
    (name.to_owned(), labels, value)
}
