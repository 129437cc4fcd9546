//! What a call and a stream through a fleet cost, beside NATS alone in the same run: a private NATS server, instances and an
//! importing server, each in a process of its own.

mod bare;
mod costs;
mod kills;
mod served;
mod stage;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bellrope_shm::clock;
use bellrope_terminal::{Outcome, ProgressBar, output};
use clap::Args;
use serde::Serialize;

use self::{
    bare::Bare,
    costs::{Costs, Had},
    kills::Kills,
    served::{CHUNK, CHUNKS, ECHO},
    stage::Stage,
};
pub(crate) use self::{
    bare::answer as answer_nats,
    served::{join, register},
};
use super::{
    args::RunArgs,
    samples::{Percentiles, Samples, median, median_of},
};
use crate::server_process::ServerProcess;

/// Runs whose median is reported, and when it must be quick.
const RUNS: u32 = 5;
const QUICK_RUNS: u32 = 1;
/// How long each of the four kinds of a small call is made in a run.
const CALLING: f64 = 1.0;
const QUICK_CALLING: f64 = 0.2;
/// Bytes of a call.
const CALL: usize = 64;
/// Chunks of a stream, and when it must be quick.
const STREAM: u64 = 200_000;
const QUICK_STREAM: u64 = 5_000;
/// Calls and chunks whose messages are counted.
const COUNTED_CALLS: u64 = 2_000;
const COUNTED_CHUNKS: u64 = 100_000;
/// Bytes of a chunk of the answer whose reader stops, and how many there are: 100 MB.
const LARGE: (u64, u64) = (32 * 1024, 3_200);
/// How long memory is looked at while nobody reads, and how often.
const STANDS: Duration = Duration::from_millis(1_500);
const LOOK: Duration = Duration::from_millis(50);

const GOAL_RATIO: f64 = 1.3;
const GOAL_SHARE: f64 = 0.5;
const GOAL_MORE_KB: u64 = 8 * 1024;

const HELP: &str = "\
Examples:
  bellrope bench fleet
  bellrope bench fleet --quick --json

