use std::time::Duration;

use bellrope::MemoryUse;
use serde::Serialize;

use crate::{Outcome, bench::RttReport, output};

/// One thing that was promised, and what was found.
#[derive(Debug, Serialize)]
pub(super) struct Criterion {
    name: &'static str,
    target: &'static str,
    found: String,
    /// `None`: it was not measured.
    pass: Option<bool>,
}

/// All of them.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    criteria: Vec<Criterion>,
    /// Whether no criterion that was measured failed.
    pub(super) all_pass: bool,
    measured: usize,
}

impl Criterion {
    fn new(name: &'static str, target: &'static str, found: String, pass: bool) -> Self {
        Self { name, target, found, pass: Some(pass) }
    }

    fn not_measured(name: &'static str, target: &'static str, why: &str) -> Self {
        Self { name, target, found: format!("not measured: {why}"), pass: None }
    }

    pub(super) fn memory(memory: MemoryUse, connections: u32) -> Self {
        let MemoryUse { rss_kb, anon_kb, file_kb, shmem_kb, .. } = memory;
        let found = format!(
            "{:.2} MB resident with {connections} busy connections ({anon_kb} KiB heap and stacks, {file_kb} program, \
             {shmem_kb} rings)",
            rss_kb as f64 / 1024.0
        );
        Self::new("memory", "< 3 MB, the whole server process", found, rss_kb < 3 * 1024)
    }

    pub(super) fn latency(report: &RttReport) -> Self {
        let found = format!(
            "p50 {:.2} us, p99 {:.2} us ({:.1} x a bare cache-line ping-pong)",
            report.rtt.p50_us, report.rtt.p99_us, report.ratio_to_limit
        );
        Self::new("latency", "p99 < 10 us, full round trip of 64 B", found, report.rtt.p99_us < 10.0)
    }

    pub(super) fn throughput(calls_per_s: f64, calls: u64) -> Self {
        let found =
            format!("{:.1} M calls/s of 64 B over 100 connections, after {calls} calls of 1 KB", calls_per_s / 1e6);
        Self::new("throughput", "> 1 M msg/s", found, calls_per_s > 1e6)
    }

    pub(super) fn connections(open: u32) -> Self {
        Self::new("connections", "1,000 at once", format!("{open} open and answering"), open >= 1_000)
    }

    pub(super) fn recovery(time: Duration) -> Self {
        let found = format!("{:.1} ms from the new server's readiness to an answer", time.as_secs_f64() * 1e3);
        Self::new("recovery", "< 100 ms after kill -9 and restart", found, time < Duration::from_millis(100))
    }

    pub(super) fn node(node_us: Option<f64>, ours_us: f64) -> Self {
        let (name, target) = ("against Node", ">= 10 x its child_process IPC, 64 B");
        let Some(node_us) = node_us else {
            return Self::not_measured(name, target, "there is no `node` here");
        };
        let ratio = node_us / ours_us;
        Self::new(name, target, format!("{ratio:.0} x ({node_us:.1} us to {ours_us:.2} us)"), ratio >= 10.0)
    }

    /// Read from the last report of `scripts/coverage`.
    pub(super) fn coverage() -> Self {
        let (name, target) = ("coverage", "> 90 % of lines");
        let report = std::fs::read("coverage/tarpaulin-report.json").ok();
        let percent = report.and_then(|bytes| {
            let report: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
            report.get("coverage")?.as_f64()
        });
        match percent {
            Some(percent) => {
                let found = format!("{percent:.1} % in the last report of scripts/coverage");
                Self::new(name, target, found, percent > 90.0)
            }
            None => Self::not_measured(name, target, "run scripts/coverage first"),
        }
    }

    pub(super) fn allocations() -> Self {
        let why = "this program has no counting allocator yet";
        Self::not_measured("allocations", "none on the hot path", why)
    }
}

impl Report {
    pub(super) fn new(criteria: Vec<Criterion>) -> Self {
        let all_pass = criteria.iter().all(|criterion| criterion.pass != Some(false));
        let measured = criteria.iter().filter(|criterion| criterion.pass.is_some()).count();
        Self { criteria, all_pass, measured }
    }

    pub(super) fn print(&self) -> Outcome {
        for Criterion { name, target, found, pass } in &self.criteria {
            let verdict = match pass {
                Some(true) => "PASS",
                Some(false) => "FAIL",
                None => "-",
            };
            output::line(format_args!("{verdict:<4}  {name:<12}  {target:<37}  {found}"))?;
        }
        let verdict = if self.all_pass { "all pass" } else { "FAILED" };
        output::line(format_args!("{} of {} criteria measured: {verdict}", self.measured, self.criteria.len()))
    }
}
