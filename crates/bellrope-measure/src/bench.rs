//! Measurements between two processes: this one is the client, a child of it the server.

mod bare;
mod child;
mod connections;
mod criteria;
mod fairness;
mod gateway;
mod large;
mod limit;
mod memory;
mod pool;
mod priority;
mod reconnect;
mod rtt;
mod samples;
mod sealed;
mod spin;
mod throughput;

use std::time::Duration;

pub(crate) use bare::{Shape, answer as answer_bare};
pub(crate) use child::{Counters, ServerProcess, as_client, two_cpus};
use clap::{Args, Subcommand};
pub(crate) use criteria::{Report as CriteriaReport, criteria};
pub(crate) use limit::{ping, pong, sleeping_pong};
pub(crate) use rtt::{RttReport, round_trips};
pub(crate) use samples::{Percentiles, Samples};
pub(crate) use sealed::answer as answer_sealed;
use serde::Serialize;
pub(crate) use throughput::Load;

use crate::{Failed, Outcome};

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// What was promised, each with what was found and PASS or FAIL.
    Criteria(criteria::CriteriaArgs),
    /// Any number of connections open at once, each answering a call, and what they cost the server.
    Connections(connections::ConnectionsArgs),
    /// Memory and CPU time of a server with 10 to 10,000 connections, idle and busy.
    Memory(memory::MemoryArgs),
    /// Full round trips of one caller, with the machine's own limits (a bare cache-line ping-pong, bare slots) from the same
    /// run.
    Rtt(BenchArgs),
    /// Calls a second, over any number of connections, each with any number of calls in flight, beside what bare slots in
    /// shared memory carry in the same run.
    Throughput(BenchArgs),
    /// Echoes of large messages, beside the machine's own `memcpy` in the same run.
    Large(large::LargeArgs),
    /// One caller beside a thousand that saturate the server, with priority and without.
    Priority(priority::PriorityArgs),
    /// What a client that floods does to the polite ones.
    Fairness(fairness::FairnessArgs),
    /// How soon clients have found a killed server again, once another listens.
    Reconnect(reconnect::ReconnectArgs),
    /// What it costs to take a connection from a pool.
    Pool(pool::PoolArgs),
    /// Round trips and CPU time of the policies of waiting, beside two processes that sleep on a futex.
    Spin(spin::SpinArgs),
    /// What the AI gateway adds to a chunk on its way from its provider, and how many chunks a second a stream carries.
    Gateway(gateway::GatewayArgs),
}

/// What every measurement lets one choose.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    /// Measure for a moment only, if less exactly.
    #[arg(long)]
    quick: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

impl RunArgs {
    /// How long to measure where `seconds` are asked for.
    fn time(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(if self.quick { QUICK_SECONDS } else { seconds })
    }
}

/// Reads how long to measure.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.01..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("it must be from 0.01 to 3600".to_owned()) }
}

/// Seconds that are measured when it must be quick.
const QUICK_SECONDS: f64 = 1.0;

/// How to measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct BenchArgs {
    /// Payload bytes of a call, and of its echo.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(0..=65536))]
    pub(crate) size: u32,
    /// Calls in flight on each connection (throughput only).
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) depth: u32,
    /// Connections (throughput only).
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20000))]
    pub(crate) connections: u32,
    /// Seconds to measure.
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Measure for a second only, if less exactly.
    #[arg(long, conflicts_with = "seconds")]
    quick: bool,
    /// Leave client and server where the scheduler puts them, instead of on one CPU each.
    #[arg(long)]
    pub(crate) no_pin: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

impl BenchArgs {
    /// With the seconds that are really measured.
    fn settled(&self) -> Self {
        Self { seconds: if self.quick { QUICK_SECONDS } else { self.seconds }, ..self.clone() }
    }
}

pub(crate) fn run(command: &BenchCommand) -> Outcome {
    match command {
        BenchCommand::Criteria(args) => show_criteria(args.run.json, &criteria::measure(args, true)?),
        BenchCommand::Connections(args) => {
            show_lines(args.run.json, &connections::measure(args, true)?, connections::ConnectionsReport::lines)
        }
        BenchCommand::Memory(args) => {
            show_lines(args.run.json, &memory::measure(args, true)?, memory::MemoryReport::lines)
        }
        BenchCommand::Rtt(args) => show(args.json, &rtt::measure(&args.settled(), true)?, RttReport::print),
        BenchCommand::Throughput(args) => {
            show(args.json, &throughput::measure(&args.settled(), true)?, throughput::ThroughputReport::print)
        }
        BenchCommand::Large(args) => show(args.run.json, &large::measure(args, true)?, large::LargeReport::print),
        BenchCommand::Priority(args) => {
            show(args.run.json, &priority::measure(args, true)?, priority::PriorityReport::print)
        }
        BenchCommand::Fairness(args) => {
            show(args.run.json, &fairness::measure(args, true)?, fairness::FairnessReport::print)
        }
        BenchCommand::Reconnect(args) => {
            show(args.run.json, &reconnect::measure(args, true)?, reconnect::ReconnectReport::print)
        }
        BenchCommand::Pool(args) => show(args.run.json, &pool::measure(args, true)?, pool::PoolReport::print),
        BenchCommand::Spin(args) => show(args.run.json, &spin::measure(args, true)?, spin::SpinReport::print),
        BenchCommand::Gateway(args) => show(args.json, &gateway::measure(args, true)?, gateway::GatewayReport::print),
    }
}

/// Shows the criteria, and fails if one of them does.
pub(crate) fn show_criteria(json: bool, report: &CriteriaReport) -> Outcome {
    show_lines(json, report, CriteriaReport::lines)?;
    if report.all_pass { Ok(()) } else { Err(Failed.into()) }
}

fn show<R: Serialize>(json: bool, report: &R, print: fn(&R) -> Outcome) -> Outcome {
    if json { crate::output::json(report) } else { print(report) }
}

fn show_lines<R: Serialize>(json: bool, report: &R, lines: fn(&R) -> Vec<String>) -> Outcome {
    if json { crate::output::json(report) } else { crate::output::lines(&lines(report)) }
}
