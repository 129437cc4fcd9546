//! Counters that the workers keep and anybody may read. No lock, no allocation: each worker writes its own shard with
//! plain stores, a reader sums them up.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicBool, AtomicU8, AtomicU64,
            Ordering::{Acquire, Relaxed},
        },
    },
    time::{Duration, Instant},
};

use bellrope_proto::{BufferBudget, frame::ErrorCode};

use super::{
    activity::Activity,
    exhibit::Exhibit,
    gauge::Gauge,
    held::HeldThreads,
    liveness::Liveness,
    outcomes::{LATENCY_BOUNDS_US, OUTCOMES, UNKNOWN, outcome_of},
    settings::Settings,
    snapshot::{Snapshot, TypeSnapshot},
};
use crate::breaker::Breaker;

/// A counter with one writer.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    #[inline]
    fn add(&self, amount: u64) {
        // One writer: a plain load and store costs no locked instruction.
        self.0.store(self.0.load(Relaxed) + amount, Relaxed);
    }

    #[inline]
    fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What one worker counts for one message type. On cache lines of its own, which no other worker writes.
#[derive(Debug, Default)]
#[repr(align(64))]
struct TypeCounters {
    outcomes: [Counter; OUTCOMES.len()],
    buckets: [Counter; LATENCY_BOUNDS_US.len() + 1],
    latency_sum_us: Counter,
    /// Calls handed to an async handler, and those of them that have ended.
    began: Counter,
    ended: Counter,
}

/// What one worker counts. Its worker writes it every round, so no other worker's shard may share a line with it.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Shard {
    /// One a message type, and a last one shared by all unknown types.
    types: Vec<TypeCounters>,
    /// Requests that the worker found waiting in its last round over its connections.
    queued: Counter,
    /// Connections whose clients did not read what waited for them when it last looked.
    unread: Counter,
}

impl Shard {
    #[inline(always)]
    fn of(&self, message_type: u16) -> &TypeCounters {
        self.types.get(usize::from(message_type).wrapping_sub(1)).unwrap_or_else(|| self.unknown())
    }

    #[cold]
    fn unknown(&self) -> &TypeCounters {
        &self.types[self.types.len() - 1]
    }

    #[inline(always)]
    pub(crate) fn count(&self, message_type: u16, failed: Option<ErrorCode>) {
        self.of(message_type).outcomes[failed.map_or(0, outcome_of)].add(1);
    }

    /// Notes that an async handler has begun with a call.
    #[cfg(feature = "tokio")]
    #[inline]
    pub(crate) fn began(&self, message_type: u16) {
        self.of(message_type).began.add(1);
    }

    /// Notes that a call which [`Shard::began`] has ended, however.
    #[cfg(feature = "tokio")]
    #[inline]
    pub(crate) fn ended(&self, message_type: u16) {
        self.of(message_type).ended.add(1);
    }

    /// Notes how many requests a round over all connections of the worker has found.
    #[inline]
    pub(crate) fn round(&self, found: u64) {
        self.queued.set(found);
    }

