//! `leak`: connections that come, call and go, for many cycles; afterwards the server is what it was before.

use std::time::{Duration, Instant};

use bellrope::client::ClientConfig;
use bellrope_shm::socket::Socket;
use bellrope_terminal::ProgressBar;
use fastrand::Rng;

use super::{
    course::Course,
    crowd::{Caller, Tally},
    report::SuiteReport,
    share_bar::{BAR_STEPS, ShareBar},
    watch::{Handles, quiet, rest},
};
use crate::{criterion::Threshold, server_process::ServerProcess};

const CYCLES: u64 = 120;
const CONNECTIONS: std::ops::RangeInclusive<u64> = 100..=500;
/// Cycles with the most connections before the first look, so that what the server keeps for later use is there.
const WARM_UP: u64 = 4;
const SIZES: [usize; 4] = [16, 1_024, 4_096, 150_000];
/// Most that the server's memory may have grown after any cycle, and after the last, in KiB.
const ANY_CYCLE_KB: f64 = 512.0;
const AT_THE_END_KB: f64 = 256.0;
const PATIENCE: Duration = Duration::from_secs(10);
/// Large buffers are kept for a second after their use, and threads of the runtime for some: so long a cycle may take to
/// be over.
const SETTLE: Duration = Duration::from_secs(3);

pub(super) fn run(course: Course) -> anyhow::Result<SuiteReport> {
    let mut report = SuiteReport::begin("leak");
    let mut rng = Rng::with_seed(course.seed);
    let mut server = ServerProcess::start(false)?;
    let config = course.client(server.socket());
    let (mut tally, mut connections) = (Tally::default(), 0);
    for _ in 0..WARM_UP {
        cycle(&config, *CONNECTIONS.end(), &mut rng, &mut tally)?;
        quiet(&mut server, 0, PATIENCE)?;
    }
    // What was kept for a second is gone after two.
    let baseline = rest(&mut server, Duration::from_secs(2), |_| false)?;

    let extent = course.count(CYCLES);
    let (start, mut cycles, mut worst_kb) = (Instant::now(), 0, f64::MIN);
    let mut last = baseline;
    let bar = ProgressBar::new(true, "leak", BAR_STEPS);
    let mut bar = ShareBar::new(&bar);
    while !extent.is_over(cycles, start) {
        let many = rng.u64(CONNECTIONS);
        cycle(&config, many, &mut rng, &mut tally)?;
        connections += many;
        quiet(&mut server, 0, PATIENCE)?;
        last = rest(&mut server, SETTLE, |found| {
            found.handles == baseline.handles && found.grown_kb(baseline) < AT_THE_END_KB
        })?;
        worst_kb = worst_kb.max(last.grown_kb(baseline));
        cycles += 1;
        bar.show(extent.share(cycles, start));
    }
    let counters = server.counters()?;

    report.judge("growth after any cycle (VmRSS)", worst_kb, "KiB", Threshold::Below(ANY_CYCLE_KB));
    report.judge("growth at the end (VmRSS)", last.grown_kb(baseline), "KiB", Threshold::Below(AT_THE_END_KB));
    let Handles { descriptors, threads, mappings } = baseline.handles;
    for (name, before, after) in [
        ("descriptors at the end", descriptors, last.handles.descriptors),
        ("threads at the end", threads, last.handles.threads),
        ("mappings at the end", mappings, last.handles.mappings),
    ] {
        report.judge(name, after as f64, "", Threshold::Equal(before as f64));
    }
    report.judge("connections that the server still counts", counters.connections as f64, "", Threshold::Equal(0.0));
    report.judge("answers that differ from what was sent", tally.wrong as f64, "", Threshold::Equal(0.0));
    report.judge("calls failed", tally.failed as f64, "", Threshold::Equal(0.0));
    report.fact("cycles", cycles);
    report.fact("connections", connections);
    report.fact("calls_answered", tally.answered);
    report.fact("memory_before_kb", baseline.memory.rss_kb);
    report.fact("memory_after_kb", last.memory.rss_kb);
    report.fact("heap_and_stacks_before_kb", baseline.memory.anon_kb);
    report.fact("heap_and_stacks_after_kb", last.memory.anon_kb);
    report.fact("first_failure", tally.first_failure);
    Ok(report.end())
}

/// So many connections come, call, and go: most when they have their answers, some in the middle of a call or of their
/// handshake.
fn cycle(config: &ClientConfig, connections: u64, rng: &mut Rng, tally: &mut Tally) -> anyhow::Result<()> {
    let mut reply = Vec::new();
    let mut callers = Vec::new();
    for number in 0..connections {
        // One in sixteen has a message that travels in parts.
        let size = if number % 16 == 0 { SIZES[3] } else { SIZES[rng.usize(..3)] };
        callers.push(Caller::connect(config, number, size)?);
        if rng.u8(..) < 16 {
            // Hangs up before it has said who it is.
            drop(Socket::connect(&config.path));
        }
    }
    for caller in &mut callers {
        for _ in 0..rng.u32(1..=4) {
            caller.call(&mut reply, tally);
        }
        if rng.u8(..) < 64 {
            caller.send_and_forget()?;
        }
    }
    rng.shuffle(&mut callers);
    Ok(())
}
