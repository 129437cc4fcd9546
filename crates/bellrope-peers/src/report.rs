//! Everything that was measured, and the one place where rounds become a figure: the median.

mod tables;

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

use crate::{
    goals::{self, Goal},
    machine::Machine,
    meter::{Latency, Measured, Throughput},
    plan::{MANY, Pace, Peer, Task},
    plot,
};

pub(crate) use tables::{rate, us};

const BEGIN: &str = "<!-- written by bellrope-bench: begin -->";
const END: &str = "<!-- written by bellrope-bench: end -->";

/// All of one run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    quick: bool,
    pace: Pace,
    pub(crate) samples: Vec<Sample>,
    pub(crate) skipped: Vec<String>,
    pub(crate) failed: Vec<String>,
}

/// What one pair of processes measured in one round.
#[derive(Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) peer: Peer,
    pub(crate) task: Task,
    pub(crate) measured: Measured,
}

/// A report with what follows from it.
#[derive(Serialize)]
struct Judged<'a> {
    #[serde(flatten)]
    report: &'a Report,
    goals: Vec<Goal>,
}

impl Report {
    pub(crate) fn new(pace: Pace, quick: bool) -> Self {
        let (samples, skipped, failed) = Default::default();
        Self { machine: Machine::here(), quick, pace, samples, skipped, failed }
    }

    /// All of it for machines.
    pub(crate) fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(&Judged { report: self, goals: goals::judge(self) })
    }

    /// All of it for people.
    pub(crate) fn markdown(&self) -> String {
        tables::markdown(self)
    }

    /// Round trips without pauses.
    pub(crate) fn round_trip(&self, peer: Peer, size: usize) -> Option<Latency> {
        latency(&self.of(peer, size, 1, |measured| measured.round_trip))
    }

    /// Round trips of the smallest size with pauses in between, with a CPU for each side or where the scheduler put them.
    pub(crate) fn apart(&self, peer: Peer, pinned: bool) -> Option<Latency> {
        let fits = |sample: &&Sample| sample.peer == peer && sample.task.pinned == pinned;
        let runs: Vec<_> = self.samples.iter().filter(fits).filter_map(|sample| sample.measured.apart).collect();
        latency(&runs)
    }

    /// Calls a second, over this many connections.
    pub(crate) fn throughput(&self, peer: Peer, size: usize, connections: usize) -> Option<Throughput> {
        let runs = self.of(peer, size, connections, |measured| measured.throughput);
        Some(Throughput {
            calls: runs.iter().map(|run| run.calls).sum(),
            calls_per_s: median(&runs, |run| run.calls_per_s)?,
            cpu_us_per_call: median(&runs, |run| run.cpu_us_per_call)?,
        })
    }

    /// Resident memory of server and client after the calls of this size on one connection, in KiB.
    pub(crate) fn memory(&self, peer: Peer, size: usize) -> Option<(f64, f64)> {
        let runs = self.of(peer, size, 1, |measured| {
            measured.throughput.map(|_| (measured.server_kb as f64, measured.client_kb as f64))
        });
        Some((median(&runs, |run| run.0)?, median(&runs, |run| run.1)?))
    }

    fn of<T>(&self, peer: Peer, size: usize, connections: usize, part: fn(&Measured) -> Option<T>) -> Vec<T> {
        let fits = |sample: &&Sample| {
            sample.peer == peer && sample.task.size == size && sample.task.connections == connections
        };
        self.samples.iter().filter(fits).filter_map(|sample| part(&sample.measured)).collect()
    }

    /// The command that takes the same figures again.
    fn command(&self) -> String {
        let profile = if self.machine.profile == "release" { "--release" } else { "--profile draft" };
        let quick = if self.quick { " --quick" } else { "" };
        format!("cargo run {profile} --manifest-path crates/bellrope-bench/Cargo.toml -- --write{quick}")
    }
}

/// Writes tables and plots into the documents of the checkout that this program was built from.
pub(crate) fn write(report: &Report) -> anyhow::Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let page = docs.join("benchmarks.md");
    let text = std::fs::read_to_string(&page).with_context(|| format!("reading {}", page.display()))?;
    let text = replaced(&text, &report.markdown())
        .with_context(|| format!("{} has lost the markers {BEGIN} and {END}", page.display()))?;
    let store = |path: PathBuf, text: String| {
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    store(docs.join("images/benchmarks-round-trip.svg"), plot::round_trips(report))?;
    store(docs.join("images/benchmarks-throughput.svg"), plot::throughputs(report))?;
    store(page, text)
}

/// `text` with something else between the markers.
fn replaced(text: &str, between: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", between.trim()))
}

fn latency(runs: &[Latency]) -> Option<Latency> {
    Some(Latency {
        calls: runs.iter().map(|run| run.calls).min()?,
        p50_us: median(runs, |run| run.p50_us)?,
        p99_us: median(runs, |run| run.p99_us)?,
        p999_us: median(runs, |run| run.p999_us)?,
        cpu_us_per_call: median(runs, |run| run.cpu_us_per_call)?,
    })
}

/// The median of a figure over the rounds; nothing where nothing was measured.
fn median<T>(runs: &[T], figure: fn(&T) -> f64) -> Option<f64> {
    let mut values: Vec<f64> = runs.iter().map(figure).collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Over many connections.
pub(crate) fn many(report: &Report, peer: Peer, size: usize) -> Option<Throughput> {
    report.throughput(peer, size, MANY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_is_replaced() {
        let page = format!("prose\n{BEGIN}\nold\n{END}\nmore prose\n");
        let written = replaced(&page, "new").unwrap();
        assert_eq!(written, format!("prose\n{BEGIN}\n\nnew\n\n{END}\nmore prose\n"));
        assert_eq!(replaced(&written, "new").unwrap(), written, "a second time changes nothing");
        assert!(replaced("no markers", "new").is_none());
    }

    #[test]
    fn of_three_rounds_the_middle_one_counts() {
        assert_eq!(median(&[3.0, 1.0, 2.0], |value| *value), Some(2.0));
        assert_eq!(median(&[], |value: &f64| *value), None);
    }
}
