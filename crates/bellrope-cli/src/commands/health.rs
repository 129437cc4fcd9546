//! `bellrope health`: what `/health` says, over the socket.

use anyhow::Context;
use bellrope::status::{CallerRow, STATS};
use bellrope_terminal::{Failed, Outcome, output};
use clap::Args;
use serde_json::Value;

use crate::{
    logging,
    operator::{self, caller_in_words},
    socket::SocketArg,
};

/// The `status` of a server that is as it should be.
const GOOD: &str = "healthy";

/// Whom to ask, and how to print it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bellrope health\n  bellrope health --json | jq .memory\n\n\
                        Exit codes: 0 the server is healthy, 1 it is not, or does not answer within 3 seconds.")]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    server: SocketArg,
    /// Print all that is known, as JSON.
    #[arg(long)]
    json: bool,
}

/// Prints how the server is; ends with 0 if it is well.
pub(crate) fn run(args: &HealthArgs) -> Outcome {
    logging::init("warn")?;
    let client = operator::connect(&args.server)?;
    let answer = operator::ask(&client, STATS, b"")?;
    let status: Value = serde_json::from_slice(&answer).context("the server's answer cannot be read")?;
    let health = &status["health"];
    if args.json {
        output::json(health)?;
    } else {
        let word = |key: &str| health[key].as_str().unwrap_or("-").escape_debug().to_string();
        let number = |key: &str| health[key].as_u64().unwrap_or(0);
        output::line(format_args!("{} (version {})", word("status"), word("version")))?;
        if health["reason"].is_string() {
            output::line(format_args!("reason       {}", word("reason")))?;
        }
        output::line(format_args!("uptime       {} s", number("uptime_seconds")))?;
        output::line(format_args!("calls        {}", number("total_requests")))?;
        let (active, most) = (number("active_connections"), number("max_connections"));
        output::line(format_args!("connections  {active} of {most}"))?;
        output::line(format_args!("memory       {} KiB", health["memory"]["rss_kb"].as_u64().unwrap_or(0)))?;
        let rows = health["breakers"].as_array().map_or(&[][..], Vec::as_slice);
        for row in rows.iter().filter(|row| row["state"] != "closed") {
            let text = |key: &str| row[key].as_str().unwrap_or("-").escape_debug().to_string();
            output::line(format_args!("breaker      {} is {}", text("name"), text("state")))?;
        }
        for row in rows {
            let name = row["name"].as_str().unwrap_or("-").escape_debug();
            let callers: Vec<CallerRow> = serde_json::from_value(row["callers"].clone()).unwrap_or_default();
            for caller in callers {
                output::line(format_args!("breaker      {name} is {}", caller_in_words(&caller)))?;
            }
        }
    }
    if health["status"] == GOOD { Ok(()) } else { Err(Failed.into()) }
}
