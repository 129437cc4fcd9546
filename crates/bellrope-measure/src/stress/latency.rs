//! `latency-torture`: one caller with priority beside a crowd that saturates the server.
//!
//! One thread drives all connections, so that client and server have a CPU each: it sends the call that is measured, gives
//! the others their turns, and looks for the answer in between. What happens to that thread happens to the measurement.
//! So it reads its clock at every look. Where two looks lie so far apart that no turn explains it, the thread itself was
//! not running (the kernel or the host took its CPU away), and the call is set aside: counted, reported, not judged. The
//! same holds where the kernel's account says that the server's thread was ready to run during the call and had no CPU.

use std::time::{Duration, Instant};

use bellrope::client::{ClientConfig, Connection, MessageType};
use bellrope_shm::clock;
use bellrope_terminal::{Outcome, ProgressBar};

use super::{
    course::{Course, Extent},
    report::SuiteReport,
    share_bar::{BAR_STEPS, ShareBar},
    watch::{Waits, host_took_ms},
};
use crate::{
    bench::{BusyConnections, Percentiles, Samples, ping},
    criterion::Threshold,
    server_process::{ServerProcess, as_client, two_cpus},
};

const CROWD: u32 = 999;
const CROWD_SIZE: usize = 4 * 1024;
/// Calls that each of them keeps in flight.
const CROWD_DEPTH: usize = 2;
/// Payload bytes of the calls that are measured.
const SIZE: usize = 64;
const SAMPLES: u64 = 10_000;
const WARM_UP: Duration = Duration::from_millis(500);
/// A turn of another connection takes a microsecond or two. Between two looks that lie so far apart this thread stood
/// still.
const STANDSTILL_US: f64 = 15.0;
const GOAL_P99_US: f64 = 10.0;
const GOAL_MAX_US: f64 = 50.0;
/// Bare ping-pongs between the same threads' CPUs, some tenths of a second: their longest is what the machine itself does.
const PINGS: u64 = 3_000_000;
const PING_TIME: Duration = Duration::from_secs(5);
/// Most of all calls that may be set aside; with more, the machine was too busy for the figures to say anything.
const SET_ASIDE_PERCENT: f64 = 5.0;

pub(super) fn run(course: Course) -> anyhow::Result<SuiteReport> {
    let mut report = SuiteReport::begin("latency-torture");
    // There is no short form: the whole count takes a moment.
    let extent = Course { quick: false, ..course }.count(SAMPLES);
    let pin = two_cpus();
    let mut server = ServerProcess::start(pin)?;
    let host_took_before_ms = host_took_ms();
    let (calls, machine_max_us) = as_client(|| {
        let before = ping(&mut server, PINGS, PING_TIME)?.percentiles().max_us;
        let calls = measure(&server, extent)?;
        Ok((calls, ping(&mut server, PINGS, PING_TIME)?.percentiles().max_us.max(before)))
    })?;
    report.fact("client_and_server_have_a_cpu_each", pin);
    let Calls { judged, all, caller_stood, server_stood, longest_standstill_us, slow, crowd_calls_per_s } = calls;
    let set_aside = caller_stood + server_stood;
    let (made, set_aside_percent) = (all.len(), 100.0 * set_aside as f64 / all.len() as f64);
    report.judge("calls judged", judged.len() as f64, "", Threshold::AtLeast(1.0));
    let (judged, all) = (judged.percentiles(), all.percentiles());
    report.judge("99 % of calls with priority", judged.p99_us, "us", Threshold::Below(GOAL_P99_US));
    // Nobody can be quicker than the machine lets a cache line go to and fro.
    report.judge("slowest call", judged.max_us, "us", Threshold::Below(GOAL_MAX_US.max(machine_max_us)));
    report.judge("calls set aside", set_aside_percent, "%", Threshold::AtMost(SET_ASIDE_PERCENT));
    report.fact("calls", made);
    report.fact("slowest_goal_us", GOAL_MAX_US);
    report.fact("slowest_bare_ping_pong_us", machine_max_us);
    report.fact("crowd_calls_per_s", crowd_calls_per_s.round());
    report.fact("judged_p50_us", judged.p50_us);
    report.fact("judged_p999_us", judged.p999_us);
    report.fact("judged_over_50_us", slow);
    report.fact("set_aside_as_the_callers_thread_stood_still", caller_stood);
    report.fact("set_aside_as_the_server_had_no_cpu", server_stood);
    report.fact("longest_standstill_us", longest_standstill_us);
    let Percentiles { p99_us, p999_us, max_us, .. } = all;
    report.fact("all_p99_us", p99_us);
    report.fact("all_p999_us", p999_us);
    report.fact("all_max_us", max_us);
    report.fact("host_took_cpu_ms", host_took_ms() - host_took_before_ms);
    Ok(report.end())
}

