//! What the server says of itself, and what two such moments make: rates and quantiles. No socket, no terminal.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::operator::BreakerRow;

/// An answer of `bellrope.stats`. Fields that are not there are zero: a server may be older.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    /// Milliseconds since the server started.
    at_ms: u64,
    /// Upper bounds of the buckets, in microseconds.
    bounds_us: Vec<u64>,
    /// Calls a bucket, a row a message type.
    buckets: Vec<Vec<u64>>,
    errors: BTreeMap<String, u64>,
    health: Health,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Health {
    status: String,
    reason: Option<String>,
    version: String,
    uptime_seconds: u64,
    total_requests: u64,
    active_connections: u64,
    max_connections: u64,
    queued_requests: u64,
    memory: Memory,
    buffers: Option<Buffers>,
    breakers: Vec<BreakerRow>,
    types: Vec<TypeRow>,
}

/// Resident memory, with its parts: heap and stacks, pages of the program, rings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Memory {
    pub(crate) rss_kb: u64,
    pub(crate) anon_kb: u64,
    pub(crate) file_kb: u64,
    pub(crate) shmem_kb: u64,
}

/// What connections hold outside their rings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Buffers {
    pub(crate) used_bytes: u64,
    pub(crate) limit_bytes: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct TypeRow {
    name: String,
    total: u64,
    runs_on_worker: bool,
    running: u64,
    outcomes: BTreeMap<String, u64>,
}

/// What is shown, and printed as JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct View {
    pub(crate) status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    pub(crate) version: String,
    pub(crate) uptime_seconds: u64,
    pub(crate) calls: u64,
    pub(crate) calls_per_second: f64,
    pub(crate) errors_per_second: f64,
    /// Of the types whose handlers run on a worker.
    pub(crate) latency: Latency,
    pub(crate) active_connections: u64,
    pub(crate) max_connections: u64,
    pub(crate) queued_requests: u64,
    pub(crate) memory: Memory,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) buffers: Option<Buffers>,
    pub(crate) breakers: Vec<BreakerRow>,
    pub(crate) types: Vec<TypeView>,
}

/// A message type.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct TypeView {
    pub(crate) name: String,
    pub(crate) calls: u64,
    pub(crate) calls_per_second: f64,
    /// Calls that did not end well, ever.
    pub(crate) failed: u64,
    pub(crate) running: u64,
    pub(crate) latency: Latency,
}

/// Upper bounds of the buckets that the quantiles are in, in microseconds; absent where nothing was timed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50_us: Option<u64>,
    pub(crate) p95_us: Option<u64>,
    pub(crate) p99_us: Option<u64>,
}

/// What the asking thread has learned.
#[derive(Debug)]
pub(super) enum News {
    Status(Box<Status>),
    /// Why nothing can be learned at present.
    Lost(String),
}

impl Status {
    /// What there is to see now. Rates and quantiles are of the time since `before`, if that was the same server.
    pub(crate) fn since(&self, before: Option<&Self>) -> View {
        // A server that has started again counts from zero.
        let before = before.filter(|before| before.at_ms < self.at_ms && self.is_same_server(before));
        let seconds = before.map_or(0.0, |before| (self.at_ms - before.at_ms) as f64 / 1_000.0);
        let rate = |now: u64, then: Option<u64>| match then {
            Some(then) if seconds > 0.0 => now.saturating_sub(then) as f64 / seconds,
            _ => 0.0,
        };
        let errors = |status: &Self| status.errors.values().sum::<u64>();
        let mut on_workers = Vec::new();
        let types = self.health.types.iter().enumerate().map(|(index, row)| {
            let buckets = self.buckets_since(index, before);
            if row.runs_on_worker {
                add(&mut on_workers, &buckets);
            }
            TypeView {
                name: row.name.clone(),
                calls: row.total,
                calls_per_second: rate(row.total, before.map(|before| before.health.types[index].total)),
                failed: row.total.saturating_sub(row.outcomes.get("ok").copied().unwrap_or(0)),
                running: row.running,
                latency: self.latency(&buckets),
            }
        });
        let types = types.collect();
        let health = &self.health;
        View {
            status: health.status.clone(),
            reason: health.reason.clone(),
            version: health.version.clone(),
            uptime_seconds: health.uptime_seconds,
            calls: health.total_requests,
            calls_per_second: rate(health.total_requests, before.map(|before| before.health.total_requests)),
            errors_per_second: rate(errors(self), before.map(errors)),
            latency: self.latency(&on_workers),
            active_connections: health.active_connections,
            max_connections: health.max_connections,
            queued_requests: health.queued_requests,
            memory: health.memory.clone(),
            buffers: health.buffers.clone(),
            breakers: health.breakers.clone(),
            types,
        }
    }

