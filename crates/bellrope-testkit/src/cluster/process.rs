//! One process of the cluster: another run of the test's own program, and what it holds of the system.

use std::{
    fs,
    io::Write,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use super::conventions::{JOURNAL, KILL_AT, NUMBER, PATIENCE, ROLE, SOCKET, eventually};

/// What a process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The server.
    Server,
    /// One of its clients.
    Client,
}

/// A process. It dies with this at the latest.
pub(super) struct Process {
    child: Child,
    /// The test that it is a run of.
    pub(super) test: &'static str,
    pub(super) role: Role,
    pub(super) number: u64,
    pub(super) journal: PathBuf,
    /// Bytes of its journal that are of no interest any more.
    pub(super) seen: usize,
}

/// What is known of a process, dead or alive.
pub(super) struct Life {
    pub(super) role: Role,
    pub(super) number: u64,
    pub(super) journal: PathBuf,
    /// When it was killed, on the clock of the machine.
    pub(super) killed_at_us: Option<u64>,
    /// When it was asked to retire.
    pub(super) retired_at_us: Option<u64>,
}

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    descriptors: usize,
    /// Of the rings of connections, shared or its own.
    pub(super) mappings: usize,
    threads: usize,
}

impl Process {
    /// Starts one. `kill_at` says where it is to kill itself, if it is.
    pub(super) fn start(home: &Path, test: &'static str, role: Role, number: u64, kill_at: Option<&str>) -> Self {
        let name = match role {
            Role::Server => "server",
            Role::Client => "client",
        };
        let journal = home.join(format!("{name}-{number}"));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([test, "--exact", "--nocapture"])
            .env(ROLE, name)
            .env(NUMBER, number.to_string())
            .env(SOCKET, socket(home))
            .env(JOURNAL, &journal)
            .env_remove(KILL_AT)
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        if let Some(kill_at) = kill_at {
            command.env(KILL_AT, kill_at);
        }
        let child = command.spawn().unwrap();
        Self { child, test, role, number, journal, seen: 0 }
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What a server holds that has no client yet: to be asked before anybody may have connected.
    pub(super) fn bare_usage(&self) -> Usage {
        let ready = ready_mark(&self.journal);
        eventually("a server starts", || ready.exists().then_some(()).ok_or_else(|| "it has not".to_owned()));
        Usage::of(self.id())
    }

    /// Kills it with SIGKILL, and returns when it is gone.
    pub(super) fn kill(&mut self) {
        self.send_kill();
        self.child.wait().unwrap();
    }

    /// Sends it SIGKILL.
    pub(super) fn send_kill(&mut self) {
        self.child.kill().unwrap();
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Asks it to end while others need it.
    pub(super) fn retire(&mut self) {
        self.child.stdin.as_mut().expect("it was not dismissed yet").write_all(b"!").unwrap();
    }

    /// Asks it to end.
    pub(super) fn dismiss(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits until it has ended.
    pub(super) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < deadline, "{} does not end within {PATIENCE:?}", self.journal.display());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Life {
    pub(super) fn of(process: &Process) -> Self {
        Self {
            role: process.role,
            number: process.number,
            journal: process.journal.clone(),
            killed_at_us: None,
            retired_at_us: None,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Usage {
    /// What a process that lives holds.
    pub(super) fn of(id: u32) -> Self {
        let entries = |what: &str| fs::read_dir(format!("/proc/{id}/{what}")).map_or(0, Iterator::count);
        let maps = fs::read_to_string(format!("/proc/{id}/maps")).unwrap_or_default();
        Self {
            descriptors: entries("fd"),
            mappings: maps.lines().filter(|line| is_of_rings(line)).count(),
            threads: entries("task"),
        }
    }

    /// The same with so many connections: each has a socket and a mapping.
    pub(super) fn with_connections(self, connections: usize) -> Self {
        Self { descriptors: self.descriptors + connections, mappings: self.mappings + connections, ..self }
    }
}

/// Whether a line of a process's mappings is one of a connection's memory: shared, or shared with nobody but made as that is.
fn is_of_rings(line: &str) -> bool {
    line.contains("/memfd:bellrope") || line.ends_with("/dev/zero (deleted)")
}

pub(super) fn was_killed(status: ExitStatus) -> bool {
    // SIGKILL, the same everywhere.
    status.signal() == Some(9)
}

/// Where a cluster's server listens.
pub(super) fn socket(home: &Path) -> PathBuf {
    home.join("run").join("bell.sock")
}

/// A file that a server makes when it listens.
pub(super) fn ready_mark(journal: &Path) -> PathBuf {
    journal.with_extension("ready")
}
