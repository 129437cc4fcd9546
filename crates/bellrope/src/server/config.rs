//! The settings of a server as users see them, and the half of them that does not change while it runs.

use std::{sync::Arc, time::Duration};

use bellrope_proto::{
    connection::Terms,
    layout::{CAPACITIES, DEFAULT_CAPACITY, DEFAULT_MAX_MESSAGE, Geometry, MESSAGE_LIMITS},
    stream::READ_AHEAD,
};
use bellrope_shm::process;

use crate::{
    breaker::{Breaker, BreakerConfig, BreakerSetting},
    server::{cpu_list::CpuList, error::BindError},
    settings::{millis, setters},
    spin::SpinPolicy,
};

/// What a server allows and how it waits. Checked once, by [`ServerBuilder::bind`](crate::server::ServerBuilder::bind).
/// Times count in whole milliseconds, but `spin_cap`.
///
/// ```
/// use std::time::Duration;
///
/// use bellrope::server::ServerConfig;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = ServerConfig::new().workers(4).max_connections(500).stall_timeout(Duration::from_secs(5));
/// config.check()?;
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("echo.sock");
/// let server = bellrope::Server::builder().config(config).bind(&path)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ServerConfig {
    /// Connections open at once. Default 2,000; each costs at most `2 x (ring_bytes + 4 KiB)` of shared memory and
    /// typically two pages.
    pub max_connections: u32,
    /// Connections open at once of one user. Default 2,000.
    pub max_connections_per_uid: u32,
    /// Connections open at once that are visited ahead of the others. Default 16; 0 allows none.
    pub max_priority_connections: u32,
    /// Handshakes under way at once. Default 256; each costs under 1 KiB.
    pub max_half_open: u32,
    /// How long a client may take for its handshake. Default 1 s. In files `handshake_timeout_ms`.
    #[serde(rename = "handshake_timeout_ms", with = "millis")]
    pub handshake_timeout: Duration,
    /// Bytes of one ring, a power of two from 4,096 to 16 MiB. Default 256 KiB; a message over a quarter of it travels
    /// in parts.
    pub ring_bytes: u32,
    /// Bytes of the largest request and of the largest response, 1 to 1 GiB. Default 10 MiB.
    pub max_message_bytes: u32,
    /// Bytes that all connections together may hold outside their rings: large messages, and payloads and streams of
    /// async calls. Default 64 MiB, at least `max_message_bytes` and a fifteenth of that more. Over it, requests wait in their rings. Memory is only
    /// used as far as messages need it.
    pub buffer_budget_bytes: u64,
    /// How long a request may wait for that budget before it is refused. Default 1 s. In files `budget_wait_ms`.
    #[serde(rename = "budget_wait_ms", with = "millis")]
    pub budget_wait: Duration,
    /// How long the client of a large request that was let in may keep the server waiting while others wait for that budget,
    /// beyond what its parts buy at 16 MiB a second; then the request is refused. Default 500 ms. In files
    /// `budget_grace_ms`.
    #[serde(rename = "budget_grace_ms", with = "millis")]
    pub budget_grace: Duration,
    /// How long a client may leave answers unread that the server holds for it, or a large request unfinished, before its
    /// connection is closed. Default 30 s. In files `stall_timeout_ms`.
    ///
    /// A handler that waits on a [blocking thread](Self::blocking_threads) for its caller to send or to read gives that up after
    /// so long at once, and after so long in all with a second more for each 16 MiB that came or went, as long as other calls wait
    /// for a thread; for the second limit none of them must have had one for a second.
    #[serde(rename = "stall_timeout_ms", with = "millis")]
    pub stall_timeout: Duration,
    /// How long the server goes on without any connection. Then it ends in good order; a new one waits for its first client
    /// for 5 s at the least. Default 0: for ever. In files `exit_when_idle_ms`.
    #[serde(rename = "exit_when_idle_ms", with = "millis")]
    pub exit_when_idle: Duration,
    /// Breaks of the protocol that a process may be guilty of at once before its handshakes wait, at most 10,000. Default
    /// 10. A process that breaks none never waits.
    pub violation_allowance: u32,
    /// How long each break beyond that keeps the handshakes of its process waiting, at most a minute: one that goes on and
    /// on gets a connection for every two of these. Default 100 ms; 0 lets nobody wait. In files `violation_pause_ms`.
    #[serde(rename = "violation_pause_ms", with = "millis")]
    pub violation_pause: Duration,
    /// Calls and streams under way on one connection. Default 1,024; the buffer budget bounds what they hold.
    pub max_in_flight: u32,
    /// Bytes a stream may send ahead of its reader. Default 64 KiB.
    pub stream_window: u32,
    /// Whether clients may have their records sent over the socket alone, without shared memory: those that cannot map memory,
    /// and all of them where the system has none for the server. Default yes.
    pub stream_transport: bool,
    /// Worker threads. 0, the default, means one for every four CPUs, and at least one.
    pub workers: u32,
    /// The CPUs that workers run on: each has one of them, the first worker the first CPU, and so on. Default none: the
    /// scheduler places them, which suits most machines. With several NUMA nodes, name CPUs of the node on which the clients
    /// run. Where `workers` is 0 there is one for each of these.
    pub worker_cpus: CpuList,
    /// Threads for async handlers, unless they have a [runtime](crate::server::ServerBuilder::runtime) of their own. Default
    /// 1. There are none without such handlers.
    pub async_threads: u32,
    /// Handlers that may [block](crate::server::ServerBuilder::unary_blocking) at once, each on a thread. Default 16; threads
    /// are started as they are needed, and end when they are not.
    pub blocking_threads: u32,
    /// When the breaker of a message type opens, and what closes it. There is one a type.
    pub breaker: BreakerConfig,
    /// When a worker spins instead of sleeping. Default `adaptive`.
    pub spin: SpinPolicy,
    /// How long an adaptive worker spins at most before it sleeps. Default 50 us. In files `spin_cap_us`.
    #[serde(rename = "spin_cap_us", with = "micros")]
    pub spin_cap: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            max_connections: 2_000,
            max_connections_per_uid: 2_000,
            max_priority_connections: 16,
            max_half_open: 256,
            handshake_timeout: Duration::from_secs(1),
            ring_bytes: DEFAULT_CAPACITY,
            max_message_bytes: DEFAULT_MAX_MESSAGE,
            buffer_budget_bytes: 64 * 1024 * 1024,
            budget_wait: Duration::from_secs(1),
            budget_grace: Duration::from_millis(500),
            stall_timeout: Duration::from_secs(30),
            exit_when_idle: Duration::ZERO,
            violation_allowance: 10,
            violation_pause: Duration::from_millis(100),
            max_in_flight: 1_024,
            stream_window: 64 * 1024,
            stream_transport: true,
            workers: 0,
            worker_cpus: CpuList::default(),
            async_threads: 1,
            blocking_threads: 16,
            breaker: BreakerConfig::default(),
            spin: SpinPolicy::Adaptive,
            spin_cap: Duration::from_micros(50),
        }
    }
}

