use std::{path::Path, time::Duration};

use bellrope::status::MemoryUse;
use serde::{Deserialize, Serialize};

use crate::{
    bench::RttReport,
    criterion::{Criterion, Threshold},
};

/// Where `scripts/coverage` leaves what it found.
const COVERAGE: &str = "target/coverage/summary.json";

/// All of them.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    criteria: Vec<Criterion>,
    /// Whether no criterion that was measured failed.
    pub(crate) all_pass: bool,
    measured: usize,
}

/// The server's memory in two states.
#[derive(Debug, Clone, Copy)]
pub(super) struct MemoryFound {
    pub(super) busy: MemoryUse,
    pub(super) busy_connections: u32,
    pub(super) idle: MemoryUse,
    pub(super) idle_connections: u32,
}

/// How often both sides allocated during so many calls.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Allocations {
    pub(super) client: u64,
    pub(super) server: u64,
    pub(super) calls: u64,
}

/// What `scripts/coverage` found; it says more than is needed here.
#[derive(Debug, Deserialize)]
struct Coverage {
    lines_percent: f64,
    commit: String,
}

/// What each figure is judged by.
impl Criterion {
    /// The larger of the two states decides.
    pub(super) fn memory(memory: MemoryFound) -> Self {
        let MemoryFound { busy, busy_connections, idle, idle_connections } = memory;
        let mb = |memory: MemoryUse| memory.rss_kb as f64 / 1024.0;
        let parts = |memory: MemoryUse| {
            let MemoryUse { anon_kb, file_kb, shmem_kb, .. } = memory;
            format!("{anon_kb} KiB heap and stacks, {file_kb} program, {shmem_kb} rings")
        };
        let found = format!(
            "the whole server process, {:.2} MB resident with {busy_connections} busy connections ({}), {:.2} MB with {idle_connections} idle ones ({})",
            mb(busy),
            parts(busy),
            mb(idle),
            parts(idle)
        );
        let most = mb(busy).max(mb(idle));
        Self::judge("memory", most, "MB", Threshold::Below(3.0)).with(found)
    }

    pub(super) fn latency(report: &RttReport) -> Self {
        let p99_us = report.rtt.p99_us;
        let found = format!(
            "full round trip of 64 B: p50 {:.2} us, p99 {p99_us:.2} us ({:.1} x a bare cache-line ping-pong)",
            report.rtt.p50_us, report.ratio_to_limit
        );
        Self::judge("latency", p99_us, "us p99", Threshold::Below(10.0)).with(found)
    }

    pub(super) fn throughput(calls_per_s: f64, calls: u64) -> Self {
        let found =
            format!("{:.1} M calls/s of 64 B over 100 connections, after {calls} calls of 1 KB", calls_per_s / 1e6);
        Self::judge("throughput", calls_per_s, "calls/s", Threshold::Above(1e6)).with(found)
    }

    pub(super) fn connections(answered: u32) -> Self {
        let found = format!("{answered} open at once and answering");
        Self::judge("connections", answered.into(), "", Threshold::AtLeast(1_000.0)).with(found)
    }

    pub(super) fn allocations(allocations: Allocations) -> Self {
        let Allocations { client, server, calls } = allocations;
        let found = format!("{client} at the client and {server} at the server in {calls} calls of 64 B to 4 KB");
        Self::judge("allocations", (client + server) as f64, "", Threshold::Equal(0.0)).with(found)
    }

    pub(super) fn recovery(time: Duration) -> Self {
        let ms = time.as_secs_f64() * 1e3;
        let found = format!("{ms:.1} ms after kill -9, from when the next server set about to listen to an answer");
        Self::judge("recovery", ms, "ms", Threshold::Below(100.0)).with(found)
    }

    pub(super) fn node(node_us: anyhow::Result<f64>, ours_us: f64) -> Self {
        let (name, unit, target) = ("against Node", "x", Threshold::AtLeast(10.0));
        match node_us {
            Ok(node_us) => {
                let ratio = node_us / ours_us;
                let found = format!(
                    "{ratio:.0} x as fast as its child_process IPC with 64 B ({node_us:.1} us to {ours_us:.2} us)"
                );
                Self::judge(name, ratio, unit, target).with(found)
            }
            Err(error) => Self::not_measured(name, unit, target, format!("{error:#}")),
        }
    }

    /// Read from the last report of `scripts/coverage`.
    pub(super) fn coverage() -> Self {
        Self::covered(Path::new(COVERAGE))
    }

