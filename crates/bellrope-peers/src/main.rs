//! Bellrope beside its peers: the same work through each of them, in one run. `docs/benchmarks.md` says how to read it.

mod cost;
mod goals;
mod machine;
mod meter;
mod pair;
mod peers;
mod plan;
mod plot;
mod publish;
mod report;
mod tables;
mod units;

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use signal_hook::{consts::TERM_SIGNALS, iterator::Signals};

use crate::{
    plan::{Pace, Peer, Task},
    report::{Report, RoundLimit, Sample},
};

#[derive(Debug, Parser)]
#[command(about = "Measures Bellrope beside its peers.", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// One short round instead of five: a first look, in a few minutes.
    #[arg(long)]
    quick: bool,
    /// So many rounds, each as long as otherwise.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=99))]
    rounds: Option<u8>,
    /// Print everything that was measured as JSON instead of tables.
    #[arg(long)]
    json: bool,
    /// Write tables and plots into docs/benchmarks.md and docs/images.
    #[arg(long)]
    write: bool,
    /// Measure these peers alone.
    #[arg(long, value_name = "PEER", value_delimiter = ',')]
    only: Vec<Peer>,
}

/// Half of a pair of processes; started by this program itself.
#[derive(Debug, Subcommand)]
enum Role {
    #[command(hide = true)]
    Serve {
        peer: Peer,
        #[arg(long)]
        home: PathBuf,
        #[arg(long, value_parser = task)]
        task: Task,
    },
    #[command(hide = true)]
    Call {
        peer: Peer,
        #[arg(long)]
        home: PathBuf,
        #[arg(long)]
        address: String,
        #[arg(long)]
        server: u32,
        #[arg(long, value_parser = task)]
        task: Task,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.role {
        Some(Role::Serve { peer, home, task }) => peers::serve(*peer, home, task),
        Some(Role::Call { peer, home, address, server, task }) => call(*peer, home, address, *server, task),
        None => run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(format_args!("bellrope-peers: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    end_tidily().context("waiting for signals")?;
    let mut pace = if arguments.quick { Pace::QUICK } else { Pace::FULL };
    pace.rounds = arguments.rounds.map_or(pace.rounds, usize::from);
    let (mut report, peers) = choose(arguments, pace);
    let order = order(&peers, pace);
    let progress = progress((order.len() * pace.rounds) as u64);
    for round in 0..pace.rounds {
        let before = pair::limit_us()?;
        // In turns forwards and backwards, so that nobody always comes first, when the machine is coldest.
        let (forwards, backwards) = (order.iter(), order.iter().rev());
        let tasks: Vec<_> = if round % 2 == 0 { forwards.collect() } else { backwards.collect() };
        for (peer, task) in tasks {
            progress.set_message(format!("{}, {} B", peer.name(), task.size));
            let sample = pair::measure(*peer, task)
                .with_context(|| format!("{}, {} B, {} connections", peer.name(), task.size, task.connections));
            match sample {
                Ok(measured) => report.samples.push(Sample { peer: *peer, task: task.clone(), round, measured }),
                // One peer that fails takes nothing away from the others; that it failed is part of the report.
                Err(error) => {
                    progress.suspend(|| note(format_args!("FAILED: {error:#}")));
                    report.failed.push(format!("{error:#}"));
                }
            }
            progress.inc(1);
        }
        let limit = RoundLimit { before_us: before, after_us: pair::limit_us()? };
        progress.suspend(|| note(format_args!("round {}: {limit}", round + 1)));
        report.limits.push(limit);
    }
    progress.finish_and_clear();
    if arguments.json {
        print(format_args!("{}", publish::json(&report)?))?;
    } else {
        print(format_args!("{}", tables::markdown(&report)))?;
    }
    if arguments.write {
        publish::write(&report)?;
    }
    anyhow::ensure!(report.failed.is_empty(), "{} of the measurements failed", report.failed.len());
    Ok(())
}

/// A round: peer after peer at the same task, so that those who are compared see the same minute of the machine.
fn order(peers: &[Peer], pace: Pace) -> Vec<(Peer, Task)> {
    let mut order: Vec<(Peer, Task)> =
        peers.iter().flat_map(|peer| pace.tasks(*peer).into_iter().map(|task| (*peer, task))).collect();
    // Stable: peers stay in their order, and so do the tasks of one peer that are alike to this.
    order.sort_by_key(|(_, task)| (task.connections, task.apart_ms > 0 && task.depth == 0, task.size));
    order
}

/// What is measured: everything that was asked for and can be.
fn choose(arguments: &Arguments, pace: Pace) -> (Report, Vec<Peer>) {
    let mut report = Report::new(pace, arguments.quick);
    let asked = |peer: &Peer| arguments.only.is_empty() || arguments.only.contains(peer);
    let mut peers: Vec<Peer> = Peer::value_variants().iter().copied().filter(asked).collect();
    if report.machine.node.is_none() && peers.iter().any(|peer| peer.is_node()) {
        let why = "SKIPPED: Node's peers, because there is no program `node`";
        note(format_args!("{why}"));
        report.skipped.push(why.to_owned());
        peers.retain(|peer| !peer.is_node());
    }
    (report, peers)
}

fn call(peer: Peer, home: &std::path::Path, address: &str, server: u32, task: &Task) -> anyhow::Result<()> {
    let measured = peers::call(peer, home, address, server, task)?;
    print(format_args!("{}", serde_json::to_string(&measured)?))?;
    // Whatever a peer's library still has to tidy up is of no interest to the measurement, and its server is ended.
    Ok(())
}

/// Removes what lies about, when this program is told to end. Its children end with it.
fn end_tidily() -> std::io::Result<()> {
    let mut signals = Signals::new(TERM_SIGNALS)?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            pair::remove_leftovers();
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

fn progress(steps: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{msg:>32} {wide_bar} {pos}/{len} {elapsed}") {
        bar.set_style(style);
    }
    bar
}

fn task(text: &str) -> Result<Task, serde_json::Error> {
    serde_json::from_str(text)
}

fn print(text: std::fmt::Arguments<'_>) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{text}")?;
    out.flush()
}

fn note(text: std::fmt::Arguments<'_>) {
    // Nobody may be reading it any more; that is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_are_compared_are_measured_right_after_each_other() {
        let peers = [Peer::Bellrope, Peer::IceoryxPolling, Peer::Shmipc];
        let order = order(&peers, Pace::QUICK);
        let large: Vec<_> = order.iter().enumerate().filter(|(_, (_, task))| task.size == 1024 * 1024).collect();
        assert_eq!(large.len(), peers.len());
        assert_eq!(large[2].0 - large[0].0, 2);
        assert_eq!(order.len(), peers.iter().map(|peer| Pace::QUICK.tasks(*peer).len()).sum::<usize>());
    }
}
