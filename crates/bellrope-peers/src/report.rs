//! Everything that was measured, and the one place where rounds become a figure: the median.

use serde::Serialize;

use crate::{
    machine::Machine,
    meter::{Latency, Measured, Throughput},
    plan::{MANY, Pace, Peer, Task},
};

/// All of one run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    quick: bool,
    pub(crate) pace: Pace,
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

impl Report {
    pub(crate) fn new(pace: Pace, quick: bool) -> Self {
        let (samples, skipped, failed) = Default::default();
        Self { machine: Machine::here(), quick, pace, samples, skipped, failed }
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
    pub(crate) fn command(&self) -> String {
        let profile = if self.machine.profile == "release" { "--release" } else { "--profile draft" };
        let quick = if self.quick { " --quick" } else { "" };
        format!("cargo run {profile} --manifest-path crates/bellrope-peers/Cargo.toml -- --write{quick}")
    }
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
    fn of_three_rounds_the_middle_one_counts() {
        assert_eq!(median(&[3.0, 1.0, 2.0], |value| *value), Some(2.0));
        assert_eq!(median(&[], |value: &f64| *value), None);
    }
}
