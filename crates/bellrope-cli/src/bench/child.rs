use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, bail, ensure};
use bellrope::MemoryUse;

use crate::signals;

/// A server in a child process on a private socket. It ends when this is dropped, or when this process dies: its
/// standard input is the lifeline.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    running: Running,
    /// Removed with all that is in it.
    home: tempfile::TempDir,
    pin: bool,
    /// The base address of its provider `openai`.
    provider: Option<String>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    health: String,
}

impl ServerProcess {
    /// Starts the server and returns when it is ready.
    pub(crate) fn start(pin: bool) -> anyhow::Result<Self> {
        Self::start_with(pin, None)
    }

    /// As [`Self::start`], with a provider `openai` at this base address.
    pub(crate) fn start_asking(pin: bool, provider: &str) -> anyhow::Result<Self> {
        Self::start_with(pin, Some(provider.to_owned()))
    }

    fn start_with(pin: bool, provider: Option<String>) -> anyhow::Result<Self> {
        let home = tempfile::Builder::new().prefix("bellrope-").tempdir().context("making a temporary directory")?;
        signals::remove_when_ended(home.path().to_owned()).context("waiting for signals")?;
        let running = Running::start(&socket_in(home.path()), pin, provider.as_deref())?;
        Ok(Self { running, home, pin, provider })
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        socket_in(self.home.path())
    }

    /// Host and port of its health server.
    pub(crate) fn health(&self) -> &str {
        &self.running.health
    }

    /// Its memory.
    pub(crate) fn memory(&self) -> anyhow::Result<MemoryUse> {
        MemoryUse::of(self.running.child.id()).context("reading the server's memory")
    }

    /// Has the server answer `rounds` ping-pongs over the memory behind descriptor `fd` of this process.
    pub(crate) fn begin_pong(&mut self, fd: i32, rounds: u64) -> anyhow::Result<()> {
        let commands = self.running.commands.as_mut().expect("open until the server is dropped");
        writeln!(commands, "pong {} {fd} {rounds}", std::process::id()).context("asking the server to answer")?;
        let answer = self.running.answer()?;
        ensure!(answer == "ponging", "the server cannot answer ping-pongs: {answer}");
        Ok(())
    }

    /// Kills the server without warning.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.running.child.kill().context("killing the server")?;
        self.running.child.wait().context("waiting for the killed server")?;
        Ok(())
    }

    /// Starts another server on the same socket, after a kill.
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        self.running = Running::start(&self.socket(), self.pin, self.provider.as_deref())?;
        Ok(())
    }
}

impl Running {
    fn start(socket: &Path, pin: bool, provider: Option<&str>) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("finding the path of this program")?;
        let mut command = Command::new(program);
        command.arg("bench-server").arg("--socket").arg(socket);
        if pin {
            command.arg("--pin");
        }
        if let Some(url) = provider {
            command.env("OPENAI_BASE_URL", url).env_remove("OPENAI_API_KEY");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting a server")?;
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("stdout was piped"));
        let mut running = Self { child, commands, answers, health: String::new() };
        let ready = running.answer()?;
        match ready.strip_prefix("ready ") {
            Some(health) => running.health = health.to_owned(),
            None => bail!("the server did not start: {ready}"),
        }
        Ok(running)
    }

    fn answer(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line).context("reading the server's answer")?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.commands.take());
        let _ = self.child.wait();
    }
}

fn socket_in(home: &Path) -> PathBuf {
    home.join("run").join("bench.sock")
}
