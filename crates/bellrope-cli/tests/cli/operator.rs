//! What an operator has: `breaker`, `health`, `doctor` and `top`.

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    support::{Home, Running, eventually, exists, http},
    terminal::Terminal,
};

fn json(home: &Home, arguments: &[&str]) -> Value {
    serde_json::from_str(&home.run(arguments).succeeded()).unwrap()
}

#[test]
fn a_breaker_is_opened_closed_and_reset_by_hand_and_its_calls_follow() {
    let home = Home::new();
    let server = home.serve(["--health", "127.0.0.1:0"]);
    let state = |name: &str| {
        let rows = json(&home, &["breaker", "list", "--json"]);
        let row = rows.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap().clone();
        (row["state"].as_str().unwrap().to_owned(), row["forced"].as_bool().unwrap())
    };
    assert_eq!(state("echo"), ("closed".to_owned(), false));
    let table = home.run(["breaker", "open", "echo"]).succeeded();
    assert!(table.contains("open, by hand") && !table.contains("ai.chat"), "{table}");
    assert_eq!(state("echo"), ("open".to_owned(), true));
    assert!(home.run(["call", "echo", "x"]).failed(1).contains("circuit breaker is open"));
    assert!(http(&server, "/metrics").contains("ipc_circuit_breaker_state{type=\"echo\",state=\"open\"} 1\n"));
    // A question that was not let in is put once more, and then given up.
    home.run(["breaker", "open", "ai.chat_stream"]).succeeded();
    assert!(home.run(["chat", "Who is there?"]).failed(1).contains("circuit breaker is open"));
    let rows = json(&home, &["breaker", "list", "--json"]);
    let row = rows.as_array().unwrap().iter().find(|row| row["name"] == "ai.chat_stream").unwrap().clone();
    assert_eq!((&row["state"], &row["rejections"]), (&"open".into(), &2.into()));
    home.run(["breaker", "close", "echo"]).succeeded();
    assert_eq!((state("echo"), home.run(["call", "echo", "x"]).succeeded().as_str()), (("closed".into(), true), "x"));
    home.run(["breaker", "reset", "echo"]).succeeded();
    assert_eq!(state("echo"), ("closed".to_owned(), false));
}

#[test]
fn a_providers_breaker_is_shown_and_set_by_hand_and_its_fallback_answers_every_time() {
    let home = Home::new();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dead = |name: &str| {
        format!(
            "[gateway]\nprovider = \"{name}\"\nfallback = [\"embedded\"]\n[gateway.providers.{name}]\nkind = \"openai\"\n\
             base_url = \"http://{nobody}\"\nmodel = \"m\"\nmax_retries = 0\nlocal_probe_ms = 0\n"
        )
    };
    let config = home.config(&dead("dead"));
    let server = home.serve(["--health", "127.0.0.1:0", "--config", config.to_str().unwrap()]);
    let row = |name: &str| {
        let rows = json(&home, &["breaker", "list", "--json"]);
        rows.as_array().unwrap().iter().find(|row| row["name"] == name).cloned()
    };
    assert_eq!(row("provider:dead").unwrap()["state"], "closed");
    for _ in 0..8 {
        assert!(home.run(["chat", "Who is there?"]).succeeded().contains("Who is there?"));
    }
    let seen = row("provider:dead").unwrap();
    assert_eq!((&seen["state"], &seen["opened"], &seen["rejections"]), (&"open".into(), &1.into(), &3.into()));
    assert!(http(&server, "/metrics").contains("ipc_circuit_breaker_state{type=\"provider:dead\",state=\"open\"} 1\n"));
    home.run(["breaker", "reset", "provider:dead"]).succeeded();
    assert_eq!(row("provider:dead").unwrap()["state"], "closed");
    let error = home.run(["chat", "--provider", "dead", "Hello"]).failed(1);
    assert!(error.contains("nothing listens at ") && error.contains("is it running?"), "{error}");
    home.run(["breaker", "open", "provider:dead"]).succeeded();
    let error = home.run(["chat", "--provider", "dead", "Hello"]).failed(1);
    assert!(error.contains("opened by hand; `bellrope breaker reset provider:dead`"), "{error}");
    // Providers come and go with their settings.
    home.config(&dead("other"));
    server.signal(Signal::HUP);
    eventually("the new provider's breaker", || row("provider:other").is_some());
    assert!(row("provider:dead").is_none());
}

