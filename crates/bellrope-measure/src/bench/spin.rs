use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bellrope::{
    Client,
    client::{ClientConfig, SpinPolicy},
};
use bellrope_shm::{clock, process};
use bellrope_terminal::{Outcome, ProgressBar, output};
use clap::Args;
use serde::Serialize;

use super::{
    args::TimedArgs,
    limit,
    samples::{Percentiles, Samples, median, median_of},
};
use crate::server_process::{ServerProcess, pin_client};

/// Runs whose median is reported.
const RUNS: u32 = 3;
const POLICIES: [SpinPolicy; 3] = [SpinPolicy::Never, SpinPolicy::Adaptive, SpinPolicy::Always];
const GAPS_US: [u32; 5] = [0, 20, 100, 1_000, 10_000];
/// Up to here a caller is taken to think between its calls, beyond it to sleep.
const LONGEST_THOUGHT: Duration = Duration::from_micros(100);
/// Calls of a cell that are not counted: the budget of an adaptive waiter needs some to settle.
const WARM_UP: u32 = 12;
const SIZE: usize = 64;
/// The gap at which the goal holds.
const GOAL_GAP_US: u32 = 1_000;
const GOAL_TO_FUTEX: f64 = 1.3;

const HELP: &str = "\
Examples:
  bellrope bench spin
  bellrope bench spin --quick --json

A caller that blocks makes one call after another, with a gap before each. Gaps of up to 100 us it passes computing, which does \
not count as its CPU time; longer gaps it sleeps through. The limit of waiters that sleep, a ping-pong of the two processes over \
a futex, has the same gaps in the same run.";

/// How to compare the policies of waiting.
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP, mut_arg("seconds", |arg| arg.required(false).default_value("1.5").help("Seconds to measure each pair of policies at each gap")))]
pub struct SpinArgs {
    #[command(flatten)]
    pub(super) timed: TimedArgs,
}

/// All pairs of policies.
#[derive(Debug, Serialize)]
pub(crate) struct SpinReport {
    pinned: bool,
    size: usize,
    cells: Vec<Cell>,
    futex: Vec<Futex>,
    /// Both sides adaptive, at gaps of 1 ms: p50 as a multiple of the futex ping-pong's.
    adaptive_to_futex: f64,
    goal_adaptive_to_futex: f64,
}

/// One pair of policies at one gap.
#[derive(Debug, Clone, Copy, Serialize)]
struct Cell {
    server: SpinPolicy,
    client: SpinPolicy,
    gap_us: u32,
    calls: usize,
    #[serde(flatten)]
    round_trip: Percentiles,
    /// CPU seconds a second.
    server_cpu: f64,
    client_cpu: f64,
}

/// Two processes that sleep on a futex.
#[derive(Debug, Clone, Copy, Serialize)]
struct Futex {
    gap_us: u32,
    #[serde(flatten)]
    round_trip: Percentiles,
}

/// The name of a policy, as settings have it.
fn name(policy: SpinPolicy) -> &'static str {
    match policy {
        SpinPolicy::Never => "never",
        SpinPolicy::Adaptive => "adaptive",
        SpinPolicy::Always => "always",
    }
}

/// Measures all pairs in turns, so that all see the same machine.
pub(super) fn measure(args: &SpinArgs, progress: bool) -> anyhow::Result<SpinReport> {
    let start = |policy| Ok((policy, ServerProcess::start_spinning(args.timed.pin(), policy)?));
    let mut servers = POLICIES.into_iter().map(start).collect::<anyhow::Result<Vec<_>>>()?;
    pin_client(args.timed.pin())?;
    let (runs, time) =
        if args.timed.span.run.quick { (1, 0.03) } else { (RUNS, args.timed.span.seconds / f64::from(RUNS)) };
    let time = Duration::from_secs_f64(time);
    let steps = runs as usize * GAPS_US.len() * (1 + POLICIES.len() * POLICIES.len());
    let bar = ProgressBar::new(progress, "spin policies", steps as u64);
    let (mut cells, mut futex) = (vec![], vec![]);
    for _ in 0..runs {
        for gap_us in GAPS_US {
            futex.push(Futex { gap_us, round_trip: sleepers(&mut servers[0].1, gap_us, time)? });
            bar.step();
            for (policy, server) in &mut servers {
                for client in POLICIES {
                    cells.push(cell(*policy, server, client, gap_us, time)?);
                    bar.step();
                }
            }
        }
    }
    let cells = medians(&cells);
    let futex: Vec<_> = GAPS_US.into_iter().map(|gap_us| Futex::median(&futex, gap_us)).collect();
    let settled = |cell: &&Cell| (cell.server, cell.client) == (SpinPolicy::Adaptive, SpinPolicy::Adaptive);
    let adaptive = cells.iter().filter(settled).find(|cell| cell.gap_us == GOAL_GAP_US);
    let limit = futex.iter().find(|futex| futex.gap_us == GOAL_GAP_US);
    let (adaptive, limit) = adaptive.zip(limit).context("there is no gap for the goal")?;
    Ok(SpinReport {
        pinned: args.timed.pin(),
        size: SIZE,
        adaptive_to_futex: adaptive.round_trip.p50_us / limit.round_trip.p50_us,
        cells,
        futex,
        goal_adaptive_to_futex: GOAL_TO_FUTEX,
    })
}

/// The ping-pong of two that sleep.
fn sleepers(server: &mut ServerProcess, gap_us: u32, time: Duration) -> anyhow::Result<Percentiles> {
    const EXPECTED_US: u64 = 50;
    let gap = Duration::from_micros(gap_us.into());
    let rounds = time.as_micros() as u64 / (u64::from(gap_us) + EXPECTED_US);
    let samples = limit::sleeping_ping(server, rounds.max(WARM_UP.into()), || _ = pause(gap))?;
    Ok(samples.percentiles())
}

