//! Processes of the program under test. Each is killed, at the latest, when its test ends.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Nothing that a test waits for takes longer, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The variable that says where a process leaves its counts while line coverage is measured.
const COVERAGE: &str = "LLVM_PROFILE_FILE";

/// A private place for sockets and configuration files.
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Where a server of this home listens if nothing says otherwise.
    pub(crate) fn socket(&self) -> PathBuf {
        self.0.path().join("bellrope").join("bellrope.sock")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a configuration file.
    pub(crate) fn config(&self, text: &str) -> PathBuf {
        let path = self.path("bellrope.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A shell in this home, with the program as `$BELLROPE`.
    pub(crate) fn shell(&self, script: &str) -> Command {
        let program = self.command::<&str>([]);
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script]).env_clear().env("BELLROPE", program.get_program());
        shell.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        shell
    }

    /// The program in this home, with nothing else of the environment around the test.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bellrope"));
        command.args(arguments).env_clear().env("XDG_RUNTIME_DIR", self.0.path());
        // Where line coverage is measured, the processes count, too.
        command.envs(std::env::var_os(COVERAGE).map(|place| (COVERAGE, place)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Finished {
        Running::start(&mut self.command(arguments)).finish()
    }

    /// Runs the program to its end, with `input` on its standard input.
    pub(crate) fn run_with<A: AsRef<OsStr>>(&self, input: Vec<u8>, arguments: impl IntoIterator<Item = A>) -> Finished {
        let mut running = Running::start(self.command(arguments).stdin(Stdio::piped()));
        let mut stdin = running.child.stdin.take().unwrap();
        // It may end without having read all of it.
        let writing = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let finished = running.finish();
        writing.join().unwrap();
        finished
    }

    /// Starts a server, which is ready when this returns.
    pub(crate) fn serve<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Running {
        self.serve_with(arguments, &[])
    }

    /// Starts a server with these variables in its environment.
    pub(crate) fn serve_with<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        variables: &[(&str, &str)],
    ) -> Running {
        let mut command = self.command(["serve"]);
        command.args(arguments).envs(variables.iter().copied()).stdout(Stdio::null());
        let server = Running::start(&mut command);
        server.said("bellrope serves ");
        server
    }
}

/// What a process that has ended left behind.
#[derive(Debug)]
pub(crate) struct Finished {
    /// The exit code; `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// Standard output of a process that succeeded.
    #[track_caller]
    pub(crate) fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// Standard error of a process that failed with this exit code and printed no result.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!((self.code, &*self.stdout), (Some(code), ""), "{self:?}");
        self.stderr
    }
}

/// A process under way. Dropping it kills it.
pub(crate) struct Running {
    child: Child,
    stderr: Arc<Heard>,
    listening: Option<JoinHandle<()>>,
}

/// What a process said so far, and whether more can come.
#[derive(Default)]
struct Heard {
    state: Mutex<(String, bool)>,
    news: Condvar,
}

impl Running {
    /// Starts a process and listens to its standard error, if that is piped.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stderr = Arc::<Heard>::default();
        let listening = child.stderr.take().map(|pipe| {
            let heard = Arc::clone(&stderr);
            std::thread::spawn(move || heard.listen(pipe))
        });
        Self { child, stderr, listening }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().unwrap()
    }

    pub(crate) fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    /// Waits until `text` stands on standard error; returns the line.
    #[track_caller]
    pub(crate) fn said(&self, text: &str) -> String {
        let state = self.stderr.state.lock().unwrap();
        let waiting = |(said, over): &mut (String, bool)| !said.contains(text) && !*over;
        let (state, _) = self.stderr.news.wait_timeout_while(state, PATIENCE, waiting).unwrap();
        let line = state.0.lines().find(|line| line.contains(text));
        line.unwrap_or_else(|| panic!("{text:?} was not said, but:\n{}", state.0)).to_owned()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for the end.
    #[track_caller]
    pub(crate) fn finish(self) -> Finished {
        self.finish_within(PATIENCE)
    }

    /// Waits for the end of a process that may take so long.
    #[track_caller]
    pub(crate) fn finish_within(mut self, limit: Duration) -> Finished {
        let reading = self.child.stdout.take().map(|mut pipe| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                pipe.read_to_end(&mut bytes).unwrap();
                String::from_utf8(bytes).unwrap()
            })
        });
        let mut code = None;
        within(limit, "the end of the process", || {
            code = self.ended();
            code.is_some()
        });
        let stdout = reading.map(|reading| reading.join().unwrap()).unwrap_or_default();
        if let Some(listening) = self.listening.take() {
            listening.join().unwrap();
        }
        let stderr = self.stderr.state.lock().unwrap().0.clone();
        Finished { code: code.unwrap().code(), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A killed process leaves no counts behind, so it may end by itself. Not for ever: some tests are about that.
        if std::env::var_os(COVERAGE).is_some() && matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let deadline = Instant::now() + Duration::from_secs(2);
            while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        // Both fail if it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Heard {
    fn listen(&self, pipe: impl Read) {
        let mut pipe = BufReader::new(pipe);
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

/// Waits until a condition holds.
#[track_caller]
pub(crate) fn eventually(what: &str, holds: impl FnMut() -> bool) {
    within(PATIENCE, what, holds);
}

#[track_caller]
fn within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come within {limit:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Asks a server that said on standard error where its health is.
#[track_caller]
pub(crate) fn http(server: &Running, path: &str) -> String {
    let line = server.said("health on http://");
    let address = line.rsplit("http://").next().unwrap().trim();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

/// Whether something stands at this path.
pub(crate) fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}
