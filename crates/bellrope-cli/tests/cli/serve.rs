//! `serve`, and what one finds there with `call` and `list`.

use std::{io::Write, net::TcpListener, process::Stdio};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    process::Signal,
};

use crate::support::{Home, Running, eventually, exists, http};

#[test]
fn the_ready_line_says_what_is_served_where_and_by_whom() {
    let home = Home::new();
    let server = home.serve::<&str>([]);
    let expected = format!("bellrope serves 14 message types on {}, provider embedded", home.socket().display());
    assert_eq!(server.said("bellrope serves"), expected);
}

#[test]
fn a_call_prints_the_bytes_of_its_reply_and_nothing_else() {
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    assert_eq!(home.run(["call", "echo", "ring the bell"]).succeeded(), "ring the bell");
    assert_eq!(home.run(["call", "echo"]).succeeded(), "");
    let long = "ring\n".repeat(10_000);
    assert_eq!(home.run_with(long.clone().into(), ["call", "echo", "-"]).succeeded(), long);
    let models = home.run(["call", "ai.models"]).succeeded();
    assert!(models.contains(r#"{"id":"embedded","provider":"embedded""#), "{models}");
}

#[test]
fn a_streamed_type_prints_a_line_a_chunk() {
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    let request = r#"{"messages":[{"role":"user","content":"/tokens 3"}]}"#;
    let stream = home.run(["call", "ai.chat_stream", request]).succeeded();
    let kinds: Vec<_> = stream
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["text", "text", "text", "usage", "done"]);
}

#[test]
fn list_shows_name_and_style_of_every_type() {
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    let table = home.run(["list"]).succeeded();
    let rows: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 15, "{table}");
    assert!(
        rows.contains(&vec!["echo", "unary"]) && rows.contains(&vec!["ai.chat_stream", "server_stream"]),
        "{table}"
    );
    let json: serde_json::Value = serde_json::from_str(&home.run(["list", "--json"]).succeeded()).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 14);
    assert_eq!(json[0], serde_json::json!({"name": "echo", "style": "unary"}));
}

