//! What the instances say of themselves, and what two such moments make: rates and quantiles. No NATS, no terminal.

use std::time::{Duration, Instant};

use bellrope_fleet::{Listed, ListedType};
use serde::Serialize;

use crate::units::whole_micros;

/// How long an instance that answers no more is still shown.
const GONE: Duration = Duration::from_secs(30);

/// The answers to one question.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) at: Instant,
    pub(super) listed: Vec<Listed>,
}

/// What is shown, and printed as JSON. Rates and quantiles are of the time between two looks.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct FleetView {
    pub(super) calls_per_second: f64,
    pub(super) errors_per_second: f64,
    pub(super) running: u64,
    pub(super) p50_us: Option<u64>,
    pub(super) p99_us: Option<u64>,
    pub(super) instances: Vec<InstanceView>,
}

/// An instance. `calls` and `errors` are since its start.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct InstanceView {
    pub(super) id: String,
    pub(super) server: String,
    pub(super) version: String,
    pub(super) state: State,
    pub(super) running: u64,
    pub(super) calls: u64,
    pub(super) errors: u64,
    pub(super) calls_per_second: f64,
    pub(super) errors_per_second: f64,
    pub(super) p50_us: Option<u64>,
    pub(super) p99_us: Option<u64>,
    pub(super) link: LinkView,
    pub(super) types: Vec<String>,
}

/// How it stands with an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Serves,
    /// It takes no further calls.
    Drains,
    /// It answers no more.
    Gone,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Serves => "serves",
            Self::Drains => "drains",
            Self::Gone => "gone",
        }
    }
}

/// Its connection to NATS.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct LinkView {
    /// The name of its NATS server.
    nats: String,
    /// Since when, as RFC 3339 writes it.
    since: String,
    /// How many connections it has made since it started.
    pub(super) made: u64,
    /// How long its answer took.
    pub(super) answered_us: u64,
}

/// What was seen so far.
#[derive(Debug)]
pub(super) struct Memory {
    last: Seen,
    /// Who answered before and does no more, and when it answered last.
    gone: Vec<(Instant, Listed)>,
}

impl Memory {
    pub(super) fn new(first: Seen) -> Self {
        Self { last: first, gone: Vec::new() }
    }

    /// What there is to see before there are two looks: no rates.
    pub(super) fn at_first(&self) -> FleetView {
        view(self.last.listed.iter().map(|one| instance(one, None, 0.0)).collect(), &[])
    }

    /// What there is to see now.
    pub(super) fn hear(&mut self, seen: Seen) -> FleetView {
        let seconds = seen.at.saturating_duration_since(self.last.at).as_secs_f64();
        let is_back = |one: &Listed| seen.listed.iter().any(|now| now.id == one.id);
        let at = self.last.at;
        let missing = self.last.listed.iter().filter(|one| !is_back(one)).map(|one| (at, one.clone()));
        self.gone.extend(missing.collect::<Vec<_>>());
        self.gone.retain(|(last, one)| !is_back(one) && seen.at.saturating_duration_since(*last) < GONE);
        let before = |one: &Listed| self.last.listed.iter().find(|earlier| earlier.id == one.id);
        let mut rows: Vec<_> = seen.listed.iter().map(|one| instance(one, before(one), seconds)).collect();
        // Of one that came meanwhile nothing is known of the time between.
        let since = seen.listed.iter().filter_map(|one| Some(one.since(Some(before(one)?)))).flatten();
        let since: Vec<_> = since.collect();
        rows.extend(self.gone.iter().map(|(_, one)| InstanceView { state: State::Gone, ..instance(one, None, 0.0) }));
        self.last = seen;
        view(rows, &since)
    }
}

