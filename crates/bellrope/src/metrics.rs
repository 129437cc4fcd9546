//! Counters that the workers keep and anybody may read. No lock, no allocation: each worker writes its own shard with
//! plain stores, a reader sums them up.

use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed},
};

use bellrope_proto::frame::ErrorCode;

/// Upper bounds of the latency buckets, in microseconds. 10 is the user's own target.
pub(crate) const LATENCY_BOUNDS_US: [u64; 16] =
    [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 100_000, 1_000_000, 10_000_000];

/// How calls can end, by name.
pub(crate) const OUTCOMES: [&str; 10] = [
    "ok",
    "handler_error",
    "handler_panic",
    "message_too_large",
    "deadline_exceeded",
    "cancelled",
    "unknown_message_type",
    "rejected",
    "invalid_request",
    "exhausted",
];

/// The row of all message types that no handler has.
pub(crate) const UNKNOWN: &str = "unknown";

/// The place of an error in [`OUTCOMES`].
fn outcome_of(code: ErrorCode) -> usize {
    match code {
        ErrorCode::HandlerPanic => 2,
        ErrorCode::MessageTooLarge => 3,
        ErrorCode::DeadlineExceeded => 4,
        ErrorCode::Cancelled => 5,
        ErrorCode::UnknownMessageType => 6,
        ErrorCode::Rejected => 7,
        ErrorCode::InvalidRequest => 8,
        ErrorCode::Exhausted => 9,
        _ => 1,
    }
}

/// A counter with one writer.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    #[inline]
    fn add(&self, amount: u64) {
        // One writer: a plain load and store costs no locked instruction.
        self.0.store(self.0.load(Relaxed) + amount, Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What one worker counts for one message type.
#[derive(Debug, Default)]
struct TypeCounters {
    outcomes: [Counter; OUTCOMES.len()],
    buckets: [Counter; LATENCY_BOUNDS_US.len() + 1],
    latency_sum_us: Counter,
}

/// What one worker counts.
#[derive(Debug)]
pub(crate) struct Shard {
    /// One a message type, and a last one shared by all unknown types.
    types: Vec<TypeCounters>,
}

impl Shard {
    fn of(&self, message_type: u16) -> &TypeCounters {
        let index = usize::from(message_type).wrapping_sub(1).min(self.types.len() - 1);
        &self.types[index]
    }

    #[inline]
    pub(crate) fn count(&self, message_type: u16, failed: Option<ErrorCode>) {
        self.of(message_type).outcomes[failed.map_or(0, outcome_of)].add(1);
    }

    /// Notes how long a call took, from being taken to being answered. Each call stands for `weight` calls.
    #[inline]
    pub(crate) fn time(&self, message_type: u16, micros: u64, weight: u64) {
        let counters = self.of(message_type);
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < micros);
        counters.buckets[bucket].add(weight);
        counters.latency_sum_us.add(micros * weight);
    }
}

/// All counters of a server.
///
/// Calls are counted exactly. Latencies, from being taken to being answered, are sampled, so that most calls need not
/// read a clock: of the calls that run on a worker only one in a few dozen is timed, and counts for that many; calls of
/// async handlers are all timed.
#[derive(Debug)]
pub struct Metrics {
    names: Vec<String>,
    shards: Vec<Shard>,
    pub(crate) accepted: AtomicU64,
    pub(crate) closed: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) violations: AtomicU64,
    pub(crate) stalled: AtomicU64,
    /// Cleared by the server when it begins to stop.
    pub(crate) serving: AtomicBool,
    pub(crate) started: std::time::Instant,
    pub(crate) max_connections: u64,
}

/// The counters of one message type, summed over the workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeSnapshot {
    /// The type's name; `unknown` for all that no handler has.
    pub name: String,
    /// Calls by outcome.
    pub outcomes: Vec<(&'static str, u64)>,
    /// Calls a latency bucket (not cumulative), the last one beyond every bound. Sampled: see [`Metrics`].
    pub(crate) buckets: Vec<u64>,
    pub(crate) latency_sum_us: u64,
}

impl TypeSnapshot {
    /// Calls that have ended.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.outcomes.iter().map(|(_, count)| count).sum()
    }
}

/// All counters at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// A row a message type.
    pub types: Vec<TypeSnapshot>,
    /// Connections that are open.
    pub active_connections: u64,
    /// Connections that may be open.
    pub max_connections: u64,
    /// Connections refused in the handshake.
    pub refused_connections: u64,
    /// Connections closed because the peer broke the protocol.
    pub violations: u64,
    /// Connections closed because their client left something half done for too long.
    pub stalled: u64,
    /// Seconds since the server started.
    pub uptime_seconds: u64,
}

