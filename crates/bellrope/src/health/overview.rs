//! What `/health` and the live page show of a server.

use std::sync::atomic::Ordering;

use serde::{Serialize, Serializer};

use super::exposition::errors_by_kind;
use crate::{
    BreakerSnapshot, BreakerState, MemoryUse, Metrics, Reloads, ServerConfig, Snapshot, TypeSnapshot,
    status::{LATENCY_BOUNDS_US, Readiness},
};

/// What a server's loops say of themselves: the acceptor whether it takes connections, and who does not answer.
#[derive(Debug)]
pub(super) struct Condition {
    readiness: Readiness,
    max_connections: u64,
    /// The loops that did not answer: workers by their number.
    silent_workers: Vec<usize>,
    silent_acceptor: bool,
}

impl Condition {
    /// To be made when everybody has answered or had the time to.
    pub(super) fn new(metrics: &Metrics, mut silent: Vec<usize>) -> Self {
        let loops = silent.len();
        silent.retain(|index| *index != metrics.acceptor());
        Self {
            readiness: metrics.readiness(),
            max_connections: metrics.max_connections.load(Ordering::Relaxed),
            silent_acceptor: silent.len() < loops,
            silent_workers: silent,
        }
    }

    pub(super) fn status(&self) -> &'static str {
        match self.readiness {
            _ if self.wedged().is_some() => "wedged",
            Readiness::Starting => "starting",
            _ if self.silent_acceptor => "wedged",
            Readiness::Ready => "healthy",
            Readiness::Stopping => "stopping",
            Readiness::Full => "full",
            Readiness::Exhausted => "exhausted",
        }
    }

    /// Why a worker's loop does not turn; `None` if all do.
    pub(super) fn wedged(&self) -> Option<String> {
        let first = self.silent_workers.first()?;
        let more = match self.silent_workers.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        Some(format!("worker {first}{more} does not answer: a handler holds it up, or its thread is gone"))
    }

    /// Why new connections should go elsewhere; `None` if they are welcome.
    pub(super) fn not_ready(&self) -> Option<String> {
        let reason = match self.readiness {
            Readiness::Stopping => "the server is stopping",
            _ if !self.silent_workers.is_empty() => return self.wedged(),
            Readiness::Starting => "the server is starting",
            _ if self.silent_acceptor => "the acceptor does not answer",
            Readiness::Full => {
                return Some(format!("{} connections are open, the limit max_connections", self.max_connections));
            }
            Readiness::Exhausted => "the system has no descriptor left for another connection",
            Readiness::Ready => return None,
        };
        Some(reason.to_owned())
    }
}

/// What `/health` shows.
#[derive(Debug, Serialize)]
pub(super) struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    uptime_seconds: u64,
    total_requests: u64,
    active_connections: u64,
    max_connections: u64,
    queued_requests: u64,
    version: &'static str,
    memory: MemoryUse,
    #[serde(skip_serializing_if = "Option::is_none")]
    buffers: Option<Buffers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<ServerConfig>,
    config_reloads: Reloads,
    breakers: Vec<BreakerRow>,
    types: Vec<TypeRow>,
}

