//! `connection-bomb`: many connections at once, all of which call.

use std::{
    ops::Range,
    sync::Barrier,
    time::{Duration, Instant},
};

use anyhow::{anyhow, ensure};
use bellrope::client::ClientConfig;
use bellrope_shm::process;
use bellrope_terminal::ProgressBar;

use super::{
    course::{Course, Extent},
    crowd::{Caller, Tally},
    report::SuiteReport,
    share_bar::{BAR_STEPS, ShareBar},
    watch::{forget_peak, peak_kb, quiet},
};
use crate::{
    criterion::Threshold,
    server_process::{Counters, ServerProcess},
};

const CONNECTIONS: u64 = 1_000;
const CALLS_EACH: u64 = 5_000;
const SIZE: usize = 1_024;
/// Nothing that is waited for takes longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most resident memory of the whole server, in KiB, and what a busy connection with small messages adds: a page of ring
/// for each direction, and what the server knows of it.
const SERVER_KB: f64 = 3.0 * 1024.0;
const CONNECTION_KB: f64 = 8.0 + 2.0;

pub(super) fn run(course: Course) -> anyhow::Result<SuiteReport> {
    let mut report = SuiteReport::begin("connection-bomb");
    let mut server = ServerProcess::start(false)?;
    let before = server.settle()?;
    let memory_before = server.memory()?;
    forget_peak(&server)?;
    let extent = course.count(CALLS_EACH);
    let Burst { opened, fewest, tally, connect_seconds, call_seconds } = burst(&mut server, course, extent)?;
    let peak = peak_kb(&server)? as f64;
    let Counters { answered: counted, .. } = quiet(&mut server, 0, PATIENCE)?;
    let counted = counted - before.answered;

    let answered = tally.answered as f64;
    report.judge("connections open at once", opened as f64, "", Threshold::Equal(CONNECTIONS as f64));
    report.judge("calls answered", answered, "", calls_due(extent));
    report.judge("fewest calls of a connection", fewest as f64, "", Threshold::AtLeast(1.0));
    report.judge("answers that differ from what was sent", tally.wrong as f64, "", Threshold::Equal(0.0));
    report.judge("calls failed or refused", (tally.failed + tally.refused) as f64, "", Threshold::Equal(0.0));
    report.judge("calls that the server counted", counted as f64, "", Threshold::Equal(answered));
    let most = SERVER_KB + (CONNECTION_KB + course.read_ahead_kb()) * CONNECTIONS as f64;
    report.judge("server memory, highest (VmHWM)", peak, "KiB", Threshold::AtMost(most));
    report.fact("calls_per_s", (answered / call_seconds).round());
    report.fact("connect_seconds", connect_seconds);
    report.fact("memory_before_kb", memory_before.rss_kb);
    report.fact("memory_afterwards_kb", server.memory()?.rss_kb);
    report.fact("first_failure", tally.first_failure);
    Ok(report.end())
}

/// How many calls must have been answered: all of them, or some on each connection.
fn calls_due(extent: Extent) -> Threshold {
    match extent {
        Extent::Count(each) => Threshold::Equal((each * CONNECTIONS) as f64),
        Extent::Time(_) => Threshold::AtLeast(CONNECTIONS as f64),
    }
}

/// What all senders together saw.
struct Burst {
    /// Connections that the server had when all were made.
    opened: u64,
    /// Calls of the connection that made fewest.
    fewest: u64,
    tally: Tally,
    connect_seconds: f64,
    call_seconds: f64,
}

fn burst(server: &mut ServerProcess, course: Course, extent: Extent) -> anyhow::Result<Burst> {
    let config = course.client(server.socket());
    // One CPU is left to the server, where there are more.
    let senders = (process::online_cpus() as u64 - 1).clamp(1, 8);
    let bar = ProgressBar::new(true, "connections", senders * BAR_STEPS);
    // Passed twice: when all are connected, and when the server was asked how many that are.
    let gate = Barrier::new(senders as usize + 1);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let share = |nth: u64| nth * CONNECTIONS / senders..(nth + 1) * CONNECTIONS / senders;
        let (config, bar, gate) = (&config, &bar, &gate);
        let spawn = |nth| scope.spawn(move || send(config, share(nth), extent, gate, bar));
        let threads: Vec<_> = (0..senders).map(spawn).collect();
        gate.wait();
        let counters = server.counters();
        let connect_seconds = began.elapsed().as_secs_f64();
        gate.wait();
        let calling = Instant::now();
        let (mut tally, mut fewest) = (Tally::default(), u64::MAX);
        for thread in threads {
            let (part, fewest_of_part) = thread.join().map_err(|_| anyhow!("a sender panicked"))??;
            tally.add(part);
            fewest = fewest.min(fewest_of_part);
        }
        let call_seconds = calling.elapsed().as_secs_f64();
        Ok(Burst { opened: counters?.connections, fewest, tally, connect_seconds, call_seconds })
    })
}

/// Connects callers with these numbers, then has all of them call. Returns what came of it, and the calls of the one that
/// made fewest.
fn send(
    config: &ClientConfig,
    numbers: Range<u64>,
    extent: Extent,
    gate: &Barrier,
    bar: &ProgressBar,
) -> anyhow::Result<(Tally, u64)> {
    let callers: anyhow::Result<Vec<_>> = numbers.map(|number| Caller::connect(config, number, SIZE)).collect();
    // Also if that went wrong: the others wait there.
    gate.wait();
    gate.wait();
    let mut callers = callers?;
    let (mut tally, mut reply, mut bar) = (Tally::default(), Vec::new(), ShareBar::new(bar));
    let (start, mut fewest) = (Instant::now(), 0);
    let mut progress = (start, 0);
    loop {
        let over = extent.is_over(fewest, start);
        for caller in &mut callers {
            let due = match extent {
                Extent::Count(each) => caller.calls() < each,
                Extent::Time(_) => !over,
            };
            caller.turn(due, &mut reply, &mut tally);
        }
        let sound = callers.iter().filter(|caller| !caller.is_broken());
        fewest = sound.map(Caller::calls).min().unwrap_or(0);
        bar.show(extent.share(fewest, start));
        if over && callers.iter().all(Caller::is_idle) {
            return Ok((tally, fewest));
        }
        if tally.answered > progress.1 {
            progress = (Instant::now(), tally.answered);
        }
        let broken = callers.iter().filter(|caller| caller.is_broken()).count();
        ensure!(broken < callers.len(), "no connection is left: {}", tally.first_failure.unwrap_or_default());
        ensure!(progress.0.elapsed() < PATIENCE, "no call was answered for {PATIENCE:?}");
    }
}

#[cfg(test)]
mod tests {
    use bellrope_testkit::local_server::LocalServer;

    use super::*;

    #[test]
    fn every_connection_makes_as_many_calls_as_are_counted_and_no_more() {
        let server = LocalServer::echo();
        let (gate, bar) = (Barrier::new(1), ProgressBar::new(false, "connections", BAR_STEPS));
        let (tally, fewest) = send(&ClientConfig::new(server.socket()), 0..3, Extent::Count(5), &gate, &bar).unwrap();
        assert_eq!((tally.answered, fewest), (15, 5));
        assert_eq!((tally.wrong, tally.refused, tally.failed), (0, 0, 0));
        assert_eq!(calls_due(Extent::Count(5)), Threshold::Equal(5_000.0));
        assert_eq!(calls_due(Extent::Time(PATIENCE)), Threshold::AtLeast(1_000.0));
    }
}
