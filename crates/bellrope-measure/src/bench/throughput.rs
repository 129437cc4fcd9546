use std::time::{Duration, Instant};

use bellrope::{
    client::{ClientConfig, Connection, MessageType},
    status::MemoryUse,
};
use bellrope_shm::process;
use bellrope_terminal::{Outcome, ProgressBar, output};
use clap::Args;
use serde::Serialize;

use super::{
    args::{SizeArgs, TimedArgs},
    bare,
    samples::median_of,
};
use crate::{
    server_process::{ServerProcess, pin_client},
    slots::SlotShape,
};

const WARM_UP: Duration = Duration::from_millis(500);
/// Slices of the measured time; progress is shown after each.
const SLICES: u32 = 10;

/// How to measure calls a second.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  bellrope bench throughput --connections 1 --size 64 --depth 64\n  \
                  bellrope bench throughput --connections 1000 --size 1024 --depth 1 --json",
    mut_arg("seconds", |arg| arg.required(false).default_value("2"))
)]
pub struct ThroughputArgs {
    #[command(flatten)]
    payload: SizeArgs,
    /// Calls in flight on each connection.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    depth: u32,
    /// Connections.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20000))]
    connections: u32,
    #[command(flatten)]
    pub(super) timed: TimedArgs,
}

/// Calls a second, and what the server used for them.
#[derive(Debug, Serialize)]
pub(crate) struct ThroughputReport {
    connections: u32,
    size: u32,
    depth: u32,
    calls: u64,
    seconds: f64,
    pub(crate) calls_per_s: f64,
    /// What bare slots carried in the same run, and our share of it.
    bare_calls_per_s: f64,
    share_of_bare: f64,
    pub(crate) server_rss_kb: u64,
    server_rss_anon_kb: u64,
    server_rss_file_kb: u64,
    server_rss_shmem_kb: u64,
}

/// Keeps `depth` calls in flight on each of many connections, from one thread.
pub(super) fn measure(args: &ThroughputArgs, progress: bool) -> anyhow::Result<ThroughputReport> {
    process::raise_descriptor_limit();
    let mut server = ServerProcess::start(args.timed.pin())?;
    pin_client(args.timed.pin())?;
    let shape = SlotShape {
        connections: args.connections as usize,
        depth: args.depth as usize,
        size: args.payload.size as usize,
    };
    let mut load = BusyConnections::new(&server, args.connections, shape.size, shape.depth)?;
    load.run(WARM_UP)?;

    let bar = ProgressBar::new(progress, "throughput", SLICES.into());
    let slice = args.timed.time() / SLICES;
    let (mut calls, mut seconds, mut bares) = (0, 0.0, Vec::new());
    for _ in 0..SLICES {
        bares.push(bare::calls_per_s(&mut server, shape, slice / 4)?);
        let start = Instant::now();
        calls += load.run(slice)?;
        seconds += start.elapsed().as_secs_f64();
        bar.step();
    }
    let (calls_per_s, bare_calls_per_s) = (calls as f64 / seconds, median_of(bares.into_iter()));
    let MemoryUse { rss_kb, anon_kb, file_kb, shmem_kb, .. } = server.memory()?;
    Ok(ThroughputReport {
        connections: args.connections,
        size: args.payload.size,
        depth: args.depth,
        calls,
        seconds,
        calls_per_s,
        bare_calls_per_s,
        share_of_bare: calls_per_s / bare_calls_per_s,
        server_rss_kb: rss_kb,
        server_rss_anon_kb: anon_kb,
        server_rss_file_kb: file_kb,
        server_rss_shmem_kb: shmem_kb,
    })
}

/// Connections that are kept busy.
pub(crate) struct BusyConnections {
    callers: Vec<(Connection, MessageType)>,
    payload: Vec<u8>,
    reply: Vec<u8>,
    depth: usize,
}

