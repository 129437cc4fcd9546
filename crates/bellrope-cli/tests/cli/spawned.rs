//! The server that `chat` and `acp` start where none runs, and servers that end by themselves.

use std::{
    fs,
    io::Read,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
};

use bellrope::Client;
use rustix::process::Signal;

use crate::{
    editor::Editor,
    support::{Home, Running, eventually, exists},
    terminal::Terminal,
};

const STARTED: &str = "no server ran, so one was started: process ";
const ANSWER: &str = "You asked: Who is there?\n";

/// What of its own a program has said when it has started a server.
fn started(said: &str) -> Option<u32> {
    said.split_once(STARTED)?.1.split(',').next()?.parse().ok()
}

#[test]
fn of_50_chats_from_cold_one_starts_the_server_and_all_are_answered() {
    let rounds = std::env::var("BELLROPE_SPAWN_ROUNDS").map_or(1, |rounds| rounds.parse().unwrap());
    for _ in 0..rounds {
        let home = Home::spawning();
        let chats: Vec<_> = (0..50).map(|_| Running::start(&mut home.command(["chat", "Who is there?"]))).collect();
        let finished: Vec<_> = chats.into_iter().map(Running::finish).collect();
        let servers: Vec<_> = finished.iter().filter_map(|chat| started(&chat.stderr)).collect();
        for chat in finished {
            assert!(!chat.stderr.contains("error"), "{chat:?}");
            assert!(chat.succeeded().ends_with(ANSWER));
        }
        assert_eq!(servers, Vec::from_iter(home.holder()));
    }
}

#[test]
fn a_chat_in_a_substitution_returns_at_once_and_its_server_holds_only_descriptors_of_its_own() {
    let home = Home::spawning();
    let marker = home.path("marker");
    fs::write(&marker, "").unwrap();
    let opened: String = (3..=9).map(|fd| format!(" {fd}<{}", marker.display())).collect();
    let script = format!("exec{opened}; out=$(\"$BELLROPE\" chat 'Who is there?' 2>&1); printf %s \"$out\"");
    // With a server that held the other end of that pipe it would not end.
    let said = Running::start(&mut home.shell(&script)).finish().succeeded();
    let server = started(&said).unwrap_or_else(|| panic!("{said}"));
    assert!(said.contains(ANSWER.trim_end()), "{said}");
    let descriptors = fs::read_dir(format!("/proc/{server}/fd")).unwrap();
    let targets: Vec<_> = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).collect();
    let log = home.path("state/bellrope/bellrope.log");
    assert!(targets.contains(&log) && targets.contains(&"/dev/null".into()), "{targets:?}");
    let foreign = |target: &Path| target == marker || target.to_string_lossy().starts_with("pipe:");
    assert!(!targets.iter().any(|target| foreign(target)), "{targets:?}");
    eventually("the ready line in the log", || fs::read_to_string(&log).unwrap().contains("bellrope serves "));
}

#[test]
fn a_server_that_was_started_for_a_chat_is_stopped_by_name_and_the_next_chat_starts_another() {
    let home = Home::spawning();
    let first = started(&Running::start(&mut home.command(["chat", "hi"])).finish().stderr).unwrap();
    let said = home.run(["stop"]).succeeded();
    assert_eq!(said, format!("the server at {} (process {first}) has ended\n", home.socket().display()));
    assert!(home.holder().is_none() && !home.socket().exists());
    let none = home.run(["stop"]);
    assert_eq!((none.code, none.stdout.as_str()), (Some(0), ""));
    assert_eq!(none.stderr, format!("no server listens at {}\n", home.socket().display()));
    let second = started(&Running::start(&mut home.command(["chat", "hi"])).finish().stderr).unwrap();
    let json: serde_json::Value = serde_json::from_str(&home.run(["stop", "--json"]).succeeded()).unwrap();
    assert_eq!(json, serde_json::json!({"stopped": true, "pid": second}));
    let json: serde_json::Value = serde_json::from_str(&home.run(["stop", "--json"]).succeeded()).unwrap();
    assert_eq!(json, serde_json::json!({"stopped": false, "pid": null}));
}

