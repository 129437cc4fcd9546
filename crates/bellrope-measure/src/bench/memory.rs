use std::time::{Duration, Instant};

use bellrope::status::MemoryUse;
use bellrope_terminal::{Outcome, ProgressBar};
use clap::Args;
use serde::Serialize;

use super::{args::RunArgs, throughput::BusyConnections};
use crate::server_process::{ServerProcess, as_client, two_cpus};

const COUNTS: [u32; 4] = [10, 100, 1_000, 10_000];
const QUICK_COUNTS: [u32; 2] = [100, 1_000];
/// Bytes of a call of a busy connection, one of which it has in flight.
const SIZE: usize = 1024;
/// Seconds over which CPU time is taken in each state, and when it must be quick.
const SECONDS: f64 = 5.0;
const QUICK_SECONDS: f64 = 1.0;
/// Long enough for a busy server to have given back what only its start needed, which it does every second.
const SETTLES: Duration = Duration::from_millis(1_200);
/// A server is at rest when it has not become smaller for so long; longer if it still has rings, which it lets go of when it
/// has slept for a whole second.
const RESTS: Duration = Duration::from_millis(1_200);
const RESTS_WITH_RINGS: Duration = Duration::from_millis(2_300);
/// How often it is looked at, and how long it is waited for at the most.
const LOOK: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(15);

const GOAL_KB: f64 = 3.0 * 1024.0;
const GOAL_BUSY_BYTES: f64 = 8192.0;
const GOAL_IDLE_CPU_PERCENT: f64 = 0.2;

const HELP: &str = "\
Examples:
  bellrope bench memory
  bellrope bench memory --connections 100 --connections 1000 --json

Each number of connections has a server of its own, with its health server on. Idle: every connection has been called once, and \
then there was silence until the server had given back what it could. Busy: a call of 1 KB is in flight on each, as fast as \
one client thread can keep that up. Memory is the whole resident set of the server's process (VmRSS) and its parts; CPU is \
its time as a share of one core.";

