//! Wrong options, no server: what is said, and with which exit code.

use std::{fs, net::TcpListener, os::unix::net::UnixListener};

use crate::{stage::Stage, text::freeze};

#[test]
fn wrong_usage_is_refused_with_2_and_the_words_it_was() {
    let commands: &[&[&str]] = &[
        &[],
        &["ring"],
        &["serv"],
        &["--quick"],
        &["help", "ring"],
        &["serve", "--max-connections", "many"],
        &["serve", "--max-conections", "5"],
        &["serve", "--health", "9090"],
        &["serve", "--api-port", "70000"],
        &["serve", "--log-format", "xml"],
        &["serve", "--set", "workers"],
        &["serve", "now"],
        &["chat", ""],
        &["chat", "--temperature=warm", "hi"],
        &["chat", "--temperature=-1", "hi"],
        &["chat", "--max-tokens", "0", "hi"],
        &["acp", "now"],
        &["call"],
        &["call", "--timeout", "0", "echo"],
        &["list", "--socket"],
        &["list", "--josn"],
        &["top", "--json"],
        &["top", "--once", "--interval", "5"],
        &["health", "now"],
        &["breaker"],
        &["breaker", "open"],
        &["breaker", "break", "ai.chat"],
        &["doctor", "--provider"],
        &["config"],
        &["config", "check"],
        &["config", "show", "--workers", "-1"],
        &["completions", "cmd"],
        &["man"],
        &["demo", "now"],
        &["bench"],
        &["bench", "everything"],
        &["bench", "rtt", "--size", "70000"],
        &["bench", "rtt", "--quick", "--seconds", "1"],
        &["bench", "throughput", "--depth", "0"],
        &["bench", "pool", "--seconds", "nan"],
        &["stress"],
        &["stress", "everything"],
        &["stress", "leak", "--quick", "--seconds", "1"],
    ];
    freeze("wrong_usage.txt", &Stage::new().all(commands));
}

#[test]
fn without_a_server_every_client_says_how_to_start_one() {
    let stage = Stage::new();
    let other = stage.path("other place.sock");
    let other = other.to_str().unwrap();
    let mut shown = stage.all(&[
        &["chat", "hi"],
        &["chat", "--json", "hi"],
        &["acp"],
        &["call", "echo", "x"],
        &["list"],
        &["list", "--json"],
        &["top"],
        &["top", "--once"],
        &["top", "--once", "--json"],
        &["health"],
        &["health", "--json"],
        &["breaker", "list"],
        &["breaker", "list", "--json"],
        &["breaker", "open", "ai.chat"],
        &["list", "--socket", other],
    ]);
    shown.push_str(&stage.run_with(&[("BELLROPE_SOCKET", other)], &["list"], "").shown());
    shown.push('\n');
    // A file that is no socket, and a socket that nobody answers at any more.
    let file = stage.file("file", "");
    shown.push_str(&stage.all(&[&["list", "--socket", &file], &["serve", "--socket", &file]]));
    let dead = stage.path("dead.sock");
    drop(UnixListener::bind(&dead).unwrap());
    shown.push_str(&stage.all(&[&["list", "--socket", dead.to_str().unwrap()]]));
    freeze("no_server.txt", &shown);
}

#[test]
fn wrong_variables_of_clients_are_refused_as_they_were() {
    let stage = Stage::new();
    let shown = stage.run_with(&[("BELLROPE_LOG", "bellrope=loud")], &["list"], "").shown();
    freeze("wrong_variables.txt", &shown);
}

#[test]
fn what_a_server_cannot_have_is_said_as_it_was() {
    let stage = Stage::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let long = stage.path(&"x".repeat(200));
    let mut shown = String::new();
    for arguments in [&["serve", "--health", &address][..], &["serve", "--socket", long.to_str().unwrap()]] {
        shown.push_str(&stage.run(arguments).shown().replace(&port.to_string(), "[PORT]"));
        shown.push('\n');
    }
    let openai = stage.run(&["serve", "--api-port", &port.to_string()]);
    shown.push_str(&openai.shown().replace(&port.to_string(), "[PORT]"));
    shown.push('\n');
    let server = stage.serve(&[]);
    shown.push_str(&stage.run(&["serve"]).shown());
    shown.push('\n');
    drop(server);
    fs::remove_dir_all(stage.path("bellrope")).unwrap();
    stage.file("bellrope", "a file where a folder is to be");
    shown.push_str(&stage.run(&["serve"]).shown());
    freeze("what_a_server_cannot_have.txt", &shown);
}