#[test]
fn a_server_is_stopped_with_its_calls_done_or_at_once_and_never_another_process() {
    let home = Home::new();
    let server = home.serve::<&str>([]);
    let client = Client::connect(home.socket()).unwrap();
    let long = br#"{"messages":[{"role":"user","content":"/tokens 4000000000"}]}"#;
    let mut answer = client.stream("ai.chat_stream", long).unwrap();
    assert!(answer.next().unwrap().is_ok());
    // It has five seconds for such an answer, and none with `--now`.
    home.run(["stop", "--now"]).succeeded();
    assert!(answer.any(|chunk| chunk.is_err()), "it cannot have come whole");
    let ended = server.finish();
    assert!(!ended.stderr.contains("were not done within"), "{ended:?}");

    // A socket that somebody else has made: its maker is not the server, whatever the lock file says.
    let socket = home.path("another.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let stop = || home.run(["stop".as_ref(), "--socket".as_ref(), socket.as_os_str()]).failed(1);
    assert!(stop().contains("end it where it was started"), "{}", stop());
    let mut other = Command::new("sleep").arg("600").spawn().unwrap();
    fs::write(home.path("another.sock.lock"), other.id().to_string()).unwrap();
    assert!(stop().contains("end it where it was started"), "{}", stop());
    assert!(other.try_wait().unwrap().is_none());
    other.kill().and_then(|()| other.wait()).unwrap();
}

#[test]
fn a_server_that_cannot_start_is_told_with_its_last_line() {
    let home = Home::spawning();
    let config = home.config("[server]\nmax_conections = 10\n");
    let said = Running::start(home.command(["chat", "hi"]).env("BELLROPE_CONFIG", &config)).finish().failed(1);
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].starts_with(STARTED), "{said}");
    assert!(
        lines[1].contains(" was started as a server and ended before it answered (exit status: 2); it said: "),
        "{said}"
    );
    assert!(lines[1].contains("bellrope.toml:2:1: unknown key `server.max_conections`"), "{said}");
    assert_eq!((lines.len(), home.holder()), (2, None));
}

#[test]
fn a_server_that_is_not_to_be_started_is_not() {
    let home = Home::spawning();
    let flag = home.run(["chat", "--no-spawn", "hi"]).failed(1);
    let variable = Running::start(home.command(["chat", "hi"]).env("BELLROPE_NO_SPAWN", "1")).finish().failed(1);
    for said in [flag, variable] {
        assert!(said.ends_with("; start one with `bellrope serve`\n"), "{said}");
    }
    // Nor do commands start one that ask how a server is.
    home.run(["list"]).failed(1);
    assert_eq!(home.holder(), None);
}

#[test]
fn a_server_needs_nothing_of_the_directory_it_was_started_in_which_may_go() {
    let home = Home::spawning();
    let worktree = home.path("worktree");
    fs::create_dir(&worktree).unwrap();
    fs::write(worktree.join("key"), "sk-1").unwrap();
    let config = "[gateway.embedded]\nscript = [{ kind = \"text\", text = \"From the file.\" }, { kind = \"done\", stop_reason = \"end_turn\" }]\n\
                  [gateway.openai]\napi_key_file = \"key\"\n";
    fs::write(worktree.join("own.toml"), config).unwrap();
    let chat = |directory: &Path| {
        let mut chat = home.command(["chat", "--socket", "run/bell.sock", "hi"]);
        chat.current_dir(directory).env("BELLROPE_CONFIG", "own.toml");
        Running::start(&mut chat).finish()
    };
    let first = chat(&worktree);
    let server = started(&first.stderr).unwrap_or_else(|| panic!("{first:?}"));
    assert_eq!(first.succeeded(), "From the file.\n");
    assert_eq!(fs::read_link(format!("/proc/{server}/cwd")).unwrap(), Path::new("/"));
    let arguments = String::from_utf8(fs::read(format!("/proc/{server}/cmdline")).unwrap()).unwrap();
    let key = format!("gateway.openai.api_key_file={}", worktree.join("key").display());
    assert!(arguments.split('\0').any(|argument| argument == key), "{arguments:?}");
    let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(server.cast_signed()).unwrap(), Signal::TERM);
}