/// One pair of policies at one gap.
fn cell(
    policy: SpinPolicy,
    server: &mut ServerProcess,
    client_policy: SpinPolicy,
    gap_us: u32,
    time: Duration,
) -> anyhow::Result<Cell> {
    let gap = Duration::from_micros(gap_us.into());
    let mut config = ClientConfig::new(server.socket());
    config.spin = client_policy;
    let client = Client::with(config)?;
    let payload = [0x5A; SIZE];
    for _ in 0..WARM_UP {
        pause(gap);
        ensure!(client.call("echo", &payload)? == payload, "the echo differs from what was sent");
    }
    let server_before = server.cpu_time_us()?;
    let (client_before, start) = (process::cpu_time(), Instant::now());
    let mut samples = Samples::with_capacity(1 << 16);
    let mut thought = Duration::ZERO;
    while start.elapsed() < time || samples.len() == 0 {
        thought += pause(gap);
        let began = clock::ticks();
        client.call("echo", &payload)?;
        samples.add(clock::ticks() - began);
    }
    let wall_us = start.elapsed().as_micros() as f64;
    let client_us = (process::cpu_time() - client_before).as_micros() as f64 - thought.as_micros() as f64;
    let server_us = (server.cpu_time_us()? - server_before) as f64;
    Ok(Cell {
        server: policy,
        client: client_policy,
        gap_us,
        calls: samples.len(),
        round_trip: samples.percentiles(),
        server_cpu: server_us / wall_us,
        client_cpu: client_us.max(0.0) / wall_us,
    })
}

/// Lets a gap pass. Returns how much of it was spent computing.
fn pause(gap: Duration) -> Duration {
    if gap > LONGEST_THOUGHT {
        std::thread::sleep(gap);
        return Duration::ZERO;
    }
    let start = Instant::now();
    loop {
        let passed = start.elapsed();
        if passed >= gap {
            return passed;
        }
        std::hint::spin_loop();
    }
}

/// Of each pair at each gap the median over the runs.
fn medians(cells: &[Cell]) -> Vec<Cell> {
    let key = |cell: &Cell| (name(cell.server), name(cell.client), cell.gap_us);
    let mut merged: Vec<Cell> = Vec::new();
    for cell in cells {
        if merged.iter().any(|other| key(other) == key(cell)) {
            continue;
        }
        let runs: Vec<_> = cells.iter().filter(|other| key(other) == key(cell)).collect();
        let round_trips: Vec<_> = runs.iter().map(|run| run.round_trip).collect();
        merged.push(Cell {
            calls: runs.iter().map(|run| run.calls).sum(),
            round_trip: median(&round_trips),
            server_cpu: median_of(runs.iter().map(|run| run.server_cpu)),
            client_cpu: median_of(runs.iter().map(|run| run.client_cpu)),
            ..*cell
        });
    }
    merged
}

impl Futex {
    fn median(runs: &[Self], gap_us: u32) -> Self {
        let round_trips: Vec<_> = runs.iter().filter(|run| run.gap_us == gap_us).map(|run| run.round_trip).collect();
        Self { gap_us, round_trip: median(&round_trips) }
    }
}

impl SpinReport {
    pub(super) fn print(&self) -> Outcome {
        output::line(format_args!(
            "{:>8} {:>9} {:>9} {:>10} {:>10} {:>11} {:>11}",
            "gap us", "server", "client", "p50 us", "p99 us", "server CPU", "client CPU"
        ))?;
        for gap_us in GAPS_US {
            for Cell { server, client, round_trip, server_cpu, client_cpu, .. } in
                self.cells.iter().filter(|cell| cell.gap_us == gap_us)
            {
                output::line(format_args!(
                    "{gap_us:>8} {:>9} {:>9} {:>10.2} {:>10.2} {server_cpu:>11.3} {client_cpu:>11.3}",
                    name(*server),
                    name(*client),
                    round_trip.p50_us,
                    round_trip.p99_us
                ))?;
            }
            for Futex { round_trip, .. } in self.futex.iter().filter(|futex| futex.gap_us == gap_us) {
                let Percentiles { p50_us, p99_us, .. } = round_trip;
                output::line(format_args!("{gap_us:>8} {:>19} {p50_us:>10.2} {p99_us:>10.2}", "futex ping-pong"))?;
            }
        }
        output::line(format_args!(
            "CPU: seconds a second, without what the caller computes in its gaps. Adaptive at 1 ms: {:.2} times the futex \
             ping-pong at p50; goal: at most {}",
            self.adaptive_to_futex, self.goal_adaptive_to_futex
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_a_pair_of_policies_at_a_gap_become_one_with_their_medians() {
        let cell = |client, gap_us, us: f64| {
            let round_trip = Percentiles { p50_us: us, p90_us: us, p99_us: us, p999_us: us, max_us: us };
            Cell { server: SpinPolicy::Never, client, gap_us, calls: 10, round_trip, server_cpu: us, client_cpu: 0.5 }
        };
        let (never, always) = (SpinPolicy::Never, SpinPolicy::Always);
        let runs = [cell(never, 0, 3.0), cell(always, 0, 7.0), cell(never, 0, 1.0), cell(never, 20, 8.0)];
        let mut runs = runs.to_vec();
        runs.push(cell(never, 0, 2.0));
        let merged = medians(&runs);
        let shown: Vec<_> = merged
            .iter()
            .map(|it| (name(it.client), it.gap_us, it.calls, it.round_trip.p50_us, it.server_cpu))
            .collect();
        assert_eq!(shown, [("never", 0, 30, 2.0, 2.0), ("always", 0, 10, 7.0, 7.0), ("never", 20, 10, 8.0, 8.0)]);
    }
}
