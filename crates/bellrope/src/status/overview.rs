//! What a server reports to its operator: health, and what the live page shows every second.

use std::time::Duration;

use super::{
    LATENCY_BOUNDS, Metrics, OUTCOMES, Snapshot, TypeSnapshot, UNKNOWN,
    condition::Condition,
    report::{Buffers, Health, MemoryUse, Status, Transports, TypeRow},
};

/// Outcomes that are nobody's error.
const NO_ERRORS: [&str; 2] = ["ok", "cancelled"];

impl Health {
    /// The health of a server now, in this condition. [Example](Condition).
    #[must_use]
    pub fn new(metrics: &Metrics, condition: &Condition) -> Self {
        Self::from_snapshot(metrics, metrics.snapshot(), condition)
    }

    fn from_snapshot(metrics: &Metrics, snapshot: Snapshot, condition: &Condition) -> Self {
        Self {
            status: condition.status().to_owned(),
            reason: condition.not_ready(),
            uptime: snapshot.uptime,
            ends_in: metrics.ends_in(),
            total_requests: snapshot.total_requests(),
            active_connections: snapshot.active_connections,
            transports: Transports {
                shm: snapshot.active_connections.saturating_sub(snapshot.stream_connections),
                stream: snapshot.stream_connections,
            },
            max_connections: snapshot.max_connections,
            queued_requests: snapshot.queued_requests,
            unread_connections: snapshot.unread_connections,
            stalled_connections: snapshot.stalled,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            memory: MemoryUse::of(std::process::id()).unwrap_or_default(),
            buffers: snapshot.buffers.map(|(used_bytes, limit_bytes)| Buffers {
                used_bytes,
                limit_bytes,
                waiting: snapshot.waiting_for_buffers,
            }),
            limits: metrics.settings.now(),
            config_reloads: snapshot.reloads,
            breakers: snapshot.breakers.into_iter().map(Into::into).collect(),
            types: snapshot.types.into_iter().map(TypeRow::from).collect(),
        }
    }
}

impl Status {
    /// A server now, in this condition. [Example](Condition).
    #[must_use]
    pub fn new(metrics: &Metrics, condition: &Condition) -> Self {
        let snapshot = metrics.snapshot();
        Self {
            at: metrics.started.elapsed(),
            bounds: LATENCY_BOUNDS.to_vec(),
            buckets: snapshot.types.iter().map(|row| row.buckets.clone()).collect(),
            errors: snapshot.errors().collect(),
            health: Health::from_snapshot(metrics, snapshot, condition),
            panels: metrics.exhibits().iter().map(|exhibit| exhibit.panel()).collect(),
        }
    }
}

impl Metrics {
    /// All there is to know at this moment, as the JSON of a [`Status`]: what `/health` shows as `health`, and the
    /// buckets of the latencies. Asks the threads of the server and waits for their answers, for half a second at most.
    /// Runs on tokio. [Example](Condition).
    #[cfg(feature = "tokio")]
    pub async fn overview(&self) -> String {
        let condition = self.condition().await;
        // Nothing here can fail to be written: no maps with odd keys, no floats.
        serde_json::to_string(&Status::new(self, &condition)).unwrap_or_default()
    }
}

impl Snapshot {
    /// Everything that went wrong, by kind: calls that ended badly, connections closed because the peer broke the
    /// protocol, left something unread or half done, or because the system broke them, connections refused. Cancelled calls
    /// are no error.
    pub fn errors(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let calls = |(index, outcome): (usize, &&'static str)| {
            (*outcome, self.types.iter().map(|row| row.outcomes[index].1).sum())
        };
        let errors = OUTCOMES.iter().enumerate().filter(|(_, outcome)| !NO_ERRORS.contains(outcome)).map(calls);
        let connections = [
            ("protocol_violation", self.violations),
            ("connection_refused", self.refused_connections),
            ("connection_stalled", self.stalled),
            ("connection_broken", self.broken_connections),
        ];
        errors.chain(connections)
    }
}

impl TypeSnapshot {
    /// Upper bounds of the latency buckets, each of whole microseconds.
    pub const LATENCY_BOUNDS: [Duration; 16] = LATENCY_BOUNDS;
    /// The name of the row of all message types that no handler has.
    pub const UNKNOWN: &str = UNKNOWN;
}

