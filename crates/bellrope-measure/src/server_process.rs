//! The server half of a measurement, seen from the client half: a child process on a private socket.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, bail, ensure};
use bellrope::{
    server::{ServerConfig, SpinPolicy},
    status::MemoryUse,
};
use bellrope_shm::process;
use bellrope_terminal::signals;
use serde::{Deserialize, Serialize};

use crate::slots::SlotShape;

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
    config: ServerConfig,
    /// The fleet that it joins.
    #[cfg(feature = "fleet")]
    fleet: Option<bellrope_fleet::FleetSettings>,
}

/// What a server counted since it started, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// Connections open now.
    pub(crate) connections: u64,
    /// Calls that were answered, however.
    pub(crate) answered: u64,
    /// Connections closed because their client broke the protocol.
    pub(crate) violations: u64,
    /// Connections closed because their client read or finished nothing.
    pub(crate) stalled: u64,
    /// Connections refused.
    pub(crate) refused: u64,
    /// Bytes reserved of the buffer budget.
    pub(crate) buffers_used: u64,
}

/// Descriptors of a process beside those of its connections; far fewer are needed.
const OTHER_DESCRIPTORS: u64 = 64;

#[derive(Debug)]
struct Running {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    health: String,
    /// The monotonic clock just before it began to listen.
    listening_us: u64,
}

/// Whether server and client can have a CPU each.
pub(crate) fn two_cpus() -> bool {
    process::usable_cpus() > 1
}

/// Gives this thread the first of two CPUs to itself, if that is asked for. Only after the server was started: a child
/// inherits where its parent may run.
pub(crate) fn pin_client(pin: bool) -> anyhow::Result<()> {
    if pin {
        process::pin_to_cpu(0).context("pinning the client to a CPU")?;
    }
    Ok(())
}

/// Runs the client's half of a measurement on a thread of its own, which has the first of two CPUs to itself. What is started
/// afterwards, a server or another program, does not inherit that.
pub(crate) fn as_client<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    let pinned = || {
        pin_client(two_cpus())?;
        work()
    };
    let joined = std::thread::scope(|scope| scope.spawn(pinned).join());
    joined.unwrap_or_else(|_| bail!("a thread of the measurement panicked"))
}

impl ServerProcess {
    /// Starts the server and returns when it is ready.
    pub(crate) fn start(pin: bool) -> anyhow::Result<Self> {
        Self::start_with(Setup { pin, ..Setup::default() })
    }

    /// As [`Self::start`], with a CPU of its own where there are two, and so many `connections` allowed; both processes may
    /// open descriptors for them.
    pub(crate) fn start_for(connections: u32) -> anyhow::Result<Self> {
        let most = process::raise_descriptor_limit();
        let needed = u64::from(connections) + OTHER_DESCRIPTORS;
        if let Some(most) = most.filter(|most| *most < needed) {
            bail!(
                "each process needs {needed} descriptors, and the hard limit is {most}; raise it (ulimit -Hn {needed}, or \
                 LimitNOFILE of a service), or ask for fewer connections"
            );
        }
        let mut config = ServerConfig::default();
        config.max_connections = config.max_connections.max(connections);
        config.max_connections_per_uid = config.max_connections_per_uid.max(connections);
        Self::start_configured(two_cpus(), config)
    }

    /// As [`Self::start`], with a provider `openai` at this base address.
    pub(crate) fn start_asking(pin: bool, provider: &str) -> anyhow::Result<Self> {
        Self::start_with(Setup { pin, provider: Some(provider.to_owned()), ..Setup::default() })
    }

    /// As [`Self::start`], with workers that spin by this policy.
    pub(crate) fn start_spinning(pin: bool, spin: SpinPolicy) -> anyhow::Result<Self> {
        let mut config = ServerConfig::default();
        config.spin = spin;
        Self::start_configured(pin, config)
    }

    /// As [`Self::start`], with these settings.
    pub(crate) fn start_configured(pin: bool, config: ServerConfig) -> anyhow::Result<Self> {
        Self::start_with(Setup { pin, config, ..Setup::default() })
    }