It starts a nats-server (Debian's package of that name) on the loopback address, three instances and an importing server. A call \
goes from this process to the importing server, through NATS to an instance, and back; beside it, in turns, a request goes \
through the same NATS server to a program that is nothing but a client of NATS, and a call to the importing server's own echo. \
Messages are those that the NATS server counted, with beats and all else.";

/// How to measure a fleet.
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
pub struct FleetArgs {
    /// Instances that are killed for the time to the next call [default: 10, with --quick 2].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    kills: Option<u32>,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// What a fleet costs.
#[derive(Debug, Serialize)]
pub(crate) struct FleetReport {
    unary: Unary,
    stream: Streamed,
    kills: Kills,
    memory: Memory,
    messages: Messages,
}

/// Small calls, one after the other.
#[derive(Debug, Serialize)]
struct Unary {
    bytes: usize,
    fleet: Percentiles,
    /// The same call by a server that signs who asks.
    signed: Percentiles,
    /// A request of NATS alone.
    nats: Percentiles,
    /// A call of the importing server's own.
    local: Percentiles,
    /// The fleet's p50 by the sum of the other two.
    ratio: f64,
    goal_ratio: f64,
}

/// One stream without pauses.
#[derive(Debug, Serialize)]
struct Streamed {
    chunk_bytes: usize,
    chunks: u64,
    fleet_chunks_per_s: f64,
    /// Published and read by plain clients of NATS.
    nats_chunks_per_s: f64,
    share: f64,
    goal_share: f64,
}

/// What an answer of 100 MB adds to resident memory while its reader stands still.
#[derive(Debug, Serialize)]
struct Memory {
    answer_bytes: u64,
    /// The importing server, the instance with the answer, and the NATS server.
    importing_more_kb: u64,
    instance_more_kb: u64,
    nats_more_kb: u64,
    goal_more_kb: u64,
}

/// Messages that the NATS server got, and what each party did for them.
#[derive(Debug, Serialize)]
struct Messages {
    calls: u64,
    per_call: f64,
    call_costs: Costs,
    chunks: u64,
    per_chunk: f64,
    chunk_costs: Costs,
}

/// Measures.
pub(super) fn measure(args: &FleetArgs, progress: bool) -> anyhow::Result<FleetReport> {
    let quick = args.run.quick;
    let kills = args.kills.unwrap_or(if quick { 2 } else { 10 });
    let runs = if quick { QUICK_RUNS } else { RUNS };
    let bar = ProgressBar::new(progress, "fleet", u64::from(2 * runs + kills + 2));
    let mut stage = Stage::set(3)?;
    let mut plain = ServerProcess::start(false)?;
    plain.begin_nats(&stage.nats.url())?;
    let bare = Bare::connect(&stage.nats.url())?;
    let unary = unary(&stage, &bare, runs, Duration::from_secs_f64(if quick { QUICK_CALLING } else { CALLING }), &bar)?;
    let stream = streamed(&stage, &bare, runs, if quick { QUICK_STREAM } else { STREAM }, &bar)?;
    drop((bare, plain));
    let messages = messages(&stage)?;
    bar.step();
    let kills = kills::measure(&mut stage, kills, &bar)?;
    let memory = memory(&stage)?;
    bar.step();
    Ok(FleetReport { unary, stream, kills, memory, messages })
}

fn unary(stage: &Stage, bare: &Bare, runs: u32, time: Duration, bar: &ProgressBar) -> anyhow::Result<Unary> {
    let payload = [7; CALL];
    let signing = stage.signing()?;
    let [mut fleet, mut signed, mut nats, mut local] = [const { Vec::new() }; 4];
    for _ in 0..runs {
        let mut samples = Samples::with_capacity(1 << 16);
        bare.requests(&payload, time, &mut samples)?;
        nats.push(samples.percentiles());
        let parties = [
            (&stage.client, ECHO, &mut fleet),
            (&signing.client, ECHO, &mut signed),
            (&stage.client, "echo", &mut local),
        ];
        for (client, name, all) in parties {
            let mut samples = Samples::with_capacity(1 << 20);
            let until = Instant::now() + time;
            while Instant::now() < until {
                let began = clock::ticks();
                let answer = client.call(name, &payload)?;
                samples.add(clock::ticks() - began);
                ensure!(answer == payload, "the echo differs from what was sent");
            }
            all.push(samples.percentiles());
        }
        bar.step();
    }
    let [fleet, signed, nats, local] = [fleet, signed, nats, local].map(|runs| median(&runs));
    let ratio = fleet.p50_us / (nats.p50_us + local.p50_us);
    Ok(Unary { bytes: CALL, fleet, signed, nats, local, ratio, goal_ratio: GOAL_RATIO })
}

fn streamed(stage: &Stage, bare: &Bare, runs: u32, chunks: u64, bar: &ProgressBar) -> anyhow::Result<Streamed> {
    let [mut fleet, mut nats] = [const { Vec::new() }; 2];
    for _ in 0..runs {
        nats.push(bare.chunks_per_s(chunks)?);
        fleet.push(chunks_per_s(stage, chunks)?);
        bar.step();
    }
    let [fleet_chunks_per_s, nats_chunks_per_s] = [fleet, nats].map(|rates| median_of(rates.into_iter()));
    Ok(Streamed {
        chunk_bytes: CHUNK,
        chunks,
        fleet_chunks_per_s,
        nats_chunks_per_s,
        share: fleet_chunks_per_s / nats_chunks_per_s,
        goal_share: GOAL_SHARE,
    })
}

/// Chunks a second of a stream of so many through the fleet, from its first to its last.
fn chunks_per_s(stage: &Stage, count: u64) -> anyhow::Result<f64> {
    let (mut first, mut came) = (None, 0);
    for chunk in stage.client.stream(CHUNKS, format!("{count} {CHUNK}").as_bytes())? {
        ensure!(chunk?.len() == CHUNK, "a chunk has another size");
        first.get_or_insert_with(Instant::now);
        came += 1;
    }
    ensure!(came == count, "{came} of {count} chunks came");
    let time = first.map_or(Duration::ZERO, |first| first.elapsed());
    Ok((count - 1) as f64 / time.as_secs_f64())
}

fn messages(stage: &Stage) -> anyhow::Result<Messages> {
    let counted = |count: u64, go: &dyn Fn() -> Outcome| -> anyhow::Result<(f64, Costs)> {
        let (messages, had) = (stage.nats.messages()?, Had::now(stage)?);
        go()?;
        let costs = Had::now(stage)?.since(&had, count);
        Ok(((stage.nats.messages()? - messages) as f64 / count as f64, costs))
    };
    let (per_call, call_costs) = counted(COUNTED_CALLS, &|| {
        (0..COUNTED_CALLS).try_for_each(|_| Ok(stage.client.call(ECHO, &[7; CALL]).map(drop)?))
    })?;
    let (per_chunk, chunk_costs) = counted(COUNTED_CHUNKS, &|| chunks_per_s(stage, COUNTED_CHUNKS).map(drop))?;
    Ok(Messages { calls: COUNTED_CALLS, per_call, call_costs, chunks: COUNTED_CHUNKS, per_chunk, chunk_costs })
}

/// Reads the first chunk of a large answer and no more, and looks at everybody's memory meanwhile.
fn memory(stage: &Stage) -> anyhow::Result<Memory> {
    let (size, count) = LARGE;
    let ask = format!("{count} {size}");
    // Once to the end, so that what every stream needs is there.
    let whole = stage.client.stream(CHUNKS, format!("10 {size}").as_bytes())?;
    ensure!(whole.filter(Result::is_ok).count() == 10, "a short answer is not whole");
    let now = || -> anyhow::Result<Vec<u64>> {
        let parties = [stage.importing.memory(), stage.nats.memory()].into_iter();
        let parties = parties.chain(stage.instances.iter().map(ServerProcess::memory));
        parties.map(|memory| Ok(memory?.rss_kb)).collect()
    };
    let before = now()?;
    let mut stream = stage.client.stream(CHUNKS, ask.as_bytes())?;
    stream.next().context("the answer has no chunk")??;
    let mut most = before.clone();
    let until = Instant::now() + STANDS;
    while Instant::now() < until {
        std::thread::sleep(LOOK);
        most.iter_mut().zip(now()?).for_each(|(most, now)| *most = (*most).max(now));
    }
    let came = 1 + stream.try_fold(0, |came, chunk| chunk.map(|_| came + 1))?;
    ensure!(came == count, "{came} of {count} chunks came after the pause");
    let more: Vec<_> = most.iter().zip(&before).map(|(most, before)| most - before).collect();
    Ok(Memory {
        answer_bytes: size * count,
        importing_more_kb: more[0],
        nats_more_kb: more[1],
        instance_more_kb: more[2..].iter().copied().max().unwrap_or(0),
        goal_more_kb: GOAL_MORE_KB,
    })
}

impl FleetReport {
    pub(super) fn print(&self) -> Outcome {
        let Self { unary, stream, kills, memory, messages } = self;
        for (name, Percentiles { p50_us, p99_us, .. }) in [
            ("a call through the fleet", unary.fleet),
            ("the same, signed", unary.signed),
            ("a request of NATS alone", unary.nats),
            ("a local call", unary.local),
        ] {
            output::line(format_args!("{name:<26} p50 {p50_us:>8.1} us  p99 {p99_us:>8.1}"))?;
        }
        output::line(format_args!(
            "  the first by the sum of the others: {:.2} (goal: at most {GOAL_RATIO})",
            unary.ratio
        ))?;
        output::line(format_args!(
            "a stream of {CHUNK} B chunks: {:.0} chunks/s; NATS alone {:.0}; {:.2} of it (goal: at least {GOAL_SHARE})",
            stream.fleet_chunks_per_s, stream.nats_chunks_per_s, stream.share
        ))?;
        kills.print()?;
        output::line(format_args!(
            "a reader that stops in {} MB: {} KiB more at the importing server, {} at the instance, {} in NATS (goal: at most {GOAL_MORE_KB})",
            memory.answer_bytes / 1_000_000,
            memory.importing_more_kb,
            memory.instance_more_kb,
            memory.nats_more_kb
        ))?;
        output::line(format_args!(
            "messages of NATS: {:.2} a call, {:.3} a chunk",
            messages.per_call, messages.per_chunk
        ))?;
        messages.call_costs.print("a call")?;
        messages.chunk_costs.print("a chunk")
    }
}
