//! `bellrope fleet`: who is in a fleet, and what a fleet of some size takes.

mod asked;
mod seen;
mod top;

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use bellrope_fleet::{Listed, Size, instances, load};
use bellrope_terminal::{Outcome, output};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    logging,
    units::{micros, whole_micros},
};

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum FleetCommand {
    /// List the instances of a fleet, what they offer, and how often that was called.
    List(ListArgs),
    /// Watch the instances of a fleet live: load, calls, errors, latencies, links, and who drains or is gone.
    Top(top::TopArgs),
    /// Say what a fleet of some size asks of NATS: connections, subscriptions, messages a second.
    Model(ModelArgs),
}

/// Whom to ask.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  bellrope fleet list --fleet nats://127.0.0.1:4222 --json")]
pub(crate) struct ListArgs {
    /// The NATS servers [default: as the settings say].
    #[arg(long, value_name = "URLS")]
    fleet: Option<String>,
    /// A configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How long answers are collected, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 500)]
    wait: u64,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// The size of the fleet.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  bellrope fleet model --editors 10000 --backends 1000")]
pub(crate) struct ModelArgs {
    /// Servers that import.
    #[arg(long, default_value_t = 10_000, value_parser = servers())]
    editors: u64,
    /// Servers that offer.
    #[arg(long, default_value_t = 1_000, value_parser = servers())]
    backends: u64,
    /// Message types that each of these offers.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(..=4_096))]
    types: u64,
    /// Small calls of one editor, a second.
    #[arg(long, default_value_t = 1.0, value_parser = amount)]
    calls: f64,
    /// Streams of one editor under way, on average.
    #[arg(long, default_value_t = 0.1, value_parser = amount)]
    streams: f64,
    /// Chunks of one stream, a second.
    #[arg(long, default_value_t = 50.0, value_parser = amount)]
    chunks: f64,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// How many servers there may be.
fn servers() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(..=1_000_000_000)
}

/// A number of calls, streams or chunks.
fn amount(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..=1e9).contains(number));
    number.ok_or_else(|| "give a number from 0 to 1000000000".to_owned())
}

/// Does it.
pub(crate) fn run(command: &FleetCommand) -> Outcome {
    match command {
        FleetCommand::List(args) => list(args),
        FleetCommand::Top(args) => top::run(args),
        FleetCommand::Model(args) => model(args),
    }
}

fn list(args: &ListArgs) -> Outcome {
    logging::init("warn")?;
    let settings = asked::settings(args.fleet.clone(), args.config.clone())?;
    let listed = instances(&settings, Duration::from_millis(args.wait)).context("the fleet cannot be asked")?;
    if args.json {
        return output::json(&listed);
    }
    if listed.is_empty() {
        output::note(format_args!("nobody of the fleet `{}` has answered", settings.prefix));
    }
    output::line(format_args!(
        "{:16}  {:20}  {:6} {:>7} {:>10} {:>8} {:>7} {:>7}  TYPES",
        "ID", "SERVER", "STATE", "RUNNING", "CALLS", "ERRORS", "P50", "P99"
    ))?;
    for one in &listed {
        let all = Listed::together(&one.types);
        let (calls, errors, p50, p99) =
            (all.requests, all.errors, micros(all.p50.map(whole_micros)), micros(all.p99.map(whole_micros)));
        let types = one.types.iter().map(|row| row.name.as_str()).collect::<Vec<_>>().join(" ");
        let state = if one.draining { "drains" } else { "serves" };
        let [id, server, types] = [&one.id, &one.server, &types].map(|text| text.escape_debug().to_string());
        let running = one.running;
        output::line(format_args!(
            "{id:16}  {server:20}  {state:6} {running:>7} {calls:>10} {errors:>8} {p50:>7} {p99:>7}  {types}"
        ))?;
    }
    Ok(())
}

fn model(args: &ModelArgs) -> Outcome {
    let size = Size {
        importing: args.editors,
        instances: args.backends,
        types: args.types,
        calls_per_second: args.calls,
        streams: args.streams,
        chunks_per_second: args.chunks,
    };
    let load = load(size);
    if args.json {
        return output::json(&json!({ "size": size, "load": load }));
    }
    let pairs = load.beat_messages_per_second;
    output::line(format_args!("connections to NATS               {:>14}", load.connections))?;
    output::line(format_args!("subscriptions                     {:>14}", load.subscriptions))?;
    output::line(format_args!("messages a second: calls          {:>14.0}", load.call_messages_per_second))?;
    output::line(format_args!("messages a second: chunks         {:>14.0}", load.chunk_messages_per_second))?;
    output::line(format_args!("messages a second: beats          {pairs:>14.0}"))?;
    output::line(format_args!("messages a second: discovery      {:>14.0}", load.discovery_messages_per_second))?;
    output::line(format_args!("deliveries a second: loads        {:>14.0}", load.load_deliveries_per_second))?;
    output::line(format_args!("answers, if all start at once     {:>14}", load.answers_at_a_common_start))?;
    output::line(format_args!("bytes of connections in NATS      {:>14}", load.nats_bytes))?;
    output::line(format_args!("NATS servers, by their limit      {:>14}", load.nats_servers))?;
    output::line(format_args!("bytes of streams at one editor    {:>14.0}", load.importing_bytes))
}
