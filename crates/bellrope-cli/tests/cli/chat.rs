//! `chat`: the answer alone on standard output, and an exit code that tells whether it came whole.

use std::{
    io::{BufRead, BufReader, Read},
    process::Stdio,
};

use rustix::process::Signal;

use crate::support::{Finished, Home, Running, eventually, http};

const ANSWER: &str =
    "I am Bellrope's embedded provider: a script, with no model and no network behind it. You asked: Who is there?\n";

/// A chat whose answer has begun and will not end by itself.
fn endless(home: &Home) -> (Running, impl Read + use<>) {
    let mut chat = Running::start(&mut home.command(["chat", "/tokens 4000000000"]));
    let mut stdout = BufReader::with_capacity(16, chat.stdout());
    assert!(!stdout.fill_buf().unwrap().is_empty());
    (chat, stdout)
}

#[test]
fn the_answer_stands_alone_on_standard_output() {
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    let finished = home.run(["chat", "Who is there?"]);
    let usage = &finished.stderr;
    assert!(usage.starts_with("usage: 3 tokens read, 20 written; first after "), "{usage}");
    assert!(usage.contains(", whole after ") && usage.ends_with(" tokens/s\n"), "{usage}");
    assert_eq!(usage.lines().count(), 1, "{usage}");
    assert_eq!(finished.succeeded(), ANSWER);
    let finished = home.run_with(b"Who is there?".to_vec(), ["chat", "--provider", "embedded", "--model", "any", "-"]);
    assert_eq!(finished.succeeded(), ANSWER);
}

#[test]
fn everything_that_is_not_the_answer_goes_to_standard_error() {
    let home = Home::new();
    let config = home.config(
        r#"
        [gateway.embedded]
        script = [
            { kind = "reasoning", text = "They knock" },
            { kind = "reasoning", text = " twice." },
            { kind = "text", text = "Ding" },
            { kind = "tool_call", index = 0, id = "c", name = "open_door", arguments = "{}" },
            { kind = "text", text = " dong\u001B[2J\n" },
            { kind = "usage", input_tokens = 1, output_tokens = 2 },
            { kind = "done", stop_reason = "max_tokens" },
        ]
        "#,
    );
    let _server = home.serve(["--config".as_ref(), config.as_os_str()]);
    let finished = home.run(["chat", "Who is there?"]);
    let expected = "reasoning: They knock twice.\n\
         the model wants to call the tool \"open_door\", and there is none\n\
         the model stopped early: max_tokens\n\
         usage: 1 token read, 2 written; first after ";
    assert!(finished.stderr.starts_with(expected), "{}", finished.stderr);
    // What came is printed, and the exit code says that it was cut.
    assert_eq!((finished.code, &*finished.stdout), (Some(1), "Ding dong\u{1b}[2J\n"));
}

#[test]
fn what_is_piped_in_comes_after_the_question() {
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    let said = |finished: Finished| finished.succeeded().split_once("You asked: ").unwrap().1.to_owned();
    let piped = home.run_with(b"fn main() {}\n".to_vec(), ["chat", "explain"]);
    assert_eq!(said(piped), "explain\n\nfn main() {}\n");
    assert_eq!(said(home.run_with(b"only this".to_vec(), ["chat"])), "only this\n");
    assert_eq!(said(home.run_with(Vec::new(), ["chat", "explain"])), "explain\n");

    let file = home.path("x.rs");
    std::fs::write(&file, "mod x;").unwrap();
    let file = std::fs::File::open(&file).unwrap();
    let from_file = Running::start(home.command(["chat", "explain"]).stdin(Stdio::from(file))).finish();
    assert_eq!(said(from_file), "explain\n\nmod x;\n");

    let error = home.run_with(Vec::new(), ["chat"]).failed(1);
    assert_eq!(error, "error: standard input is empty; write the question there\n");
    let finished = home.run_with(vec![b'x', 0xff], ["chat", "explain"]);
    assert!(finished.stderr.starts_with("standard input is not all UTF-8"), "{finished:?}");
    assert_eq!(said(finished), "explain\n\nx\u{fffd}\n");
}

#[test]
fn a_pipe_that_nobody_closes_is_said_to_be_waited_for() {
    let home = Home::new();
    let (reader, open) = std::io::pipe().unwrap();
    let chat = Running::start(home.command(["chat", "explain"]).stdin(Stdio::from(reader)));
    chat.said("waiting for the end of standard input; if nothing is to come from there, add </dev/null");
    // When it ends after all, it goes on.
    drop(open);
    assert!(chat.finish().failed(1).contains("error: no server listens at "));
}

