//! All counters of a server at one moment, as whoever watches it gets them.

use std::time::Duration;

use super::{exhibit::Family, report::Reloads};
use crate::breaker::BreakerSnapshot;

/// The counters of one message type, summed over the workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeSnapshot {
    /// The type's name; `unknown` for all that no handler has.
    pub name: String,
    /// Calls by outcome.
    pub outcomes: Vec<(&'static str, u64)>,
    /// Whether its handler runs on the worker, so that latencies are Bellrope's own and not those of what it waits for.
    pub runs_on_worker: bool,
    /// Calls and streams that an async handler is working on.
    pub running: u64,
    /// Calls a latency bucket (not cumulative), the last one beyond every bound. Sampled: see [`Metrics`](crate::status::Metrics).
    pub buckets: Vec<u64>,
    /// The sum of all latencies, to the microsecond. Sampled as well.
    pub latency_sum: Duration,
    /// How often its handler held a worker, or an async thread between two points where it waits, for over 10 ms.
    pub held_threads: u64,
}

impl TypeSnapshot {
    /// Calls that have ended. [Example](Snapshot).
    #[must_use]
    pub fn total(&self) -> u64 {
        self.outcomes.iter().map(|(_, count)| count).sum()
    }
}

/// All counters at one moment.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("echo.sock");
/// use bellrope::{Server, status::TypeSnapshot};
///
/// let server = Server::builder().in_place("echo", |_| Ok(())).bind(&path)?;
/// let snapshot = server.metrics().snapshot();
/// assert_eq!(snapshot.total_requests(), snapshot.types.iter().map(TypeSnapshot::total).sum::<u64>());
/// for (kind, count) in snapshot.errors().filter(|(_, count)| *count > 0) {
///     println!("{kind}: {count}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// A row a message type.
    pub types: Vec<TypeSnapshot>,
    /// Connections that are open.
    pub active_connections: u64,
    /// Of those, connections over the socket alone (transport 1).
    pub stream_connections: u64,
    /// Connections that may be open.
    pub max_connections: u64,
    /// Connections refused in the handshake.
    pub refused_connections: u64,
    /// Connections closed because the peer broke the protocol.
    pub violations: u64,
    /// Connections closed because their client left something unread or half done for too long, or while others waited
    /// for the room that it held.
    pub stalled: u64,
    /// Connections that ended before their handshake did: their client hung up, or its socket failed.
    pub unfinished_handshakes: u64,
    /// Connections closed because a system call failed.
    pub broken_connections: u64,
    /// What is counted around the server: name, explanation, count.
    pub counted: Vec<(&'static str, &'static str, u64)>,
    /// What things around the server show.
    pub families: Vec<Family>,
    /// Lines of the log that were left out, so that no client floods it.
    pub log_lines_dropped: u64,
    /// Handshakes that had to wait, or were turned away, because their process broke the protocol over and over.
    pub paced_handshakes: u64,
    /// Requests that the workers found waiting in their last round over their connections.
    pub queued_requests: u64,
    /// Connections whose clients do not read what waits for them, as looked at once a second.
    pub unread_connections: u64,
    /// Connections whose next request waits for room in the buffer budget.
    pub waiting_for_buffers: u64,
    /// Bytes of buffers in use, and how many may be; `None` where the server has no budget.
    pub buffers: Option<(u64, u64)>,
    /// The circuit breakers, by name.
    pub breakers: Vec<(String, BreakerSnapshot)>,
    /// How often the settings were read again.
    pub reloads: Reloads,
    /// How long ago the server started.
    pub uptime: Duration,
}

impl Snapshot {
    /// Calls that have ended, of all types.
    #[must_use]
    pub fn total_requests(&self) -> u64 {
        self.types.iter().map(TypeSnapshot::total).sum()
    }
}