#[test]
fn certificates_that_cannot_be_read_keep_a_server_from_starting() {
    let home = Home::new();
    for (name, path) in [("SSL_CERT_FILE", "missing"), ("SSL_CERT_DIR", "missing")] {
        let path = home.path(path);
        let finished = Running::start(home.command(["serve"]).env(name, &path)).finish();
        let error = finished.failed(2);
        assert!(error.contains(&format!("{name} names {}, which cannot be read", path.display())), "{error}");
    }
}

#[test]
fn an_operator_cannot_be_locked_out_and_is_told_what_there_is() {
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    let error = home.run(["breaker", "open", "bellrope.breaker"]).failed(1);
    assert!(error.contains("are not steered: that would lock you out"), "{error}");
    let error = home.run(["breaker", "open", "ehco"]).failed(1);
    assert!(error.contains("no breaker is called \"ehco\"; known: echo, ai.chat"), "{error}");
    let error = home.run(["call", "bellrope.breaker", r#"{"action":"explode"}"#]).failed(1);
    assert!(error.contains("unknown variant `explode`, expected one of `list`, `open`"), "{error}");
    let error = home.run(["call", "bellrope.breaker", r#"{"action":"open"}"#]).failed(1);
    assert!(error.contains("name a message type"), "{error}");
}

#[test]
fn health_ends_with_0_only_while_the_server_is_healthy() {
    let home = Home::new();
    let error = home.run(["health"]).failed(1);
    assert!(error.contains("no server listens at ") && error.contains("start one with"), "{error}");
    let _server = home.serve(["--max-connections", "2"]);
    let said = home.run(["health"]).succeeded();
    assert!(said.starts_with("healthy (version ") && said.contains("connections  1 of 2"), "{said}");
    assert_eq!(json(&home, &["health", "--json"])["status"], "healthy");
    home.run(["breaker", "open", "echo"]).succeeded();
    let said = home.run(["health"]).succeeded();
    assert!(said.starts_with("healthy (") && said.ends_with("\nbreaker      echo is open\n"), "{said}");
    home.run(["breaker", "reset", "echo"]).succeeded();
    // A place taken leaves the second one to whoever asks, and with that the server is full.
    let mut taken = None;
    eventually("a place is free", || {
        taken = bellrope::Client::connect(home.socket()).ok();
        taken.is_some()
    });
    // Those that asked before may still have a place for a moment.
    eventually("the server is full and says so", || {
        let full = home.run(["health"]);
        full.code == Some(1) && full.stdout.starts_with("full (") && full.stdout.contains("the limit max_connections")
    });
    drop(taken);
    eventually("it is healthy again", || home.run(["health"]).code == Some(0));
}

#[test]
fn doctor_finds_what_stands_in_the_way_and_says_the_fix() {
    let home = Home::new();
    let finding = |rows: &Value, check: &str| {
        rows.as_array().unwrap().iter().find(|row| row["check"] == check).unwrap_or_else(|| panic!("{rows}")).clone()
    };
    let rows = json(&home, &["doctor", "--json"]);
    assert_eq!(finding(&rows, "sealed memory")["level"], "ok");
    assert!(finding(&rows, "server")["found"].as_str().unwrap().starts_with("none at "));
    let server = home.serve::<&str>([]);
    let said = home.run(["doctor"]).succeeded();
    assert!(said.contains("healthy at ") && said.contains("embedded answers") && said.contains(" 0 failed"), "{said}");
    server.signal(Signal::KILL);
    drop(server);
    assert!(exists(&home.socket()));
    let rows = json(&home, &["doctor", "--json"]);
    assert_eq!(finding(&rows, "server")["level"], "warn", "a socket that nobody listens at");

    let said = home.run(["doctor", "--provider", "nobody"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.contains("FAIL  configuration") && said.stdout.contains("known: embedded"), "{said:?}");
    assert!(home.run(["doctor", "--providers"]).succeeded().contains("ok    provider       embedded answers"));
    let said = home.run(["doctor", "--providers", "--provider", "openai"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.contains("FAIL  provider       openai: OpenAI needs a key"), "{said:?}");

    let config = home.config("[server]\nworkerz = 1\n");
    let said = home.run(["doctor".as_ref(), "--config".as_ref(), config.as_os_str()]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.contains("FAIL  configuration") && said.stdout.contains("did you mean `workers`?"), "{said:?}");
}

#[test]
fn top_shows_a_server_live_its_loss_and_its_return_and_gives_the_terminal_back() {
    let home = Home::new();
    let server = home.serve::<&str>([]);
    let mut terminal = Terminal::open(&home, &["top", "--interval", "100"]);
    // The alternate screen is entered, and left at the end.
    terminal.shows(&["\x1b[?1049h", "bellrope ", "healthy", "q quits"]);
    drop(server);
    terminal.shows(&["LOST"]);
    let _server = home.serve::<&str>([]);
    terminal.shows(&["healthy"]);
    terminal.press("q");
    terminal.shows(&["\x1b[?1049l"]);
    assert_eq!(terminal.finish().code, Some(0));

    let mut terminal = Terminal::open(&home, &["top"]);
    terminal.shows(&["\x1b[?1049h", "q quits"]);
    terminal.press("\x03");
    terminal.shows(&["\x1b[?1049l"]);
    assert_eq!(terminal.finish().code, Some(0));

    // `setsid` has become the program, so that the signal reaches it.
    let terminal = Terminal::open(&home, &["top"]);
    terminal.shows(&["\x1b[?1049h", "q quits"]);
    terminal.program.signal(Signal::TERM);
    terminal.shows(&["\x1b[?1049l"]);
    assert_eq!(terminal.finish().code, Some(143));
}

#[test]
fn top_once_prints_rates_without_a_terminal() {
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    let view = json(&home, &["top", "--once", "--json", "--interval", "100"]);
    assert_eq!(view["calls_per_second"], 0.0, "its own question is no load: {view}");
    let own = view["types"].as_array().unwrap().iter().find(|row| row["name"] == "bellrope.stats").unwrap();
    assert!(own["calls_per_second"].as_f64().unwrap() > 0.0, "but it is in the table: {view}");
    assert!(view["memory"]["rss_kb"].as_u64().unwrap() > 0 && view["types"].as_array().unwrap().len() == 15, "{view}");
    let table = home.run(["top", "--once", "--interval", "100"]).succeeded();
    assert!(table.contains("Connections  1 of 2000 (1 shm, 0 stream)") && table.contains("bellrope.stats"), "{table}");
    let error = home.run(["top"]).failed(1);
    assert!(error.contains("top needs a terminal; `bellrope top --once`"), "{error}");
}

// Fault 48.
#[test]
fn a_client_that_errs_without_end_cannot_flood_the_log() {
    let home = Home::new();
    let server = home.serve(["--health", "127.0.0.1:0"]);
    let client = bellrope::Client::connect(home.socket()).unwrap();
    for _ in 0..500 {
        client.call("ai.models", b"no JSON").unwrap_err();
    }
    // A call is answered before it is logged, by the worker that answers this one.
    client.call("echo", b"").unwrap();
    let metrics = http(&server, "/metrics");
    let line = metrics.lines().find_map(|line| line.strip_prefix("ipc_log_lines_dropped_total ")).unwrap();
    let dropped: usize = line.parse().unwrap();
    server.signal(Signal::TERM);
    let said = server.finish().stderr;
    let lines = said.lines().filter(|line| line.contains("invalid_request")).count();
    assert!(dropped > 0 && lines + dropped == 500, "{lines} lines, {dropped} left out");
}
