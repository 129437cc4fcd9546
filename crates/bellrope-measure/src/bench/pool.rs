use std::{
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};

use anyhow::anyhow;
use bellrope::client::{Pool, PoolConfig};
use bellrope_shm::clock;
use bellrope_terminal::{Outcome, ProgressBar, output};
use clap::Args;
use serde::Serialize;

use super::{
    args::{SizeArgs, SpanArgs},
    samples::{Percentiles, Samples, median, median_of},
};
use crate::server_process::ServerProcess;

/// Runs whose median is reported.
const RUNS: u32 = 5;
const GOAL_P99_US: f64 = 50.0;
const GOAL_REUSED_PERCENT: f64 = 95.0;

const HELP: &str = "\
Examples:
  bellrope bench pool
  bellrope bench pool --threads 16 --json

Each thread takes a connection from the pool, makes one call and gives the connection back. Threads and server run where the \
scheduler puts them; with more of them than CPUs, waiting for a CPU is part of what is measured.";

/// How to measure a pool of connections.
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP, mut_arg("seconds", |arg| arg.required(false).default_value("5")))]
pub struct PoolArgs {
    /// Threads that share the pool.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
    #[command(flatten)]
    payload: SizeArgs,
    #[command(flatten)]
    pub(super) span: SpanArgs,
}

/// What a pool costs.
#[derive(Debug, Serialize)]
pub(crate) struct PoolReport {
    threads: u32,
    size: u32,
    calls: usize,
    calls_per_s: f64,
    /// Taking a connection from the pool.
    acquire: Percentiles,
    connections_made: u64,
    reused_percent: f64,
    goal_acquire_p99_us: f64,
    goal_reused_percent: f64,
}

/// Has threads share a pool.
pub(super) fn measure(args: &PoolArgs, progress: bool) -> anyhow::Result<PoolReport> {
    let server = ServerProcess::start(false)?;
    let pool = Pool::new(PoolConfig::new(server.socket()));
    let time = args.span.time() / RUNS;
    let bar = ProgressBar::new(progress, "pool", RUNS.into());
    let (mut acquires, mut rates, mut calls) = (vec![], vec![], 0);
    for _ in 0..RUNS {
        let start = Instant::now();
        let samples = together(&pool, args, time)?;
        rates.push(samples.len() as f64 / start.elapsed().as_secs_f64());
        calls += samples.len();
        acquires.push(samples.percentiles());
        bar.step();
    }
    let stats = pool.stats();
    Ok(PoolReport {
        threads: args.threads,
        size: args.payload.size,
        calls,
        calls_per_s: median_of(rates.into_iter()),
        acquire: median(&acquires),
        connections_made: stats.created,
        reused_percent: 100.0 * stats.reused as f64 / stats.acquired as f64,
        goal_acquire_p99_us: GOAL_P99_US,
        goal_reused_percent: GOAL_REUSED_PERCENT,
    })
}

/// All threads at once, for `time`.
fn together(pool: &Pool, args: &PoolArgs, time: Duration) -> anyhow::Result<Samples> {
    let start = Arc::new(Barrier::new(args.threads as usize));
    let spawn = |_| {
        let (pool, start, size) = (pool.clone(), Arc::clone(&start), args.payload.size as usize);
        std::thread::spawn(move || {
            start.wait();
            user(&pool, size, time)
        })
    };
    let threads: Vec<_> = (0..args.threads).map(spawn).collect();
    let mut all = Samples::with_capacity(0);
    for thread in threads {
        all.append(thread.join().map_err(|_| anyhow!("a thread of the measurement panicked"))??);
    }
    Ok(all)
}

/// One thread that uses the pool.
fn user(pool: &Pool, size: usize, time: Duration) -> anyhow::Result<Samples> {
    const CALLS_PER_LOOK: usize = 16;
    let (payload, mut reply) = (vec![0x5A; size], Vec::new());
    let mut samples = Samples::with_capacity(1 << 18);
    let start = Instant::now();
    loop {
        let began = clock::ticks();
        let mut connection = pool.acquire()?;
        samples.add(clock::ticks() - began);
        let echo = connection.message_type("echo")?;
        connection.call(echo, &payload, &mut reply)?;
        drop(connection);
        if samples.len().is_multiple_of(CALLS_PER_LOOK) && start.elapsed() >= time {
            return Ok(samples);
        }
    }
}

impl PoolReport {
    pub(super) fn print(&self) -> Outcome {
        let Percentiles { p50_us, p99_us, p999_us, max_us, .. } = self.acquire;
        output::line(format_args!(
            "{} threads, calls of {} B: {:.0} calls/s ({} calls)",
            self.threads, self.size, self.calls_per_s, self.calls
        ))?;
        output::line(format_args!(
            "taking a connection: p50 {p50_us:.2} us  p99 {p99_us:.2}  p99.9 {p999_us:.2}  max {max_us:.1}; goal: p99 below {} us",
            self.goal_acquire_p99_us
        ))?;
        output::line(format_args!(
            "{:.3} % of them had been used before ({} were made); goal: {} %",
            self.reused_percent, self.connections_made, self.goal_reused_percent
        ))
    }
}
