use std::time::{Duration, Instant};

use bellrope::client::{Connection, MessageType, SpinPolicy};
use bellrope_shm::{clock, process};
use bellrope_terminal::{Outcome, ProgressBar, output};
use clap::Args;
use serde::Serialize;

use super::{
    args::TimedArgs,
    samples::{Percentiles, Samples, median, median_of},
};
use crate::server_process::{ServerProcess, pin_client};

/// Runs whose median is reported.
const RUNS: u32 = 5;
const POLITE_SIZE: usize = 64;
/// The most that a server lets a connection have in flight.
const FLOOD_DEPTH: usize = 1024;
/// Answers that the flood takes, and calls it sends, between two looks at the polite ones.
const FLOOD_STEP: usize = 4;
/// The most that a flood is to lengthen the p99 of the others.
const GOAL: f64 = 2.0;

const HELP: &str = "\
Examples:
  bellrope bench fairness
  bellrope bench fairness --flood-size 4096 --json

All clients are driven by one thread, the flood too, so that client and server have a CPU each. The flood takes and sends 4 \
calls between two looks at the others; that time at the client is part of what is measured with it.";

/// How to measure what a client that floods does to the others.
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP, mut_arg("seconds", |arg| arg.required(false).default_value("10").help("Seconds to measure: half of it with the flood, half without")))]
pub struct FairnessArgs {
    /// Clients with one call at a time and a pause after each.
    #[arg(long, default_value_t = 99, value_parser = clap::value_parser!(u32).range(1..=9999))]
    clients: u32,
    /// Microseconds of that pause, give or take a quarter.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pause: u32,
    /// Payload bytes of the flood's calls.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(0..=65536))]
    flood_size: u32,
    #[command(flatten)]
    pub(super) timed: TimedArgs,
}

/// Polite clients with and without a flood.
#[derive(Debug, Serialize)]
pub(crate) struct FairnessReport {
    pinned: bool,
    clients: u32,
    pause_us: u32,
    flood_size: u32,
    /// Where the flood came from.
    flood_runs_in: &'static str,
    alone: Percentiles,
    beside_flood: Percentiles,
    /// Calls of the polite ones, measured with the flood and without.
    calls: usize,
    flood_calls_per_s: f64,
    p99_ratio: f64,
    goal_p99_ratio: f64,
}

/// Measures with and without the flood in turns, so that both see the same machine.
pub(super) fn measure(args: &FairnessArgs, progress: bool) -> anyhow::Result<FairnessReport> {
    process::raise_descriptor_limit();
    // A worker that dozes off between polite calls, and is kept awake by the flood, would make the flood look like help.
    let server = ServerProcess::start_spinning(args.timed.pin(), SpinPolicy::Always)?;
    pin_client(args.timed.pin())?;
    let mut crowd = Crowd::connect(&server, args)?;
    let mut flood = Flood::connect(&server, args.flood_size as usize)?;
    let time = args.timed.time() / (2 * RUNS);
    crowd.run(None, time / 2)?;
    let bar = ProgressBar::new(progress, "fairness", (2 * RUNS).into());
    let (mut alone, mut beside, mut rates, mut calls) = (vec![], vec![], vec![], 0);
    for _ in 0..RUNS {
        let samples = crowd.run(None, time)?;
        calls += samples.len();
        alone.push(samples.percentiles());
        bar.step();
        let start = Instant::now();
        let samples = crowd.run(Some(&mut flood), time)?;
        rates.push(flood.end()? as f64 / start.elapsed().as_secs_f64());
        calls += samples.len();
        beside.push(samples.percentiles());
        bar.step();
    }
    let (alone, beside_flood) = (median(&alone), median(&beside));
    Ok(FairnessReport {
        pinned: args.timed.pin(),
        clients: args.clients,
        pause_us: args.pause,
        flood_size: args.flood_size,
        flood_runs_in: "the thread that drives the clients",
        alone,
        beside_flood,
        calls,
        flood_calls_per_s: median_of(rates.into_iter()),
        p99_ratio: beside_flood.p99_us / alone.p99_us,
        goal_p99_ratio: GOAL,
    })
}

/// The polite clients.
struct Crowd {
    clients: Vec<Polite>,
    pause: f64,
}

struct Polite {
    connection: Connection,
    echo: MessageType,
    /// When its call was sent, or its next is due, in ticks.
    at: u64,
    calling: bool,
}