#[test]
fn a_server_has_the_variables_of_whoever_started_it_as_far_as_they_are_on_the_list() {
    let home = Home::spawning();
    let chat = |key: &str| {
        let mut chat = home.command(["chat", "Who is there?"]);
        chat.envs([("OPENAI_API_KEY", key), ("HTTPS_PROXY", key), ("BELLROPE_LOG", "warn")]);
        chat.envs([("HOME", "/h"), ("SECRET", "s"), ("TMPDIR", "/sandbox"), ("PWD", "/p"), ("LANG", "C")]);
        Running::start(&mut chat).finish()
    };
    let server = started(&chat("first").stderr).unwrap();
    // All others use that server, with their own keys or without.
    assert_eq!(started(&chat("second").stderr), None);
    let environment = String::from_utf8(fs::read(format!("/proc/{server}/environ")).unwrap()).unwrap();
    let mut variables: Vec<_> = environment.split_terminator('\0').collect();
    variables.retain(|variable| !variable.starts_with("XDG_") && !variable.starts_with("LLVM_"));
    variables.sort_unstable();
    let idle = "BELLROPE_SERVER__EXIT_WHEN_IDLE_MS=30000";
    assert_eq!(
        variables,
        [
            "BELLROPE_LOCAL_MODELS=",
            "BELLROPE_LOG=warn",
            idle,
            "HOME=/h",
            "HTTPS_PROXY=first",
            "LANG=C",
            "OPENAI_API_KEY=first"
        ]
    );
}

#[test]
fn signals_to_the_group_of_its_starter_do_not_reach_a_server() {
    for signal in [Signal::INT, Signal::HUP] {
        let home = Home::spawning();
        let mut first = Running::start(home.command(["chat", "/tokens 4000000000"]).process_group(0));
        let mut begun = [0; 4];
        first.stdout().read_exact(&mut begun).unwrap();
        let server = home.holder().unwrap();
        let mut other = Running::start(&mut home.command(["chat", "/tokens 4000000000"]));
        let mut stream = other.stdout();
        stream.read_exact(&mut begun).unwrap();
        let group = rustix::process::Pid::from_raw(first.id().cast_signed()).unwrap();
        rustix::process::kill_process_group(group, signal).unwrap();
        eventually("the end of the first", || first.ended().is_some());
        // More than any buffer between here and the server holds.
        stream.read_exact(&mut vec![0; 2_000_000]).unwrap();
        assert_eq!(home.holder(), Some(server));
    }
}

#[test]
fn a_server_outlives_the_terminal_it_was_started_at_and_a_conversation_outlives_its_server() {
    let home = Home::spawning();
    let mut terminal = Terminal::open(&home, &["chat"]);
    terminal.shows(&[STARTED, "Ctrl-D leaves", "> "]);
    let server = home.holder().unwrap();
    // What waits is nobody's question; the server is gone for good.
    rustix::process::kill_process(rustix::process::Pid::from_raw(server.cast_signed()).unwrap(), Signal::KILL).unwrap();
    eventually("the end of the server", || home.holder().is_none());
    terminal.press("Who is there?\r");
    terminal.shows(&[STARTED, "You asked: Who is there?", "> "]);
    let next = home.holder().unwrap();
    assert_ne!(next, server);
    // The terminal hangs up.
    drop(terminal);
    assert!(home.run(["chat", "Who is there?"]).succeeded().ends_with(ANSWER));
    assert_eq!(home.holder(), Some(next));
}