/// What the live page is told every second: `/health`, and what rates and quantiles are made of.
#[derive(Debug, Serialize)]
pub(super) struct Moment {
    /// Milliseconds since the server started.
    at_ms: u64,
    /// Upper bounds of the buckets, in microseconds; one more bucket is beyond them all.
    bounds_us: [u64; LATENCY_BOUNDS_US.len()],
    /// One row a message type, in the order of `types`: calls a bucket.
    buckets: Vec<Vec<u64>>,
    #[serde(serialize_with = "as_map")]
    errors: Vec<(&'static str, u64)>,
    health: Health,
}

#[derive(Debug, Serialize)]
struct Buffers {
    used_bytes: u64,
    limit_bytes: u64,
}

#[derive(Debug, Serialize)]
struct BreakerRow {
    name: String,
    state: BreakerState,
    forced: bool,
    /// Times it has opened.
    opened: u64,
    rejections: u64,
}

#[derive(Debug, Serialize)]
struct TypeRow {
    name: String,
    total: u64,
    runs_on_worker: bool,
    running: u64,
    #[serde(serialize_with = "as_map")]
    outcomes: Vec<(&'static str, u64)>,
}

impl Health {
    pub(super) fn new(metrics: &Metrics, snapshot: Snapshot, condition: &Condition) -> Self {
        Self {
            status: condition.status(),
            reason: condition.not_ready(),
            uptime_seconds: snapshot.uptime_seconds,
            total_requests: snapshot.total_requests(),
            active_connections: snapshot.active_connections,
            max_connections: snapshot.max_connections,
            queued_requests: snapshot.queued_requests,
            version: env!("CARGO_PKG_VERSION"),
            memory: MemoryUse::of(std::process::id()).unwrap_or_default(),
            buffers: snapshot.buffers.map(|(used_bytes, limit_bytes)| Buffers { used_bytes, limit_bytes }),
            limits: metrics.settings.now(),
            config_reloads: snapshot.reloads,
            breakers: snapshot.breakers.into_iter().map(BreakerRow::from).collect(),
            types: snapshot.types.into_iter().map(TypeRow::from).collect(),
        }
    }
}

impl Moment {
    pub(super) fn new(metrics: &Metrics, condition: &Condition) -> Self {
        let snapshot = metrics.snapshot();
        Self {
            at_ms: u64::try_from(metrics.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            bounds_us: LATENCY_BOUNDS_US,
            buckets: snapshot.types.iter().map(|row| row.buckets.clone()).collect(),
            errors: errors_by_kind(&snapshot).collect(),
            health: Health::new(metrics, snapshot, condition),
        }
    }
}

impl From<TypeSnapshot> for TypeRow {
    fn from(row: TypeSnapshot) -> Self {
        let (total, TypeSnapshot { name, runs_on_worker, running, outcomes, .. }) = (row.total(), row);
        Self { name, total, runs_on_worker, running, outcomes }
    }
}

impl From<(String, BreakerSnapshot)> for BreakerRow {
    fn from((name, breaker): (String, BreakerSnapshot)) -> Self {
        let opened = breaker.transitions.iter().filter(|(_, to, _)| *to == BreakerState::Open);
        Self {
            name,
            state: breaker.state,
            forced: breaker.forced,
            opened: opened.map(|(.., count)| count).sum(),
            rejections: breaker.rejections,
        }
    }
}

fn as_map<S: Serializer>(pairs: &[(&'static str, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown of a server that says this of itself while these workers, and perhaps its acceptor, say nothing.
    fn shown(readiness: Readiness, silent_workers: &[usize], silent_acceptor: bool) -> (&'static str, Option<String>) {
        let silent_workers = silent_workers.to_vec();
        let condition = Condition { readiness, max_connections: 7, silent_workers, silent_acceptor };
        (condition.status(), condition.not_ready())
    }

    #[test]
    fn a_server_that_takes_no_connections_says_why() {
        let said = |reason: &str| Some(reason.to_owned());
        assert_eq!(shown(Readiness::Ready, &[], false), ("healthy", None));
        assert_eq!(
            shown(Readiness::Exhausted, &[], false),
            ("exhausted", said("the system has no descriptor left for another connection"))
        );
        assert_eq!(shown(Readiness::Ready, &[], true), ("wedged", said("the acceptor does not answer")));
        assert_eq!(shown(Readiness::Starting, &[], true), ("starting", said("the server is starting")));
        assert_eq!(shown(Readiness::Stopping, &[], false), ("stopping", said("the server is stopping")));
        let full = said("7 connections are open, the limit max_connections");
        assert_eq!(shown(Readiness::Full, &[], false), ("full", full));
        let wedged = said("worker 2, and 1 more does not answer: a handler holds it up, or its thread is gone");
        assert_eq!(shown(Readiness::Ready, &[2, 5], true), ("wedged", wedged));
    }
}
