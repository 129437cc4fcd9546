//! Everything that was measured, and the one place where rounds become a figure: the median.

use std::fmt;

use serde::Serialize;

use crate::{
    machine::Machine,
    meter::{Latency, Measured, Throughput},
    plan::{MANY, Pace, Peer, Placed, SIZES, Task},
};

/// All of one run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    quick: bool,
    pub(crate) pace: Pace,
    pub(crate) samples: Vec<Sample>,
    /// The machine's limit around each round.
    pub(crate) limits: Vec<RoundLimit>,
    pub(crate) skipped: Vec<String>,
    pub(crate) failed: Vec<String>,
}

/// What one pair of processes measured in one round.
#[derive(Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) peer: Peer,
    pub(crate) task: Task,
    /// From 0.
    pub(crate) round: usize,
    pub(crate) measured: Measured,
}

/// What the cache-line ping-pong took around a round, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct RoundLimit {
    pub(crate) before_us: f64,
    pub(crate) after_us: f64,
}

impl RoundLimit {
    fn worst(self) -> f64 {
        self.before_us.max(self.after_us)
    }
}

impl fmt::Display for RoundLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} us before, {:.2} us after", self.before_us, self.after_us)
    }
}

/// How much slower than the best round's limit that of a quiet round may be.
const QUIET: f64 = 1.5;

impl Report {
    pub(crate) fn new(pace: Pace, quick: bool) -> Self {
        let (samples, limits, skipped, failed) = Default::default();
        Self { machine: Machine::here(), quick, pace, samples, limits, skipped, failed }
    }

    /// Whether the machine was as quick around this round as around the best one, or nearly. Only such rounds count.
    pub(crate) fn is_quiet(&self, round: usize) -> bool {
        let best = self.limits.iter().map(|limit| limit.worst()).min_by(f64::total_cmp);
        match (self.limits.get(round), best) {
            (Some(limit), Some(best)) => limit.worst() <= QUIET * best,
            // Nothing is known of it.
            _ => true,
        }
    }

    /// How many rounds count.
    pub(crate) fn quiet_rounds(&self) -> usize {
        (0..self.pace.rounds).filter(|round| self.is_quiet(*round)).count()
    }

    /// Round trips without pauses.
    pub(crate) fn round_trip(&self, peer: Peer, size: usize) -> Option<Latency> {
        latency(&self.of(peer, size, 1, |measured| measured.round_trip))
    }

    /// Round trips of the smallest size without pauses, by where both sides run.
    pub(crate) fn without_pause(&self, peer: Peer, placed: Placed) -> Option<Latency> {
        self.smallest(peer, placed, |measured| measured.round_trip)
    }

    /// The same with pauses in between.
    pub(crate) fn apart(&self, peer: Peer, placed: Placed) -> Option<Latency> {
        self.smallest(peer, placed, |measured| measured.apart)
    }

    fn smallest(&self, peer: Peer, placed: Placed, part: fn(&Measured) -> Option<Latency>) -> Option<Latency> {
        let fits = |sample: &&Sample| {
            let task = &sample.task;
            sample.peer == peer && (task.size, task.placed) == (SIZES[0], placed) && self.is_quiet(sample.round)
        };
        let runs: Vec<_> = self.samples.iter().filter(fits).filter_map(|sample| part(&sample.measured)).collect();
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
            sample.peer == peer
                && sample.task.size == size
                && sample.task.connections == connections
                && sample.task.placed == peer.place()
                && self.is_quiet(sample.round)
        };
        self.samples.iter().filter(fits).filter_map(|sample| part(&sample.measured)).collect()
    }

    /// The command that takes the same figures again.
    pub(crate) fn command(&self) -> String {
        let profile = if self.machine.profile == "release" { "--release" } else { "--profile draft" };
        let quick = if self.quick { " --quick" } else { "" };
        let usual = if self.quick { Pace::QUICK } else { Pace::FULL }.rounds;
        let rounds = if self.pace.rounds == usual { String::new() } else { format!(" --rounds {}", self.pace.rounds) };
        format!("cargo run {profile} --manifest-path crates/bellrope-peers/Cargo.toml -- --write{quick}{rounds}")
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
    fn a_round_in_a_slow_minute_does_not_count() {
        let mut report = Report::new(Pace::FULL, false);
        let limit = |before_us, after_us| RoundLimit { before_us, after_us };
        report.limits = vec![limit(0.1, 0.12), limit(0.11, 0.5), limit(0.15, 0.13), limit(0.12, 0.1), limit(0.9, 0.1)];
        let quiet: Vec<_> = (0..5).filter(|round| report.is_quiet(*round)).collect();
        assert_eq!((quiet, report.quiet_rounds()), (vec![0, 2, 3], 3));
        for round in 0..5 {
            let figures = Throughput { calls: 1, calls_per_s: [5.0, 1.0, 7.0, 6.0, 1.0][round], cpu_us_per_call: 1.0 };
            let measured = Measured { throughput: Some(figures), ..Measured::default() };
            let task = Task { depth: 64, ..Task::limit() };
            report.samples.push(Sample { peer: Peer::Bellrope, task, round, measured });
        }
        let counted = report.throughput(Peer::Bellrope, 64, 1).unwrap();
        assert!((counted.calls_per_s - 6.0).abs() < 1e-9, "{counted:?}");
    }

    #[test]
    fn of_three_rounds_the_middle_one_counts() {
        assert_eq!(median(&[3.0, 1.0, 2.0], |value| *value), Some(2.0));
        assert_eq!(median(&[], |value: &f64| *value), None);
    }
}