setters!(ServerConfig {
    max_connections: u32,
    max_connections_per_uid: u32,
    max_priority_connections: u32,
    max_half_open: u32,
    handshake_timeout: Duration,
    ring_bytes: u32,
    max_message_bytes: u32,
    buffer_budget_bytes: u64,
    budget_wait: Duration,
    budget_grace: Duration,
    stall_timeout: Duration,
    exit_when_idle: Duration,
    violation_allowance: u32,
    violation_pause: Duration,
    max_in_flight: u32,
    stream_window: u32,
    stream_transport: bool,
    workers: u32,
    worker_cpus: CpuList,
    async_threads: u32,
    blocking_threads: u32,
    breaker: BreakerConfig,
    spin: SpinPolicy,
    spin_cap: Duration,
});

impl ServerConfig {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks every setting, as [`ServerBuilder::bind`](crate::server::ServerBuilder::bind) does.
    ///
    /// # Errors
    /// [`BindError::Setting`] of the first one that is out of its range.
    pub fn check(&self) -> Result<(), BindError> {
        self.terms()?;
        self.breakers(0).map(drop)
    }

    /// Bytes that connections, all of them open and each with its rings full, and the buffer budget may come to at the very
    /// most: `max_connections` times two rings, one reply that waits for room and, with `stream_transport`, 8 KiB that
    /// came ahead of the rings, and `buffer_budget_bytes`. The program itself, its threads and its handlers come on top.
    ///
    /// ```
    /// let gib = f64::from(1 << 30);
    /// assert!(bellrope::server::ServerConfig::default().memory_bound() as f64 <= 1.2 * gib);
    /// ```
    #[must_use]
    pub fn memory_bound(&self) -> u64 {
        let ring = u64::from(self.ring_bytes);
        let rings = Geometry::new(self.ring_bytes).map_or(2 * ring, |geometry| geometry.mapping_len() as u64);
        let reply = (ring / 4).min(self.max_message_bytes.into());
        let ahead = if self.stream_transport { READ_AHEAD as u64 } else { 0 };
        u64::from(self.max_connections).saturating_mul(rings + reply + ahead).saturating_add(self.buffer_budget_bytes)
    }

