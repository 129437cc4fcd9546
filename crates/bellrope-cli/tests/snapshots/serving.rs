//! What clients of a running server print: `list`, `breaker`, `call`, `chat`, `health`, `top`.

use std::io::Read;

use bellrope::Client;
use rustix::process::Signal;

use crate::{
    shape::{Look, shape},
    stage::{Running, Stage, how},
    text::{freeze, mask, without_numbers, without_units_of_time},
};

const QUESTION: &str = r#"{"messages":[{"role":"user","content":"Who is there?"}]}"#;

#[test]
fn list_shows_the_types_that_it_did() {
    let stage = Stage::new();
    let _server = stage.serve(&[]);
    freeze("list.txt", &stage.all(&[&["list"], &["list", "--json"]]));
}

#[test]
fn breakers_are_shown_and_steered_as_they_were() {
    let stage = Stage::new();
    let _server = stage.serve(&[]);
    let shown = stage.all(&[
        &["breaker", "list"],
        &["breaker", "list", "--json"],
        &["breaker", "open", "echo"],
        &["call", "echo", "x"],
        &["breaker", "list", "--json"],
        &["breaker", "close", "echo", "--json"],
        &["call", "echo", "x"],
        &["breaker", "reset", "echo"],
        &["breaker", "open", "bellrope.stats"],
        &["breaker", "open", "nobody"],
        &["call", "bellrope.breaker", r#"{"action":"list"}"#],
        &["call", "bellrope.breaker", r#"{"action":"fly"}"#],
    ]);
    freeze("breaker.txt", &shown);
}

#[test]
fn calls_print_what_they_did() {
    let stage = Stage::new();
    let _server =
        stage.serve(&["--set", "server.max_message_bytes=70000", "--set", "gateway.embedded.tokens_per_second=1000"]);
    let large = "x".repeat(100_000);
    let mut shown = stage.all(&[
        &["call", "echo", "ring the bell"],
        &["call", "echo"],
        &["call", "nobody", "x"],
        &["call", "ai.chat", "{}"],
        &["call", "ai.chat", QUESTION],
        &["call", "ai.chat", r#"{"version":9,"messages":[{"role":"user","content":"Who?"}]}"#],
        &["call", "ai.chat", r#"{"provider":"delphi","messages":[{"role":"user","content":"Who?"}]}"#],
        &["call", "ai.chat_stream", QUESTION],
        &["call", "ai.chat_stream", r#"{"provider":"delphi","messages":[{"role":"user","content":"Who?"}]}"#],
        &["call", "--json", "ai.chat_stream", r#"{"provider":"delphi","messages":[{"role":"user","content":"Who?"}]}"#],
        &["call", "ai.models"],
        &["call", "--timeout", "1", "ai.chat", r#"{"messages":[{"role":"user","content":"/tokens 4000000000"}]}"#],
    ]);
    shown.push_str(&stage.run_with(&[], &["call", "echo", "-"], "from standard input").shown());
    shown.push('\n');
    let digit = |character: char| character.is_ascii_digit();
    let health = stage.run(&["call", "ai.health"]).shown();
    shown.push_str(&mask(&health, "\"latency_ms\":", digit, "TIME"));
    shown.push('\n');
    shown.push_str(&stage.run(&["call", "echo", &large]).shown().replace(&large, "[100,000 bytes]"));
    shown.push_str(&format!("\n$ bellrope call bellrope.stats\n--- shape\n{}", {
        shape(&stage.run(&["call", "bellrope.stats"]).json(), STATS)
    }));
    freeze("call.txt", &shown);
}

#[test]
fn a_call_in_the_wrong_style_is_refused_with_the_words_it_was() {
    let stage = Stage::new();
    let _server = stage.serve(&[]);
    let client = Client::connect(stage.socket()).unwrap();
    let mut shown = String::new();
    let stream = client.stream("echo", b"x").and_then(|mut chunks| chunks.next().unwrap_or(Ok(Vec::new())));
    let upload = client.client_stream("ai.chat", b"").and_then(|upload| upload.finish());
    let duplex = client.duplex("echo", b"").map(drop);
    shown.push_str(&format!("a stream of a unary type: {}\n", stream.unwrap_err()));
    shown.push_str(&format!("an upload to a unary type: {}\n", upload.unwrap_err()));
    shown.push_str(&format!("a duplex of a unary type: {}\n", duplex.unwrap_err()));
    shown.push_str(&format!("a call of a stream: {}\n", client.call("ai.chat_stream", b"{}").unwrap_err()));
    shown.push_str(&format!("an unknown type: {}\n", client.call("nobody", b"").unwrap_err()));
    freeze("wrong_style.txt", &shown);
}

#[test]
fn chats_print_what_they_did() {
    let stage = Stage::new();
    let server = stage.serve(&[]);
    let mut shown = stage.all(&[
        &["chat", "Who is there?"],
        &["chat", "--json", "Who is there?"],
        &["chat", "--max-tokens", "2", "Who is there?"],
        &["chat", "--provider", "delphi", "Who is there?"],
        &["chat", "--json", "--provider", "delphi", "Who is there?"],
        &["chat", "-"],
        &["chat"],
    ]);
    shown.push_str(&stage.run_with(&[], &["chat", "explain"], "fn main() {}\n").shown());
    // Interrupted in the middle of the answer.
    let mut endless = Running::start(&mut stage.command(&["chat", "/tokens 4000000000"]));
    let mut stdout = endless.stdout();
    assert!(stdout.read(&mut [0]).unwrap() > 0);
    let reading = std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    endless.signal(Signal::INT);
    let ended = endless.finish();
    reading.join().unwrap().unwrap();
    shown.push_str(&format!(
        "\n# Ctrl-C in the middle of an answer\n{}\n--- standard error\n{}",
        how(ended.code),
        ended.stderr
    ));
    drop(server);

    let config = stage.file(
        "bellrope.toml",
        r#"
        [gateway.embedded]
        script = [
            { kind = "reasoning", text = "They knock" },
            { kind = "reasoning", text = " twice." },
            { kind = "text", text = "Ding" },
            { kind = "tool_call", index = 0, id = "c", name = "open_door", arguments = "{}" },
            { kind = "text", text = " dong\n" },
            { kind = "usage", input_tokens = 1, output_tokens = 2 },
            { kind = "done", stop_reason = "max_tokens" },
        ]
        "#,
    );
    let _server = stage.serve(&["--config", &config]);
    shown.push_str("\n# every kind of chunk\n");
    shown.push_str(&stage.all(&[&["chat", "Who is there?"], &["chat", "--json", "Who is there?"]]));
    freeze("chat.txt", &shown);
}

const STATS: Look<'_> =
    Look { kept: &["health.breakers[].name", "health.types[].name", "health.status", "bounds_us[]"], loose: &[] };
/// Whether anything was timed between the two looks differs.
const TOP: Look<'_> = Look {
    kept: &["status", "types[].name"],
    loose: &[
        ("latency.p50_us", "integer | null"),
        ("latency.p95_us", "integer | null"),
        ("latency.p99_us", "integer | null"),
        ("types[].latency.p50_us", "integer | null"),
        ("types[].latency.p95_us", "integer | null"),
        ("types[].latency.p99_us", "integer | null"),
    ],
};

#[test]
fn health_and_top_have_the_lines_and_the_shape_that_they_had() {
    let stage = Stage::new();
    let _server = stage.serve(&[]);
    stage.run(&["call", "echo", "x"]);
    let mut shown = stage.run(&["health"]).with(without_numbers).shown();
    let json = stage.run(&["health", "--json"]);
    let look = Look { kept: &["status", "types[].name", "breakers[].name"], loose: &[] };
    shown.push_str(&format!("\n{}--- shape\n{}", json.ended(), shape(&json.json(), look)));
    shown.push_str("\n# with a breaker that is open\n");
    stage.run(&["breaker", "open", "ai.chat"]);
    shown.push_str(&stage.run(&["health"]).with(without_numbers).shown());
    freeze("health.txt", &shown);

    // Whether a quantile is known, and its unit, depend on what was timed within the interval.
    let mut shown = String::new();
    let table = stage
        .run(&["top", "--once", "--interval", "100"])
        .with(|table| without_units_of_time(&without_numbers(&table.replace(" -", " 0"))));
    shown.push_str(&table.shown());
    let json = stage.run(&["top", "--once", "--json", "--interval", "100"]);
    shown.push_str(&format!("\n{}--- shape\n{}", json.ended(), shape(&json.json(), TOP)));
    freeze("top.txt", &shown);
}