impl Crowd {
    fn connect(server: &ServerProcess, args: &FairnessArgs) -> anyhow::Result<Self> {
        let connect = |_| -> anyhow::Result<_> {
            let connection = Connection::connect(server.socket())?;
            let echo = connection.message_type("echo")?;
            Ok(Polite { connection, echo, at: 0, calling: false })
        };
        let clients = (0..args.clients).map(connect).collect::<anyhow::Result<_>>()?;
        Ok(Self { clients, pause: f64::from(args.pause) * 1000.0 * clock::ticks_per_ns() })
    }

    /// Has everybody call and pause for `time`, the flood between one look at them and the next.
    fn run(&mut self, mut flood: Option<&mut Flood>, time: Duration) -> anyhow::Result<Samples> {
        const LOOKS_PER_LOOK: u32 = 256;
        let (payload, mut reply) = ([0x5A; POLITE_SIZE], Vec::new());
        let mut samples = Samples::with_capacity(1 << 20);
        let (start, mut looks) = (Instant::now(), 0_u32);
        // Calls begin evenly spread, and are kept from falling into step by pauses of different lengths.
        let now = clock::ticks();
        let many = self.clients.len() as f64;
        for (index, client) in self.clients.iter_mut().enumerate() {
            client.at = now + (self.pause * index as f64 / many) as u64;
        }
        let mut scatter = 0_u32;
        loop {
            looks += 1;
            let over = looks.is_multiple_of(LOOKS_PER_LOOK) && start.elapsed() >= time && samples.len() > 0;
            for client in &mut self.clients {
                if client.calling {
                    if over {
                        client.connection.wait(&mut reply)?.outcome?;
                        client.calling = false;
                    } else if let Some(completion) = client.connection.poll(&mut reply)? {
                        completion.outcome?;
                        let now = clock::ticks();
                        samples.add(now - client.at);
                        client.calling = false;
                        scatter = scatter.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        let share = 0.75 + 0.5 * f64::from(scatter >> 16) / 65536.0;
                        client.at = now + (self.pause * share) as u64;
                    }
                } else if !over && clock::ticks() >= client.at {
                    client.at = clock::ticks();
                    client.connection.submit(client.echo, &payload)?;
                    client.calling = true;
                }
            }
            if over {
                return Ok(samples);
            }
            if let Some(flood) = &mut flood {
                flood.step()?;
            }
        }
    }
}

/// The client that keeps as many calls in flight as it may.
struct Flood {
    connection: Connection,
    echo: MessageType,
    payload: Vec<u8>,
    reply: Vec<u8>,
    answered: u64,
}

impl Flood {
    fn connect(server: &ServerProcess, size: usize) -> anyhow::Result<Self> {
        let connection = Connection::connect(server.socket())?;
        let echo = connection.message_type("echo")?;
        Ok(Self { connection, echo, payload: vec![0x5A; size], reply: Vec::new(), answered: 0 })
    }

    fn step(&mut self) -> anyhow::Result<()> {
        for _ in 0..FLOOD_STEP {
            let Some(completion) = self.connection.poll(&mut self.reply)? else { break };
            completion.outcome?;
            self.answered += 1;
        }
        for _ in 0..FLOOD_STEP {
            let full = self.connection.in_flight() >= FLOOD_DEPTH;
            if full || self.connection.queue(self.echo, &self.payload)?.is_none() {
                break;
            }
        }
        self.connection.flush();
        Ok(())
    }

    /// Takes what is still to come, and returns how many calls were answered.
    fn end(&mut self) -> anyhow::Result<u64> {
        while self.connection.in_flight() > 0 {
            self.connection.wait(&mut self.reply)?.outcome?;
            self.answered += 1;
        }
        Ok(std::mem::take(&mut self.answered))
    }
}

impl FairnessReport {
    pub(super) fn print(&self) -> Outcome {
        output::line(format_args!(
            "{} clients with calls of {POLITE_SIZE} B and pauses of {} us, {} calls",
            self.clients, self.pause_us, self.calls
        ))?;
        for (name, latency) in [("alone", self.alone), ("beside a flood", self.beside_flood)] {
            let Percentiles { p50_us, p99_us, p999_us, max_us, .. } = latency;
            output::line(format_args!(
                "{name:>14}: p50 {p50_us:.2} us  p99 {p99_us:.2}  p99.9 {p999_us:.2}  max {max_us:.1}"
            ))?;
        }
        output::line(format_args!(
            "the flood: {:.2} M calls/s of {} B, from {}",
            self.flood_calls_per_s / 1e6,
            self.flood_size,
            self.flood_runs_in
        ))?;
        output::line(format_args!("p99: {:.2} times as long; goal: at most {}", self.p99_ratio, self.goal_p99_ratio))
    }
}
