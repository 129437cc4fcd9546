//! `bellrope breaker`: the circuit breakers of a running server.

use anyhow::Context;
use bellrope::status::{BREAKER, BreakerAction, BreakerRequest, Breakers};
use bellrope_terminal::{Outcome, output};
use clap::{Args, Subcommand};

use crate::{
    logging,
    operator::{self, caller_in_words, state_in_words},
    socket::SocketArg,
};

/// What to do with them.
#[derive(Debug, Subcommand)]
pub(crate) enum BreakerCommand {
    /// Show the breaker of every message type and of every provider.
    #[command(after_help = "Example:\n  bellrope breaker list --json")]
    List(ListArgs),
    /// Admit no call of a message type until its breaker is closed or reset by hand.
    #[command(after_help = "Example:\n  bellrope breaker open ai.chat")]
    Open(OneArgs),
    /// Admit every call of a message type, whatever fails, until its breaker is opened or reset by hand.
    #[command(after_help = "Example:\n  bellrope breaker close ai.chat")]
    Close(OneArgs),
    /// Close the breaker of a message type for every caller, or that of a provider, forget its failures, and let it work by
    /// itself again.
    #[command(after_help = "Examples:\n  bellrope breaker reset ai.chat\n  bellrope breaker reset provider:ollama")]
    Reset(OneArgs),
}

/// Where, and how to print it.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    server: SocketArg,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Whose breaker.
#[derive(Debug, Args)]
pub(crate) struct OneArgs {
    /// The name of the message type, or `provider:NAME`.
    #[arg(value_name = "TYPE")]
    name: String,
    #[command(flatten)]
    list: ListArgs,
}

/// Does it, and prints the breakers that it is about as they are then.
pub(crate) fn run(command: BreakerCommand) -> Outcome {
    logging::init("warn")?;
    let (action, name, args) = match command {
        BreakerCommand::List(args) => (BreakerAction::List, None, args),
        BreakerCommand::Open(OneArgs { name, list }) => (BreakerAction::Open, Some(name), list),
        BreakerCommand::Close(OneArgs { name, list }) => (BreakerAction::Close, Some(name), list),
        BreakerCommand::Reset(OneArgs { name, list }) => (BreakerAction::Reset, Some(name), list),
    };
    let client = operator::connect(&args.server)?;
    let request = serde_json::to_vec(&BreakerRequest { action, name: name.clone() })?;
    let answer = operator::ask(&client, BREAKER, &request)?;
    let Breakers { mut breakers } = serde_json::from_slice(&answer).context("the server's answer cannot be read")?;
    breakers.retain(|row| name.as_ref().is_none_or(|name| *name == row.name));
    if args.json {
        return output::json(&breakers);
    }
    let wide = breakers.iter().map(|row| row.name.escape_debug().count()).chain([4]).max().unwrap_or(0);
    output::line(format_args!("{:wide$}  {:16}  OPENED  REJECTED", "NAME", "STATE"))?;
    breakers.iter().try_for_each(|row| {
        let name = row.name.escape_debug().to_string();
        output::line(format_args!("{name:wide$}  {:16}  {:6}  {:8}", state_in_words(row), row.opened, row.rejections))?;
        row.callers.iter().try_for_each(|caller| output::line(format_args!("  {}", caller_in_words(caller))))
    })
}
