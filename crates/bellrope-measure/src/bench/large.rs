use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::ensure;
use bellrope::client::Connection;
use bellrope_shm::clock;
use bellrope_terminal::{Outcome, ProgressBar, output};
use clap::Args;
use serde::Serialize;

use super::{
    args::TimedArgs,
    samples::{Percentiles, Samples, median, median_of},
    sealed::SealedEcho,
};
use crate::server_process::{ServerProcess, pin_client};

/// Runs whose median is reported.
const RUNS: u32 = 5;
const WARM_UP: u32 = 20;
/// Of round trips by sealed memory, which take long and have nothing to keep warm.
const SEALED_WARM_UP: u32 = 2;
const SIZES: [u32; 4] = [64 << 10, 256 << 10, 1 << 20, 10 << 20];
/// The least share of `memcpy`'s bandwidth that an echo is to reach, both ways counted.
const GOAL: f64 = 1.0 / 3.0;

const HELP: &str = "\
Examples:
  bellrope bench large
  bellrope bench large --size 4194304 --json

An echo is at least three copies that follow one another: of the request into private memory, of the reply by the handler, \
and of the reply out of shared memory; those into shared memory go on beside them. So what can be had of `memcpy` is two \
thirds, counted both ways; a handler that answers in place, as this one, spares the second. Beside it stands what a round \
trip costs by memory that is sealed against writing and handed over by its descriptor, which copies nothing out.";

/// How to measure large messages.
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP, mut_arg("seconds", |arg| arg.required(false).default_value("4").help("Seconds to measure each size")))]
pub struct LargeArgs {
    /// Payload bytes of a call, and of its echo; any number of times [default: 64 KiB, 256 KiB, 1 MiB, 10 MiB].
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=10 << 20))]
    size: Vec<u32>,
    #[command(flatten)]
    pub(super) timed: TimedArgs,
}

/// Echoes of large messages.
#[derive(Debug, Serialize)]
pub(crate) struct LargeReport {
    pinned: bool,
    goal_both_ways_to_memcpy: f64,
    sizes: Vec<Row>,
}

/// One size.
#[derive(Debug, Serialize)]
struct Row {
    size: u32,
    echoes: usize,
    round_trip: Percentiles,
    /// The payload by the median round trip, counted once an echo.
    one_way_gb_per_s: f64,
    /// The payload, counted on its way there and on its way back.
    both_ways_gb_per_s: f64,
    /// Bytes copied from one buffer of this size to another by the same thread in the same run, by the median copy.
    memcpy_gb_per_s: f64,
    one_way_to_memcpy: f64,
    both_ways_to_memcpy: f64,
    /// The median round trip by sealed memory of which the descriptor travels, made and read anew each way.
    sealed_memfd_round_trip_us: f64,
    /// How many of our round trips that is.
    sealed_memfd_to_ours: f64,
}

/// Measures echoes and `memcpy` in turns, so that both see the same machine.
pub(super) fn measure(args: &LargeArgs, progress: bool) -> anyhow::Result<LargeReport> {
    let mut server = ServerProcess::start(args.timed.pin())?;
    pin_client(args.timed.pin())?;
    let mut connection = Connection::connect(server.socket())?;
    let sizes = if args.size.is_empty() { &SIZES[..] } else { &args.size };
    let time = args.timed.time() / RUNS;
    let bar = ProgressBar::new(progress, "large messages", u64::from(RUNS) * sizes.len() as u64);
    let row = |&size| measure_size(&mut server, &mut connection, size, time, &bar);
    Ok(LargeReport {
        pinned: args.timed.pin(),
        goal_both_ways_to_memcpy: GOAL,
        sizes: sizes.iter().map(row).collect::<anyhow::Result<_>>()?,
    })
}

