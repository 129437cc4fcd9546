//! `bellrope demo`: the main job and the user's criteria, in one command.

mod criteria;
mod node;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bellrope::{Client, Connection};
use bellrope_gateway::{ChatRequest, Chunk, SequencedChunk};
use clap::Args;
use criteria::{Criterion, Report};

use crate::{
    Outcome,
    bench::{self, Load, ServerProcess},
    output::{self, Progress},
};

const HELP: &str = "\
Examples:
  bellrope demo
  bellrope demo --json

Starts a server on a private socket in a process of its own, streams a chat through it, lets 100 clients make 1,000 calls
each, and measures the criteria. Ends by itself within 30 seconds, and leaves nothing behind. The exit code is 0 only if no
criterion fails; what cannot be measured here is said to be so and decides nothing.";

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

/// How to show the outcome.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct DemoArgs {
    /// Print JSON instead of a table; everything else goes to standard error.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &DemoArgs) -> Outcome {
    // One CPU each for client and server, where there are two.
    let pin = bellrope::shm::process::usable_cpus() > 1;
    let mut server = ServerProcess::start(pin)?;
    output::note(format_args!(
        "server on {}; health on http://{}/health, /metrics, /ready and /live while this runs",
        server.socket().display(),
        server.health()
    ));
    if pin {
        bellrope::shm::process::pin_to_cpu(0).context("pinning the clients to a CPU")?;
    }
    chat(&server)?;

    let progress = Progress::new(true, "measuring", 6);
    let mut load = Load::new(&server, CLIENTS, 1024, 1)?;
    let calls = load.call_each(CALLS_EACH)?;
    progress.step();
    // Long enough for the server to have given back what only its start and the chat needed.
    load.run(Duration::from_millis(1_200))?;
    let busy_memory = server.memory()?;
    load.reshape(SIZE, DEPTH);
    let calls_per_s = throughput(&mut load)?;
    drop(load);
    progress.step();
    let rtt = bench::round_trips(&mut server, 64, Duration::from_secs(1))?;
    progress.step();
    let open = open_many(&server)?;
    progress.step();
    let recovery = recover(&mut server)?;
    progress.step();
    let node = node::round_trip().inspect_err(|error| tracing::debug!(%error, "Node was not measured"));
    progress.step();
    drop(progress);

    let report = Report::new(vec![
        Criterion::memory(busy_memory, CLIENTS),
        Criterion::latency(&rtt),
        Criterion::throughput(calls_per_s, calls),
        Criterion::connections(open),
        Criterion::recovery(recovery),
        Criterion::node(node.ok(), rtt.rtt.p50_us),
        Criterion::coverage(),
        Criterion::allocations(),
    ]);
    let shown = if args.json { output::json(&report) } else { report.print() };
    shown?;
    ensure!(report.all_pass, "a criterion failed");
    Ok(())
}

/// Streams an answer through the server, as an editor would.
fn chat(server: &ServerProcess) -> Outcome {
    let client = Client::connect(server.socket())?;
    let request = ChatRequest::user("What is a bell rope for?");
    let (mut answer, mut chunks, mut done) = (String::new(), 0_u32, false);
    for chunk in client.stream("ai.chat_stream", &serde_json::to_vec(&request)?)? {
        let piece: SequencedChunk = serde_json::from_slice(&chunk?).context("reading a chunk")?;
        chunks += 1;
        match piece.chunk {
            Chunk::Text { text } => answer.push_str(&text),
            Chunk::Done { .. } => done = true,
            _ => {}
        }
    }
    ensure!(done, "the answer broke off");
    output::note(format_args!("chat, {chunks} chunks over shared memory: {answer}"));
    Ok(())
}

/// Calls a second over all connections, best of three short runs: what the machine can do when it is left alone.
fn throughput(load: &mut Load) -> anyhow::Result<f64> {
    let mut best = 0.0_f64;
    for _ in 0..3 {
        let start = Instant::now();
        let calls = load.run(Duration::from_millis(500))?;
        best = best.max(calls as f64 / start.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// Opens many connections at once, and counts those that answer a call.
fn open_many(server: &ServerProcess) -> anyhow::Result<u32> {
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
    Ok(answered)
}

/// Kills the server, starts another, and takes the time from its readiness to the first answer over a client that was
/// connected to the first.
fn recover(server: &mut ServerProcess) -> anyhow::Result<Duration> {
    let client = Client::connect(server.socket())?;
    client.call("echo", b"before")?;
    server.kill()?;
    ensure!(client.call_within("echo", b"nobody there", Duration::from_millis(20)).is_err(), "a dead server answered");
    let caller = std::thread::spawn(move || {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match client.call("echo", b"after") {
                Ok(_) => return Ok(Instant::now()),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => {}
            }
        }
    });
    server.restart()?;
    let back = Instant::now();
    let answered = caller.join().map_err(|_| anyhow::anyhow!("the caller panicked"))??;
    Ok(answered.saturating_duration_since(back))
}
