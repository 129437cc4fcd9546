//! A private folder with commands and servers in it. Nothing outlives it.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use bellrope_testkit::program::{COVERAGE, Finished};
pub(crate) use bellrope_testkit::program::{PATIENCE, Running};
use tempfile::TempDir;

use crate::text::{mask, without_modules, without_ports, without_times};

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
        // A test that wants a server to be started says so.
        command.env("BELLROPE_NO_SPAWN", "1").env("BELLROPE_LOCAL_MODELS", "");
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
        let mut stdin = running.stdin();
        let bytes = input.as_bytes().to_owned();
        // It may end without having read all of it.
        let writing = std::thread::spawn(move || drop(stdin.write_all(&bytes)));
        let Finished { code, stdout, stderr } = running.finish();
        writing.join().unwrap();
        let variables = variables.iter().map(|(name, value)| format!("{name}={} ", quoted(value)));
        let arguments = arguments.iter().map(|argument| format!(" {}", quoted(argument)));
        let mut line: String = variables.chain(["bellrope".to_owned()]).chain(arguments).collect();
        if !input.is_empty() {
            line = format!("printf {} | {line}", quoted(input));
        }
        Ran { line: self.clean(&line), code, stdout: self.clean(&stdout), stderr: self.clean(&stderr) }
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
    code: Option<i32>,
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
        format!("$ {}\n{}\n", self.line, how(self.code))
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
        self.code
    }
}

/// How a process ended.
pub(crate) fn how(code: Option<i32>) -> String {
    code.map_or_else(|| "ended by a signal".to_owned(), |code| format!("exit code {code}"))
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

/// The names of the files in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}
