//! Settings that are read again while the server runs.

use std::sync::{Arc, Condvar, Mutex};

use bellrope::{CallError, Client, client::Rejection};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    provider::{self, Provider},
    support::{Home, PATIENCE, Running, eventually, http},
};

/// A server that reads `bellrope.toml` of this home.
fn serve(home: &Home, config: &str) -> Running {
    home.serve(["--config".as_ref(), home.config(config).as_os_str(), "--health".as_ref(), "127.0.0.1:0".as_ref()])
}

fn health(server: &Running) -> Value {
    let response = http(server, "/health");
    serde_json::from_str(response.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// Has the server read this configuration, and waits until it has said what came of it.
#[track_caller]
fn reload(server: &Running, home: &Home, config: &str, outcome: &str) {
    let times = |health: &Value| health["config_reloads"][outcome].as_u64().unwrap();
    let before = times(&health(server));
    home.config(config);
    server.signal(Signal::HUP);
    eventually("the settings are read again", || times(&health(server)) > before);
}

#[test]
fn sighup_changes_how_much_is_logged_and_says_what_waits_for_a_restart() {
    let home = Home::new();
    let server = serve(&home, "log = \"warn\"\n");
    reload(
        &server,
        &home,
        "log = \"debug\"\nsocket = \"/tmp/x\"\n[server]\nworkers = 3\nmax_message_bytes = 4096\n",
        "ok",
    );
    server.said("reloaded, and applied: log");
    server.said("not applied until the next start: server.max_message_bytes, server.workers, socket");
    // What only debug shows: a client that comes and goes.
    home.run(["call", "echo", "x"]).succeeded();
    server.said("DEBUG");
    server.signal(Signal::TERM);
    assert_eq!(server.finish().code, Some(0));
}

#[test]
fn sighup_changes_the_breakers_of_a_running_server() {
    let home = Home::new();
    // Every chat is slow; how many there must be before that opens the breaker is what changes.
    let config = |calls: u32| {
        format!(
            "[server.breaker]\nmin_callers = 1\nslow_rate_percent = 100\nslow_call_ms = 1\nrate_min_calls = {calls}\n\
             [gateway.embedded]\ntokens_per_second = 100\ntokens = 3\n"
        )
    };
    let server = serve(&home, &config(1_000));
    let client = Client::connect(home.socket()).unwrap();
    let request = serde_json::to_vec(&json!({"messages": [{"role": "user", "content": "Take your time"}]})).unwrap();
    let state = || {
        let health = health(&server);
        let rows = health["breakers"].as_array().unwrap();
        rows.iter().find(|row| row["name"] == "ai.chat").unwrap()["state"].as_str().unwrap().to_owned()
    };
    for _ in 0..3 {
        client.call("ai.chat", &request).unwrap();
    }
    assert_eq!(state(), "closed");
    reload(&server, &home, &config(1), "ok");
    server.said("reloaded, and applied: server.breaker.rate_min_calls");
    assert_eq!(health(&server)["limits"]["breaker"]["rate_min_calls"], 1);
    client.call("ai.chat", &request).unwrap();
    assert_eq!(state(), "open");
    let rejected = client.call("ai.chat", &request).unwrap_err();
    assert!(matches!(rejected, CallError::Rejected { reason: Rejection::Breaker, .. }), "{rejected}");
    assert_eq!(client.call("echo", b"others flow").unwrap(), b"others flow");
}

#[test]
fn sighup_changes_how_many_may_connect() {
    let home = Home::new();
    let server = serve(&home, "[server]\nmax_connections = 1\n");
    let first = Client::connect(home.socket()).unwrap();
    assert!(Client::connect(home.socket()).unwrap_err().to_string().contains("the limit max_connections"));
    reload(&server, &home, "[server]\nmax_connections = 2\n", "ok");
    let second = Client::connect(home.socket()).unwrap();
    reload(&server, &home, "[server]\nmax_connections = 1\n", "ok");
    // Nobody is closed who is connected.
    for client in [&first, &second] {
        assert_eq!(client.call("echo", b"x").unwrap(), b"x");
    }
    assert!(Client::connect(home.socket()).unwrap_err().to_string().contains("the limit max_connections"));
    assert!(http(&server, "/metrics").contains("ipc_max_connections 1\n"));
}

#[test]
fn sighup_exchanges_a_provider_while_a_stream_of_the_old_one_goes_on_to_its_end() {
    let home = Home::new();
    // The old provider begins, and ends when it is told to.
    let gate = Arc::<(Mutex<bool>, Condvar)>::default();
    let opened = Arc::clone(&gate);
    let old = Provider::start(Arc::new(move |_, stream| {
        provider::say(stream, r#"{"choices":[{"index":0,"delta":{"content":"old, "}}]}"#);
        let (open, news) = &*opened;
        let _ = news.wait_timeout_while(open.lock().unwrap(), PATIENCE, |open| !*open).unwrap();
        provider::say(stream, r#"{"choices":[{"index":0,"delta":{"content":"to the end"},"finish_reason":"stop"}]}"#);
        provider::say(stream, "[DONE]");
    }));
    let new = Provider::of_text("new");
    let config = |provider: &Provider| {
        format!(
            "[gateway]\nprovider = \"openai\"\n[gateway.openai]\nbase_url = \"{}\"\nmodel = \"m\"\n",
            provider.url()
        )
    };
    let server = serve(&home, &config(&old));
    let client = Client::connect(home.socket()).unwrap();
    let request = serde_json::to_vec(&json!({"messages": [{"role": "user", "content": "Who?"}]})).unwrap();
    let text = |chunk: &[u8]| serde_json::from_slice::<Value>(chunk).unwrap()["text"].as_str().unwrap_or("").to_owned();
    let mut stream = client.stream("ai.chat_stream", &request).unwrap();
    assert_eq!(text(&stream.next().unwrap().unwrap()), "old, ");

    reload(&server, &home, &config(&new), "ok");
    server.said("providers set up anew: openai; answers under way keep the old ones to their end");
    let answer: Value = serde_json::from_slice(&client.call("ai.chat", &request).unwrap()).unwrap();
    assert_eq!((&answer["text"], new.asked().len(), old.asked().len()), (&"new".into(), 1, 1));

    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    let rest: String = stream.map(|chunk| text(&chunk.unwrap())).collect();
    assert_eq!(rest, "to the end");
}

#[test]
fn settings_with_a_fault_anywhere_change_nothing_and_health_says_so() {
    let home = Home::new();
    let good = "log = \"info\"\n[server]\nmax_connections = 2\n";
    let server = serve(&home, good);
    let reloads = |server: &Running| health(server)["config_reloads"].clone();
    assert_eq!(reloads(&server), json!({"ok": 0, "failed": 0, "last_at": null, "last_ok": null}));
    let faulty = [
        ("log = \"trace\"\n[server]\nmax_conections = 9\n", "did you mean `max_connections`?"),
        ("log = \"trace\"\n[server]\nmax_connections = 9\n[gateway]\nprovider = \"delphi\"\n", "`delphi`"),
        ("log = \"trace\"\n[server]\nmax_connections = 9\nmax_half_open = 0\n", "server.max_half_open is 0"),
        ("log = \"trace\"\n[server]\nmax_connections = 9\n[server.breaker]\ntimeout_ms = 0\n", "timeout_ms is 0"),
        ("log = \"trace\"\n[gateway.openai]\napi_key_file = \"/nowhere/key\"\n", "cannot read /nowhere/key"),
    ];
    for (config, said) in faulty {
        reload(&server, &home, config, "failed");
        server.said("the settings stay as they were, the new ones are wrong");
        server.said(said);
        assert_eq!(health(&server)["limits"]["max_connections"], 2, "{config}");
    }
    let seen = reloads(&server);
    assert_eq!((&seen["ok"], &seen["failed"], &seen["last_ok"]), (&0.into(), &5.into(), &false.into()));
    assert!(seen["last_at"].as_u64().unwrap() > 1_600_000_000, "{seen}");
    assert!(http(&server, "/metrics").contains("ipc_config_reloads_total{outcome=\"failed\"} 5\n"));
    assert_eq!(home.run(["call", "echo", "still here"]).succeeded(), "still here");
    reload(&server, &home, good, "ok");
    server.said("reloaded: no setting has changed");
    server.signal(Signal::TERM);
    let finished = server.finish();
    assert!(finished.code == Some(0) && !finished.stderr.contains("TRACE"), "{finished:?}");
}
