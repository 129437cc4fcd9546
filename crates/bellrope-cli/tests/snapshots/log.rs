//! The lines that a server and an agent log on standard error. Each is waited for before the next thing is done, so that
//! they come in one order.

use std::{io::Write, os::unix::net::UnixStream};

use bellrope::Client;
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    shape::{Look, shape},
    stage::{Running, Stage, how},
    text::freeze,
};

/// What a server logged until it was stopped, but for what it says of a machine that is busy.
#[track_caller]
fn stopped(stage: &Stage, server: Running) -> String {
    let ended = server.stop();
    let logged: String =
        ended.stderr.split_inclusive('\n').filter(|line| !line.contains("a handler held its thread")).collect();
    format!("{}{}\n", stage.clean(&logged), how(ended.code))
}

#[test]
fn a_server_logs_what_it_did_about_clients_breakers_and_its_end() {
    let stage = Stage::new();
    let server = stage.serve(&["--health", "127.0.0.1:0", "--api-port", "0"]);
    stage.run(&["breaker", "open", "ai.chat"]);
    server.said("a breaker was steered by hand");
    stage.run(&["breaker", "reset", "ai.chat"]);
    server.said_times("a breaker was steered by hand", 2);
    stage.run(&["call", "ai.chat", "{}"]);
    server.said("invalid_request");
    stage.run(&["chat", "--provider", "delphi", "Who?"]);
    server.said("delphi");
    freeze("log/clients.txt", &stopped(&stage, server));
}

#[test]
fn a_server_that_is_full_logs_whom_it_refused_as_it_did() {
    let stage = Stage::new();
    let server = stage.serve(&["--max-connections", "1"]);
    let first = Client::connect(stage.socket()).unwrap();
    let refused = stage.run(&["call", "echo", "x"]).shown();
    server.said("connection refused");
    drop(first);
    freeze("log/full.txt", &format!("{}\n{refused}", stopped(&stage, server)));
}

#[test]
fn a_server_logs_why_it_refused_a_handshake_as_it_did() {
    let stage = Stage::new();
    let server = stage.serve(&[]);
    let mut stranger = UnixStream::connect(stage.socket()).unwrap();
    stranger.write_all(&[b'x'; 88]).unwrap();
    server.said("connection refused");
    drop(stranger);
    freeze("log/handshake.txt", &stopped(&stage, server));
}

#[test]
fn settings_that_are_read_again_are_logged_as_they_were() {
    let stage = Stage::new();
    let file = stage.file("bellrope.toml", "");
    let server = stage.serve(&["--config", &file]);
    let reload = |text: &str, said: &str| {
        stage.file("bellrope.toml", text);
        server.signal(Signal::HUP);
        server.said(said);
    };
    reload("", "reloaded: no setting has changed");
    reload("[server]\nmax_conections = 9\n", "max_connections");
    reload("log = \"loud=loud=loud\"\n", "loud=loud");
    let changed = "[server]\nmax_connections = 9\n[server.breaker]\ntimeout_ms = 5000\n";
    reload(changed, "reloaded, and applied: server.breaker.timeout_ms, server.max_connections");
    let waiting = "api_port = 0\n[server]\nworkers = 3\nmax_connections = 9\n[server.breaker]\ntimeout_ms = 5000\n";
    reload(waiting, "not applied until the next start");
    let providers = format!("{waiting}[gateway.openai]\nbase_url = \"http://127.0.0.1:1\"\n");
    reload(&providers, "providers set up anew");
    freeze("log/reload.txt", &stopped(&stage, server));
}

#[test]
fn at_debug_connections_and_calls_are_logged_as_they_were() {
    let stage = Stage::new();
    let server = stage.serve(&["--log", "debug"]);
    // Both run on the worker, which logs the call's end before the connection's. An async handler's thread may be later.
    for (times, arguments) in [&["call", "echo", "x"], &["call", "bellrope.breaker", "{"]].into_iter().enumerate() {
        stage.run(arguments);
        server.said_times("client disconnected", times + 1);
    }
    freeze("log/debug.txt", &stopped(&stage, server));
}

#[test]
fn lines_of_json_have_the_shape_that_they_had() {
    let stage = Stage::new();
    let server = stage.serve(&["--log", "debug", "--log-format", "json"]);
    stage.run(&["call", "bellrope.breaker", "{"]);
    server.said("client disconnected");
    let stderr = server.stop().stderr;
    let mut shown = String::new();
    for line in stderr.lines() {
        match serde_json::from_str::<Value>(line) {
            Ok(event) => {
                let look = Look { kept: &["level", "message", "span.name", "outcome"], loose: &[] };
                shown.push_str(&format!("{}\n", shape(&event, look)));
            }
            Err(_) => shown.push_str(&format!("{}\n\n", stage.clean(line))),
        }
    }
    freeze("log/json.txt", &stage.clean(&shown));
}
