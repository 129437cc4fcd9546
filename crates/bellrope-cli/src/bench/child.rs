use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, bail, ensure};
use bellrope::{MemoryUse, SpinPolicy};

use crate::signals;

/// A server in a child process on a private socket. It ends when this is dropped, or when this process dies: its
/// standard input is the lifeline.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    running: Running,
    /// Removed with all that is in it.
    home: tempfile::TempDir,
    setup: Setup,
}

/// What is not as usual about a server.
#[derive(Debug, Default)]
struct Setup {
    /// Whether it has a CPU of its own.
    pin: bool,
    /// The base address of its provider `openai`.
    provider: Option<String>,
    spin: SpinPolicy,
}

#[derive(Debug)]
struct Running {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    health: String,
    /// The monotonic clock just before it began to listen.
    listening_us: u64,
}

impl ServerProcess {
    /// Starts the server and returns when it is ready.
    pub(crate) fn start(pin: bool) -> anyhow::Result<Self> {
        Self::start_with(Setup { pin, ..Setup::default() })
    }

    /// As [`Self::start`], with a provider `openai` at this base address.
    pub(crate) fn start_asking(pin: bool, provider: &str) -> anyhow::Result<Self> {
        Self::start_with(Setup { pin, provider: Some(provider.to_owned()), ..Setup::default() })
    }

    /// As [`Self::start`], with workers that spin by this policy.
    pub(super) fn start_spinning(pin: bool, spin: SpinPolicy) -> anyhow::Result<Self> {
        Self::start_with(Setup { pin, spin, ..Setup::default() })
    }

    fn start_with(setup: Setup) -> anyhow::Result<Self> {
        let home = tempfile::Builder::new().prefix("bellrope-").tempdir().context("making a temporary directory")?;
        signals::remove_when_ended(home.path().to_owned()).context("waiting for signals")?;
        let running = Running::start(&socket_in(home.path()), &setup)?;
        Ok(Self { running, home, setup })
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
        self.begin("pong", fd, rounds)
    }

    /// As [`Self::begin_pong`], asleep between one and the next.
    pub(super) fn begin_sleeping_pong(&mut self, fd: i32, rounds: u64) -> anyhow::Result<()> {
        self.begin("sleeping-pong", fd, rounds)
    }

    fn begin(&mut self, command: &str, fd: i32, rounds: u64) -> anyhow::Result<()> {
        let answer = self.running.ask(&format!("{command} {} {fd} {rounds}", std::process::id()))?;
        ensure!(answer == "ponging", "the server cannot answer ping-pongs: {answer}");
        Ok(())
    }

    /// CPU time that the server has used so far, in microseconds.
    pub(super) fn cpu_time_us(&mut self) -> anyhow::Result<u64> {
        let answer = self.running.ask("cpu")?;
        answer.parse().with_context(|| format!("the server did not say its CPU time, but {answer:?}"))
    }

    /// The monotonic clock, in microseconds, just before the server began to listen.
    pub(super) fn listening_us(&self) -> u64 {
        self.running.listening_us
    }

    /// Kills the server without warning.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.running.child.kill().context("killing the server")?;
        self.running.child.wait().context("waiting for the killed server")?;
        Ok(())
    }

    /// Starts another server on the same socket, after a kill.
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        self.running = Running::start(&self.socket(), &self.setup)?;
        Ok(())
    }
}

impl Running {
    fn start(socket: &Path, setup: &Setup) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("finding the path of this program")?;
        let mut command = Command::new(program);
        command.arg("bench-server").arg("--socket").arg(socket);
        command.arg("--spin").arg(super::spin::name(setup.spin));
        if setup.pin {
            command.arg("--pin");
        }
        if let Some(url) = &setup.provider {
            command.env("OPENAI_BASE_URL", url).env_remove("OPENAI_API_KEY");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting a server")?;
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("stdout was piped"));
        let mut running = Self { child, commands, answers, health: String::new(), listening_us: 0 };
        let ready = running.answer()?;
        let ["ready", health, listening_us] = ready.split(' ').collect::<Vec<_>>()[..] else {
            bail!("the server did not start: {ready}");
        };
        running.health = health.to_owned();
        running.listening_us = listening_us.parse().context("reading when the server began to listen")?;
        Ok(running)
    }

    /// Sends a command and returns its answer.
    fn ask(&mut self, command: &str) -> anyhow::Result<String> {
        let commands = self.commands.as_mut().expect("open until the server is dropped");
        writeln!(commands, "{command}").context("sending the server a command")?;
        self.answer()
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