    /// Notes how many connections' clients do not read what waits for them.
    pub(crate) fn unread(&self, connections: u64) {
        self.unread.set(connections);
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
/// read a clock: of the calls that quick handlers answer on a worker only one in a few dozen is timed, and counts for that
/// many; all other calls are timed.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("echo.sock");
/// use std::{sync::{Arc, atomic::AtomicU64}, time::Duration};
///
/// use bellrope::{Server, breaker::{Breaker, BreakerConfig}};
///
/// let server = Server::builder().in_place("echo", |_| Ok(())).bind(&path)?;
/// let metrics = server.metrics();
/// println!("{} calls, {} connections", metrics.total_requests(), metrics.active_connections());
/// assert!(metrics.is_serving() && metrics.ends_in().is_none());
/// let wedged = metrics.wedged_workers(Duration::from_secs(1));
/// println!("workers that a handler holds up: {wedged:?}");
///
/// // What the server depends on is shown with it.
/// metrics.watch_breaker("database", Arc::new(Breaker::new(BreakerConfig::default())?));
/// assert!(metrics.breaker("database").is_some());
/// metrics.forget_breaker("database");
/// let evictions = Arc::new(AtomicU64::new(0));
/// metrics.watch_counter("cache_evictions_total", "Entries that made room for others.", Arc::clone(&evictions));
/// metrics.note_reload(true);
/// assert_eq!(metrics.snapshot().reloads.ok, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Metrics {
    /// One a number of a message type, and a last one for all unknown types. Numbers that are kept for types which are added
    /// later have no name until then, and are not shown.
    names: Vec<OnceLock<String>>,
    shards: Vec<Arc<Shard>>,
    /// The loops of the workers, and then that of the acceptor.
    liveness: Liveness,
    /// What the acceptor last said of itself: a [`Readiness`].
    readiness: AtomicU8,
    /// By name; read by those who watch, never on the data path.
    breakers: Mutex<Vec<(String, Arc<Breaker>)>>,
    /// What the server allows, and how often that was changed.
    pub(crate) settings: Settings,
    /// For each number, whether its type's handler runs on the worker.
    run_on_worker: Vec<AtomicBool>,
    /// What connections hold outside their rings, once it is known.
    pub(crate) budget: OnceLock<Arc<BufferBudget>>,
    pub(crate) held_threads: HeldThreads,
    pub(crate) accepted: AtomicU64,
    pub(crate) closed: AtomicU64,
    /// Connections over transport 1 that are open.
    pub(crate) streams: Gauge,
    pub(crate) refused: AtomicU64,
    pub(crate) violations: AtomicU64,
    pub(crate) stalled: AtomicU64,
    /// Connections that ended before their handshake did, by whatever their client did.
    pub(crate) unfinished: AtomicU64,
    /// Connections that the system broke.
    pub(crate) broken: AtomicU64,
    /// What is counted around the server, by name.
    counted: Mutex<Counted>,
    /// What things around the server show.
    exhibits: Mutex<Vec<Arc<dyn Exhibit>>>,
    pub(crate) log_lines_dropped: AtomicU64,
    /// Handshakes that had to wait, or were turned away, because their process breaks the protocol over and over.
    pub(crate) paced: AtomicU64,
    /// Cleared by the server when it begins to stop.
    pub(crate) serving: AtomicBool,
    pub(crate) started: Instant,
    pub(crate) max_connections: AtomicU64,
    /// Work that comes by other ways than the socket.
    pub(crate) activity: Activity,
    /// When the server ends by itself if nobody comes: milliseconds since its start, or `NEVER`.
    ends_at_ms: AtomicU64,
}

const NEVER: u64 = u64::MAX;

fn named(name: &str) -> OnceLock<String> {
    OnceLock::from(name.to_owned())
}

/// Whether the acceptor takes connections, in its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Its loop has not turned once.
    Starting = 0,
    Ready = 1,
    Stopping = 2,
    /// Every place is taken.
    Full = 3,
    /// The system has no descriptor left for another connection.
    Exhausted = 4,
}

/// Breakers that are shown; more than any registry has message types with a breaker of their own.
const MAX_BREAKERS: usize = 4_096;
/// Counters by name and with their explanations.
type Counted = Vec<(&'static str, &'static str, Arc<AtomicU64>)>;
/// See [`Metrics::watch_counter`].
const MAX_COUNTERS: usize = 64;
/// See [`Metrics::watch_exhibit`].
const MAX_EXHIBITS: usize = 8;

