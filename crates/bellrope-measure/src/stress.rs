//! Suites that put a server under more load and more harm than it will ever see, and check what it promises.
//!
//! The server is a child process with a private socket, as in a measurement; who loads it are threads of this process,
//! and clients in processes of their own where they are to be killed. Each suite says what it found for each of its
//! criteria, and a criterion that was not met fails the command.

mod bomb;
mod chaos;
mod crowd;
mod latency;
mod leak;
mod memory;
mod report;
mod victim;
mod watch;

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use report::{Report, SuiteReport};
pub(crate) use victim::{StressClientArgs, run as run_client};

use crate::{
    Failed, Outcome, bench,
    output::{self, Progress},
};

const HELP: &str = "\
Examples:
  bellrope stress connection-bomb
  bellrope stress chaos --seconds 300 --seed 42
  bellrope stress all --quick --json

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
pub(crate) struct StressArgs {
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

/// How a suite is run.
#[derive(Debug, Clone, Copy)]
struct Course {
    quick: bool,
    seconds: Option<f64>,
    seed: u64,
}

/// When a suite is over.
#[derive(Debug, Clone, Copy)]
enum Extent {
    /// After so many steps.
    Count(u64),
    /// After so long.
    Time(Duration),
}

type Suite = fn(Course) -> anyhow::Result<SuiteReport>;

/// Runs what was asked for. Fails if a criterion is not met.
pub(crate) fn run(args: &StressArgs) -> Outcome {
    let course = Course {
        quick: args.quick,
        seconds: args.seconds,
        seed: args.seed.unwrap_or_else(|| fastrand::u64(1..1 << 32)),
    };
    output::note(format_args!("seed {}", course.seed));
    bellrope_shm::process::raise_descriptor_limit();
    let mut report = Report::new(course.seed);
    for suite in args.suite.suites() {
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
    fn suites(self) -> &'static [Suite] {
        const ALL: [Suite; 5] = [bomb::run, memory::run, latency::run, leak::run, chaos::run];
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

impl Course {
    /// The extent of a suite that counts its steps.
    fn count(self, full: u64) -> Extent {
        match self.seconds {
            Some(seconds) => Extent::Time(Duration::from_secs_f64(seconds)),
            None => Extent::Count(if self.quick { full / 10 } else { full }),
        }
    }

    /// How long a suite runs that has a time.
    fn time(self, full: f64, quick: f64) -> Duration {
        Duration::from_secs_f64(self.seconds.unwrap_or(if self.quick { quick } else { full }))
    }
}

impl Extent {
    /// Whether `done` steps since `start` are enough.
    fn is_over(self, done: u64, start: Instant) -> bool {
        self.share(done, start) >= 1.0
    }

    /// How much of it is over after `done` steps since `start`, from 0 to 1.
    fn share(self, done: u64, start: Instant) -> f64 {
        let share = match self {
            Self::Count(count) => done as f64 / count as f64,
            Self::Time(time) => start.elapsed().as_secs_f64() / time.as_secs_f64(),
        };
        share.min(1.0)
    }
}

/// A bar that shows a share.
struct ShareBar<'a> {
    bar: &'a Progress,
    shown: u64,
}

/// Steps of such a bar.
const BAR_STEPS: u64 = 50;

impl<'a> ShareBar<'a> {
    fn new(bar: &'a Progress) -> Self {
        Self { bar, shown: 0 }
    }

    fn show(&mut self, share: f64) {
        while self.shown < (share * BAR_STEPS as f64) as u64 {
            self.bar.step();
            self.shown += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_the_suites_that_there_are_one_after_another() {
        let single = Choice::value_variants().iter().filter(|choice| !matches!(choice, Choice::All));
        let single: Vec<usize> = single.flat_map(|choice| choice.suites()).map(|suite| *suite as usize).collect();
        assert_eq!(Choice::All.suites().iter().map(|suite| *suite as usize).collect::<Vec<_>>(), single);
    }

    #[test]
    fn a_suite_ends_after_its_count_a_tenth_of_it_or_the_seconds_asked_for() {
        let course = Course { quick: false, seconds: None, seed: 1 };
        let (whole, quick) = (course.count(500), Course { quick: true, ..course }.count(500));
        let start = Instant::now();
        assert!(!whole.is_over(499, start) && whole.is_over(500, start) && whole.is_over(501, start));
        assert!(!quick.is_over(49, start) && quick.is_over(50, start));
        assert_eq!([0, 250, 500, 900].map(|done| whole.share(done, start)), [0.0, 0.5, 1.0, 1.0]);
        let seconds = Course { seconds: Some(3600.0), ..course }.count(500);
        assert!(!seconds.is_over(u64::MAX, start), "a time is not up because of steps");
        assert_eq!(seconds.share(0, start - Duration::from_secs(3600)), 1.0);
    }
}