#[test]
fn an_unknown_type_is_answered_with_the_nearest_names() {
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    let error = home.run(["call", "ai.caht", "x"]).failed(1);
    assert!(error.contains(r#"no message type "ai.caht"; nearest known: ai.chat, "#), "{error}");
}

#[test]
fn a_message_over_the_limit_is_refused_with_its_size_and_the_limit() {
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    let error = home.run_with(vec![b'x'; 10_485_761], ["call", "echo", "-"]).failed(1);
    assert_eq!(error, "error: the message of 10485761 bytes exceeds the limit of 10485760 bytes\n");
}

#[test]
fn an_answer_that_takes_too_long_is_given_up_with_what_to_do() {
    let home = Home::new();
    let config = home.config("[gateway.embedded]\ntokens_per_second = 1\ntokens = 1000\n");
    let _server = home.serve(["--config".as_ref(), config.as_os_str()]);
    let request = r#"{"messages":[{"role":"user","content":"x"}]}"#;
    let error = home.run(["call", "--timeout", "1", "ai.chat", request]).failed(1);
    assert_eq!(error, "error: no answer came within 1 s; give it longer with --timeout\n");
}

#[test]
fn a_request_that_is_no_json_is_answered_with_what_is_wrong_and_where() {
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    for name in ["ai.chat", "ai.chat_stream"] {
        let error = home.run(["call", name, "{\"messages\":\n7}"]).failed(1);
        assert!(error.contains("invalid_request: ") && error.contains("at line 2 column 1"), "{error}");
    }
}

// Fault 50.
#[test]
fn a_request_that_is_refused_is_told_once_of_what_kind_that_is() {
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    let error = home.run(["call", "ai.chat", r#"{"messages":[]}"#]).failed(1);
    assert_eq!(error.matches("invalid_request").count(), 1, "{error}");
}

#[test]
fn a_server_whose_provider_has_no_model_says_so_as_it_starts() {
    let home = Home::new();
    let server = home.serve_with(["--provider", "openai"], &[("OPENAI_API_KEY", "sk-1")]);
    let said = server.said("the provider openai has no model of its own");
    assert!(said.contains("or set OPENAI_MODEL"), "{said}");
}

#[test]
fn a_signal_stops_the_server_which_takes_its_socket_along() {
    for signal in [Signal::TERM, Signal::INT] {
        let home = Home::new();
        let server = home.serve::<&str>([]);
        assert!(exists(&home.socket()));
        server.signal(signal);
        let finished = server.finish();
        assert_eq!(finished.code, Some(0), "{finished:?}");
        assert!(!exists(&home.socket()));
    }
}

// Fault 36.
#[test]
fn a_second_signal_ends_a_server_at_once_even_if_it_is_stuck() {
    let home = Home::new();
    // With nobody to read it, and full: the server hangs in its ready line.
    let (_nobody, mut stderr) = std::io::pipe().unwrap();
    let flags = fcntl_getfl(&stderr).unwrap();
    fcntl_setfl(&stderr, flags | OFlags::NONBLOCK).unwrap();
    while stderr.write(&[b'x'; 4096]).is_ok() {}
    while stderr.write(b"x").is_ok() {}
    fcntl_setfl(&stderr, flags).unwrap();
    let mut server = Running::start(home.command(["serve"]).stdout(Stdio::null()).stderr(stderr));
    eventually("the socket", || home.run(["list"]).code == Some(0));

    server.signal(Signal::TERM);
    let mut ended = None;
    eventually("the end", || {
        // Either may be handled first, so that the other one is the second.
        server.signal(Signal::INT);
        ended = server.ended();
        ended.is_some()
    });
    let code = ended.and_then(|status| status.code());
    assert!(matches!(code, Some(130 | 143)), "{code:?}");
    // What such an end leaves in the way is cleared away by the next server.
    home.serve::<&str>([]);
}

// Fault 24.
#[test]
fn a_second_server_on_a_path_is_told_who_holds_it() {
    let home = Home::new();
    let first = home.serve::<&str>([]);
    let error = home.run(["serve"]).failed(1);
    assert!(error.contains(&format!("(process {}) holds {}", first.id(), home.socket().display())), "{error}");
    assert_eq!(home.run(["call", "echo", "still here"]).succeeded(), "still here");
}

#[test]
fn an_unknown_key_in_the_configuration_is_named_with_the_known_ones() {
    let home = Home::new();
    let config = home.config("[server]\nmax_conections = 10\n");
    let error = home.run(["serve".as_ref(), "--config".as_ref(), config.as_os_str()]).failed(2);
    assert!(error.contains("bellrope.toml:2:1: unknown key `server.max_conections`"), "{error}");
    assert!(error.contains("did you mean `max_connections`?"), "{error}");
}

#[test]
fn a_stream_that_ends_with_an_error_fails_and_only_of_the_gateways_types() {
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    let request = r#"{"provider":"delphi","messages":[{"role":"user","content":"Who?"}]}"#;
    let finished = home.run(["call", "ai.chat_stream", request]);
    assert!(finished.stdout.starts_with(r#"{"seq":0,"kind":"error","code":"unknown_provider""#), "{finished:?}");
    let error = "error: unknown_provider: there is no provider `delphi`; known: embedded, openai\n";
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(3), error));
    // For machines it is told apart from what came before it.
    let finished = home.run(["call", "--json", "ai.chat_stream", request]);
    assert!(
        finished.stdout.starts_with(r#"{"error":{"seq":0,"kind":"error","code":"unknown_provider""#),
        "{finished:?}"
    );
    assert_eq!((finished.code, finished.stdout.lines().count(), finished.stderr.as_str()), (Some(3), 1, ""));
    let whole = r#"{"messages":[{"role":"user","content":"Who?"}]}"#;
    let lines = home.run(["call", "--json", "ai.chat_stream", whole]).succeeded();
    assert!(lines.lines().all(|line| line.starts_with("{\"ok\":{\"seq\":")), "{lines}");
    let chunk = r#"{"seq":0,"kind":"error","code":"x","message":"y","retryable":false}"#;
    assert_eq!(home.run(["call", "echo", chunk]).succeeded(), chunk);
}

#[test]
fn something_that_is_no_socket_is_left_alone_and_another_path_asked_for() {
    let home = Home::new();
    let file = home.path("a file");
    std::fs::write(&file, "kept").unwrap();
    let error = home.run(["serve".as_ref(), "--socket".as_ref(), file.as_os_str()]).failed(1);
    let expected = "exists and is not a socket; it stays as it is: choose another socket path\n";
    assert!(error.ends_with(expected), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
}

#[test]
fn an_unknown_default_provider_is_named_with_what_chose_it_and_the_known_ones() {
    let home = Home::new();
    let error = home.run(["serve", "--provider", "delphi"]).failed(2);
    assert!(error.starts_with("error: --provider: ") && error.contains("`delphi`"), "{error}");
    assert!(error.contains("known: embedded, openai"), "{error}");
}

#[test]
fn the_configuration_says_where_the_environment_and_flags_overrule_it() {
    let home = Home::new();
    let [in_file, in_environment, in_flag] =
        ["file.sock", "environment.sock", "flag.sock"].map(|name| home.path("sockets").join(name));
    let config = home.config(&format!("socket = {in_file:?}\n"));
    let file = ["--config".as_ref(), config.as_os_str()];
    let flag = ["--config".as_ref(), config.as_os_str(), "--socket".as_ref(), in_flag.as_os_str()];
    let environment = [("BELLROPE_SOCKET", in_environment.to_str().unwrap())];
    for (server, socket) in [
        (home.serve(file), &in_file),
        (home.serve_with(file, &environment), &in_environment),
        (home.serve_with(flag, &environment), &in_flag),
    ] {
        server.said(&format!(" on {}, ", socket.display()));
        let echo = ["call".as_ref(), "--socket".as_ref(), socket.as_os_str(), "echo".as_ref(), "x".as_ref()];
        assert_eq!(home.run(echo).succeeded(), "x");
    }
}

#[test]
fn health_is_served_where_it_was_asked_for() {
    let home = Home::new();
    let config = home.config("health = \"127.0.0.1:0\"\n");
    let from_flag = home.serve(["--health", "localhost:0"]);
    let health = http(&from_flag, "/health");
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    drop(from_flag);
    let from_file = home.serve(["--config".as_ref(), config.as_os_str()]);
    let metrics = http(&from_file, "/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("\nipc_max_connections 2000\n"), "{metrics}");
}

#[test]
fn an_address_that_is_taken_is_named_and_no_socket_is_left() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = home.run(["serve", "--health", &address]).failed(1);
    assert!(error.contains(&format!("health cannot be served at {address}; choose another")), "{error}");
    assert!(!exists(&home.socket()));
}

#[test]
fn wrong_usage_ends_with_2_and_says_where_help_is() {
    let home = Home::new();
    for arguments in [&["serve", "--health", "nowhere"][..], &["chat", ""], &["call"], &["ring"], &[]] {
        let error = home.run(arguments).failed(2);
        assert!(error.contains("--help") || error.contains("Usage: bellrope"), "{arguments:?}: {error}");
    }
}

#[test]
fn the_help_of_every_command_has_an_example() {
    let home = Home::new();
    for command in [
        "serve",
        "chat",
        "acp",
        "call",
        "list",
        "config show",
        "config check",
        "top",
        "health",
        "breaker list",
        "breaker open",
        "doctor",
    ] {
        let help = home.run(command.split(' ').chain(["--help"])).succeeded();
        assert!(help.contains("Example") && help.contains(&format!("bellrope {command}")), "{help}");
    }
    let help = home.run(["--help"]).succeeded();
    assert!(help.contains("Exit codes: 0 success, 1 failure, 2 wrong usage"), "{help}");
}
