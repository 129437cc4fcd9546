//! That what is shown is true.

use std::{
    io::{ErrorKind, Write as _},
    process::{Command, Stdio},
    time::Duration,
};

use bellrope::{
    Client, Server,
    breaker::{Breaker, BreakerConfig},
    server::ServerConfig,
};
use bellrope_health::HealthServer;

use super::{
    exposition::Exposition,
    support::{PATIENCE, eventually, serve},
    web::{get, watch},
};

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
    assert_eq!((&page["active_connections"], &page["max_connections"]), (&1.into(), &2_000.into()));
    assert_eq!(page["transports"], serde_json::json!({ "shm": 1, "stream": 0 }));
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
    let of = |transport| exposition.value("ipc_connections", &[("transport", transport)]);
    assert_eq!([of("shm"), of("stream")], [1.0, 0.0]);
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

// Faults 36, 52.
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
    entered.recv_timeout(PATIENCE).unwrap();
    let reason = "worker 0 does not answer: a handler holds it up, or its thread is gone";
    assert_eq!((live().status, &live().json()["reason"]), (503, &reason.into()));
    assert_eq!((ready().status, &ready().json()["reason"]), (503, &reason.into()));
    assert_eq!(get(health.local_addr(), "/health").json()["status"], "wedged");
    assert_eq!(server.metrics().wedged_workers(Duration::from_millis(20)), [0]);

    release.send(()).unwrap();
    caller.join().unwrap().unwrap();
    eventually("the worker answers again", || live().status == 200 && ready().status == 200);
    assert!(server.metrics().wedged_workers(PATIENCE).is_empty());
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
    assert_eq!(exposition.value("ipc_max_connections", &[]), 2_000.0);
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

// Fault 52.
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
            return bellrope_testkit::skipped("promtool is not installed (Debian package prometheus)");
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