    fn covered(summary: &Path) -> Self {
        let (name, unit, target) = ("coverage", "% of lines", Threshold::Above(90.0));
        let Ok(bytes) = std::fs::read(summary) else {
            let why = format!("there is no {} here; scripts/coverage makes it", summary.display());
            return Self::not_measured(name, unit, target, why);
        };
        match serde_json::from_slice(&bytes) {
            Ok(Coverage { lines_percent, commit }) => {
                let found = format!("{lines_percent:.1} % in the last report of scripts/coverage, of commit {commit}");
                Self::judge(name, lines_percent, unit, target).with(found)
            }
            Err(error) => {
                let why = format!("{} is not what scripts/coverage writes: {error}", summary.display());
                Self::not_measured(name, unit, target, why)
            }
        }
    }
}

impl Report {
    pub(super) fn new(criteria: Vec<Criterion>) -> Self {
        let all_pass = !criteria.iter().any(Criterion::failed);
        let measured = criteria.iter().filter(|criterion| criterion.pass.is_some()).count();
        Self { criteria, all_pass, measured }
    }

    /// For people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |criterion: &Criterion| {
            let Criterion { name, target, unit, found, .. } = criterion;
            let target = format!("{} {unit}", target.text());
            format!("{:<12}  {name:<12}  {:<20}  {found}", criterion.verdict(), target.trim_end())
        };
        let verdict = if self.all_pass { "all pass" } else { "FAILED" };
        let last = format!("{} of {} criteria measured: {verdict}", self.measured, self.criteria.len());
        self.criteria.iter().map(line).chain([last]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_decides_nothing_and_is_not_called_a_pass() {
        let report = Report::new(vec![
            Criterion::connections(1_000),
            Criterion::node(Err(anyhow::anyhow!("no node here")), 1.0),
            Criterion::covered(Path::new("there/is/none.json")),
        ]);
        assert!(report.all_pass && report.measured == 1);
        let failed = Report::new(vec![Criterion::connections(1_000), Criterion::connections(999)]);
        assert!(!failed.all_pass && failed.measured == 2);
    }

    #[test]
    fn every_criterion_has_a_line_with_verdict_and_target_and_the_last_one_sums_up() {
        let node = || Criterion::node(Err(anyhow::anyhow!("no node here")), 1.0);
        let missed = Report::new(vec![Criterion::connections(1_000), Criterion::connections(999), node()]);
        assert_eq!(
            missed.lines(),
            [
                "PASS          connections   at least 1,000        1000 open at once and answering",
                "FAIL          connections   at least 1,000        999 open at once and answering",
                "not measured  against Node  at least 10 x         no node here",
                "2 of 3 criteria measured: FAILED",
            ]
        );
        assert_eq!(Report::new(vec![node()]).lines()[1], "0 of 1 criteria measured: all pass");
    }

    #[test]
    fn one_allocation_in_many_calls_fails() {
        let allocations = Allocations { client: 0, server: 1, calls: 40_000 };
        assert_eq!(Criterion::allocations(allocations).pass, Some(false));
        assert_eq!(Criterion::allocations(Allocations { server: 0, ..allocations }).pass, Some(true));
    }

    #[test]
    fn coverage_is_what_the_summary_says_and_a_broken_summary_is_none() {
        let home = tempfile::tempdir().unwrap();
        let summary = home.path().join("summary.json");
        let of = |text: &str| {
            std::fs::write(&summary, text).unwrap();
            Criterion::covered(&summary)
        };
        let report = r#"{"lines_percent": 90.0, "by_crate": {"a": 1}, "commit": "abc", "measured_at": "now"}"#;
        let at_the_bound = of(report);
        assert_eq!((at_the_bound.pass, at_the_bound.value), (Some(false), Some(90.0)));
        assert_eq!(of(&report.replace("90.0", "91.2")).pass, Some(true));
        let broken = of("{");
        assert!(broken.pass.is_none() && broken.value.is_none());
    }

    #[test]
    fn the_larger_of_the_two_states_decides_about_memory() {
        let use_of = |rss_kb| MemoryUse { rss_kb, ..MemoryUse::default() };
        let found = |busy, idle| MemoryFound {
            busy: use_of(busy),
            busy_connections: 100,
            idle: use_of(idle),
            idle_connections: 1_000,
        };
        assert_eq!(Criterion::memory(found(2_000, 3_071)).pass, Some(true));
        assert_eq!(Criterion::memory(found(2_000, 3_072)).pass, Some(false));
        assert_eq!(Criterion::memory(found(4_000, 1_000)).pass, Some(false));
    }
}
