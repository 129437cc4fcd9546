//! The criteria that were promised: one run, one table, for `bench criteria` and for `demo`.

mod node;
mod report;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bellrope::{CallError, Client, client::Connection, status::MemoryUse};
use bellrope_shm::CountingAllocator;
use bellrope_shm::{clock, process};
use bellrope_terminal::{Outcome, ProgressBar};
use clap::Args;
pub(crate) use report::Report;
use report::{Allocations, MemoryFound};

use super::{
    args::RunArgs,
    memory,
    rtt::{RttReport, round_trips},
    throughput::BusyConnections,
};
use crate::{
    criterion::Criterion,
    server_process::{ServerProcess, as_client, two_cpus},
};

/// Connections of the load, and calls of each.
const CLIENTS: u32 = 100;
const CALLS_EACH: u64 = 1_000;
/// Bytes of a call, and calls in flight on each connection, while throughput is measured.
const SIZE: usize = 64;
const DEPTH: usize = 16;
/// Connections that must be open at once.
const MANY: u32 = 1_000;
/// How long recovery is waited for at the most.
const PATIENCE: Duration = Duration::from_secs(5);
/// Payload bytes of the calls whose allocations are counted, and how many there are of each.
const COUNTED_SIZES: [usize; 4] = [64, 256, 1024, 4096];
const COUNTED_CALLS: u64 = 10_000;
/// Counts of the same; see [`allocations`].
const COUNTS: usize = 5;
/// What is measured one after the other.
const STEPS: u64 = 7;

const HELP: &str = "\
Examples:
  bellrope bench criteria
  bellrope bench criteria --json

Client and server are two processes, on a CPU each where there are two. The exit code is 0 only if no criterion fails. Criteria \
that this machine cannot measure are printed as `not measured` and fail nothing: coverage is read from \
target/coverage/summary.json under the current directory, where scripts/coverage leaves it, and Node is timed where `node` is \
installed.";

