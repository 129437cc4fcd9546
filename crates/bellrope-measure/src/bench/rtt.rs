use std::time::{Duration, Instant};

use bellrope::client::{Connection, MessageType};
use bellrope_shm::clock;
use bellrope_terminal::{Outcome, ProgressBar, output};
use clap::Args;
use serde::Serialize;

use super::{
    args::{SizeArgs, TimedArgs},
    bare, limit,
    samples::{Percentiles, Samples, median},
};
use crate::server_process::{ServerProcess, pin_client};

/// Runs whose median is reported.
const RUNS: u32 = 5;
const WARM_UP: u32 = 20_000;
const LIMIT_ROUNDS: u64 = 200_000;
const LIMIT_TIME: Duration = Duration::from_secs(2);

/// How to measure round trips.
#[derive(Debug, Clone, Args)]
#[command(mut_arg("seconds", |arg| arg.required(false).default_value("2")))]
#[command(
    after_help = "Examples:\n  bellrope bench rtt --size 64\n  bellrope bench rtt --size 1024 --seconds 10 --json"
)]
pub struct RttArgs {
    #[command(flatten)]
    payload: SizeArgs,
    #[command(flatten)]
    pub(super) timed: TimedArgs,
}

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
    /// The same payload over bare slots: one more line each way than a ping-pong where it is 64 bytes, and copies.
    bare_p50_us: f64,
    bare_p99_us: f64,
    ratio_to_bare: f64,
}

/// Measures round trips and the limit in turns, so that both see the same machine.
pub(super) fn measure(args: &RttArgs, progress: bool) -> anyhow::Result<RttReport> {
    let mut server = ServerProcess::start(args.timed.pin())?;
    pin_client(args.timed.pin())?;
    let bar = ProgressBar::new(progress, "round trips", RUNS.into());
    take_turns(&mut server, args.payload.size, args.timed.time(), &bar)
}

/// Measures round trips and the limit against a running server, for about `time`.
pub(crate) fn round_trips(server: &mut ServerProcess, size: u32, time: Duration) -> anyhow::Result<RttReport> {
    take_turns(server, size, time, &ProgressBar::new(false, "round trips", RUNS.into()))
}

fn take_turns(server: &mut ServerProcess, size: u32, time: Duration, bar: &ProgressBar) -> anyhow::Result<RttReport> {
    let mut connection = Connection::connect(server.socket())?;
    let echo = connection.message_type("echo")?;
    let payload = vec![0x5A; size as usize];
    let mut caller = Caller { connection: &mut connection, echo, payload: &payload, reply: Vec::new() };

    let (mut rtts, mut limits, mut bares, mut calls) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for _ in 0..RUNS {
        limits.push(limit::ping(server, LIMIT_ROUNDS, LIMIT_TIME)?.percentiles());
        bares.push(bare::round_trips(server, size as usize, time / (4 * RUNS))?.percentiles());
        caller.run(WARM_UP, Duration::MAX)?;
        let samples = caller.run(u32::MAX, time / RUNS)?;
        calls += samples.len();
        rtts.push(samples.percentiles());
        bar.step();
    }
    let (rtt, limit, bare) = (median(&rtts), median(&limits), median(&bares));
    Ok(RttReport {
        size,
        calls,
        rtt,
        limit_p50_us: limit.p50_us,
        limit_p99_us: limit.p99_us,
        ratio_to_limit: rtt.p50_us / limit.p50_us,
        bare_p50_us: bare.p50_us,
        bare_p99_us: bare.p99_us,
        ratio_to_bare: rtt.p50_us / bare.p50_us,
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
        output::line(format_args!(
            "round trip, {} B, {} calls: p50 {p50_us:.3} us  p90 {p90_us:.3}  p99 {p99_us:.3}  p99.9 {p999_us:.3}  max {max_us:.1}",
            self.size, self.calls
        ))?;
        output::line(format_args!(
            "limit (cache-line ping-pong, same processes, same run): p50 {:.3} us  p99 {:.3}; ratio {:.2}",
            self.limit_p50_us, self.limit_p99_us, self.ratio_to_limit
        ))?;
        output::line(format_args!(
            "the same bytes over bare slots (no check, no id, no wake-up): p50 {:.3} us  p99 {:.3}; ratio {:.2}",
            self.bare_p50_us, self.bare_p99_us, self.ratio_to_bare
        ))
    }
}
