//! What the server says of itself, and what two such moments make: rates and quantiles. No socket, no terminal.

use bellrope::status::{BreakerRow, Buffers, MemoryUse, STATS, Status, Transports};
use serde::Serialize;

use crate::units::whole_micros;

/// What is shown, and printed as JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct TopReport {
    pub(crate) status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    pub(crate) version: String,
    pub(crate) uptime_seconds: u64,
    pub(crate) calls: u64,
    /// Without those that ask for this.
    pub(crate) calls_per_second: f64,
    pub(crate) errors_per_second: f64,
    /// Of the types whose handlers run on a worker.
    pub(crate) latency: Latency,
    pub(crate) active_connections: u64,
    pub(crate) transports: Transports,
    pub(crate) max_connections: u64,
    pub(crate) queued_requests: u64,
    pub(crate) memory: MemoryUse,
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

/// What there is to see of `status`. Rates and quantiles are of the time since `before`, if that was the same server.
pub(super) fn since(status: &Status, before: Option<&Status>) -> TopReport {
    // A server that has started again counts from zero.
    let before = before.filter(|before| before.at < status.at && is_same_server(status, before));
    let seconds = before.map_or(0.0, |before| (status.at - before.at).as_secs_f64());
    let rate = |now: u64, then: Option<u64>| match then {
        Some(then) if seconds > 0.0 => now.saturating_sub(then) as f64 / seconds,
        _ => 0.0,
    };
    let mut on_workers = Vec::new();
    let types = status.health.types.iter().enumerate().map(|(index, row)| {
        let buckets = buckets_since(status, index, before);
        if row.runs_on_worker {
            add(&mut on_workers, &buckets);
        }
        TypeView {
            name: row.name.clone(),
            calls: row.total,
            calls_per_second: rate(row.total, before.map(|before| before.health.types[index].total)),
            failed: row.total.saturating_sub(row.outcomes.of("ok")),
            running: row.running,
            latency: latency(status, &buckets),
        }
    });
    let types = types.collect();
    let health = &status.health;
    // What this command asks is no load that it should show.
    let asked = |status: &Status| status.health.types.iter().find(|row| row.name == STATS).map_or(0, |row| row.total);
    let others = |status: &Status| status.health.total_requests.saturating_sub(asked(status));
    TopReport {
        status: health.status.clone(),
        reason: health.reason.clone(),
        version: health.version.clone(),
        uptime_seconds: health.uptime.as_secs(),
        calls: others(status),
        calls_per_second: rate(others(status), before.map(others)),
        errors_per_second: rate(status.errors.total(), before.map(|before| before.errors.total())),
        latency: latency(status, &on_workers),
        active_connections: health.active_connections,
        transports: health.transports,
        max_connections: health.max_connections,
        queued_requests: health.queued_requests,
        memory: health.memory,
        buffers: health.buffers,
        breakers: health.breakers.clone(),
        types,
    }
}

fn is_same_server(status: &Status, before: &Status) -> bool {
    let names = |status: &Status| status.health.types.iter().map(|row| row.name.clone()).collect::<Vec<_>>();
    status.health.total_requests >= before.health.total_requests && names(status) == names(before)
}

fn buckets_since(status: &Status, index: usize, before: Option<&Status>) -> Vec<u64> {
    let row = |status: &Status| status.buckets.get(index).cloned().unwrap_or_default();
    let then = before.map(row).unwrap_or_default();
    let since = |(at, now): (usize, u64)| now.saturating_sub(then.get(at).copied().unwrap_or(0));
    row(status).into_iter().enumerate().map(since).collect()
}

fn latency(status: &Status, buckets: &[u64]) -> Latency {
    let total: u128 = buckets.iter().map(|count| u128::from(*count)).sum();
    let quantile = |percent: u128| {
        let rank = (total * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let bucket = buckets.iter().position(|count| {
            seen += u128::from(*count);
            seen >= rank
        });
        // Beyond all bounds is at least the last one.
        let bound = bucket.and_then(|bucket| status.bounds.get(bucket).or(status.bounds.last()));
        bound.copied().map(whole_micros)
    };
    Latency { p50_us: quantile(50), p95_us: quantile(95), p99_us: quantile(99) }
}

fn add(sum: &mut Vec<u64>, more: &[u64]) {
    sum.resize(sum.len().max(more.len()), 0);
    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum = sum.saturating_add(*more));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(at_ms: u64, calls: u64, buckets: [u64; 4]) -> Status {
        let row = |name: &str, total: u64, runs_on_worker: bool| json!({ "name": name, "total": total, "runs_on_worker": runs_on_worker, "outcomes": { "ok": total } });
        let types = [row("echo", calls, true), row("chat", 7, false)];
        let json = json!({
            "at_ms": at_ms,
            "bounds_us": [1, 10, 100],
            "buckets": [buckets, [0, 0, 7, 0]],
            "health": { "total_requests": calls, "types": types },
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn rates_and_quantiles_are_of_the_time_between_two_moments() {
        let (before, now) = (status(1_000, 50, [50, 0, 0, 0]), status(3_000, 250, [100, 148, 1, 1]));
        let view = since(&now, Some(&before));
        assert_eq!((view.calls, view.calls_per_second), (250, 100.0));
        let Latency { p50_us, p95_us, p99_us } = view.latency;
        assert_eq!((p50_us, p95_us, p99_us), (Some(10), Some(10), Some(10)), "chat's are not among them");
        assert_eq!(view.types[1].latency.p50_us, None, "nothing of it was timed since");
        assert_eq!(since(&now, None).types[1].latency.p99_us, Some(100));
        assert_eq!(since(&now, None).calls_per_second, 0.0);
    }

    #[test]
    fn what_this_command_asks_is_no_load() {
        let status = |at_ms: u64, asked: u64, others: u64| -> Status {
            let row = |name: &str, total: u64| json!({ "name": name, "total": total, "outcomes": { "ok": total } });
            let types = [row("echo", others), row(STATS, asked)];
            serde_json::from_value(
                json!({ "at_ms": at_ms, "health": { "total_requests": asked + others, "types": types } }),
            )
            .unwrap()
        };
        assert_eq!(since(&status(3_000, 3, 7), Some(&status(1_000, 1, 7))).calls_per_second, 0.0);
        assert_eq!(since(&status(3_000, 3, 9), Some(&status(1_000, 1, 7))).calls_per_second, 1.0);
    }

    #[test]
    fn a_server_that_has_started_again_counts_anew() {
        let view = since(&status(9_000, 10, [10, 0, 0, 0]), Some(&status(8_000, 1_000_000, [9, 9, 9, 9])));
        assert_eq!((view.calls, view.calls_per_second), (10, 0.0));
        assert_eq!(view.latency.p99_us, Some(1));
    }

    #[test]
    fn counts_of_any_size_make_no_overflow() {
        let most = status(9_000, u64::MAX, [u64::MAX; 4]);
        assert_eq!(since(&most, None).latency.p50_us, Some(10));
    }
}