impl From<TypeSnapshot> for TypeRow {
    fn from(row: TypeSnapshot) -> Self {
        let (total, TypeSnapshot { name, runs_on_worker, running, outcomes, .. }) = (row.total(), row);
        Self { name, total, runs_on_worker, running, outcomes: outcomes.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::Ordering::Relaxed};

    use bellrope_proto::frame::ErrorCode;
    use serde_json::Value;

    use super::{super::condition::LivenessProbe, *};

    /// Counters of a server whose loops answer by themselves; the first is the worker's, the second the acceptor's.
    fn server(loops_that_answer: &[usize]) -> Arc<Metrics> {
        let metrics = Arc::new(Metrics::new(["echo"].into_iter(), 0, 1, 2));
        for index in loops_that_answer.iter().copied() {
            let answering = Arc::downgrade(&metrics);
            metrics.liveness().wake_with(index, move || {
                let Some(metrics) = answering.upgrade() else { return };
                if index == metrics.acceptor() { metrics.accepting(false) } else { metrics.liveness().beat(index) }
            });
        }
        metrics
    }

    /// What a server reports, all its loops having been asked.
    fn condition(metrics: &Metrics) -> Condition {
        let probe = metrics.probe();
        metrics.condition_since(probe)
    }

    fn health(metrics: &Metrics) -> Value {
        serde_json::to_value(Health::new(metrics, &condition(metrics))).unwrap()
    }

    #[test]
    fn ready_ends_with_the_last_free_place_and_comes_back_with_it() {
        let metrics = server(&[0, 1]);
        assert_eq!(condition(&metrics).not_ready(), None);
        metrics.accepted.store(2, Relaxed);
        let reason = "2 connections are open, the limit max_connections";
        assert_eq!(condition(&metrics).not_ready().as_deref(), Some(reason));
        let health = health(&metrics);
        assert_eq!((&health["status"], &health["reason"]), (&"full".into(), &reason.into()));
        metrics.closed.store(1, Relaxed);
        assert_eq!(condition(&metrics).not_ready(), None);
    }

    // Fault 52.
    #[test]
    fn a_server_that_stops_is_not_ready_but_alive() {
        let metrics = server(&[0, 1]);
        metrics.serving.store(false, Relaxed);
        assert_eq!(condition(&metrics).not_ready().as_deref(), Some("the server is stopping"));
        assert_eq!(health(&metrics)["status"], "stopping");
        assert_eq!(condition(&metrics).wedged(), None);
    }

    // Fault 52.
    #[test]
    fn a_server_whose_acceptor_has_not_begun_is_starting() {
        let metrics = server(&[0]);
        assert_eq!(condition(&metrics).not_ready().as_deref(), Some("the server is starting"));
        assert_eq!(health(&metrics)["status"], "starting");
        assert_eq!(condition(&metrics).wedged(), None);
    }

    // Fault 52.
    #[test]
    fn a_worker_that_does_not_answer_is_neither_alive_nor_ready() {
        let metrics = server(&[1]);
        let reason = "worker 0 does not answer: a handler holds it up, or its thread is gone";
        assert_eq!(condition(&metrics).wedged().as_deref(), Some(reason));
        assert_eq!(condition(&metrics).not_ready().as_deref(), Some(reason));
        let health = health(&metrics);
        assert_eq!((&health["status"], &health["reason"]), (&"wedged".into(), &reason.into()));
    }

    #[test]
    fn a_probe_that_asked_nothing_is_answered() {
        let metrics = server(&[]);
        assert_eq!(metrics.condition_since(LivenessProbe::default()).wedged(), None);
        assert_eq!(condition(&metrics).status(), "wedged");
    }

    #[test]
    fn an_open_breaker_makes_a_server_neither_unready_nor_dead() {
        let metrics = server(&[0, 1]);
        let breaker = Arc::new(crate::breaker::Breaker::new(crate::breaker::BreakerConfig::default()).unwrap());
        breaker.force_open();
        metrics.watch_breaker("echo", breaker);
        assert_eq!((condition(&metrics).not_ready(), condition(&metrics).wedged()), (None, None));
        let health = health(&metrics);
        assert_eq!(health["status"], "healthy");
        assert_eq!(health["breakers"][0]["state"], "open");
        assert_eq!(health["breakers"][0]["opened"], 1);
    }

    #[test]
    fn errors_are_summed_over_types_and_a_cancelled_call_is_none() {
        let metrics = Metrics::new(["one", "two"].into_iter(), 0, 1, 1);
        for (message_type, code) in
            [(1, ErrorCode::HandlerPanic), (2, ErrorCode::HandlerPanic), (1, ErrorCode::Cancelled)]
        {
            metrics.shard(0).count(message_type, Some(code));
        }
        metrics.violations.store(3, Relaxed);
        let errors: Vec<_> = metrics.snapshot().errors().collect();
        for wanted in [("handler_panic", 2), ("protocol_violation", 3)] {
            assert!(errors.contains(&wanted), "{wanted:?}");
        }
        assert!(!errors.iter().any(|(kind, _)| *kind == "cancelled"));
    }

    #[test]
    fn a_sample_counts_for_its_weight_in_the_bucket_of_its_time() {
        let metrics = Metrics::new(["echo"].into_iter(), 0, 2, 1);
        metrics.shard(0).time(1, 1, 32);
        metrics.shard(1).time(1, 10, 32);
        metrics.shard(1).time(1, 99_000_000, 1);
        let row = metrics.snapshot().types.swap_remove(0);
        assert_eq!(row.buckets.len(), TypeSnapshot::LATENCY_BOUNDS.len() + 1);
        assert_eq!(
            (row.buckets[0], row.buckets[3], row.buckets[16], row.latency_sum.as_micros()),
            (32, 32, 1, 99_000_352)
        );
        assert_eq!(row.buckets.iter().sum::<u64>(), 65);
    }

    #[test]
    fn a_budget_is_shown_once_there_is_one() {
        let metrics = Metrics::new([].into_iter(), 0, 1, 1);
        assert_eq!(metrics.snapshot().buffers, None);
        let budget = bellrope_proto::BufferBudget::new(1_000);
        let _used = budget.reserve(10);
        metrics.budget.set(budget).unwrap();
        assert_eq!(metrics.snapshot().buffers, Some((10, 1_000)));
        let buffers = &health(&metrics)["buffers"];
        assert_eq!((&buffers["used_bytes"], &buffers["limit_bytes"]), (&10.into(), &1_000.into()));
    }
}
