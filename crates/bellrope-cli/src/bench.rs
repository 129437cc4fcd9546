//! Measurements between two processes: this one is the client, a child of it the server.

mod child;
mod gateway;
mod limit;
mod rtt;
mod samples;
mod throughput;

pub(crate) use child::ServerProcess;
use clap::{Args, Subcommand};
pub(crate) use limit::pong;
pub(crate) use rtt::{RttReport, round_trips};
pub(crate) use throughput::Load;

use crate::Outcome;

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Full round trips of one caller, with the machine's own limit (a bare cache-line ping-pong) from the same run.
    Rtt(BenchArgs),
    /// Calls a second, over any number of connections, each with any number of calls in flight.
    Throughput(BenchArgs),
    /// What the AI gateway adds to a chunk on its way from its provider, and how many chunks a second a stream carries.
    Gateway(gateway::GatewayArgs),
}

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
    #[arg(long, default_value_t = 2.0)]
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
        BenchCommand::Rtt(args) => {
            let report = rtt::measure(args, true)?;
            if args.json { crate::output::json(&report) } else { report.print() }
        }
        BenchCommand::Throughput(args) => {
            let report = throughput::measure(args, true)?;
            if args.json { crate::output::json(&report) } else { report.print() }
        }
        BenchCommand::Gateway(args) => {
            let report = gateway::measure(args, true)?;
            if args.json { crate::output::json(&report) } else { report.print() }
        }
    }
}