fn measure_size(
    server: &mut ServerProcess,
    connection: &mut Connection,
    size: u32,
    time: Duration,
    bar: &ProgressBar,
) -> anyhow::Result<Row> {
    let payload: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
    let (mut source, mut target, mut reply) = (Paged::new(&payload), Paged::new(&payload), Vec::new());
    let (mut round_trips, mut copies, mut sealed, mut echoes) = (vec![], vec![], vec![], 0);
    let echo = connection.message_type("echo")?;
    for _ in 0..RUNS {
        let mut copy = || {
            black_box(target.bytes()).copy_from_slice(black_box(source.bytes()));
            Ok(())
        };
        copies.push(repeat(WARM_UP, time / 4, &mut copy)?.percentiles().p50_us);

        let mut call = || Ok(connection.call(echo, &payload, &mut reply)?);
        let samples = repeat(WARM_UP, time / 2, &mut call)?;
        ensure!(reply == payload, "the echo differs from what was sent");
        echoes += samples.len();
        round_trips.push(samples.percentiles());

        let echo = SealedEcho::start(server)?;
        sealed.push(repeat(SEALED_WARM_UP, time / 4, &mut || echo.round_trip(&payload))?.percentiles().p50_us);
        bar.step();
    }
    let round_trip = median(&round_trips);
    let gb_per_s = |us: f64| f64::from(size) / us / 1000.0;
    let (one_way, memcpy) = (gb_per_s(round_trip.p50_us), gb_per_s(median_of(copies.into_iter())));
    let sealed_us = median_of(sealed.into_iter());
    Ok(Row {
        size,
        echoes,
        round_trip,
        one_way_gb_per_s: one_way,
        both_ways_gb_per_s: 2.0 * one_way,
        memcpy_gb_per_s: memcpy,
        one_way_to_memcpy: one_way / memcpy,
        both_ways_to_memcpy: 2.0 * one_way / memcpy,
        sealed_memfd_round_trip_us: sealed_us,
        sealed_memfd_to_ours: sealed_us / round_trip.p50_us,
    })
}

/// Does something again and again. Returns how long it took each time.
fn repeat(warm_up: u32, time: Duration, work: &mut impl FnMut() -> Outcome) -> anyhow::Result<Samples> {
    for _ in 0..warm_up {
        work()?;
    }
    let mut samples = Samples::with_capacity(1 << 16);
    let start = Instant::now();
    while samples.len() == 0 || start.elapsed() < time {
        let began = clock::ticks();
        work()?;
        samples.add(clock::ticks() - began);
    }
    Ok(samples)
}

/// Bytes that begin with a page: where two buffers lie a few bytes apart in their pages, some processors copy at a
/// fraction of their speed, and chance is no limit to compare with.
struct Paged {
    buffer: Vec<u8>,
    start: usize,
    len: usize,
}

impl Paged {
    fn new(bytes: &[u8]) -> Self {
        const PAGE: usize = 4096;
        let buffer = vec![0; bytes.len() + PAGE];
        let start = buffer.as_ptr().align_offset(PAGE);
        let mut paged = Self { buffer, start, len: bytes.len() };
        paged.bytes().copy_from_slice(bytes);
        paged
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.start + self.len]
    }
}

impl LargeReport {
    pub(super) fn print(&self) -> Outcome {
        output::line(format_args!(
            "{:>9} {:>11} {:>11} {:>9} {:>9} {:>9} {:>9} {:>9} {:>13}",
            "bytes", "p50 us", "p99 us", "GB/s", "both ways", "memcpy", "ratio", "both ways", "sealed memfd"
        ))?;
        for row in &self.sizes {
            output::line(format_args!(
                "{:>9} {:>11.1} {:>11.1} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>10.1} us",
                row.size,
                row.round_trip.p50_us,
                row.round_trip.p99_us,
                row.one_way_gb_per_s,
                row.both_ways_gb_per_s,
                row.memcpy_gb_per_s,
                row.one_way_to_memcpy,
                row.both_ways_to_memcpy,
                row.sealed_memfd_round_trip_us
            ))?;
        }
        output::line(format_args!(
            "goal: both ways at least {:.2} of memcpy, of one buffer to another in the same run",
            self.goal_both_ways_to_memcpy
        ))
    }
}
