//! Two processes that measure one task: a server and a client, each this program again, or Node with a script.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use crate::{
    meter::Measured,
    plan::{Peer, Task},
};

/// How long a process may take to start, connect or end.
const PATIENCE: Duration = Duration::from_secs(20);
/// Calls may take much longer than the time they are given: at most this.
const LATE: Duration = Duration::from_secs(30);
const SCRIPT: &str = include_str!("../node/peer.mjs");

/// Measures a task in two fresh processes.
pub(crate) fn measure(peer: Peer, task: &Task) -> anyhow::Result<Measured> {
    let home = Home::new()?;
    let (at_server, at_client) = task.placed.cpus().unzip();
    let server =
        if peer.brings_its_server() { None } else { Some(Running::serve(peer, home.path(), task, at_server)?) };
    let (pid, address) = match &server {
        Some((running, address)) => (running.child.id(), address.as_str()),
        None => (0, "-"),
    };
    let client = Running::call(peer, home.path(), address, pid, task, at_client)?;
    // Three measurements with their warm-ups at most.
    let time = Duration::from_millis(2 * (task.time_ms + task.warm_up_ms) + task.apart_ms + task.warm_up_ms);
    let line = client.line(time + LATE).context("waiting for the client")?;
    serde_json::from_str(&line).with_context(|| format!("reading what the client measured: {line:?}"))
}

/// The limit of whatever spins, as it is now, in microseconds: the median of a cache line that is sent to and fro.
pub(crate) fn limit_us() -> anyhow::Result<f64> {
    let limit = measure(Peer::CacheLine, &Task::limit()).context("measuring the limit")?;
    Ok(limit.round_trip.context("the limit was not measured")?.p50_us)
}

/// Version of Node, if there is one.
pub(crate) fn node_version() -> Option<String> {
    let output = Command::new("node").arg("--version").output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A folder for sockets, and the prefix of names in `/dev/shm`; both go with it.
struct Home(tempfile::TempDir);

/// What these folders' names begin with, followed by the id of this process.
fn prefix() -> String {
    format!("bellrope-peers-{}-", std::process::id())
}

impl Home {
    fn new() -> anyhow::Result<Self> {
        Ok(Self(tempfile::Builder::new().prefix(&prefix()).tempdir().context("making a temporary directory")?))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        remove_named(Path::new("/dev/shm"), &prefix());
    }
}

/// Removes what this run has left behind; for a run that is cut short.
pub(crate) fn remove_leftovers() {
    remove_named(&std::env::temp_dir(), &prefix());
    remove_named(Path::new("/dev/shm"), &prefix());
}

fn remove_named(folder: &Path, prefix: &str) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            let path = entry.path();
            // What cannot be removed harms nobody.
            let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        }
    }
}

/// A child process. It ends when this is dropped; where it still does not, it is killed.
struct Running {
    child: Child,
    lines: mpsc::Receiver<std::io::Result<String>>,
}

impl Running {
    /// Starts a server and waits until it is ready. Returns its address, too.
    fn serve(peer: Peer, home: &Path, task: &Task, cpu: Option<usize>) -> anyhow::Result<(Self, String)> {
        let mut command = if peer.is_node() {
            let mut node = node(home)?;
            node.args(["serve", kind(peer)]).arg(home);
            node
        } else {
            let mut this = this_program()?;
            this.args(["serve", &peer.name(), "--task", &serde_json::to_string(task)?]).arg("--home").arg(home);
            this
        };
        let running = Self::spawn(&mut command, cpu)?;
        let line = running.line(PATIENCE).context("starting the server")?;
        let Some(address) = line.strip_prefix("ready ") else { bail!("the server did not start, but said {line:?}") };
        let address = address.to_owned();
        Ok((running, address))
    }

    fn call(
        peer: Peer,
        home: &Path,
        address: &str,
        server: u32,
        task: &Task,
        cpu: Option<usize>,
    ) -> anyhow::Result<Self> {
        let (server, task) = (server.to_string(), serde_json::to_string(task)?);
        let mut command = if peer.is_node() {
            let mut node = node(home)?;
            node.args(["call", kind(peer), address, &server, &task]);
            node
        } else {
            let mut this = this_program()?;
            this.args(["call", &peer.name(), "--address", address, "--server", &server, "--task", &task]);
            this.arg("--home").arg(home);
            this
        };
        Self::spawn(&mut command, cpu)
    }

    fn spawn(command: &mut Command, cpu: Option<usize>) -> anyhow::Result<Self> {
        let mut start = move || command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        // A child inherits where its parent may run, and so does everything that it starts.
        let mut child = match cpu {
            None => start(),
            Some(cpu) => std::thread::scope(|scope| {
                let starting = scope.spawn(|| {
                    bellrope_shm::process::pin_to_cpu(cpu)?;
                    start()
                });
                starting.join().unwrap_or_else(|_| Err(std::io::Error::other("the starting thread panicked")))
            }),
        }
        .context("starting a process")?;
        let out = child.stdout.take().context("stdout was piped")?;
        Ok(Self { child, lines: lines(out) })
    }

    /// Its next line of output, if that comes in time.
    fn line(&self, time: Duration) -> anyhow::Result<String> {
        match self.lines.recv_timeout(time) {
            Ok(line) => Ok(line?),
            Err(mpsc::RecvTimeoutError::Timeout) => bail!("nothing came within {} s", time.as_secs()),
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("it ended without an answer"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + Duration::from_secs(3);
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(2)),
                _ => return,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(out: ChildStdout) -> mpsc::Receiver<std::io::Result<String>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines() {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn this_program() -> anyhow::Result<Command> {
    Ok(Command::new(std::env::current_exe().context("finding the path of this program")?))
}

fn node(home: &Path) -> anyhow::Result<Command> {
    let script = home.join("peer.mjs");
    std::fs::write(&script, SCRIPT).context("writing Node's script")?;
    let mut node = Command::new("node");
    node.arg(script);
    Ok(node)
}

/// What the script calls this peer.
fn kind(peer: Peer) -> &'static str {
    match peer {
        Peer::NodeJson => "json",
        Peer::NodeAdvanced => "advanced",
        _ => "socket",
    }
}
