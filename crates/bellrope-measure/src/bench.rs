//! Measurements between two processes: this one is the client, a child of it the server.

mod args;
mod bare;
mod connections;
mod criteria;
mod fairness;
#[cfg(feature = "fleet")]
mod fleet;
mod gateway;
mod large;
mod limit;
mod memory;
mod pool;
mod port;
mod priority;
mod reconnect;
mod rtt;
mod samples;
mod scaling;
mod sealed;
mod spin;
mod throughput;
mod typed;

#[cfg(not(feature = "fleet"))]
use anyhow::bail;
use bellrope_shm::CountingAllocator;
use bellrope_terminal::{Failed, Outcome, output};
use clap::Subcommand;
use serde::Serialize;

pub(crate) use args::seconds;
pub(crate) use bare::answer as answer_bare;
pub(crate) use criteria::{Report as CriteriaReport, criteria};
#[cfg(feature = "fleet")]
pub(crate) use fleet::{answer_nats, join as join_fleet, register as register_for_fleet};
pub(crate) use limit::{ping, pong, sleeping_pong};
use rtt::RttReport;
pub(crate) use samples::{Percentiles, Samples};
pub(crate) use sealed::answer as answer_sealed;
pub(crate) use throughput::BusyConnections;

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Measure the criteria (Bellrope's goals), and print value, target and PASS or FAIL for each.
    Criteria(criteria::CriteriaArgs),
    /// Open any number of connections at once, call on each, and show what they cost the server.
    Connections(connections::ConnectionsArgs),
    /// Measure memory and CPU time of a server with 10 to 10,000 connections, idle and busy.
    Memory(memory::MemoryArgs),
    /// Measure full round trips of one caller, beside the machine's own limits in the same run: a bare cache-line ping-pong,
    /// bare slots.
    Rtt(rtt::RttArgs),
    /// Measure calls a second over any number of connections and calls in flight, beside bare slots in shared memory in the
    /// same run.
    Throughput(throughput::ThroughputArgs),
    /// Measure echoes of large messages, beside the machine's own `memcpy` in the same run.
    Large(large::LargeArgs),
    /// Measure one caller beside a thousand that saturate the server, with priority and without.
    Priority(priority::PriorityArgs),
    /// Measure what a client that floods does to polite clients.
    Fairness(fairness::FairnessArgs),
    /// Measure how soon clients of a killed server are connected again, once another one listens.
    Reconnect(reconnect::ReconnectArgs),
    /// Measure what it costs to take a connection from a pool.
    Pool(pool::PoolArgs),
    /// Measure round trips and CPU time of the waiting policies, beside two processes that sleep on a futex.
    Spin(spin::SpinArgs),
    /// Predict what more CPUs and NUMA nodes would carry, by a model, and check what the model assumes.
    Scaling(scaling::ScalingArgs),
    /// Measure what types add to a call, with both codecs, beside calls of the same bytes in the same run.
    Typed(typed::TypedArgs),
    /// Measure what the AI gateway adds to a chunk from its provider, and how many chunks a second a stream carries.
    Gateway(gateway::GatewayArgs),
    /// Measure what the API port adds to a request and to a chunk, beside the provider itself and a bare relay in the same run.
    Port(port::PortArgs),
    /// Measure what a call and a stream through a fleet cost, beside NATS alone in the same run, and how soon calls succeed
    /// after a kill.
    #[cfg(feature = "fleet")]
    Fleet(fleet::FleetArgs),
    /// Not in this program.
    #[cfg(not(feature = "fleet"))]
    #[command(hide = true)]
    Fleet(AnyArgs),
}

/// Anything that somebody may give.
#[cfg(not(feature = "fleet"))]
#[derive(Debug, clap::Args)]
pub struct AnyArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    _given: Vec<String>,
}

/// Measures what was asked for. `allocator` is the one that this program allocates with.
///
/// # Errors
/// The measurement could not be made, or a criterion is not met.
pub fn run(command: &BenchCommand, allocator: &CountingAllocator) -> Outcome {
    match command {
        BenchCommand::Criteria(args) => show_criteria(args.run.json, &criteria::measure(args, allocator, true)?),
        BenchCommand::Connections(args) => {
            show_lines(args.run.json, &connections::measure(args, true)?, connections::ConnectionsReport::lines)
        }
        BenchCommand::Memory(args) => {
            show_lines(args.run.json, &memory::measure(args, true)?, memory::MemoryReport::lines)
        }
        BenchCommand::Rtt(args) => show(args.timed.json(), &rtt::measure(args, true)?, RttReport::print),
        BenchCommand::Throughput(args) => {
            show(args.timed.json(), &throughput::measure(args, true)?, throughput::ThroughputReport::print)
        }
        BenchCommand::Large(args) => show(args.timed.json(), &large::measure(args, true)?, large::LargeReport::print),
        BenchCommand::Priority(args) => {
            show(args.timed.json(), &priority::measure(args, true)?, priority::PriorityReport::print)
        }
        BenchCommand::Fairness(args) => {
            show(args.timed.json(), &fairness::measure(args, true)?, fairness::FairnessReport::print)
        }
        BenchCommand::Reconnect(args) => {
            show(args.run.json, &reconnect::measure(args, true)?, reconnect::ReconnectReport::print)
        }
        BenchCommand::Pool(args) => show(args.span.run.json, &pool::measure(args, true)?, pool::PoolReport::print),
        BenchCommand::Spin(args) => show(args.timed.json(), &spin::measure(args, true)?, spin::SpinReport::print),
        BenchCommand::Scaling(args) => {
            show_lines(args.timed.json(), &scaling::measure(args, true)?, scaling::ScalingReport::lines)
        }
        BenchCommand::Typed(args) => show(args.timed.json(), &typed::measure(args, true)?, typed::TypedReport::print),
        BenchCommand::Gateway(args) => {
            show(args.span.run.json, &gateway::measure(args, true)?, gateway::GatewayReport::print)
        }
        BenchCommand::Port(args) => show(args.span.run.json, &port::measure(args, true)?, port::PortReport::print),
        #[cfg(feature = "fleet")]
        BenchCommand::Fleet(args) => show(args.run.json, &fleet::measure(args, true)?, fleet::FleetReport::print),
        #[cfg(not(feature = "fleet"))]
        BenchCommand::Fleet(_) => bail!("{}", crate::WITHOUT_FLEET),
    }
}

/// Shows the criteria, and fails if one of them does.
pub(crate) fn show_criteria(json: bool, report: &CriteriaReport) -> Outcome {
    show_lines(json, report, CriteriaReport::lines)?;
    if report.all_pass { Ok(()) } else { Err(Failed.into()) }
}

fn show<R: Serialize>(json: bool, report: &R, print: fn(&R) -> Outcome) -> Outcome {
    if json { output::json(report) } else { print(report) }
}

fn show_lines<R: Serialize>(json: bool, report: &R, lines: fn(&R) -> Vec<String>) -> Outcome {
    if json { output::json(report) } else { output::lines(&lines(report)) }
}