#[test]
fn json_prints_the_chunks_as_they_come_and_an_error_is_one_of_them() {
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    let finished = home.run(["chat", "--json", "--max-tokens", "2", "Who is there?"]);
    assert!(finished.stderr.starts_with("the model stopped early: max_tokens\nusage: "), "{finished:?}");
    assert_eq!(finished.code, Some(1), "it was cut");
    let chunks: Vec<serde_json::Value> =
        finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = chunks.iter().map(|chunk| chunk["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["text", "text", "usage", "done"]);
    assert_eq!(chunks[3]["seq"], 3);

    let finished = home.run(["chat", "--json", "--provider", "delphi", "Who is there?"]);
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.starts_with("error: unknown_provider: "), "{finished:?}");
    let chunk: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!((&chunk["kind"], &chunk["code"]), (&"error".into(), &"unknown_provider".into()));
}

#[test]
fn flags_that_cannot_be_right_are_wrong_usage() {
    let home = Home::new();
    for (flag, value) in [("--temperature", "warm"), ("--temperature", "-1"), ("--max-tokens", "0")] {
        let error = home.run(["chat", &format!("{flag}={value}"), "hi"]).failed(2);
        assert!(error.contains(flag) && error.contains(value), "{error}");
    }
}

#[test]
fn an_answer_that_fails_or_breaks_off_exits_with_1_after_what_came_of_it() {
    for (end, expected) in [
        (
            r#", { kind = "error", code = "overloaded", message = "busy", retryable = true }"#,
            "error: overloaded: busy; it may succeed when it is asked again\n",
        ),
        ("", "error: truncated: the answer broke off before its end: "),
    ] {
        let home = Home::new();
        let script = format!("[gateway.embedded]\nscript = [{{ kind = \"text\", text = \"Half an\" }}{end}]\n");
        let config = home.config(&script);
        let _server = home.serve(["--config".as_ref(), config.as_os_str()]);
        let finished = home.run(["chat", "Who is there?"]);
        assert_eq!((finished.code, &*finished.stdout), (Some(1), "Half an\n"));
        assert!(finished.stderr.starts_with(expected), "{}", finished.stderr);
    }
}

#[test]
fn a_long_piece_comes_whole() {
    let home = Home::new();
    let text = "é\\u0001".repeat(50_000);
    let script = format!(
        "[gateway.embedded]\nscript = [{{ kind = \"text\", text = \"{text}\" }}, {{ kind = \"done\", stop_reason = \"end_turn\" }}]\n"
    );
    let config = home.config(&script);
    let _server = home.serve(["--config".as_ref(), config.as_os_str()]);
    assert_eq!(home.run(["chat", "x"]).succeeded(), "é\u{1}".repeat(50_000) + "\n");
}

#[test]
fn an_unknown_provider_is_answered_with_the_known_ones() {
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    let error = home.run(["chat", "--provider", "delphi", "Who is there?"]).failed(1);
    assert_eq!(error, "error: unknown_provider: there is no provider `delphi`; known: embedded, openai\n");
}

#[test]
fn a_provider_without_its_key_says_what_to_set() {
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    let error = home.run(["chat", "--provider", "openai", "Who is there?"]).failed(1);
    assert_eq!(error, "error: not_configured: OpenAI needs a key; set OPENAI_API_KEY\n");
}

#[test]
fn a_dead_socket_is_named_with_how_to_start_its_server() {
    let home = Home::new();
    let error = home.run(["chat", "Who is there?"]).failed(1);
    assert!(error.starts_with(&format!("error: no server listens at {}", home.socket().display())), "{error}");
    assert!(error.ends_with("; start one with `bellrope serve`\n"), "{error}");
    for command in [&["chat", "--socket", "nobody.sock", "hi"][..], &["call", "--socket", "nobody.sock", "echo"]] {
        let error = home.run(command).failed(1);
        assert!(error.starts_with("error: no server listens at nobody.sock"), "{error}");
        assert!(error.ends_with("; start one with `bellrope serve --socket nobody.sock`\n"), "{error}");
    }
    let error = home.run(["list"]).failed(1);
    assert!(error.contains(&home.socket().display().to_string()), "{error}");
}

// Fault 54.
#[test]
fn a_client_killed_in_mid_stream_is_let_go_and_others_are_served_on() {
    let home = Home::new();
    let server = home.serve(["--health", "127.0.0.1:0"]);
    let connections = |count: u32| http(&server, "/metrics").contains(&format!("\nipc_active_connections {count}\n"));
    let (chat, _stdout) = endless(&home);
    assert!(connections(1));
    drop(chat);
    assert_eq!(home.run(["chat", "Who is there?"]).succeeded(), ANSWER);
    eventually("the end of its connection", || connections(0));
    assert_eq!(home.run(["call", "echo", "on it goes"]).succeeded(), "on it goes");
}

#[test]
fn a_reader_that_stands_still_holds_up_nobody_else() {
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    let (_still, _stdout) = endless(&home);
    for _ in 0..5 {
        assert_eq!(home.run(["chat", "Who is there?"]).succeeded(), ANSWER);
    }
}

#[test]
fn ctrl_c_cancels_the_answer_and_exits_with_130() {
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    let (chat, mut stdout) = endless(&home);
    // Somebody has to read, or the client may stand still in a write.
    let reading = std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    chat.signal(Signal::INT);
    let finished = chat.finish();
    assert_eq!((finished.code, &*finished.stderr), (Some(130), ""));
    reading.join().unwrap().unwrap();
    assert_eq!(home.run(["chat", "Who is there?"]).succeeded(), ANSWER);
}

#[test]
fn a_server_that_dies_in_mid_stream_ends_the_answer_with_1() {
    let home = Home::new();
    let server = home.serve::<&str>([]);
    let (chat, mut stdout) = endless(&home);
    drop(server);
    std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
    let finished = chat.finish();
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.starts_with("error: the server went away"), "{}", finished.stderr);
}

#[test]
fn when_nobody_reads_the_answer_any_more_the_client_ends_without_a_word() {
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    let (chat, stdout) = endless(&home);
    drop(stdout);
    let finished = chat.finish();
    assert_eq!((finished.code, &*finished.stderr), (Some(1), ""));

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let list = Running::start(home.command(["list"]).stdout(Stdio::from(writer))).finish();
    assert_eq!((list.code, &*list.stderr), (Some(1), ""));
}