impl Metrics {
    /// The counters of a server with types of these names, and room for so many more.
    pub(crate) fn new<'a>(
        names: impl Iterator<Item = &'a str>,
        room: usize,
        workers: usize,
        max_connections: u64,
    ) -> Self {
        let spare = (0..room).map(|_| OnceLock::new());
        let names: Vec<_> = names.map(named).chain(spare).chain([named(UNKNOWN)]).collect();
        let shard = || Shard {
            types: names.iter().map(|_| TypeCounters::default()).collect(),
            queued: Counter::default(),
            unread: Counter::default(),
        };
        Self {
            liveness: Liveness::new(workers + 1),
            readiness: AtomicU8::new(Readiness::Starting as u8),
            breakers: Mutex::default(),
            settings: Settings::default(),
            run_on_worker: names.iter().map(|_| AtomicBool::new(false)).collect(),
            budget: OnceLock::new(),
            shards: (0..workers).map(|_| Arc::new(shard())).collect(),
            held_threads: HeldThreads::new(names.len() - 1),
            names,
            accepted: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            streams: Gauge::default(),
            refused: AtomicU64::new(0),
            violations: AtomicU64::new(0),
            stalled: AtomicU64::new(0),
            unfinished: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            counted: Mutex::default(),
            exhibits: Mutex::default(),
            log_lines_dropped: AtomicU64::new(0),
            paced: AtomicU64::new(0),
            serving: AtomicBool::new(true),
            started: Instant::now(),
            max_connections: max_connections.into(),
            activity: Activity::default(),
            ends_at_ms: NEVER.into(),
        }
    }

    /// Shows the type of this number, which was added or has got its handler.
    pub(crate) fn show_type(&self, message_type: u16, name: &str, runs_on_worker: bool) {
        let place = usize::from(message_type).wrapping_sub(1);
        if let (Some(known), Some(runs)) = (self.names.get(place), self.run_on_worker.get(place)) {
            known.get_or_init(|| name.to_owned());
            runs.store(runs_on_worker, Relaxed);
        }
    }

    pub(crate) fn shard(&self, worker: usize) -> &Arc<Shard> {
        &self.shards[worker]
    }

    /// Shows a breaker in health and metrics under this name, which is a message type's or that of something else the
    /// server depends on. The latest of one name is shown. Beyond 4,096 names nothing more is.
    pub fn watch_breaker(&self, name: impl Into<String>, breaker: Arc<Breaker>) {
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        let name = name.into();
        if let Some((_, known)) = breakers.iter_mut().find(|(known, _)| *known == name) {
            *known = breaker;
        } else if breakers.len() < MAX_BREAKERS {
            breakers.push((name, breaker));
        }
    }

    /// Shows the breaker of this name no longer.
    pub fn forget_breaker(&self, name: &str) {
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        breakers.retain(|(known, _)| known != name);
    }

    /// Shows a counter of something around the server in `/metrics`, under a name of its own and with this explanation. The
    /// latest of one name is shown; beyond 64 names nothing more is.
    pub fn watch_counter(&self, name: &'static str, help: &'static str, counter: Arc<AtomicU64>) {
        let mut counted = self.counted();
        counted.retain(|(known, ..)| *known != name);
        if counted.len() < MAX_COUNTERS {
            counted.push((name, help, counter));
        }
    }

    /// Shows the metrics and the panel of something around the server. Beyond eight such things nothing more is shown.
    /// [Example](Exhibit).
    pub fn watch_exhibit(&self, exhibit: Arc<dyn Exhibit>) {
        let mut exhibits = self.exhibits.lock().unwrap_or_else(PoisonError::into_inner);
        if exhibits.len() < MAX_EXHIBITS {
            exhibits.push(exhibit);
        }
    }

    /// Everything that is shown.
    pub(crate) fn exhibits(&self) -> Vec<Arc<dyn Exhibit>> {
        self.exhibits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The breaker that is shown under this name, to be steered by hand.
    #[must_use]
    pub fn breaker(&self, name: &str) -> Option<Arc<Breaker>> {
        let breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        breakers.iter().find(|(known, _)| known == name).map(|(_, breaker)| Arc::clone(breaker))
    }

    /// The numbers of workers whose loops do not answer within this time, because a handler holds them up or their
    /// thread is gone; empty as soon as all have answered. Blocks meanwhile: a supervisor may be told that the server
    /// lives whenever this is empty.
    #[must_use]
    pub fn wedged_workers(&self, patience: Duration) -> Vec<usize> {
        let mut silent = self.liveness.listen(patience);
        silent.retain(|index| *index < self.shards.len());
        silent
    }

    /// For the loops, and for those who ask them. The acceptor's number is [`Metrics::acceptor`].
    pub(crate) fn liveness(&self) -> &Liveness {
        &self.liveness
    }

    /// The acceptor's number among the loops.
    pub(crate) fn acceptor(&self) -> usize {
        self.shards.len()
    }

    /// To be called by the acceptor's loop once a turn, with what it finds: says so, then answers who asked.
    pub(crate) fn accepting(&self, exhausted: bool) {
        let readiness = if !self.is_serving() {
            Readiness::Stopping
        } else if self.active_connections() >= self.max_connections.load(Relaxed) {
            Readiness::Full
        } else if exhausted {
            Readiness::Exhausted
        } else {
            Readiness::Ready
        };
        self.readiness.store(readiness as u8, Relaxed);
        self.liveness.beat(self.acceptor());
    }

    /// What the acceptor last said.
    pub(crate) fn readiness(&self) -> Readiness {
        match self.readiness.load(Relaxed) {
            _ if !self.is_serving() => Readiness::Stopping,
            0 => Readiness::Starting,
            1 => Readiness::Ready,
            3 => Readiness::Full,
            4 => Readiness::Exhausted,
            _ => Readiness::Stopping,
        }
    }

    /// Connections open now.
    #[must_use]
    pub fn active_connections(&self) -> u64 {
        // Read in this order, a connection that closes meanwhile can not make the difference negative.
        let closed = self.closed.load(Relaxed);
        self.accepted.load(Relaxed).saturating_sub(closed)
    }

    /// Counts that the settings were read again, and whether that went well. To be called by whoever reads them.
    pub fn note_reload(&self, ok: bool) {
        self.settings.note_reload(ok);
    }

    /// Work that comes to the server by another way than its socket. [Example](Activity).
    #[must_use]
    pub fn activity(&self) -> Activity {
        self.activity.clone()
    }

    /// Notes when the server ends by itself if nobody comes.
    pub(crate) fn ends_at(&self, at: Option<Instant>) {
        let ms = |at: Instant| u64::try_from(at.saturating_duration_since(self.started).as_millis()).unwrap_or(NEVER);
        self.ends_at_ms.store(at.map_or(NEVER, ms), Relaxed);
    }

    /// How long until the server ends by itself if nobody comes. `None`: it does not, or somebody is there.
    #[must_use]
    pub fn ends_in(&self) -> Option<Duration> {
        let at = Some(self.ends_at_ms.load(Relaxed)).filter(|at| *at != NEVER)?;
        Some(Duration::from_millis(at).saturating_sub(self.started.elapsed()))
    }

    /// Whether the server serves, that is, has not begun to stop.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.serving.load(Acquire)
    }

    /// Calls that have ended, of all types: what [`Snapshot::total_requests`] says, without making one.
    #[must_use]
    pub fn total_requests(&self) -> u64 {
        let types = self.shards.iter().flat_map(|shard| &shard.types);
        types.flat_map(|counters| &counters.outcomes).map(Counter::value).sum()
    }

    /// The sums of all counters.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let sum = |of: &dyn Fn(&Shard) -> u64| self.shards.iter().map(|shard| of(shard)).sum::<u64>();
        let now = Instant::now();
        // Those that show something more, below, may ask for a breaker.
        let breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let breakers = breakers.into_iter().map(|(name, breaker)| (name, breaker.snapshot(now))).collect();
        let shown = self.names.iter().enumerate().filter_map(|(index, name)| Some((index, name.get()?)));
        let types = shown.map(|(index, name)| TypeSnapshot {
            name: name.clone(),
            runs_on_worker: self.run_on_worker[index].load(Relaxed),
            // Read in this order, a call that ends meanwhile can not make the difference negative.
            running: {
                let ended = sum(&|shard| shard.types[index].ended.value());
                sum(&|shard| shard.types[index].began.value()).saturating_sub(ended)
            },
            outcomes: OUTCOMES
                .iter()
                .enumerate()
                .map(|(outcome, name)| (*name, sum(&|shard| shard.types[index].outcomes[outcome].value())))
                .collect(),
            buckets: (0..=LATENCY_BOUNDS_US.len())
                .map(|bucket| sum(&|shard| shard.types[index].buckets[bucket].value()))
                .collect(),
            latency_sum: Duration::from_micros(sum(&|shard| shard.types[index].latency_sum_us.value())),
            held_threads: self.held_threads.count(index),
        });
        Snapshot {
            types: types.collect(),
            active_connections: self.active_connections(),
            stream_connections: self.streams.value(),
            max_connections: self.max_connections.load(Relaxed),
            refused_connections: self.refused.load(Relaxed),
            violations: self.violations.load(Relaxed),
            stalled: self.stalled.load(Relaxed),
            unfinished_handshakes: self.unfinished.load(Relaxed),
            broken_connections: self.broken.load(Relaxed),
            families: self.exhibits().iter().flat_map(|exhibit| exhibit.families()).collect(),
            counted: self.counted().iter().map(|(name, help, count)| (*name, *help, count.load(Relaxed))).collect(),
            log_lines_dropped: self.log_lines_dropped.load(Relaxed),
            paced_handshakes: self.paced.load(Relaxed),
            queued_requests: sum(&|shard| shard.queued.value()),
            unread_connections: sum(&|shard| shard.unread.value()),
            waiting_for_buffers: self.budget.get().map_or(0, |budget| budget.waiting()),
            buffers: self.budget.get().map(|budget| (budget.used(), budget.limit())),
            breakers,
            reloads: self.settings.reloads(),
            uptime: now.saturating_duration_since(self.started),
        }
    }
}

#[cfg(test)]
mod tests;