    /// As [`Self::start`], as a member of this fleet.
    #[cfg(feature = "fleet")]
    pub(crate) fn start_in_fleet(fleet: bellrope_fleet::FleetSettings) -> anyhow::Result<Self> {
        Self::start_with(Setup { fleet: Some(fleet), ..Setup::default() })
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

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.running.child.id()
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.running.child.try_wait().context("looking after the server")?.is_some())
    }

    /// What it counted.
    pub(crate) fn counters(&mut self) -> anyhow::Result<Counters> {
        self.count("counters")
    }

    /// As [`Self::counters`], after it has given back the pages of its program, so that what it holds can be compared.
    pub(crate) fn settle(&mut self) -> anyhow::Result<Counters> {
        self.count("settle")
    }

    fn count(&mut self, command: &str) -> anyhow::Result<Counters> {
        let answer = self.running.ask(command)?;
        serde_json::from_str(&answer).with_context(|| format!("the server did not say its counters, but {answer:?}"))
    }

    /// Its memory.
    pub(crate) fn memory(&self) -> anyhow::Result<MemoryUse> {
        MemoryUse::of(self.running.child.id()).context("reading the server's memory")
    }

    /// Has the server answer `rounds` ping-pongs over the memory behind descriptor `fd` of this process.
    pub(crate) fn begin_pong(&mut self, fd: i32, rounds: u64) -> anyhow::Result<()> {
        self.begin(&format!("pong {} {fd} {rounds}", std::process::id()))
    }

    /// As [`Self::begin_pong`], asleep between one and the next.
    pub(crate) fn begin_sleeping_pong(&mut self, fd: i32, rounds: u64) -> anyhow::Result<()> {
        self.begin(&format!("sleeping-pong {} {fd} {rounds}", std::process::id()))
    }

    /// Has the server answer over bare slots of this shape, in the memory behind descriptor `fd` of this process.
    pub(crate) fn begin_bare(&mut self, fd: i32, shape: SlotShape) -> anyhow::Result<()> {
        let SlotShape { connections, depth, size } = shape;
        self.begin(&format!("bare {} {fd} {connections} {depth} {size}", std::process::id()))
    }

    /// Has the server answer, beside all else, as a plain program of the NATS server at this address does.
    #[cfg(feature = "fleet")]
    pub(crate) fn begin_nats(&mut self, url: &str) -> anyhow::Result<()> {
        self.begin(&format!("nats {url}"))
    }

    /// What its health server says at `/metrics`.
    #[cfg(feature = "fleet")]
    pub(crate) fn metrics(&self) -> anyhow::Result<String> {
        let mut stream = std::net::TcpStream::connect(self.health()).context("connecting to the server's metrics")?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).context("reading the server's metrics")?;
        Ok(answer)
    }

    /// Has the server connect to `path` and answer sealed memory with sealed memory until that connection ends.
    pub(crate) fn begin_sealed_echo(&mut self, path: &Path) -> anyhow::Result<()> {
        self.begin(&format!("sealed-echo {}", path.display()))
    }

    /// Has the server begin to answer something that is no call.
    fn begin(&mut self, command: &str) -> anyhow::Result<()> {
        let answer = self.running.ask(command)?;
        ensure!(answer == "ponging", "the server does not begin with {command:?}: {answer}");
        Ok(())
    }

    /// Has the server count its allocations from now on, until it is asked for [their number](Self::allocations).
    pub(crate) fn count_allocations(&mut self) -> anyhow::Result<()> {
        let answer = self.running.ask("count")?;
        ensure!(answer == "counting", "the server does not count its allocations: {answer}");
        Ok(())
    }

    /// How often the server allocated since it was told to count.
    pub(crate) fn allocations(&mut self) -> anyhow::Result<u64> {
        self.running.number("counted")
    }

    /// CPU time that the server has used so far, in microseconds.
    pub(crate) fn cpu_time_us(&mut self) -> anyhow::Result<u64> {
        self.running.number("cpu")
    }

    /// The monotonic clock, in microseconds, just before the server began to listen.
    pub(crate) fn listening_us(&self) -> u64 {
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
        command.arg("--config").arg(serde_json::to_string(&setup.config)?);
        if setup.pin {
            command.arg("--pin");
        }
        #[cfg(feature = "fleet")]
        if let Some(fleet) = &setup.fleet {
            command.arg("--fleet").arg(serde_json::to_string(fleet)?);
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

    /// Sends a command that is answered with a number.
    fn number(&mut self, command: &str) -> anyhow::Result<u64> {
        let answer = self.ask(command)?;
        answer.parse().with_context(|| format!("the server answered {command:?} with {answer:?}"))
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