impl BusyConnections {
    /// Connects `connections` times.
    pub(crate) fn new(server: &ServerProcess, connections: u32, size: usize, depth: usize) -> anyhow::Result<Self> {
        Self::over(&ClientConfig::new(server.socket()), connections, size, depth)
    }

    /// The same over any transport.
    pub(crate) fn over(config: &ClientConfig, connections: u32, size: usize, depth: usize) -> anyhow::Result<Self> {
        let connect = |_| -> anyhow::Result<_> {
            let connection = Connection::with(config)?;
            let echo = connection.message_type("echo")?;
            Ok((connection, echo))
        };
        let callers = (0..connections).map(connect).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Self { callers, payload: vec![0x5A; size], reply: Vec::new(), depth })
    }

    /// Changes the size of a call and how many each connection has in flight.
    pub(crate) fn reshape(&mut self, size: usize, depth: usize) {
        self.payload.resize(size, 0x5A);
        self.depth = depth;
    }

    /// One turn of the `nth` connection, modulo their number. Returns how many of its calls were answered.
    pub(crate) fn turn(&mut self, nth: usize) -> anyhow::Result<u64> {
        let index = nth % self.callers.len();
        turn(&mut self.callers[index], &self.payload, &mut self.reply, self.depth, &mut { u64::MAX })
    }

    /// Calls for `time` and returns how many were answered.
    pub(crate) fn run(&mut self, time: Duration) -> anyhow::Result<u64> {
        const ROUNDS_PER_LOOK: u32 = 16;
        let start = Instant::now();
        let (mut answered, mut round, mut without_end) = (0_u64, 0_u32, u64::MAX);
        loop {
            for caller in &mut self.callers {
                answered += turn(caller, &self.payload, &mut self.reply, self.depth, &mut without_end)?;
            }
            round += 1;
            if round.is_multiple_of(ROUNDS_PER_LOOK) && start.elapsed() >= time {
                return Ok(answered);
            }
        }
    }

    /// Makes every connection call `calls` times, and returns when all are answered.
    pub(crate) fn call_each(&mut self, calls: u64) -> anyhow::Result<u64> {
        let mut left: Vec<u64> = vec![calls; self.callers.len()];
        let total = calls * self.callers.len() as u64;
        let mut answered = 0;
        while answered < total {
            for (caller, left) in self.callers.iter_mut().zip(&mut left) {
                answered += turn(caller, &self.payload, &mut self.reply, self.depth, left)?;
            }
        }
        Ok(total)
    }
}

/// Takes the answers that have come on one connection, and sends calls until `depth` are in flight or none is `left`.
/// Returns how many were answered.
fn turn(
    (connection, echo): &mut (Connection, MessageType),
    payload: &[u8],
    reply: &mut Vec<u8>,
    depth: usize,
    left: &mut u64,
) -> anyhow::Result<u64> {
    let mut answered = 0;
    while let Some(completion) = connection.poll(reply)? {
        completion.outcome?;
        answered += 1;
    }
    while *left > 0 && connection.in_flight() < depth {
        if connection.queue(*echo, payload)?.is_none() {
            break;
        }
        *left -= 1;
    }
    connection.flush();
    Ok(answered)
}

impl ThroughputReport {
    pub(super) fn print(&self) -> Outcome {
        output::line(format_args!(
            "{} connections, {} B, {} in flight each: {:.2} M calls/s ({} calls in {:.1} s)",
            self.connections,
            self.size,
            self.depth,
            self.calls_per_s / 1e6,
            self.calls,
            self.seconds
        ))?;
        output::line(format_args!(
            "bare slots in shared memory (no check, no id, no wake-up), same processes, same run: {:.2} M calls/s; share {:.2}",
            self.bare_calls_per_s / 1e6,
            self.share_of_bare
        ))?;
        output::line(format_args!(
            "server memory: {} KiB resident = {} anonymous + {} of files + {} shared",
            self.server_rss_kb, self.server_rss_anon_kb, self.server_rss_file_kb, self.server_rss_shmem_kb
        ))
    }
}
