//! Suites that put a server under more load and more faults than in use, and check what it promises.
//!
//! The server is a child process with a private socket, as in a measurement; who loads it are threads of this process,
//! and clients in processes of their own where they are to be killed. Each suite says what it found for each of its
//! criteria, and a criterion that was not met fails the command.

mod bomb;
mod chaos;
mod course;
mod crowd;
mod latency;
mod leak;
mod memory;
mod over;
mod report;
mod share_bar;
mod victim;
mod watch;

use anyhow::bail;
use bellrope_terminal::{Failed, Outcome, output};
use clap::{Args, ValueEnum};
use course::Course;
use over::Over;
use report::{Report, SuiteReport};
pub use victim::{StressClientArgs, run as run_client};

use crate::bench;

const HELP: &str = "\
Examples:
  bellrope stress connection-bomb
  bellrope stress chaos --seconds 300 --seed 42
  bellrope stress all --quick --json
  bellrope stress chaos --transport stream

Suites:
  connection-bomb     1,000 connections at once, with 5,000 calls of 1 KB on each
  memory-destruction  500 senders of 4 KB and 100 of 1 MB against a small buffer budget, for 20 s
  latency-torture     10,000 calls of one caller with priority beside 999 connections that saturate the server with 4 KB
  leak                120 cycles of 100 to 500 connections that come, call and go, some of them badly
  chaos               kills, corrupt frames, stalls, oversized messages, memory pressure and floods at random for 60 s, while
                      normal calls run
  all                 one after another

--seed repeats the sequence of random events; how they fall between other calls is up to the scheduler. The exit code is 0
if every criterion is met, 1 if one is not. Nothing is left behind, also after Ctrl-C.";

/// Which suite to run, and for how long.
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
pub struct StressArgs {
    /// What to do to the server.
    #[arg(value_enum)]
    suite: Choice,
    /// Run each suite for so many seconds, instead of for its own time or count.
    #[arg(long, value_parser = bench::seconds, conflicts_with = "quick")]
    seconds: Option<f64>,
    /// A short form: a tenth of the counts, or a few seconds.
    #[arg(long)]
    quick: bool,
    /// What random events follow from [default: a random one, which is printed].
    #[arg(long)]
    seed: Option<u64>,
    /// What carries the records of all clients. Over `stream`, the socket alone, latency-torture is left out: its times are
    /// those of shared memory.
    #[arg(long, value_enum, default_value_t = Over::Shm)]
    transport: Over,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Choice {
    ConnectionBomb,
    MemoryDestruction,
    LatencyTorture,
    Leak,
    Chaos,
    All,
}

type Suite = fn(Course) -> anyhow::Result<SuiteReport>;

/// Runs what was asked for.
///
/// # Errors
/// A suite could not be run, or a criterion is not met.
pub fn run(args: &StressArgs) -> Outcome {
    let course = Course {
        quick: args.quick,
        seconds: args.seconds,
        seed: args.seed.unwrap_or_else(|| fastrand::u64(1..1 << 32)),
        transport: args.transport.into(),
    };
    output::note(format_args!("seed {}", course.seed));
    bellrope_shm::process::raise_descriptor_limit();
    let mut report = Report::new(course.seed);
    let left_out = |choice| args.transport == Over::Stream && matches!(choice, Choice::LatencyTorture);
    if left_out(args.suite) {
        bail!("latency-torture is about shared memory: run it without --transport stream");
    }
    for (choice, suite) in args.suite.suites() {
        if left_out(*choice) {
            continue;
        }
        let found = suite(course)?;
        if !args.json {
            found.print()?;
        }
        report.add(found);
    }
    if args.json {
        output::json(&report)?;
    } else {
        report.print_verdict()?;
    }
    if report.pass() { Ok(()) } else { Err(Failed.into()) }
}

impl Choice {
    fn suites(self) -> &'static [(Choice, Suite)] {
        const ALL: [(Choice, Suite); 5] = [
            (Choice::ConnectionBomb, bomb::run),
            (Choice::MemoryDestruction, memory::run),
            (Choice::LatencyTorture, latency::run),
            (Choice::Leak, leak::run),
            (Choice::Chaos, chaos::run),
        ];
        match self {
            Self::ConnectionBomb => &ALL[..1],
            Self::MemoryDestruction => &ALL[1..2],
            Self::LatencyTorture => &ALL[2..3],
            Self::Leak => &ALL[3..4],
            Self::Chaos => &ALL[4..],
            Self::All => &ALL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_the_suites_that_there_are_one_after_another() {
        let single = Choice::value_variants().iter().filter(|choice| !matches!(choice, Choice::All));
        let single: Vec<usize> = single.flat_map(|choice| choice.suites()).map(|(_, suite)| *suite as usize).collect();
        assert_eq!(Choice::All.suites().iter().map(|(_, suite)| *suite as usize).collect::<Vec<_>>(), single);
    }
}
