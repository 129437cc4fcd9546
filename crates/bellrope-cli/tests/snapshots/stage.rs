//! A private folder with commands and servers in it. Nothing outlives it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::text::{mask, without_modules, without_ports, without_times};

/// Nothing that a test waits for takes longer, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The variable that says where a process leaves its counts while line coverage is measured.
const COVERAGE: &str = "LLVM_PROFILE_FILE";

/// A private folder, which is home, runtime directory and working directory of what runs in it.
pub(crate) struct Stage(TempDir);

impl Stage {
    pub(crate) fn new() -> Self {
        let stage = Self(tempfile::Builder::new().prefix("bellrope-snapshots-").tempdir().unwrap());
        for name in ["no-programs", "tmp"] {
            std::fs::create_dir(stage.path(name)).unwrap();
        }
        stage
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Where a server of this stage listens if nothing says otherwise.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path("bellrope/bellrope.sock")
    }

    /// Writes a file; returns its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The program, with nothing else of the environment around the test.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let home = self.0.path();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bellrope"));
        command.args(arguments).current_dir(home).env_clear();
        // The same width, language and colours everywhere, and no programs beside ours.
        command.envs([("COLUMNS", "120"), ("LINES", "40"), ("TERM", "dumb"), ("LC_ALL", "C"), ("NO_COLOR", "1")]);
        command.env("PATH", self.path("no-programs")).env("TMPDIR", self.path("tmp"));
        for name in ["HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"]
        {
            command.env(name, home);
        }
        // Where line coverage is measured, the processes count, too.
        command.envs(std::env::var_os(COVERAGE).map(|place| (COVERAGE, place)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the program to its end.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(&[], arguments, "")
    }

    /// Runs the program to its end, with these variables and this on its standard input.
    #[track_caller]
    pub(crate) fn run_with(&self, variables: &[(&str, &str)], arguments: &[&str], input: &str) -> Ran {
        let mut command = self.command(arguments);
        let mut running = Running::start(command.envs(variables.iter().copied()).stdin(Stdio::piped()));
        let mut stdin = running.child.stdin.take().unwrap();
        let bytes = input.as_bytes().to_owned();
        // It may end without having read all of it.
        let writing = std::thread::spawn(move || drop(stdin.write_all(&bytes)));
        let (status, stdout, stderr) = running.finish();
        writing.join().unwrap();
        let variables = variables.iter().map(|(name, value)| format!("{name}={} ", quoted(value)));
        let arguments = arguments.iter().map(|argument| format!(" {}", quoted(argument)));
        let mut line: String = variables.chain(["bellrope".to_owned()]).chain(arguments).collect();
        if !input.is_empty() {
            line = format!("printf {} | {line}", quoted(input));
        }
        Ran { line: self.clean(&line), status, stdout: self.clean(&stdout), stderr: self.clean(&stderr) }
    }

    /// Runs several commands; returns what they look like one after another.
    #[track_caller]
    pub(crate) fn all(&self, commands: &[&[&str]]) -> String {
        commands.iter().map(|arguments| self.run(arguments).shown() + "\n").collect()
    }

    /// Starts a server, which is ready when this returns.
    #[track_caller]
    pub(crate) fn serve(&self, arguments: &[&str]) -> Running {
        let arguments: Vec<_> = ["serve"].iter().chain(arguments).copied().collect();
        let server = Running::start(self.command(&arguments).stdout(Stdio::null()));
        server.said("bellrope serves ");
        server
    }

    /// A text without what differs from run to run.
    pub(crate) fn clean(&self, text: &str) -> String {
        let digit = |character: char| character.is_ascii_digit();
        let text =
            text.replace(self.0.path().to_str().unwrap(), "[HOME]").replace(env!("CARGO_PKG_VERSION"), "[VERSION]");
        let text = without_modules(&without_ports(&without_times(&text)));
        let text = mask(&mask(&text, "pid=", digit, "PID"), "\"pid\":", digit, "PID");
        // What an answer took.
        let text = mask(&text, "; first after ", |character| !",\n".contains(character), "TIME");
        let text = mask(&text, ", whole after ", |character| character != '\n', "TIME and rate");
        let text = mask(&text, "another server (process ", digit, "PID");
        // How long a call took, at debug.
        let text = mask(&text, "time.busy=", |character| !character.is_whitespace(), "TIME");
        let text = mask(&text, "time.idle=", |character| !character.is_whitespace(), "TIME");
        mask(&mask(&text, "duration_us=", digit, "TIME"), "\"duration_us\":", digit, "TIME")
    }
}

/// What a process that has ended left behind, without what differs from run to run.
#[derive(Debug)]
pub(crate) struct Ran {
    line: String,
    status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// The command line, its exit code and what it printed.
    pub(crate) fn shown(&self) -> String {
        let end = |text: &str| if text.is_empty() || text.ends_with('\n') { "" } else { "(no line break here)\n" };
        let mut shown = self.ended();
        for (name, text) in [("standard output", &self.stdout), ("standard error", &self.stderr)] {
            if !text.is_empty() {
                let separator = if text.ends_with('\n') { "" } else { "\n" };
                shown.push_str(&format!("--- {name}\n{text}{separator}{}", end(text)));
            }
        }
        shown
    }

