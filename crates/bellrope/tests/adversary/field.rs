//! The server under attack, and what it holds.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bellrope::{HandlerError, Server, server::ServerConfig, status::Snapshot};
use bellrope_shm::clock;
use bellrope_testkit::{
    ledger::{Event, Flow},
    payload, support,
};
use tempfile::TempDir;

use crate::{HONEST, honest};

/// Limits of this server, small enough to be reached.
pub(crate) const MAX_CONNECTIONS: u32 = 80;
pub(crate) const MAX_HALF_OPEN: u32 = 16;
pub(crate) const MAX_IN_FLIGHT: u32 = 64;
/// Time enough for fifty honest clients and a burst of half-open handshakes on a machine that has other things to do.
pub(crate) const HANDSHAKE_TIMEOUT_MS: u32 = 1_000;
/// The largest request of an honest client.
pub(crate) const LARGEST: usize = 100_000;

pub(crate) struct Field {
    pub(crate) server: Server,
    pub(crate) path: PathBuf,
    /// Handlers of `never` and `endless` that were dropped.
    pub(crate) dropped: Arc<AtomicUsize>,
    /// What the handlers of honest calls note.
    pub(crate) notes: Notes,
    _home: TempDir,
}

/// Events in the order in which they were noted.
#[derive(Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Vec<Event>>>);

/// What a process holds of the kernel's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Holdings {
    descriptors: usize,
    threads: usize,
    rings: usize,
}

impl Field {
    pub(crate) fn open() -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run").join("test.sock");
        let (dropped, notes) = (Arc::default(), Notes::default());
        let [now, delayed, numbers, sum] = std::array::from_fn(|_| notes.clone());
        let server = support::builder(&dropped)
            .unary("now", move |call, reply| {
                now.ran(call.payload())?;
                reply.put(call.payload());
                Ok(())
            })
            .unary_async("delayed", move |call| {
                let ran = delayed.ran(call.payload());
                async move {
                    ran?;
                    tokio::task::yield_now().await;
                    Ok(call.into_payload())
                }
            })
            .server_stream("numbers", move |call, mut chunks| {
                let ran = numbers.ran(call.payload());
                async move {
                    let call = ran?;
                    for number in 0..chunks_of(call) {
                        chunks.send(payload::chunk(call, number, payload::LEAST_CHUNK + 100)).await?;
                    }
                    Ok(())
                }
            })
            .client_stream("sum", move |call, mut chunks| {
                let (notes, ran) = (sum.clone(), sum.ran(call.payload()));
                async move {
                    let call = ran?;
                    let mut number = 0;
                    while let Some(chunk) = chunks.next().await {
                        if chunk != payload::chunk(call, number, payload::LEAST_CHUNK) {
                            return Err(HandlerError::invalid_request("a chunk of somebody else's"));
                        }
                        notes.note(Event::Chunk { call, flow: Flow::Up, number });
                        number += 1;
                    }
                    notes.note(Event::Whole { call, flow: Flow::Up, total: number });
                    Ok(payload::of(call, payload::LEAST))
                }
            })
            // Takes a stream and never reads it.
            .client_stream("deaf", |_, chunks| async move {
                std::future::pending::<()>().await;
                drop(chunks);
                Ok(Vec::new())
            })
            .config(settings(Duration::ZERO))
            .bind(&path)
            .unwrap();
        Self { server, path, dropped, notes, _home: home }
    }

    /// From now on whoever breaks the protocol over and over waits, as by default. Until then nobody does: scripted
    /// attacks come from the process of the honest clients.
    pub(crate) fn let_offenders_wait(&self) {
        let waiting = self.server.reload(&settings(ServerConfig::default().violation_pause)).unwrap();
        assert!(waiting.is_empty(), "{waiting:?}");
    }

    pub(crate) fn counts(&self) -> Snapshot {
        self.server.metrics().snapshot()
    }

    pub(crate) fn connections(&self) -> u64 {
        self.server.metrics().active_connections()
    }

    pub(crate) fn dropped(&self) -> usize {
        self.dropped.load(SeqCst)
    }

    /// Bytes of the buffer budget in use.
    pub(crate) fn buffered(&self) -> u64 {
        self.counts().buffers.map_or(0, |(used, _)| used)
    }

    /// Whether every worker's loop turns: whether `/live` would say so.
    pub(crate) fn is_live(&self) -> bool {
        self.server.metrics().wedged_workers(Duration::from_millis(500)).is_empty()
    }
}

fn settings(violation_pause: Duration) -> ServerConfig {
    let mut config = ServerConfig::default();
    config.max_connections = MAX_CONNECTIONS;
    config.max_half_open = MAX_HALF_OPEN;
    config.max_in_flight = MAX_IN_FLIGHT;
    config.handshake_timeout = Duration::from_millis(HANDSHAKE_TIMEOUT_MS.into());
    config.stall_timeout = Duration::from_millis(1_500);
    config.violation_pause = violation_pause;
    config
}

/// Chunks that a stream of a call has.
pub(crate) fn chunks_of(call: u64) -> u64 {
    call * 31 % 20
}

impl Notes {
    pub(crate) fn note(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }

    pub(crate) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// Notes that a call runs, unless its request is none of an honest client's: adversaries may call this, too.
    fn ran(&self, request: &[u8]) -> Result<u64, HandlerError> {
        let number = request.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let honest = |call: &u64| {
            (1..=HONEST).contains(&(call >> honest::OWN_BITS))
                && request.len() <= LARGEST
                && request == payload::of(*call, request.len())
        };
        let Some(call) = number.filter(honest) else {
            return Err(HandlerError::invalid_request("no honest request"));
        };
        self.note(Event::Ran { call, at_us: clock::monotonic_us() });
        Ok(call)
    }
}

impl Holdings {
    /// Of this process.
    pub(crate) fn count() -> Self {
        let entries = |path: &str| fs::read_dir(path).unwrap().count();
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        Self {
            descriptors: entries("/proc/self/fd"),
            threads: entries("/proc/self/task"),
            rings: maps.lines().filter(|line| line.contains("memfd:bellrope")).count(),
        }
    }

    pub(crate) fn no_rings(&self) -> bool {
        self.rings == 0
    }

    /// With so many descriptors and mappings more.
    pub(crate) fn and(&self, descriptors: usize, rings: usize) -> Self {
        Self { descriptors: self.descriptors + descriptors, threads: self.threads, rings: self.rings + rings }
    }
}

/// Sockets that this process has open.
pub(crate) fn sockets() -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    links.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}
