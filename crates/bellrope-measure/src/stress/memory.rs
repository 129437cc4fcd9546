//! `memory-destruction`: far more bytes under way than the server may hold.
//!
//! What the server is configured to hold is its buffer budget and the rings of its connections; both are known before
//! anybody connects. The suite keeps far more than that waiting, and looks at the highest resident memory that the kernel
//! has noted, so no moment is missed.

use std::{
    ops::Range,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::anyhow;
use bellrope::{
    client::{ClientConfig, Transport},
    server::ServerConfig,
    status::MemoryUse,
};
use bellrope_terminal::ProgressBar;

use super::{
    course::Course,
    crowd::{Caller, Tally},
    report::SuiteReport,
    share_bar::{BAR_STEPS, ShareBar},
    watch::{forget_peak, peak_kb, quiet, rest},
};
use crate::{criterion::Threshold, server_process::ServerProcess};

const SMALL_SENDERS: u64 = 500;
const SMALL: usize = 4 * 1024;
/// Threads that drive them.
const SMALL_THREADS: u64 = 2;
const LARGE_SENDERS: u64 = 100;
const LARGE: usize = 1024 * 1024;
/// Bytes that the server may hold for all of them together.
const BUDGET: u64 = 4 * 1024 * 1024;
/// Bytes of a ring: the smallest that takes a small message in one record.
const RING: u32 = 16 * 1024;
const PAGE: u64 = 4 * 1024;
/// What a server may use beyond what it is configured to hold, in KiB.
const ALLOWANCE_KB: f64 = 3.0 * 1024.0;
/// Messages of the largest size that it holds outside of the budget: the answer that is being written, and two spare
/// buffers.
const MESSAGES: f64 = 3.0;
/// Most that it may still hold of all this afterwards, in KiB: what it may hold outside of budget and rings at any time.
const LEFT_KB: f64 = ALLOWANCE_KB + MESSAGES * 1024.0;
const PATIENCE: Duration = Duration::from_secs(10);
/// Spare buffers go when the worker has slept for a second.
const SETTLE: Duration = Duration::from_secs(5);
/// How often its parts are looked at. The highest sum needs no looking.
const LOOK: Duration = Duration::from_millis(2);

pub(super) fn run(course: Course) -> anyhow::Result<SuiteReport> {
    let mut report = SuiteReport::begin("memory-destruction");
    let mut config = ServerConfig::default();
    config.buffer_budget_bytes = BUDGET;
    config.max_message_bytes = LARGE as u32;
    config.ring_bytes = RING;
    config.max_connections = (SMALL_SENDERS + LARGE_SENDERS) as u32;
    // A sender that waits longer than this is refused, and asks again.
    config.budget_wait = Duration::from_millis(1_000);
    // All of them are honest; none is put out because something else keeps it from the processors.
    config.budget_grace = Duration::from_secs(60);
    let mut server = ServerProcess::start_configured(false, config)?;
    let before = rest(&mut server, Duration::ZERO, |_| true)?;
    forget_peak(&server)?;
    let SentTally { small, large, fewest, parts } = send_all(&server, course, course.time(20.0, 5.0))?;
    let peak = peak_kb(&server)? as f64;
    quiet(&mut server, 0, PATIENCE)?;

    let connections = SMALL_SENDERS + LARGE_SENDERS;
    let rings_kb = (connections * 2 * (u64::from(RING) + PAGE) / 1024) as f64;
    let rings_kb = rings_kb + connections as f64 * course.read_ahead_kb();
    let budget_kb = (BUDGET / 1024) as f64;
    report.judge(
        "server memory, highest (VmHWM): budget + rings + 3 MB",
        peak,
        "KiB",
        Threshold::AtMost(budget_kb + rings_kb + ALLOWANCE_KB),
    );
    let messages_kb = MESSAGES * (LARGE / 1024) as f64;
    // Rings that are not shared cannot be told from the rest.
    if course.transport == Transport::Shm {
        report.judge(
            "without rings (sampled): budget + 3 messages + 3 MB",
            parts.without_rings_kb as f64,
            "KiB",
            Threshold::AtMost(budget_kb + messages_kb + ALLOWANCE_KB),
        );
    }
    let after = rest(&mut server, SETTLE, |found| found.grown_kb(before) < LEFT_KB)?;
    report.judge("growth afterwards (VmRSS)", after.grown_kb(before), "KiB", Threshold::Below(LEFT_KB));
    report.judge(
        "answers that differ from what was sent",
        (small.wrong + large.wrong) as f64,
        "",
        Threshold::Equal(0.0),
    );
    report.judge("calls failed", (small.failed + large.failed) as f64, "", Threshold::Equal(0.0));
    report.judge("small calls refused", small.refused as f64, "", Threshold::Equal(0.0));
    report.judge("fewest calls of a sender that ended", fewest as f64, "", Threshold::AtLeast(1.0));
    report.judge("large calls answered", large.answered as f64, "", Threshold::AtLeast(1.0));
    report.fact("small_calls_answered", small.answered);
    report.fact("large_calls_refused", large.refused);
    report.fact("buffer_budget_kb", budget_kb);
    report.fact("rings_at_most_kb", rings_kb);
    report.fact("highest_anonymous_kb", parts.anonymous_kb);
    report.fact("highest_rings_kb", parts.rings_kb);
    report.fact("looks", parts.looks);
    report.fact("first_failure", small.first_failure.or(large.first_failure));
    Ok(report.end())
}

/// What came of all senders.
struct SentTally {
    small: Tally,
    large: Tally,
    /// Calls that ended, of the sender with fewest.
    fewest: u64,
    parts: Parts,
}

/// The highest of each part of the server's memory, as often as it was looked at.
#[derive(Debug, Default)]
struct Parts {
    anonymous_kb: u64,
    rings_kb: u64,
    without_rings_kb: u64,
    looks: u64,
}

fn send_all(server: &ServerProcess, course: Course, time: Duration) -> anyhow::Result<SentTally> {
    let config = course.client(server.socket());
    let stop = AtomicBool::new(false);
    let gate = Barrier::new((SMALL_THREADS + LARGE_SENDERS) as usize + 1);
    let bar = ProgressBar::new(true, "memory", BAR_STEPS);
    std::thread::scope(|scope| {
        let (config, stop, gate) = (&config, &stop, &gate);
        let share = |nth: u64| nth * SMALL_SENDERS / SMALL_THREADS..(nth + 1) * SMALL_SENDERS / SMALL_THREADS;
        let small = (0..SMALL_THREADS).map(|nth| scope.spawn(move || send_small(config, share(nth), gate, stop)));
        let small: Vec<_> = small.collect();
        let large = |nth| scope.spawn(move || send_large(config, SMALL_SENDERS + nth, gate, stop));
        let large: Vec<_> = (0..LARGE_SENDERS).map(large).collect();
        gate.wait();
        let parts = watch(server, time, &bar);
        // Whatever became of watching: they are waited for.
        stop.store(true, Relaxed);
        let mut sent =
            SentTally { small: Tally::default(), large: Tally::default(), fewest: u64::MAX, parts: Parts::default() };
        for (threads, tally) in [(small, &mut sent.small), (large, &mut sent.large)] {
            for thread in threads {
                let (part, fewest) = thread.join().map_err(|_| anyhow!("a sender panicked"))??;
                tally.add(part);
                sent.fewest = sent.fewest.min(fewest);
            }
        }
        sent.parts = parts?;
        Ok(sent)
    })
}

fn watch(server: &ServerProcess, time: Duration, bar: &ProgressBar) -> anyhow::Result<Parts> {
    let (start, mut parts, mut bar) = (Instant::now(), Parts::default(), ShareBar::new(bar));
    while start.elapsed() < time {
        let MemoryUse { rss_kb, anon_kb, shmem_kb, .. } = server.memory()?;
        parts.anonymous_kb = parts.anonymous_kb.max(anon_kb);
        parts.rings_kb = parts.rings_kb.max(shmem_kb);
        parts.without_rings_kb = parts.without_rings_kb.max(rss_kb.saturating_sub(shmem_kb));
        parts.looks += 1;
        bar.show(start.elapsed().as_secs_f64() / time.as_secs_f64());
        std::thread::sleep(LOOK);
    }
    Ok(parts)
}

/// Senders that keep one small call under way each. Returns what came of it, and the calls that ended of the one with fewest.
fn send_small(
    config: &ClientConfig,
    numbers: Range<u64>,
    gate: &Barrier,
    stop: &AtomicBool,
) -> anyhow::Result<(Tally, u64)> {
    let callers: anyhow::Result<Vec<_>> = numbers.map(|number| Caller::connect(config, number, SMALL)).collect();
    gate.wait();
    let mut callers = callers?;
    let (mut tally, mut reply) = (Tally::default(), Vec::new());
    loop {
        let over = stop.load(Relaxed);
        for caller in &mut callers {
            caller.turn(!over, &mut reply, &mut tally);
        }
        if over && callers.iter().all(Caller::is_idle) {
            let fewest = callers.iter().map(Caller::ended).min().unwrap_or(0);
            return Ok((tally, fewest));
        }
    }
}

/// A sender of large calls.
fn send_large(config: &ClientConfig, number: u64, gate: &Barrier, stop: &AtomicBool) -> anyhow::Result<(Tally, u64)> {
    let caller = Caller::connect(config, number, LARGE);
    gate.wait();
    let mut caller = caller?;
    let (mut tally, mut reply) = (Tally::default(), Vec::new());
    while !stop.load(Relaxed) && !caller.is_broken() {
        caller.call(&mut reply, &mut tally);
    }
    Ok((tally, caller.ended()))
}