#[test]
fn an_editor_has_a_session_where_no_server_ran() {
    let home = Home::spawning();
    let (mut editor, session) = Editor::in_session(&home, &[]);
    let (answer, _) = editor.prompt(&session, "Who is there?");
    assert_eq!(answer["result"]["stopReason"], "end_turn", "{answer}");
    let server = home.holder().unwrap();
    // And where it went away, once it does not come back by itself.
    rustix::process::kill_process(rustix::process::Pid::from_raw(server.cast_signed()).unwrap(), Signal::KILL).unwrap();
    eventually("the end of the server", || home.holder().is_none());
    let (answer, _) = editor.prompt(&session, "Who is there?");
    assert_eq!(answer["result"]["stopReason"], "end_turn", "{answer}");
    let said = editor.leave();
    assert_eq!(said.matches(STARTED).count(), 2, "{said}");
}

#[test]
fn an_idle_server_ends_well_and_says_why() {
    let home = Home::new();
    let server = home.serve(["--exit-when-idle", "10ms"]);
    assert_eq!(home.run(["call", "echo", "ding"]).succeeded(), "ding");
    let finished = server.finish();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stderr.contains("ending: no client was here for 10ms (exit_when_idle_ms)"), "{finished:?}");
    assert!(!exists(&home.socket()));
    let error = home.run(["serve", "--exit-when-idle", "10"]).failed(2);
    assert!(error.contains("give a number with ms, s, m or h, as in 10m"), "{error}");
}

#[test]
fn a_server_whose_socket_is_removed_serves_its_last_client_and_ends() {
    let home = Home::new();
    let server = home.serve::<&str>([]);
    let client = Client::connect(home.socket()).unwrap();
    fs::remove_file(home.socket()).unwrap();
    server.said("the socket was removed or replaced: no client can find this server any more");
    assert_eq!(client.call("echo", b"ding").unwrap(), b"ding");
    // The path is free for the next one at once.
    let _next = home.serve::<&str>([]);
    drop(client);
    let finished = server.finish();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stderr.contains("ending: the socket is gone, and so is the last client"), "{finished:?}");
    assert!(exists(&home.socket()), "it is the next one's");
}

/// `BELLROPE_LOG_CALLS=1000000` for a long run.
#[test]
fn a_log_file_stays_within_its_bytes_however_much_fails() {
    const BYTES: u64 = 64 * 1024;
    let calls = std::env::var("BELLROPE_LOG_CALLS").map_or(3_000, |calls| calls.parse().unwrap());
    let home = Home::new();
    let log = home.path("logs/server.log");
    let settings = ["--log", "debug", "--set", &format!("log_file_bytes={BYTES}"), "--log-file"].map(str::to_owned);
    let server = home.serve(settings.iter().map(String::as_ref).chain([log.as_os_str()]));
    server.said(&format!(", log in {}", log.display()));
    let client = Client::connect(home.socket()).unwrap();
    let mut most = 0;
    let bytes = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
    for n in 0..calls {
        client.call("ai.chat", b"no json").unwrap_err();
        if n % 100 == 0 {
            most = most.max(bytes(&log) + bytes(&log.with_extension("log.1")));
        }
    }
    eventually("a second file", || exists(&log.with_extension("log.1")));
    assert!(most <= BYTES, "{most}");
    drop(client);
    let finished = server.stop();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    // What was logged while it said that it is ready may stand on standard error still.
    assert!(!finished.stderr.contains("stopping on SIGTERM"), "{finished:?}");
    assert!(fs::read_to_string(&log).unwrap().contains("stopping on SIGTERM"));
    let error = home.run(["serve", "--log-file", "/proc/nothing/here.log"]).failed(1);
    assert!(
        error.contains("the log /proc/nothing/here.log cannot be written; choose another with --log-file"),
        "{error}"
    );
}

#[test]
fn a_shell_that_starts_a_server_in_a_group_of_its_own_can_leave() {
    // The same as above with nobody left who could wait for the server.
    let home = Home::spawning();
    let mut shell: Command = home.shell("(\"$BELLROPE\" chat 'Who is there?' >/dev/null 2>&1)");
    assert!(shell.stdout(Stdio::null()).status().unwrap().success());
    assert!(home.holder().is_some());
}