/// How to measure the criteria.
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
pub struct CriteriaArgs {
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// Measures all criteria with a server of its own.
pub(super) fn measure(args: &CriteriaArgs, allocator: &CountingAllocator, progress: bool) -> anyhow::Result<Report> {
    criteria(&mut ServerProcess::start(two_cpus())?, allocator, args.run.quick, progress)
}

/// What one client thread finds out with a CPU of its own.
struct Measured {
    busy: MemoryUse,
    calls: u64,
    calls_per_s: f64,
    rtt: RttReport,
    allocations: Allocations,
    answered: u32,
    idle: MemoryUse,
}

/// Measures all criteria with this server, which is killed and started again meanwhile. `allocator` is the one that this
/// program allocates with.
pub(crate) fn criteria(
    server: &mut ServerProcess,
    allocator: &CountingAllocator,
    quick: bool,
    progress: bool,
) -> anyhow::Result<Report> {
    process::raise_descriptor_limit();
    let bar = ProgressBar::new(progress, "criteria", STEPS);
    let measured = as_client(|| with_load(server, allocator, quick, &bar))?;
    let recovery = recover(server)?;
    bar.step();
    let node = node::round_trip();
    bar.step();
    drop(bar);

    Ok(Report::new(vec![
        Criterion::memory(MemoryFound {
            busy: measured.busy,
            busy_connections: CLIENTS,
            idle: measured.idle,
            idle_connections: MANY,
        }),
        Criterion::latency(&measured.rtt),
        Criterion::throughput(measured.calls_per_s, measured.calls),
        Criterion::connections(measured.answered),
        Criterion::allocations(measured.allocations),
        Criterion::recovery(recovery),
        Criterion::node(node, measured.rtt.rtt.p50_us),
        Criterion::coverage(),
    ]))
}

/// What needs the server as it is now.
fn with_load(
    server: &mut ServerProcess,
    allocator: &CountingAllocator,
    quick: bool,
    bar: &ProgressBar,
) -> anyhow::Result<Measured> {
    let mut load = BusyConnections::new(server, CLIENTS, 1024, 1)?;
    let calls = load.call_each(CALLS_EACH)?;
    // Long enough for the server to have given back what only its start needed.
    load.run(Duration::from_millis(1_200))?;
    let busy = server.memory()?;
    bar.step();
    load.reshape(SIZE, DEPTH);
    let calls_per_s = throughput(&mut load, Duration::from_millis(if quick { 200 } else { 500 }))?;
    drop(load);
    bar.step();
    let rtt = round_trips(server, 64, Duration::from_millis(if quick { 300 } else { 1_000 }))?;
    bar.step();
    let allocations = allocations(server, allocator)?;
    bar.step();
    let (_open, answered) = open_many(server)?;
    let idle = memory::at_rest(server)?;
    bar.step();
    Ok(Measured { busy, calls, calls_per_s, rtt, allocations, answered, idle })
}

/// Calls a second over all connections, best of three short runs: what the machine can do when it is left alone.
fn throughput(load: &mut BusyConnections, time: Duration) -> anyhow::Result<f64> {
    let mut best = 0.0_f64;
    for _ in 0..3 {
        let start = Instant::now();
        let calls = load.run(time)?;
        best = best.max(calls as f64 / start.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// Counts how often both processes allocate while calls are answered. All threads are counted, and some allocate every two
/// seconds for reasons of their own; so each count is taken some times and the least of them holds: what the path of a call
/// allocates is in every one. Where the machine is so busy that each of these took seconds, shorter ones follow.
fn allocations(server: &mut ServerProcess, allocator: &CountingAllocator) -> anyhow::Result<Allocations> {
    let mut connection = Connection::connect(server.socket())?;
    let echo = connection.message_type("echo")?;
    let mut reply = Vec::new();
    let mut found = Allocations::default();
    for size in COUNTED_SIZES {
        let payload = vec![0x5A; size];
        let mut call = |calls: u64| -> Outcome {
            for _ in 0..calls {
                connection.call(echo, &payload, &mut reply)?;
            }
            ensure!(reply == payload, "the echo differs from what was sent");
            Ok(())
        };
        call(COUNTED_CALLS)?;
        let (mut client, mut at_server) = (u64::MAX, u64::MAX);
        let long = [COUNTED_CALLS].repeat(COUNTS);
        for calls in long.into_iter().chain([COUNTED_CALLS / 10].repeat(COUNTS * 10)) {
            server.count_allocations()?;
            allocator.start();
            let called = call(calls);
            client = client.min(allocator.stop());
            at_server = at_server.min(server.allocations()?);
            called?;
            if client + at_server == 0 {
                break;
            }
        }
        found.client += client;
        found.server += at_server;
        found.calls += COUNTED_CALLS;
    }
    Ok(found)
}

/// Opens many connections at once, and counts those that answer a call.
fn open_many(server: &ServerProcess) -> anyhow::Result<(Vec<Connection>, u32)> {
    let mut connections = Vec::new();
    for _ in 0..MANY {
        connections.push(Connection::connect(server.socket())?);
    }
    let mut reply = Vec::new();
    let mut answered = 0;
    for connection in &mut connections {
        let echo = connection.message_type("echo")?;
        connection.call(echo, b"here", &mut reply)?;
        answered += u32::from(reply == b"here");
    }
    Ok((connections, answered))
}

/// Kills the server, starts another, and takes the time from the moment at which that one set about to listen to the first
/// answer over a client that was connected to the first. Both processes read the same monotonic clock.
fn recover(server: &mut ServerProcess) -> anyhow::Result<Duration> {
    let client = Client::connect(server.socket())?;
    client.call("echo", b"before")?;
    server.kill()?;
    ensure!(client.call_within("echo", b"nobody there", Duration::from_millis(20)).is_err(), "a dead server answered");
    let caller = std::thread::spawn(move || await_answer(&client, PATIENCE));
    server.restart()?;
    let answered =
        caller.join().map_err(|_| anyhow::anyhow!("the caller panicked"))?.context("waiting for recovery")?;
    Ok(Duration::from_micros(answered.saturating_sub(server.listening_us())))
}

/// Calls until there is an answer, and says when that was, on the monotonic clock. After `patience` the next error is the
/// last.
fn await_answer(client: &Client, patience: Duration) -> Result<u64, CallError> {
    let deadline = Instant::now() + patience;
    loop {
        match client.call("echo", b"after") {
            Ok(_) => return Ok(clock::monotonic_us()),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use bellrope::HandlerError;
    use bellrope_testkit::local_server::LocalServer;

    use super::*;

    #[test]
    fn an_answer_is_waited_for_through_errors_until_patience_ends() {
        let calls = std::sync::atomic::AtomicU32::new(0);
        let server = LocalServer::start(|builder| {
            builder.unary("echo", move |_, _| match calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                2 => Ok(()),
                _ => Err(HandlerError::invalid_request("not yet")),
            })
        });
        let client = Client::connect(server.socket()).unwrap();
        let before = clock::monotonic_us();
        let answered = await_answer(&client, PATIENCE).unwrap();
        assert!((before..=clock::monotonic_us()).contains(&answered));
        let start = Instant::now();
        let patience = Duration::from_millis(20);
        let error = await_answer(&client, patience).unwrap_err();
        assert!(start.elapsed() >= patience);
        assert_eq!(error.to_string(), "invalid_request: not yet");
    }
}
