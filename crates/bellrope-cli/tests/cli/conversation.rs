//! `chat` alone: a conversation at a terminal, which is a pseudo-terminal here.

use std::sync::{Arc, Condvar, Mutex};

use rustix::process::Signal;

use crate::{
    provider::{self, Provider},
    support::{Home, PATIENCE, eventually, http},
    terminal::Terminal,
};

const ENTER: &str = "\r";
const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const UP: &str = "\x1b[A";
/// How a prompt begins: the line editor has the terminal from then on.
const PROMPT: &str = "> ";

#[test]
fn a_conversation_goes_on_until_ctrl_d_and_says_what_each_answer_took() {
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    let mut terminal = Terminal::open(&home, &["chat", "--model", "any"]);
    terminal.shows(&["Ctrl-C cancels an answer, Ctrl-D leaves. /help says what else there is.", PROMPT]);
    terminal.press(&format!("Who is there?{ENTER}"));
    let turn = terminal.shows(&["You asked: Who is there?", "\x1b[2musage: 3 tokens read", "\x1b[0m", PROMPT]);
    assert!(turn.contains("You asked: Who is there?\r\n"), "{turn:?}");
    // The second question carries what was said before it.
    terminal.press(&format!("And who else?{ENTER}"));
    terminal.shows(&["You asked: And who else?", "usage: 26 tokens read", PROMPT]);
    // The arrow brings the last question back.
    terminal.press(&format!("{UP}{ENTER}"));
    terminal.shows(&["You asked: And who else?", "usage: ", PROMPT]);
    terminal.press(CTRL_D);
    assert_eq!(terminal.finish().code, Some(0));

    let kept = std::fs::read_to_string(home.path("state/bellrope/chat_history")).unwrap();
    assert!(kept.contains("Who is there?") && kept.contains("And who else?"), "{kept}");
    let mut next = Terminal::open(&home, &["chat"]);
    next.shows(&[PROMPT]);
    next.press(&format!("{UP}{ENTER}"));
    next.shows(&["You asked: And who else?"]);
}

