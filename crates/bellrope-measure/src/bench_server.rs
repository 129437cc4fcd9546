//! The server half of a measurement: a child process that serves what `bellrope serve` serves, with the health server
//! on, and answers bare ping-pongs and bare slots on request.

use std::{net::Ipv4Addr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use bellrope::{
    HandlerError, Server,
    server::{ServerBuilder, ServerConfig},
    status::Metrics,
};
use bellrope_gateway::{Gateway, GatewaySettings};
use bellrope_health::HealthServer;
use bellrope_shm::CountingAllocator;
use bellrope_shm::{clock, process};
use bellrope_terminal::{Outcome, output};
use clap::Args;

use crate::{bench, served, server_process::Counters, slots::SlotShape, typed};

/// The message type that holds up the worker which takes it: the payload says for how many milliseconds.
pub(crate) const HOLD: &str = "bench.hold";
/// Most of them.
const MAX_HOLD_MS: u8 = 100;

/// How to serve.
#[derive(Debug, Args)]
pub struct BenchServerArgs {
    #[arg(long)]
    socket: PathBuf,
    #[arg(long)]
    pin: bool,
    /// The settings, as JSON.
    #[arg(long, value_parser = settings)]
    config: ServerConfig,
    /// The fleet to join, as JSON.
    #[cfg(feature = "fleet")]
    #[arg(long, value_parser = fleet_settings)]
    fleet: Option<Box<bellrope_fleet::FleetSettings>>,
}

/// Serves until standard input ends. `allocator` is the one that this program allocates with.
///
/// # Errors
/// The server could not be started, or a command that came is none.
pub fn run(args: &BenchServerArgs, allocator: &CountingAllocator) -> Outcome {
    if args.pin {
        process::pin_to_cpu(1).context("pinning the server to a CPU")?;
    }
    let gateway = Gateway::from_settings(GatewaySettings::default())?;
    let builder = served::register(Server::builder().config(args.config.clone()), Arc::new(gateway).into());
    let builder = typed::register(register_hold(builder));
    #[cfg(feature = "fleet")]
    let builder = match &args.fleet {
        Some(settings) => bench::register_for_fleet(builder, settings),
        None => builder,
    };
    let listening_us = clock::monotonic_us();
    let server = Arc::new(builder.bind(&args.socket)?);
    #[cfg(feature = "fleet")]
    let fleet = args.fleet.clone().map(|settings| bench::join_fleet(*settings, &server, &args.socket)).transpose()?;
    let health = HealthServer::start((Ipv4Addr::LOCALHOST, 0).into(), server.metrics()).context("serving health")?;
    served::stay_small(server.metrics())?;
    output::line(format_args!("ready {} {listening_us}", health.local_addr()))?;
    let mut command = String::with_capacity(LONGEST_COMMAND);
    while std::io::stdin().read_line(&mut command)? > 0 {
        // Before anything of this loop's own is counted.
        let allocations = allocator.stop();
        obey(command.trim(), allocations, &server.metrics(), allocator)?;
        command.clear();
    }
    drop(health);
    #[cfg(feature = "fleet")]
    drop(fleet);
    server.shutdown();
    Ok(())
}

fn settings(json: &str) -> Result<ServerConfig, serde_json::Error> {
    serde_json::from_str(json)
}

#[cfg(feature = "fleet")]
fn fleet_settings(json: &str) -> Result<Box<bellrope_fleet::FleetSettings>, serde_json::Error> {
    serde_json::from_str(json)
}

/// A handler that does what no handler should: it keeps its worker.
fn register_hold(builder: ServerBuilder) -> ServerBuilder {
    builder.unary(HOLD, |call, _| {
        let [ms @ 0..=MAX_HOLD_MS] = *call.payload() else {
            return Err(HandlerError::invalid_request(format!("one byte is expected, of at most {MAX_HOLD_MS}")));
        };
        std::thread::sleep(Duration::from_millis(ms.into()));
        Ok(())
    })
}

/// Room for a command, so that reading one allocates nothing.
const LONGEST_COMMAND: usize = 256;

/// Does what a command says. `allocations` are those since counting was last started.
fn obey(command: &str, allocations: u64, metrics: &Metrics, allocator: &CountingAllocator) -> Outcome {
    let ready = || {
        let _ = output::line(format_args!("ponging"));
    };
    match command.split(' ').collect::<Vec<_>>()[..] {
        ["pong", pid, fd, rounds] => bench::pong(pid.parse()?, fd.parse()?, rounds.parse()?, ready),
        ["sleeping-pong", pid, fd, rounds] => bench::sleeping_pong(pid.parse()?, fd.parse()?, rounds.parse()?, ready),
        ["bare", pid, fd, connections, depth, size] => {
            let shape = SlotShape { connections: connections.parse()?, depth: depth.parse()?, size: size.parse()? };
            bench::answer_bare(pid.parse()?, fd.parse()?, shape, ready)
        }
        ["sealed-echo", ..] => bench::answer_sealed(command["sealed-echo".len()..].trim_start().as_ref(), ready),
        #[cfg(feature = "fleet")]
        ["nats", url] => bench::answer_nats(url, ready),
        ["counters"] => count(metrics),
        ["settle"] => {
            process::drop_program_pages();
            count(metrics)
        }
        ["count"] => {
            allocator.start();
            output::line(format_args!("counting"))
        }
        ["counted"] => output::line(format_args!("{allocations}")),
        ["cpu"] => output::line(format_args!("{}", process::cpu_time().as_micros())),
        _ => bail!("unknown command {command:?}"),
    }
}

fn count(metrics: &Metrics) -> Outcome {
    let snapshot = metrics.snapshot();
    let counters = Counters {
        connections: snapshot.active_connections,
        answered: snapshot.total_requests(),
        violations: snapshot.violations,
        stalled: snapshot.stalled,
        refused: snapshot.refused_connections,
        buffers_used: snapshot.buffers.map_or(0, |(used, _)| used),
    };
    output::line(format_args!("{}", serde_json::to_string(&counters)?))
}
