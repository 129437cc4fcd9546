//! Processes of the program under test, in a private place.

use std::{
    ffi::OsStr,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bellrope_testkit::program::COVERAGE;
pub(crate) use bellrope_testkit::program::{Finished, PATIENCE, Running};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A private place for sockets and configuration files.
pub(crate) struct Home(TempDir, Spawning);

/// Whether programs may start a server in the background.
#[derive(PartialEq, Eq)]
enum Spawning {
    Forbidden,
    Allowed,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap(), Spawning::Forbidden)
    }

    /// One whose programs start a server where none runs. It ends with the test.
    pub(crate) fn spawning() -> Self {
        Self(tempfile::tempdir().unwrap(), Spawning::Allowed)
    }

    /// The server that holds the socket, if one does.
    pub(crate) fn holder(&self) -> Option<u32> {
        let holder = std::fs::read_to_string(self.socket().with_extension("sock.lock")).ok()?;
        holder.trim().parse().ok().filter(|pid| self.is_server(*pid))
    }

    /// Whether a process was started with the socket of this home, and has not ended.
    pub(crate) fn is_server(&self, pid: u32) -> bool {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|argument| argument == self.socket().as_os_str().as_encoded_bytes())
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
        command.env("XDG_STATE_HOME", self.path("state"));
        // Whatever else runs on this machine is nothing to a test.
        command.env("BELLROPE_LOCAL_MODELS", "");
        match self.1 {
            Spawning::Forbidden => command.env("BELLROPE_NO_SPAWN", "1"),
            // Should its test end without it.
            Spawning::Allowed => command.env("BELLROPE_SERVER__EXIT_WHEN_IDLE_MS", "30000"),
        };
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
        let mut stdin = running.stdin();
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

impl Drop for Home {
    fn drop(&mut self) {
        if self.1 == Spawning::Allowed
            && let Some(pid) = self.holder()
        {
            let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL);
            eventually("the end of the server", || !self.is_server(pid));
        }
    }
}

/// Waits until a condition holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Asks a server that said on standard error where its health is.
#[track_caller]
pub(crate) fn http(server: &Running, path: &str) -> String {
    let address = health_of(server);
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

/// Where a server said on standard error that its health is.
pub(crate) fn health_of(server: &Running) -> String {
    let line = server.said("health on http://");
    line.split("health on http://").nth(1).unwrap().split(',').next().unwrap().trim().to_owned()
}

/// Whether something stands at this path.
pub(crate) fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}
