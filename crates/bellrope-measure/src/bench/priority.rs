use std::time::{Duration, Instant};

use bellrope::client::{ClientConfig, Connection};
use bellrope_shm::{clock, process};
use bellrope_terminal::{Outcome, ProgressBar, output};
use clap::Args;
use serde::Serialize;

use super::{
    args::{SizeArgs, TimedArgs},
    samples::{Percentiles, Samples, median, median_of},
    throughput::BusyConnections,
};
use crate::server_process::{ServerProcess, pin_client};

/// Runs whose median is reported.
const RUNS: u32 = 5;
const WARM_UP: Duration = Duration::from_millis(200);
/// The most a call with priority is to take at p99, in microseconds.
const GOAL_P99_US: f64 = 10.0;

const HELP: &str = "\
Examples:
  bellrope bench priority
  bellrope bench priority --connections 99 --depth 16 --json

One thread drives all connections, so that client and server have a CPU each. It sends a call, keeps the others busy one after \
another, and looks for its answer in between; so a turn of another connection at the client is part of what is measured.";

/// How to measure what priority is worth.
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP, mut_arg("seconds", |arg| arg.required(false).default_value("10").help("Seconds to measure: half of it with priority, half without")), mut_arg("size", |arg| arg.help("Payload bytes of the calls that are timed")))]
pub struct PriorityArgs {
    /// Connections that saturate the server.
    #[arg(long, default_value_t = 999, value_parser = clap::value_parser!(u32).range(1..=9999))]
    connections: u32,
    /// Payload bytes of their calls.
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(0..=65536))]
    background_size: u32,
    /// Calls that each of them keeps in flight.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1024))]
    depth: u32,
    #[command(flatten)]
    payload: SizeArgs,
    #[command(flatten)]
    pub(super) timed: TimedArgs,
}

/// One caller beside many.
#[derive(Debug, Serialize)]
pub(crate) struct PriorityReport {
    pinned: bool,
    size: u32,
    background_connections: u32,
    background_size: u32,
    background_in_flight: u32,
    with_priority: Side,
    without_priority: Side,
    goal_p99_us: f64,
}

/// What one caller saw.
#[derive(Debug, Serialize)]
struct Side {
    calls: usize,
    #[serde(flatten)]
    latency: Percentiles,
    background_calls_per_s: f64,
}

/// Measures with and without priority in turns, so that both see the same machine.
pub(super) fn measure(args: &PriorityArgs, progress: bool) -> anyhow::Result<PriorityReport> {
    process::raise_descriptor_limit();
    let server = ServerProcess::start(args.timed.pin())?;
    pin_client(args.timed.pin())?;
    let mut load = BusyConnections::new(&server, args.connections, args.background_size as usize, args.depth as usize)?;
    load.run(WARM_UP)?;
    let time = args.timed.time() / (2 * RUNS);
    let bar = ProgressBar::new(progress, "priority", (2 * RUNS).into());
    let (mut with, mut without) = (vec![], vec![]);
    for _ in 0..RUNS {
        for (priority, sides) in [(true, &mut with), (false, &mut without)] {
            // A connection of its own each time: where there is none with priority, the server does not look after it.
            let mut config = ClientConfig::new(server.socket());
            config.priority = priority;
            let mut connection = Connection::with(&config)?;
            beside(&mut connection, args.payload.size as usize, &mut load, time / 10)?;
            sides.push(beside(&mut connection, args.payload.size as usize, &mut load, time)?);
            bar.step();
        }
    }
    Ok(PriorityReport {
        pinned: args.timed.pin(),
        size: args.payload.size,
        background_connections: args.connections,
        background_size: args.background_size,
        background_in_flight: args.depth,
        with_priority: Side::median(&with),
        without_priority: Side::median(&without),
        goal_p99_us: GOAL_P99_US,
    })
}

/// Calls again and again, one at a time, while the load goes on.
fn beside(
    connection: &mut Connection,
    size: usize,
    load: &mut BusyConnections,
    time: Duration,
) -> anyhow::Result<Side> {
    const TURNS_PER_LOOK: usize = 256;
    let echo = connection.message_type("echo")?;
    let (payload, mut reply) = (vec![0x5A; size], Vec::new());
    let mut samples = Samples::with_capacity(1 << 20);
    let (mut turns, mut background) = (0_usize, 0);
    let start = Instant::now();
    let mut began = clock::ticks();
    connection.submit(echo, &payload)?;
    loop {
        if let Some(completion) = connection.poll(&mut reply)? {
            completion.outcome?;
            samples.add(clock::ticks() - began);
            began = clock::ticks();
            connection.submit(echo, &payload)?;
        }
        background += load.turn(turns)?;
        turns += 1;
        if turns.is_multiple_of(TURNS_PER_LOOK) && start.elapsed() >= time && samples.len() > 0 {
            break;
        }
    }
    let background_calls_per_s = background as f64 / start.elapsed().as_secs_f64();
    // The next one begins with nothing under way.
    connection.wait(&mut reply)?.outcome?;
    Ok(Side { calls: samples.len(), latency: samples.percentiles(), background_calls_per_s })
}

impl Side {
    fn median(runs: &[Self]) -> Self {
        let latencies: Vec<_> = runs.iter().map(|side| side.latency).collect();
        Self {
            calls: runs.iter().map(|side| side.calls).sum(),
            latency: median(&latencies),
            background_calls_per_s: median_of(runs.iter().map(|side| side.background_calls_per_s)),
        }
    }

    fn print(&self, name: &str) -> Outcome {
        let Percentiles { p50_us, p99_us, p999_us, max_us, .. } = self.latency;
        output::line(format_args!(
            "{name:>16}: p50 {p50_us:.2} us  p99 {p99_us:.2}  p99.9 {p999_us:.2}  max {max_us:.1}, {} calls, beside {:.2} M calls/s",
            self.calls,
            self.background_calls_per_s / 1e6
        ))
    }
}

impl PriorityReport {
    pub(super) fn print(&self) -> Outcome {
        output::line(format_args!(
            "one caller ({} B) beside {} connections with {} calls of {} B in flight each",
            self.size, self.background_connections, self.background_in_flight, self.background_size
        ))?;
        self.with_priority.print("with priority")?;
        self.without_priority.print("without priority")?;
        output::line(format_args!("goal: p99 with priority at most {} us", self.goal_p99_us))
    }
}
