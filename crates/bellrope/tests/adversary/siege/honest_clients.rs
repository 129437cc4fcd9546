//! Honest clients: those that are timed, and those that keep the server as busy as the hostile do.

use std::{
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bellrope::{
    Client,
    client::{ClientConfig, Connection, Transport},
};
use bellrope_testkit::{role, support::PATIENCE};
use fastrand::Rng;

use super::{CPU_US, DID, HANDSHAKES, LENGTH_MS, cpu_time_us};

/// Milliseconds between two tasks of one client.
const PAUSE_MS: std::ops::Range<u64> = 1..4;

/// What an honest client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    Unary,
    OverTheSocket,
    Async,
    Blocking,
    Stream,
    Handshake,
}

impl Task {
    pub(super) const ALL: [Self; 6] =
        [Self::Unary, Self::OverTheSocket, Self::Async, Self::Blocking, Self::Stream, Self::Handshake];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary calls",
            Self::OverTheSocket => "unary calls over the socket alone",
            Self::Async => "async calls",
            Self::Blocking => "calls that block",
            Self::Stream => "streams of 20 chunks",
            Self::Handshake => "handshakes and a call",
        }
    }

    /// Runs it once, over this client if it needs one.
    fn run(self, path: &Path, client: &Client) -> Result<(), String> {
        let words = |error: &dyn std::fmt::Display| format!("{}: {error}", self.name());
        match self {
            Self::Unary | Self::OverTheSocket => {
                let reply = client.call_within("echo", b"honest", PATIENCE).map_err(|error| words(&error))?;
                assert_eq!(reply, b"honest");
            }
            Self::Async => {
                let reply = client.call_within("later", b"honest", PATIENCE).map_err(|error| words(&error))?;
                assert_eq!(reply, b"honest");
            }
            Self::Blocking => {
                let reply = client.call_within("work", b"honest", PATIENCE).map_err(|error| words(&error))?;
                assert_eq!(reply, b"honest");
            }
            Self::Stream => {
                let chunks = client.stream("count", b"20").map_err(|error| words(&error))?;
                let chunks = chunks.collect::<Result<Vec<_>, _>>().map_err(|error| words(&error))?;
                assert_eq!(chunks.len(), 20);
            }
            Self::Handshake => {
                let mut connection = Connection::connect(path).map_err(|error| words(&error))?;
                let mut reply = Vec::new();
                connection.call("echo", b"honest", &mut reply).map_err(|error| words(&error))?;
                assert_eq!(reply, b"honest");
            }
        }
        Ok(())
    }
}

/// How long tasks took, in microseconds, each kind from the shortest to the longest.
pub(super) struct Took([Vec<u64>; Task::ALL.len()]);

impl Took {
    pub(super) fn percentile(&self, task: Task, percent: usize) -> u64 {
        let sorted = &self.0[task as usize];
        sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
    }
}

/// Runs tasks of every kind at the same time for so long, and at the least so many of each. All succeed.
pub(super) fn run_tasks(path: &Path, length: Duration, fewest: usize) -> Took {
    let deadline = Instant::now() + length;
    std::thread::scope(|scope| {
        let runs = Task::ALL.map(|task| {
            scope.spawn(move || {
                let mut config = ClientConfig::new(path);
                if task == Task::OverTheSocket {
                    config.transport = Transport::Stream;
                }
                let client = Client::with(config).unwrap_or_else(|error| panic!("{}: {error}", task.name()));
                let (mut rng, mut took) = (Rng::with_seed(task as u64), Vec::new());
                while Instant::now() < deadline || took.len() < fewest {
                    let began = Instant::now();
                    task.run(path, &client).unwrap_or_else(|error| panic!("number {}: {error}", took.len()));
                    took.push(u64::try_from(began.elapsed().as_micros()).unwrap());
                    std::thread::sleep(Duration::from_millis(rng.u64(PAUSE_MS)));
                }
                took.sort_unstable();
                took
            })
        });
        Took(runs.map(|run| run.join().unwrap()))
    })
}

/// The well-behaved process: so many connections that call, as often as it takes to come to the CPU time that it was told. As
/// long as there were fewer handshakes than it was told, connections are made anew.
pub(super) fn keep_busy(path: &Path, connections: usize) {
    let (length, most_us) = (Duration::from_millis(role::number(LENGTH_MS)), role::number(CPU_US));
    let (own, server) = (std::process::id(), std::os::unix::process::parent_id());
    let used = || cpu_time_us(own) + cpu_time_us(server);
    let (began, before, calls) = (Instant::now(), used(), Mutex::new(0_u64));
    let (handshakes, at_most) = (AtomicU64::new(0), role::number(HANDSHAKES));
    let is_to_come_anew = || {
        let due = u128::from(at_most) * began.elapsed().as_micros() / 1_000_000;
        u128::from(handshakes.load(Relaxed)) < due && u128::from(handshakes.fetch_add(1, Relaxed)) < due
    };
    let is_ahead = || u128::from(used() - before) > u128::from(most_us) * began.elapsed().as_micros() / 1_000_000;
    std::thread::scope(|scope| {
        for number in 0..connections {
            let (calls, is_ahead, is_to_come_anew) = (&calls, &is_ahead, &is_to_come_anew);
            scope.spawn(move || {
                let (mut connection, mut reply) = (Connection::connect(path).unwrap(), Vec::new());
                let mut rng = Rng::with_seed(number as u64);
                while began.elapsed() < length {
                    // Asking the kernel costs more than a call.
                    if rng.u32(0..8) == 0 {
                        while began.elapsed() < length && is_ahead() {
                            std::thread::sleep(Duration::from_millis(rng.u64(10..40)));
                        }
                    }
                    if is_to_come_anew() {
                        connection = Connection::connect(path).unwrap();
                    }
                    let name = ["later", "later", "work", "echo", "echo", "echo", "echo", "echo"][rng.usize(0..8)];
                    connection.call(name, &[7; 64], &mut reply).unwrap();
                    *calls.lock().unwrap() += 1;
                    std::thread::sleep(Duration::from_micros(rng.u64(100..2_000)));
                }
            });
        }
    });
    role::say(DID, calls.into_inner().unwrap());
}