impl Snapshot {
    /// Calls that have ended, of all types.
    #[must_use]
    pub fn total_requests(&self) -> u64 {
        self.types.iter().map(TypeSnapshot::total).sum()
    }
}

impl Metrics {
    pub(crate) fn new<'a>(names: impl Iterator<Item = &'a str>, workers: usize, max_connections: u64) -> Self {
        let names: Vec<_> = names.map(str::to_owned).chain([UNKNOWN.to_owned()]).collect();
        let shard = || Shard { types: names.iter().map(|_| TypeCounters::default()).collect() };
        Self {
            shards: (0..workers).map(|_| shard()).collect(),
            names,
            accepted: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            violations: AtomicU64::new(0),
            stalled: AtomicU64::new(0),
            serving: AtomicBool::new(true),
            started: std::time::Instant::now(),
            max_connections,
        }
    }

    pub(crate) fn shard(&self, worker: usize) -> &Shard {
        &self.shards[worker]
    }

    /// Connections open now.
    #[must_use]
    pub fn active_connections(&self) -> u64 {
        // Read in this order, a connection that closes meanwhile can not make the difference negative.
        let closed = self.closed.load(Relaxed);
        self.accepted.load(Relaxed).saturating_sub(closed)
    }

    /// Whether the server serves, that is, has not begun to stop.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.serving.load(Acquire)
    }

    /// The sums of all counters.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let sum = |of: &dyn Fn(&Shard) -> u64| self.shards.iter().map(of).sum::<u64>();
        let types = self.names.iter().enumerate().map(|(index, name)| TypeSnapshot {
            name: name.clone(),
            outcomes: OUTCOMES
                .iter()
                .enumerate()
                .map(|(outcome, name)| (*name, sum(&|shard| shard.types[index].outcomes[outcome].value())))
                .collect(),
            buckets: (0..=LATENCY_BOUNDS_US.len())
                .map(|bucket| sum(&|shard| shard.types[index].buckets[bucket].value()))
                .collect(),
            latency_sum_us: sum(&|shard| shard.types[index].latency_sum_us.value()),
        });
        Snapshot {
            types: types.collect(),
            active_connections: self.active_connections(),
            max_connections: self.max_connections,
            refused_connections: self.refused.load(Relaxed),
            violations: self.violations.load(Relaxed),
            stalled: self.stalled.load(Relaxed),
            uptime_seconds: self.started.elapsed().as_secs(),
        }
    }
}

/// Resident memory of a process, from `/proc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct MemoryUse {
    /// All of it (VmRSS), in KiB.
    pub rss_kb: u64,
    /// The part that is anonymous memory: heap and stacks.
    pub anon_kb: u64,
    /// The part that is pages of files: mostly the program itself.
    pub file_kb: u64,
    /// The part that is shared memory: the rings.
    pub shmem_kb: u64,
}

impl MemoryUse {
    /// Memory of the process with this id.
    ///
    /// # Errors
    /// If there is no such process, or `/proc` is not mounted.
    pub fn of(pid: u32) -> std::io::Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_whitespace().nth(1)).and_then(|value| value.parse().ok()).unwrap_or(0)
        };
        Ok(Self {
            rss_kb: field("VmRSS:"),
            anon_kb: field("RssAnon:"),
            file_kb: field("RssFile:"),
            shmem_kb: field("RssShmem:"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_summed_over_workers_and_unknown_types_share_a_row() {
        let metrics = Metrics::new(["echo", "chat"].into_iter(), 2, 10);
        metrics.shard(0).count(1, None);
        metrics.shard(1).count(1, Some(ErrorCode::HandlerPanic));
        metrics.shard(1).count(999, Some(ErrorCode::UnknownMessageType));
        metrics.shard(0).count(0, Some(ErrorCode::UnknownMessageType));
        metrics.shard(0).time(2, 10, 4);
        metrics.shard(0).time(2, 11, 1);
        let snapshot = metrics.snapshot();
        let totals: Vec<_> = snapshot.types.iter().map(|row| (row.name.as_str(), row.total())).collect();
        assert_eq!(totals, [("echo", 2), ("chat", 0), ("unknown", 2)]);
        assert_eq!(snapshot.types[0].outcomes[2], ("handler_panic", 1));
        assert_eq!(snapshot.types[1].buckets[3], 4, "the bound belongs to its bucket");
        assert_eq!(snapshot.types[1].buckets[4], 1);
        assert_eq!(snapshot.types[1].latency_sum_us, 51);
        assert_eq!(snapshot.total_requests(), 4);
    }

    #[test]
    fn our_own_memory_can_be_read() {
        let memory = MemoryUse::of(std::process::id()).unwrap();
        assert!(memory.rss_kb >= memory.anon_kb && memory.anon_kb > 0);
    }
}