    /// The command line and its exit code.
    pub(crate) fn ended(&self) -> String {
        format!("$ {}\n{}\n", self.line, how(self.status))
    }

    /// With other output: numbers that differ are hidden in it.
    pub(crate) fn with(self, change: impl Fn(&str) -> String) -> Self {
        Self { stdout: change(&self.stdout), ..self }
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

/// How a process ended.
pub(crate) fn how(status: ExitStatus) -> String {
    status.code().map_or_else(|| "ended by a signal".to_owned(), |code| format!("exit code {code}"))
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "/._-+=:,@%[]".contains(character);
    if word.chars().all(plain) && !word.is_empty() {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A process under way. Dropping it ends it.
pub(crate) struct Running {
    pub(crate) child: Child,
    heard: Arc<Heard>,
    listening: Option<JoinHandle<()>>,
}

/// What a process said so far on standard error, and whether no more can come.
#[derive(Default)]
struct Heard {
    state: Mutex<(String, bool)>,
    news: Condvar,
}

impl Running {
    /// Starts a process and listens to its standard error.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let heard = Arc::<Heard>::default();
        let pipe = BufReader::new(child.stderr.take().unwrap());
        let listening = std::thread::spawn({
            let heard = Arc::clone(&heard);
            move || heard.listen(pipe)
        });
        Self { child, heard, listening: Some(listening) }
    }

    /// Waits until this text stands on standard error; returns its line.
    #[track_caller]
    pub(crate) fn said(&self, text: &str) -> String {
        self.said_times(text, 1)
    }

    /// Waits until this text stands on standard error in so many lines; returns the last of them.
    #[track_caller]
    pub(crate) fn said_times(&self, text: &str, times: usize) -> String {
        let state = self.heard.state.lock().unwrap();
        let missing = |(said, over): &mut (String, bool)| {
            said.lines().filter(|line| line.contains(text)).count() < times && !*over
        };
        let (state, _) = self.heard.news.wait_timeout_while(state, PATIENCE, missing).unwrap();
        let line = state.0.lines().filter(|line| line.contains(text)).nth(times - 1);
        line.unwrap_or_else(|| panic!("{text:?} was not said {times} times, but:\n{}", state.0)).to_owned()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Asks a server to end, and waits for it; returns how it ended and all of its standard error.
    #[track_caller]
    pub(crate) fn stop(self) -> (ExitStatus, String) {
        self.signal(Signal::TERM);
        let (status, _, stderr) = self.finish();
        (status, stderr)
    }

    /// Waits for the end; returns how it ended, standard output and standard error.
    #[track_caller]
    pub(crate) fn finish(mut self) -> (ExitStatus, String, String) {
        let reading = self.child.stdout.take().map(|mut pipe| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                pipe.read_to_end(&mut bytes).unwrap();
                String::from_utf8(bytes).unwrap()
            })
        });
        let status = self.ends_within(PATIENCE).unwrap_or_else(|| panic!("it did not end within {PATIENCE:?}"));
        let stdout = reading.map(|reading| reading.join().unwrap()).unwrap_or_default();
        if let Some(listening) = self.listening.take() {
            listening.join().unwrap();
        }
        let stderr = self.heard.state.lock().unwrap().0.clone();
        (status, stdout, stderr)
    }

    fn ends_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            match self.child.try_wait().unwrap() {
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
                ended => return ended,
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // By itself if it will, so that what it started ends with it.
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            if self.ends_within(Duration::from_secs(5)).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }
}

impl Heard {
    fn listen(&self, mut pipe: impl BufRead) {
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            self.state.lock().unwrap().0.push_str(&String::from_utf8_lossy(&line));
            self.news.notify_all();
            line.clear();
        }
        self.state.lock().unwrap().1 = true;
        self.news.notify_all();
    }
}

/// The names of the files in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}