#[test]
fn commands_at_the_prompt_are_not_sent_to_the_model() {
    let home = Home::new();
    let server = home.serve(["--health", "127.0.0.1:0"]);
    let mut terminal = Terminal::open(&home, &["chat"]);
    terminal.shows(&[PROMPT]);
    terminal.press(&format!("/help{ENTER}"));
    terminal.shows(&["/help shows this; /exit, /quit, exit, quit and Ctrl-D leave", PROMPT]);
    terminal.press(&format!("/hlep{ENTER}"));
    terminal.shows(&["there is no /hlep", "/help shows this", PROMPT]);
    terminal.press(&format!("exit{ENTER}"));
    assert_eq!(terminal.finish().code, Some(0));
    assert!(http(&server, "/metrics").contains(r#"ipc_requests_total{type="ai.chat_stream",outcome="ok"} 0"#));
    let mut terminal = Terminal::open(&home, &["chat"]);
    terminal.shows(&[PROMPT]);
    // After a space it is a question.
    terminal.press(&format!(" exit{ENTER}"));
    terminal.shows(&["You asked:  exit", "usage: ", PROMPT]);
    terminal.press(&format!("/quit{ENTER}"));
    assert_eq!(terminal.finish().code, Some(0));
}

#[test]
fn ctrl_c_cancels_the_answer_at_the_server_and_a_second_one_leaves() {
    let home = Home::new();
    let server = home.serve(["--health", "127.0.0.1:0"]);
    let cancelled = |count: u32| {
        let line = format!(r#"ipc_requests_total{{type="ai.chat_stream",outcome="cancelled"}} {count}"#);
        http(&server, "/metrics").contains(&line)
    };
    let mut terminal = Terminal::open(&home, &["chat"]);
    terminal.shows(&[PROMPT]);
    terminal.press(&format!("/tokens 4000000000{ENTER}"));
    terminal.shows(&["Ring the bell and somebody will come."]);
    terminal.press(CTRL_C);
    terminal.shows(&["cancelled", PROMPT]);
    eventually("the end of the answer at the server", || cancelled(1));
    // It goes on as if nothing had been.
    terminal.press(&format!("Who is there?{ENTER}"));
    terminal.shows(&["You asked: Who is there?", "usage: ", PROMPT]);
    terminal.press(CTRL_C);
    terminal.shows(&["Ctrl-C once more, or Ctrl-D, leaves.", PROMPT]);
    // Anything else in between begins anew.
    terminal.press(ENTER);
    terminal.shows(&[PROMPT]);
    terminal.press(CTRL_C);
    terminal.shows(&["Ctrl-C once more, or Ctrl-D, leaves.", PROMPT]);
    terminal.press(CTRL_C);
    assert_eq!(terminal.finish().code, Some(0));
}

#[test]
fn a_server_that_dies_costs_the_answer_and_not_the_conversation() {
    let home = Home::new();
    let server = home.serve::<&str>([]);
    let mut terminal = Terminal::open(&home, &["chat"]);
    terminal.shows(&[PROMPT]);
    terminal.press(&format!("/tokens 4000000000{ENTER}"));
    terminal.shows(&["Ring the bell"]);
    drop(server);
    terminal.shows(&["error: the server went away", PROMPT]);
    terminal.press(&format!("anybody?{ENTER}"));
    terminal.shows(&["error: no server listens at ", PROMPT]);
    let server = home.serve::<&str>([]);
    terminal.press(&format!("Who is there?{ENTER}"));
    terminal.shows(&["You asked: Who is there?", "usage: 3 tokens read", PROMPT]);
    // While it waits at the prompt nothing watches the connection.
    server.signal(Signal::KILL);
    drop(server);
    let _server = home.serve::<&str>([]);
    terminal.press(&format!("And now?{ENTER}"));
    terminal.shows(&["You asked: And now?", "usage: ", PROMPT]);
    terminal.press(CTRL_D);
    assert_eq!(terminal.finish().code, Some(0));
}

#[test]
fn reasoning_is_dimmed_and_steers_no_terminal() {
    let home = Home::new();
    let config = home.config(
        r#"
        [gateway.embedded]
        script = [
            { kind = "reasoning", text = "They knock" },
            { kind = "reasoning", text = " twice." },
            { kind = "text", text = "Ding\u001B[2J" },
            { kind = "done", stop_reason = "end_turn" },
        ]
        "#,
    );
    let _server = home.serve(["--config".as_ref(), config.as_os_str()]);
    let mut terminal = Terminal::open(&home, &["chat"]);
    terminal.shows(&[PROMPT]);
    terminal.press(&format!("hi{ENTER}"));
    let turn = terminal.shows(&["usage: not told by the provider", PROMPT]);
    assert!(
        turn.contains("\x1b[2mreasoning: They knock\x1b[0m\x1b[2m twice.\x1b[0m\r\nDing\\u{1b}[2J\r\n"),
        "{turn:?}"
    );
}

#[test]
fn a_conversation_longer_than_a_message_forgets_its_oldest_turns_and_says_so() {
    let home = Home::new();
    let config = home.config("[server]\nmax_message_bytes = 65536\n");
    let _server = home.serve(["--config".as_ref(), config.as_os_str()]);
    let mut terminal = Terminal::open(&home, &["chat", "--max-tokens", "1"]);
    terminal.shows(&[PROMPT]);
    let long = "x".repeat(3000);
    let mut forgotten = false;
    for _ in 0..40 {
        terminal.press(&format!("{long}{ENTER}"));
        forgotten |= terminal.shows(&["usage: ", PROMPT]).contains("messages are forgotten");
        if forgotten {
            terminal.press(CTRL_D);
            assert_eq!(terminal.finish().code, Some(0));
            return;
        }
    }
    panic!("a conversation of more than 64 KiB was sent whole");
}

#[test]
fn an_answer_that_takes_its_time_is_said_to_be_waited_for_until_it_begins() {
    let home = Home::new();
    let gate = Arc::<(Mutex<bool>, Condvar)>::default();
    let opened = Arc::clone(&gate);
    let provider = Provider::start(Arc::new(move |_, stream| {
        let (open, news) = &*opened;
        let _ = news.wait_timeout_while(open.lock().unwrap(), PATIENCE, |open| !*open).unwrap();
        provider::say(stream, r#"{"choices":[{"index":0,"delta":{"content":"Ding."},"finish_reason":"stop"}]}"#);
        provider::say(stream, "[DONE]");
    }));
    let _server = provider.serve(&home, &[]);
    let mut terminal = Terminal::open(&home, &["chat"]);
    terminal.shows(&[PROMPT]);
    terminal.press(&format!("hi{ENTER}"));
    terminal.shows(&[" waiting for the answer, 1"]);
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    let turn = terminal.shows(&["Ding.", "usage: ", PROMPT]);
    // The line with the wait is wiped before the answer stands in it.
    let wiped = turn.find("\x1b[2K").unwrap_or_else(|| panic!("{turn:?}"));
    let begun = turn.find("Ding.").unwrap();
    assert!(wiped < begun && !turn[begun..].contains("waiting"), "{turn:?}");
    terminal.press(CTRL_D);
    assert_eq!(terminal.finish().code, Some(0));
}

#[test]
fn where_no_question_can_be_kept_that_is_said_and_the_conversation_goes_on() {
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    let converse = |fault: &str, before: bool| {
        let mut terminal = Terminal::open(&home, &["chat"]);
        terminal.shows(&[fault, PROMPT][usize::from(!before)..]);
        terminal.press(&format!("Who is there?{ENTER}"));
        let turn = terminal.shows(&["You asked: Who is there?", "usage: ", PROMPT]);
        assert!(before || turn.contains(fault), "{turn:?}");
        terminal.press(CTRL_D);
        assert_eq!(terminal.finish().code, Some(0));
    };
    // A file stands where the folder would.
    std::fs::write(home.path("state"), "").unwrap();
    converse("questions are not kept: ", true);
    std::fs::remove_file(home.path("state")).unwrap();
    // A folder stands where the file would.
    std::fs::create_dir_all(home.path("state/bellrope/chat_history")).unwrap();
    converse("the question cannot be kept for the arrow keys", false);
}

#[test]
fn without_a_server_or_a_question_it_says_what_to_do() {
    let home = Home::new();
    let terminal = Terminal::open(&home, &["chat"]);
    terminal.shows(&["error: no server listens at ", "start one with `bellrope serve`"]);
    assert_eq!(terminal.finish().code, Some(1));
    let terminal = Terminal::open(&home, &["chat", "--json"]);
    terminal.shows(&["error: there is no question; give one, as in `bellrope chat 'Who is there?'`"]);
    assert_eq!(terminal.finish().code, Some(1));
}