/// What the caller saw.
struct Calls {
    judged: Samples,
    all: Samples,
    /// Calls set aside, because the caller's thread stood still, or because the server's had no CPU.
    caller_stood: u64,
    server_stood: u64,
    longest_standstill_us: f64,
    /// Judged calls that took longer than they may.
    slow: u64,
    crowd_calls_per_s: f64,
}

fn measure(server: &ServerProcess, extent: Extent) -> anyhow::Result<Calls> {
    let mut crowd = BusyConnections::new(server, CROWD, CROWD_SIZE, CROWD_DEPTH)?;
    let mut config = ClientConfig::new(server.socket());
    config.priority = true;
    let mut caller = Caller::new(Connection::with(&config)?)?;
    crowd.run(WARM_UP)?;
    caller.sample(&mut crowd, Extent::Time(WARM_UP), |_| Ok(()))?;

    let waits = Waits::of(server)?;
    let bar = ProgressBar::new(true, "latency", BAR_STEPS);
    let mut bar = ShareBar::new(&bar);
    let (start, crowd_before, mut waited_us) = (Instant::now(), caller.crowd_calls, waits.total_us()?);
    let us = |ticks: u64| ticks as f64 / clock::ticks_per_ns() / 1000.0;
    let mut calls = Calls {
        judged: Samples::with_capacity(SAMPLES as usize),
        all: Samples::with_capacity(SAMPLES as usize),
        caller_stood: 0,
        server_stood: 0,
        longest_standstill_us: 0.0,
        slow: 0,
        crowd_calls_per_s: 0.0,
    };
    caller.sample(&mut crowd, extent, |Seen { took, longest_gap, share }| {
        calls.all.add(took);
        // After each call and before the next: it costs neither anything.
        let now_us = waits.total_us()?;
        let server_waited_us = now_us - std::mem::replace(&mut waited_us, now_us);
        if us(longest_gap) >= STANDSTILL_US {
            calls.caller_stood += 1;
            calls.longest_standstill_us = calls.longest_standstill_us.max(us(longest_gap));
        } else if server_waited_us >= STANDSTILL_US {
            calls.server_stood += 1;
            calls.longest_standstill_us = calls.longest_standstill_us.max(server_waited_us);
        } else {
            calls.judged.add(took);
            calls.slow += u64::from(us(took) >= GOAL_MAX_US);
        }
        bar.show(share);
        Ok(())
    })?;
    calls.crowd_calls_per_s = (caller.crowd_calls - crowd_before) as f64 / start.elapsed().as_secs_f64();
    Ok(calls)
}

/// The one whose calls are measured.
struct Caller {
    connection: Connection,
    echo: MessageType,
    reply: Vec<u8>,
    /// Turns that the others had, and calls of theirs that were answered.
    turns: usize,
    crowd_calls: u64,
}

/// One call, in ticks.
struct Seen {
    took: u64,
    /// The longest time between two looks for its answer.
    longest_gap: u64,
    /// How much of all is done.
    share: f64,
}

impl Caller {
    fn new(connection: Connection) -> anyhow::Result<Self> {
        let echo = connection.message_type("echo")?;
        Ok(Self { connection, echo, reply: Vec::new(), turns: 0, crowd_calls: 0 })
    }

    /// Calls again and again, and gives the crowd a turn between two looks for the answer.
    fn sample(
        &mut self,
        crowd: &mut BusyConnections,
        extent: Extent,
        mut seen: impl FnMut(Seen) -> Outcome,
    ) -> Outcome {
        let (payload, start, mut done) = ([0x5A; SIZE], Instant::now(), 0);
        while !extent.is_over(done, start) {
            let began = clock::ticks();
            self.connection.submit(self.echo, &payload)?;
            let (mut last, mut longest_gap) = (began, 0);
            let took = loop {
                let answer = self.connection.poll(&mut self.reply)?;
                let now = clock::ticks();
                longest_gap = longest_gap.max(now - last);
                last = now;
                if let Some(completion) = answer {
                    completion.outcome?;
                    break now - began;
                }
                self.crowd_calls += crowd.turn(self.turns)?;
                self.turns += 1;
            };
            done += 1;
            seen(Seen { took, longest_gap, share: extent.share(done, start) })?;
        }
        Ok(())
    }
}
