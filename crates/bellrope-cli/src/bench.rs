//! Measurements between two processes: this one is the client, a child of it the server.

mod child;
mod fairness;
mod gateway;
mod large;
mod limit;
mod pool;
mod priority;
mod reconnect;
mod rtt;
mod samples;
mod spin;
mod throughput;

use std::time::Duration;

pub(crate) use child::ServerProcess;
use clap::{Args, Subcommand};
pub(crate) use limit::{pong, sleeping_pong};
pub(crate) use rtt::{RttReport, round_trips};
use serde::Serialize;
pub(crate) use spin::spin_policy;
pub(crate) use throughput::Load;

use crate::Outcome;

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Full round trips of one caller, with the machine's own limit (a bare cache-line ping-pong) from the same run.
    Rtt(BenchArgs),
    /// Calls a second, over any number of connections, each with any number of calls in flight.
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
fn seconds(text: &str) -> Result<f64, String> {
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
    /// Leave client and server where the scheduler puts them, instead of on one CPU each.
    #[arg(long)]
    pub(crate) no_pin: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(command: &BenchCommand) -> Outcome {
    match command {
        BenchCommand::Rtt(args) => show(args.json, &rtt::measure(args, true)?, RttReport::print),
        BenchCommand::Throughput(args) => {
            show(args.json, &throughput::measure(args, true)?, throughput::ThroughputReport::print)
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

fn show<R: Serialize>(json: bool, report: &R, print: fn(&R) -> Outcome) -> Outcome {
    if json { crate::output::json(report) } else { print(report) }
}