    fn is_same_server(&self, before: &Self) -> bool {
        let names = |status: &Self| status.health.types.iter().map(|row| row.name.clone()).collect::<Vec<_>>();
        self.health.total_requests >= before.health.total_requests && names(self) == names(before)
    }

    fn buckets_since(&self, index: usize, before: Option<&Self>) -> Vec<u64> {
        let row = |status: &Self| status.buckets.get(index).cloned().unwrap_or_default();
        let then = before.map(row).unwrap_or_default();
        let since = |(at, now): (usize, u64)| now.saturating_sub(then.get(at).copied().unwrap_or(0));
        row(self).into_iter().enumerate().map(since).collect()
    }

    fn latency(&self, buckets: &[u64]) -> Latency {
        let total: u64 = buckets.iter().sum();
        let quantile = |percent: u64| {
            let rank = (total * percent).div_ceil(100).max(1);
            let mut seen = 0;
            let bucket = buckets.iter().position(|count| {
                seen += count;
                seen >= rank
            });
            // Beyond all bounds is at least the last one.
            bucket.and_then(|bucket| self.bounds_us.get(bucket).or(self.bounds_us.last())).copied()
        };
        Latency { p50_us: quantile(50), p95_us: quantile(95), p99_us: quantile(99) }
    }
}

fn add(sum: &mut Vec<u64>, more: &[u64]) {
    sum.resize(sum.len().max(more.len()), 0);
    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(at_ms: u64, calls: u64, buckets: [u64; 4]) -> Status {
        let row = |name: &str, total: u64, runs_on_worker| TypeRow {
            name: name.to_owned(),
            total,
            runs_on_worker,
            outcomes: [("ok".to_owned(), total)].into(),
            ..TypeRow::default()
        };
        Status {
            at_ms,
            bounds_us: vec![1, 10, 100],
            buckets: vec![buckets.to_vec(), vec![0, 0, 7, 0]],
            health: Health {
                total_requests: calls,
                types: vec![row("echo", calls, true), row("chat", 7, false)],
                ..Health::default()
            },
            ..Status::default()
        }
    }

    #[test]
    fn rates_and_quantiles_are_of_the_time_between_two_moments() {
        let (before, now) = (status(1_000, 50, [50, 0, 0, 0]), status(3_000, 250, [100, 148, 1, 1]));
        let view = now.since(Some(&before));
        assert_eq!((view.calls, view.calls_per_second), (250, 100.0));
        let Latency { p50_us, p95_us, p99_us } = view.latency;
        assert_eq!((p50_us, p95_us, p99_us), (Some(10), Some(10), Some(10)), "chat's are not among them");
        assert_eq!(view.types[1].latency.p50_us, None, "nothing of it was timed since");
        assert_eq!(now.since(None).types[1].latency.p99_us, Some(100));
        assert_eq!(now.since(None).calls_per_second, 0.0);
    }

    #[test]
    fn a_server_that_has_started_again_counts_anew() {
        let view = status(9_000, 10, [10, 0, 0, 0]).since(Some(&status(8_000, 1_000_000, [9, 9, 9, 9])));
        assert_eq!((view.calls, view.calls_per_second), (10, 0.0));
        assert_eq!(view.latency.p99_us, Some(1));
    }

    #[test]
    fn what_a_server_leaves_out_is_nothing_and_no_fault() {
        let status: Status = serde_json::from_str(r#"{"at_ms":1,"health":{"types":[{"name":"x"}]}}"#).unwrap();
        let view = status.since(None);
        assert_eq!((view.types[0].name.as_str(), view.latency), ("x", Latency::default()));
    }
}
