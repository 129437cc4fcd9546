use std::time::{Duration, Instant};

use anyhow::Context;
use bellrope::{
    Connection, MessageType,
    shm::{clock, process},
};
use serde::Serialize;

use super::{
    BenchArgs, ServerProcess, limit,
    samples::{Percentiles, Samples, median},
};
use crate::{Outcome, output::Progress};

/// Runs whose median is reported.
const RUNS: u32 = 5;
const WARM_UP: u32 = 20_000;
const LIMIT_ROUNDS: u64 = 200_000;

/// Full round trips of one caller.
#[derive(Debug, Serialize)]
pub(crate) struct RttReport {
    size: u32,
    calls: usize,
    #[serde(flatten)]
    pub(crate) rtt: Percentiles,
    /// A bare cache-line ping-pong between the same two processes in the same run.
    limit_p50_us: f64,
    limit_p99_us: f64,
    pub(crate) ratio_to_limit: f64,
}

/// Measures round trips and the limit in turns, so that both see the same machine.
pub(super) fn measure(args: &BenchArgs, progress: bool) -> anyhow::Result<RttReport> {
    let mut server = ServerProcess::start(!args.no_pin)?;
    // Only now: a child inherits where its parent may run.
    if !args.no_pin {
        process::pin_to_cpu(0).context("pinning the client to a CPU")?;
    }
    let bar = Progress::new(progress, "round trips", RUNS.into());
    take_turns(&mut server, args.size, Duration::from_secs_f64(args.seconds), &bar)
}

/// Measures round trips and the limit against a running server, for about `time`.
pub(crate) fn round_trips(server: &mut ServerProcess, size: u32, time: Duration) -> anyhow::Result<RttReport> {
    take_turns(server, size, time, &Progress::new(false, "round trips", RUNS.into()))
}

fn take_turns(server: &mut ServerProcess, size: u32, time: Duration, bar: &Progress) -> anyhow::Result<RttReport> {
    let mut connection = Connection::connect(server.socket())?;
    let echo = connection.message_type("echo")?;
    let payload = vec![0x5A; size as usize];
    let mut caller = Caller { connection: &mut connection, echo, payload: &payload, reply: Vec::new() };

    let (mut rtts, mut limits, mut calls) = (Vec::new(), Vec::new(), 0);
    for _ in 0..RUNS {
        limits.push(limit::ping(server, LIMIT_ROUNDS)?.percentiles());
        caller.run(WARM_UP, Duration::MAX)?;
        let samples = caller.run(u32::MAX, time / RUNS)?;
        calls += samples.len();
        rtts.push(samples.percentiles());
        bar.step();
    }
    let (rtt, limit) = (median(&rtts), median(&limits));
    Ok(RttReport {
        size,
        calls,
        rtt,
        limit_p50_us: limit.p50_us,
        limit_p99_us: limit.p99_us,
        ratio_to_limit: rtt.p50_us / limit.p50_us,
    })
}

struct Caller<'a> {
    connection: &'a mut Connection,
    echo: MessageType,
    payload: &'a [u8],
    reply: Vec<u8>,
}

impl Caller<'_> {
    /// Calls again and again, one at a time, and notes how long each took.
    fn run(&mut self, calls: u32, time: Duration) -> anyhow::Result<Samples> {
        const CALLS_PER_LOOK: u32 = 1024;
        let start = Instant::now();
        let mut samples = Samples::with_capacity(1 << 20);
        let mut last = clock::ticks();
        for call in 0..calls {
            self.connection.call(self.echo, self.payload, &mut self.reply)?;
            let now = clock::ticks();
            samples.add(now - last);
            last = now;
            if call % CALLS_PER_LOOK == 0 {
                anyhow::ensure!(self.reply == self.payload, "the echo differs from what was sent");
                if start.elapsed() >= time {
                    break;
                }
                last = clock::ticks();
            }
        }
        Ok(samples)
    }
}

impl RttReport {
    pub(super) fn print(&self) -> Outcome {
        let Percentiles { p50_us, p90_us, p99_us, p999_us, max_us } = self.rtt;
        crate::output::line(format_args!(
            "round trip, {} B, {} calls: p50 {p50_us:.3} us  p90 {p90_us:.3}  p99 {p99_us:.3}  p99.9 {p999_us:.3}  max {max_us:.1}",
            self.size, self.calls
        ))?;
        crate::output::line(format_args!(
            "limit (cache-line ping-pong, same processes, same run): p50 {:.3} us  p99 {:.3}; ratio {:.2}",
            self.limit_p50_us, self.limit_p99_us, self.ratio_to_limit
        ))
    }
}
