//! `chat` alone: a conversation at a terminal, which is a pseudo-terminal here.

use std::{
    fs::File,
    io::{Read, Write},
    process::Stdio,
    sync::{Arc, Condvar, Mutex},
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use crate::support::{Finished, Home, PATIENCE, Running, eventually, http};

/// A conversation under way, and whoever sits at its terminal.
struct Terminal {
    keyboard: File,
    screen: Arc<Screen>,
    chat: Running,
}

/// What stands on the screen, with all that steers it, and whether more can come.
#[derive(Default)]
struct Screen {
    state: Mutex<(String, bool)>,
    news: Condvar,
}

impl Terminal {
    /// Opens a conversation in a terminal of its own. `setsid` gives it the terminal, so that Ctrl-C reaches it.
    fn open(home: &Home, arguments: &[&str]) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let path = ptsname(&keyboard, Vec::new()).unwrap().into_string().unwrap();
        let line = File::options().read(true).write(true).open(path).unwrap();
        tcsetwinsize(&line, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();

        let mut command = home.command(arguments);
        let mut command = {
            let mut outer = std::process::Command::new("setsid");
            outer.arg("--ctty").arg("--wait").arg(command.get_program()).args(command.get_args());
            outer.env_clear();
            for (name, value) in command.get_envs() {
                outer.env(name, value.unwrap_or_default());
            }
            command.env_clear();
            outer
        };
        command.env("TERM", "xterm").env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("XDG_STATE_HOME", home.path("state"));
        command.stdin(Stdio::from(line.try_clone().unwrap()));
        command.stdout(Stdio::from(line.try_clone().unwrap())).stderr(Stdio::from(line));
        let chat = Running::start(&mut command);
        // The terminal's end closes with the conversation.
        drop(command);

        let keyboard = File::from(keyboard);
        let screen = Arc::<Screen>::default();
        let (mut light, shown) = (keyboard.try_clone().unwrap(), Arc::clone(&screen));
        std::thread::spawn(move || shown.show(&mut light));
        Self { keyboard, screen, chat }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until all of `texts` stand on the screen in this order, and wipes it up to there. Returns what it wiped.
    #[track_caller]
    fn shows(&self, texts: &[&str]) -> String {
        let find =
            |screen: &str| texts.iter().try_fold(0, |from, text| Some(from + screen[from..].find(text)? + text.len()));
        let state = self.screen.state.lock().unwrap();
        let waiting = |(shown, over): &mut (String, bool)| find(shown).is_none() && !*over;
        let (mut state, _) = self.screen.news.wait_timeout_while(state, PATIENCE, waiting).unwrap();
        let Some(end) = find(&state.0) else { panic!("{texts:?} is not shown, but:\n{:?}", state.0) };
        state.0.drain(..end).collect()
    }

    fn finish(self) -> Finished {
        self.chat.finish()
    }
}

impl Screen {
    fn show(&self, light: &mut File) {
        let mut bytes = [0; 4096];
        // Reading fails when the last process at the terminal is gone.
        while let Ok(count @ 1..) = light.read(&mut bytes) {
            self.state.lock().unwrap().0.push_str(&String::from_utf8_lossy(&bytes[..count]));
            self.news.notify_all();
        }
        self.state.lock().unwrap().1 = true;
        self.news.notify_all();
    }
}

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
    terminal.shows(&["Ctrl-C cancels an answer, Ctrl-D leaves.", PROMPT]);
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
            return;
        }
    }
    panic!("a conversation of more than 64 KiB was sent whole");
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