fn view(mut instances: Vec<InstanceView>, since: &[ListedType]) -> FleetView {
    // The busiest first; those that do nothing by name, so that they stay where they are.
    instances.sort_by(|one, other| {
        let gone = |row: &InstanceView| row.state == State::Gone;
        let order = gone(one).cmp(&gone(other)).then(other.running.cmp(&one.running));
        let order = order.then(other.calls_per_second.total_cmp(&one.calls_per_second));
        order.then_with(|| (&one.server, &one.id).cmp(&(&other.server, &other.id)))
    });
    let all = Listed::together(since);
    FleetView {
        // The sum of nothing is -0.0.
        calls_per_second: instances.iter().fold(0.0, |sum, row| sum + row.calls_per_second),
        errors_per_second: instances.iter().fold(0.0, |sum, row| sum + row.errors_per_second),
        running: instances.iter().filter(|row| row.state != State::Gone).map(|row| row.running).sum(),
        p50_us: all.p50.map(whole_micros),
        p99_us: all.p99.map(whole_micros),
        instances,
    }
}

fn instance(now: &Listed, before: Option<&Listed>, seconds: f64) -> InstanceView {
    let all = Listed::together(&now.types);
    let since = Listed::together(&before.map(|before| now.since(Some(before))).unwrap_or_default());
    let rate = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
    InstanceView {
        id: now.id.clone(),
        server: now.server.clone(),
        version: now.version.clone(),
        state: if now.draining { State::Drains } else { State::Serves },
        running: now.running,
        calls: all.requests,
        errors: all.errors,
        calls_per_second: rate(since.requests),
        errors_per_second: rate(since.errors),
        p50_us: since.p50.map(whole_micros),
        p99_us: since.p99.map(whole_micros),
        link: LinkView {
            nats: now.nats.clone(),
            since: now.started.clone(),
            made: now.links,
            answered_us: whole_micros(now.answered_within),
        },
        types: now.types.iter().map(|row| row.name.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(id: &str, running: u64, requests: u64) -> Listed {
        let json = serde_json::json!({
            "id": id, "server": "desk", "version": "1", "started": "then", "running": running, "draining": running == 9,
            "nats": "n", "links": 1, "answered_us": 300, "types": [{
                "name": "echo", "requests": requests, "errors": requests / 10, "average_ns": 1, "p50_us": null, "p99_us": null
            }],
        });
        serde_json::from_value(json).unwrap()
    }

    fn rows(view: &FleetView) -> Vec<(&str, &str, f64)> {
        view.instances.iter().map(|row| (row.id.as_str(), row.state.name(), row.calls_per_second)).collect()
    }

    #[test]
    fn rates_are_of_the_time_between_and_who_answers_no_more_is_shown_for_a_while() {
        let at = Instant::now();
        let seen = |after: u64, listed| Seen { at: at + Duration::from_secs(after), listed };
        let mut memory = Memory::new(seen(0, vec![listed("a", 0, 10), listed("b", 0, 0)]));
        assert_eq!(rows(&memory.at_first()), [("a", "serves", 0.0), ("b", "serves", 0.0)]);
        let view = memory.hear(seen(2, vec![listed("a", 0, 20), listed("b", 9, 0), listed("c", 0, 99)]));
        assert_eq!(rows(&view), [("b", "drains", 0.0), ("a", "serves", 5.0), ("c", "serves", 0.0)]);
        assert_eq!((view.calls_per_second, view.errors_per_second, view.running), (5.0, 0.5, 9));
        let view = memory.hear(seen(3, vec![listed("a", 0, 20)]));
        assert_eq!(rows(&view), [("a", "serves", 0.0), ("b", "gone", 0.0), ("c", "gone", 0.0)]);
        assert_eq!(view.running, 0);
        let view = memory.hear(seen(4, vec![listed("a", 0, 20), listed("c", 0, 99)]));
        assert_eq!(rows(&view), [("a", "serves", 0.0), ("c", "serves", 0.0), ("b", "gone", 0.0)]);
        let view = memory.hear(seen(40, vec![listed("a", 0, 20), listed("c", 0, 99)]));
        assert_eq!(view.instances.len(), 2);
        let nothing = Memory::new(seen(0, Vec::new())).hear(seen(1, Vec::new()));
        assert!(nothing.calls_per_second.is_sign_positive() && nothing.errors_per_second.is_sign_positive());
    }
}