/// How to measure what connections cost.
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
pub struct MemoryArgs {
    /// Connections; any number of times [default: 10, 100, 1000 and 10000, with --quick 100 and 1000].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=30_000))]
    connections: Vec<u32>,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// What connections cost.
#[derive(Debug, Serialize)]
pub(crate) struct MemoryReport {
    size: usize,
    /// A server without any.
    without: MemoryUse,
    rows: Vec<Row>,
    goals: Vec<Goal>,
}

/// So many connections.
#[derive(Debug, Clone, Serialize)]
struct Row {
    connections: u32,
    idle: State,
    busy: State,
    busy_calls_per_s: f64,
}

/// A server at one time.
#[derive(Debug, Clone, Copy, Serialize)]
struct State {
    #[serde(flatten)]
    memory: MemoryUse,
    /// Percent of one core.
    cpu_percent: f64,
}

/// What was aimed at.
#[derive(Debug, Clone, Serialize)]
struct Goal {
    what: &'static str,
    found: f64,
    at_most: f64,
    unit: &'static str,
    pass: bool,
}

/// Measures each number of connections, idle and busy.
pub(super) fn measure(args: &MemoryArgs, progress: bool) -> anyhow::Result<MemoryReport> {
    let counts = counts(args);
    let window = Duration::from_secs_f64(if args.run.quick { QUICK_SECONDS } else { SECONDS });
    let bar = ProgressBar::new(progress, "memory", 1 + 2 * counts.len() as u64);
    let without = at_rest(&ServerProcess::start(two_cpus())?)?;
    bar.step();
    let rows = counts.iter().map(|&count| {
        let mut server = ServerProcess::start_for(count)?;
        as_client(|| row(count, &mut server, window, &bar))
    });
    let rows = rows.collect::<anyhow::Result<Vec<_>>>()?;
    let goals = goals(&rows);
    Ok(MemoryReport { size: SIZE, without, rows, goals })
}

/// How many connections there are to be, one number after the other.
fn counts(args: &MemoryArgs) -> &[u32] {
    match &args.connections[..] {
        [] if args.run.quick => &QUICK_COUNTS,
        [] => &COUNTS,
        counts => counts,
    }
}

fn row(connections: u32, server: &mut ServerProcess, window: Duration, bar: &ProgressBar) -> anyhow::Result<Row> {
    let mut load = BusyConnections::new(server, connections, SIZE, 1)?;
    load.call_each(1)?;
    let memory = at_rest(server)?;
    let idle = State {
        memory,
        cpu_percent: cpu_percent(server, |_| {
            std::thread::sleep(window);
            Ok(())
        })?,
    };
    bar.step();
    load.run(SETTLES)?;
    let (mut calls, mut memory, start) = (0, MemoryUse::default(), Instant::now());
    let cpu_percent = cpu_percent(server, |server| {
        calls = load.run(window)?;
        // Before the server is asked for its time, which brings pages in that no call needs.
        memory = server.memory()?;
        Ok(())
    })?;
    let busy_calls_per_s = calls as f64 / start.elapsed().as_secs_f64();
    let busy = State { memory, cpu_percent };
    bar.step();
    Ok(Row { connections, idle, busy, busy_calls_per_s })
}

/// Waits until a server that nobody calls has given back what it can, and returns what it then has.
pub(super) fn at_rest(server: &ServerProcess) -> anyhow::Result<MemoryUse> {
    let deadline = Instant::now() + PATIENCE;
    let mut last = server.memory()?;
    let mut since = Instant::now();
    loop {
        let enough = if last.shmem_kb == 0 { RESTS } else { RESTS_WITH_RINGS };
        if since.elapsed() >= enough || Instant::now() >= deadline {
            return Ok(last);
        }
        std::thread::sleep(LOOK);
        let now = server.memory()?;
        if now.rss_kb < last.rss_kb {
            since = Instant::now();
        }
        last = now;
    }
}

/// The CPU time of the server while something is done.
fn cpu_percent(server: &mut ServerProcess, work: impl FnOnce(&ServerProcess) -> Outcome) -> anyhow::Result<f64> {
    let (before, start) = (server.cpu_time_us()?, Instant::now());
    work(server)?;
    let wall_us = start.elapsed().as_micros() as f64;
    Ok((server.cpu_time_us()? - before) as f64 * 100.0 / wall_us)
}

/// Those goals that these rows can tell of.
fn goals(rows: &[Row]) -> Vec<Goal> {
    let row = |connections: u32| rows.iter().find(|row| row.connections == connections);
    let goal = |what, found: f64, at_most: f64, unit| Goal { what, found, at_most, unit, pass: found <= at_most };
    let mut goals = Vec::new();
    if let Some(row) = row(1_000) {
        goals.push(goal("1,000 idle connections", row.idle.memory.rss_kb as f64, GOAL_KB, "KiB"));
        goals.push(goal("CPU, 1,000 idle connections", row.idle.cpu_percent, GOAL_IDLE_CPU_PERCENT, "% of a core"));
    }
    if let Some(row) = row(100) {
        goals.push(goal("100 busy connections", row.busy.memory.rss_kb as f64, GOAL_KB, "KiB"));
    }
    let steps = rows.windows(2).filter(|pair| pair[1].connections > pair[0].connections);
    let mut further = steps.map(|pair| {
        let grown = pair[1].busy.memory.rss_kb as f64 - pair[0].busy.memory.rss_kb as f64;
        grown * 1024.0 / f64::from(pair[1].connections - pair[0].connections)
    });
    // The step to the most connections rests on the most pages.
    if let Some(bytes) = further.next_back() {
        goals.push(goal("each further busy connection", bytes, GOAL_BUSY_BYTES, "bytes"));
    }
    goals
}

impl MemoryReport {
    /// For people: a table, and what is judged by it.
    pub(super) fn lines(&self) -> Vec<String> {
        let line = |connections: u32, name: &str, memory: MemoryUse, cpu: &str| {
            let MemoryUse { rss_kb, anon_kb, file_kb, shmem_kb } = memory;
            format!("{connections:>11} {name:>5} {rss_kb:>9} {anon_kb:>9} {file_kb:>9} {shmem_kb:>9} {cpu:>7}")
        };
        let head = ["connections", "", "RSS KiB", "RssAnon", "RssFile", "RssShmem", "CPU %"];
        let [connections, name, rss, anon, file, shmem, cpu] = head;
        let head = format!("{connections:>11} {name:>5} {rss:>9} {anon:>9} {file:>9} {shmem:>9} {cpu:>7}");
        let mut lines = vec![head, line(0, "idle", self.without, "")];
        for Row { connections, idle, busy, .. } in &self.rows {
            let of = |name, state: &State| line(*connections, name, state.memory, &format!("{:.2}", state.cpu_percent));
            lines.extend([of("idle", idle), of("busy", busy)]);
        }
        for Row { connections, busy_calls_per_s, .. } in &self.rows {
            let (millions, size) = (busy_calls_per_s / 1e6, self.size);
            let calls = format!("{millions:.2} M calls/s of {size} B, one in flight each");
            lines.push(format!("{connections} busy connections: {calls}"));
        }
        for Goal { what, found, at_most, unit, pass } in &self.goals {
            let verdict = if *pass { "PASS" } else { "FAIL" };
            lines.push(format!("{verdict}  {what}: {found:.2} {unit}, goal: at most {at_most} {unit}"));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(connections: u32, idle_kb: u64, busy_kb: u64, cpu_percent: f64) -> Row {
        let state = |rss_kb| State { memory: MemoryUse { rss_kb, ..MemoryUse::default() }, cpu_percent };
        Row { connections, idle: state(idle_kb), busy: state(busy_kb), busy_calls_per_s: 1.0 }
    }

    #[test]
    fn each_goal_is_held_against_the_row_that_it_is_about() {
        let goals = goals(&[row(100, 1_000, 3_000, 0.1), row(1_000, 3_100, 10_200, 0.3)]);
        let verdicts: Vec<_> = goals.iter().map(|goal| (goal.what, goal.pass)).collect();
        assert_eq!(
            verdicts,
            [
                ("1,000 idle connections", false),
                ("CPU, 1,000 idle connections", false),
                ("100 busy connections", true),
                ("each further busy connection", true),
            ]
        );
        assert!((goals[3].found - 8192.0).abs() < 1e-9, "{}", goals[3].found);
    }

    #[test]
    fn the_table_has_a_row_for_each_state_and_a_verdict_for_each_goal() {
        let memory = MemoryUse { rss_kb: 2_000, anon_kb: 900, file_kb: 1_100, shmem_kb: 0 };
        let rows = vec![row(100, 2_500, 3_073, 0.125)];
        let report = MemoryReport { size: SIZE, without: memory, goals: goals(&rows), rows };
        assert_eq!(
            report.lines(),
            [
                "connections         RSS KiB   RssAnon   RssFile  RssShmem   CPU %",
                "          0  idle      2000       900      1100         0        ",
                "        100  idle      2500         0         0         0    0.12",
                "        100  busy      3073         0         0         0    0.12",
                "100 busy connections: 0.00 M calls/s of 1024 B, one in flight each",
                "FAIL  100 busy connections: 3073.00 KiB, goal: at most 3072 KiB",
            ]
        );
        let report = MemoryReport { goals: goals(&[row(100, 1, 3_072, 0.0)]), ..report };
        assert_eq!(report.lines()[5], "PASS  100 busy connections: 3072.00 KiB, goal: at most 3072 KiB");
    }

    #[test]
    fn whoever_names_no_number_of_connections_gets_all_of_them_or_the_quick_ones() {
        let counted = |connections: &[u32], quick| {
            counts(&MemoryArgs { connections: connections.to_vec(), run: RunArgs { quick, json: false } }).to_vec()
        };
        assert_eq!((counted(&[], false), counted(&[], true)), (COUNTS.to_vec(), QUICK_COUNTS.to_vec()));
        assert_eq!((counted(&[7], false), counted(&[7], true)), (vec![7], vec![7]));
    }

    #[test]
    fn what_no_row_tells_of_is_no_goal_met() {
        assert!(goals(&[row(10, 1, 1, 0.0)]).is_empty());
    }
}