    /// Checks every setting and makes what a connection is offered.
    fn terms(&self) -> Result<Terms, BindError> {
        let geometry = Geometry::new(self.ring_bytes).ok_or_else(|| {
            debug_assert_eq!(CAPACITIES, 4096..=16 * 1024 * 1024);
            setting("ring_bytes", self.ring_bytes, "and must be a power of two from 4096 to 16777216")
        })?;
        let times = [
            ("budget_grace_ms", self.budget_grace),
            ("stall_timeout_ms", self.stall_timeout),
            ("handshake_timeout_ms", self.handshake_timeout),
            ("budget_wait_ms", self.budget_wait),
            ("exit_when_idle_ms", self.exit_when_idle),
        ]
        .map(|(key, time)| (key, millis::of(time)));
        let counts = [
            ("max_connections", self.max_connections),
            ("max_connections_per_uid", self.max_connections_per_uid),
            ("max_half_open", self.max_half_open),
            ("max_in_flight", self.max_in_flight),
            ("stream_window", self.stream_window),
        ]
        .map(|(key, count)| (key, u64::from(count)));
        for (key, value) in counts.into_iter().chain(times) {
            if value == 0 && !["budget_wait_ms", "exit_when_idle_ms"].contains(&key) {
                return Err(setting(key, value, "and must be at least 1"));
            }
        }
        for (key, value) in times {
            if value > millis::LONGEST {
                return Err(setting(key, value, "and must be at most 4294967295"));
            }
        }
        if self.workers > 1024 {
            return Err(setting("workers", self.workers, "and must be at most 1024"));
        }
        if let Some(cpu) = self.worker_cpus.iter().find(|cpu| !process::may_run_on(*cpu)) {
            let expected = "which is no CPU that this process may run on (nproc, taskset)";
            return Err(setting("worker_cpus", cpu as u64, expected));
        }
        for (key, threads) in [("async_threads", self.async_threads), ("blocking_threads", self.blocking_threads)] {
            if !(1..=1024).contains(&threads) {
                return Err(setting(key, threads, "and must be from 1 to 1024"));
            }
        }
        if self.violation_allowance > 10_000 {
            return Err(setting("violation_allowance", self.violation_allowance, "and must be at most 10000"));
        }
        let violation_pause = millis::of(self.violation_pause);
        if violation_pause > 60_000 {
            return Err(setting("violation_pause_ms", violation_pause, "and must be at most 60000"));
        }
        if !MESSAGE_LIMITS.contains(&self.max_message_bytes) {
            debug_assert_eq!(MESSAGE_LIMITS, 1..=1024 * 1024 * 1024);
            return Err(setting("max_message_bytes", self.max_message_bytes, "and must be from 1 to 1073741824"));
        }
        // Beside one that is held by somebody else, or that its own process holds already.
        let for_one = self.buffer_budget_bytes - self.buffer_budget_bytes / 16;
        if for_one < u64::from(self.max_message_bytes) {
            return Err(BindError::Setting {
                key: "buffer_budget_bytes",
                value: self.buffer_budget_bytes,
                expected: "and must be at least max_message_bytes and a fifteenth of that more, or a message of that size might \
                           find no room beside anything else",
            });
        }
        Ok(Terms {
            geometry,
            max_message: self.max_message_bytes,
            max_in_flight: self.max_in_flight,
            stream_window: self.stream_window,
        })
    }

    /// Checks every setting and takes those that hold as long as the server runs.
    pub(crate) fn fixed(&self) -> Result<FixedSettings, BindError> {
        Ok(FixedSettings {
            terms: self.terms()?,
            stream_transport: self.stream_transport,
            workers: match self.workers {
                0 if !self.worker_cpus.is_empty() => self.worker_cpus.len(),
                0 => (process::usable_cpus() / 4).max(1),
                count => count as usize,
            },
            spin: self.spin,
            spin_cap: self.spin_cap,
        })
    }

    /// Makes a breaker for each of so many message types.
    pub(crate) fn breakers(&self, types: usize) -> Result<Vec<Arc<Breaker>>, BindError> {
        self.breaker.check().map_err(breaker_setting)?;
        let breakers = (0..types).map(|_| Breaker::new(self.breaker.clone()).map(Arc::new));
        breakers.collect::<Result<_, _>>().map_err(breaker_setting)
    }
}

/// The settings that hold as long as the server runs: what connections are told, and what is set up at the start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FixedSettings {
    /// What every connection is offered.
    pub(crate) terms: Terms,
    /// Whether it may ask for transport 1.
    pub(crate) stream_transport: bool,
    /// Worker threads.
    pub(crate) workers: usize,
    /// When a worker spins instead of sleeping, and for how long at the most.
    pub(crate) spin: SpinPolicy,
    pub(crate) spin_cap: Duration,
}

fn setting(key: &'static str, value: impl Into<u64>, expected: &'static str) -> BindError {
    BindError::Setting { key, value: value.into(), expected }
}

/// What a setting of the breakers that is out of its range is called among the server's.
pub(crate) fn breaker_setting(BreakerSetting { key, value, expected }: BreakerSetting) -> BindError {
    BindError::Setting { key, value, expected }
}

/// Times as whole microseconds in files.
mod micros {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u32::deserialize(deserializer).map(|micros| Duration::from_micros(micros.into()))
    }
}
