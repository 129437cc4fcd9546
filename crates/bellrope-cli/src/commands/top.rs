//! `bellrope top`: a server, live in a terminal.

mod screen;
mod status;

use std::time::Duration;

use anyhow::Context as _;
use bellrope::{
    Client,
    status::{STATS, Status},
};
use bellrope_terminal::{Outcome, output};
use clap::Args;
use screen::Screen;
use status::since;

use crate::{
    live::{self, WatchArgs},
    logging, operator,
    socket::SocketArg,
};

const HELP: &str = "\
Examples:
  bellrope top
  bellrope top --once --json

Keys: q, Esc and Ctrl-C end it. Rates and quantiles are of the last interval; a quantile is the upper bound of its bucket.
The operator's own types (bellrope.*) come last in the table. When the server goes away, what was last seen stays on the
screen until it is back.";

/// Whom to watch, and how.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    server: SocketArg,
    #[command(flatten)]
    watch: WatchArgs,
}

/// Watches until a key ends it.
pub(crate) fn run(args: &TopArgs) -> Outcome {
    logging::init("error")?;
    let interval = args.watch.interval();
    if args.watch.once {
        return once(args, interval);
    }
    live::ensure_terminal("top")?;
    let client = operator::connect(&args.server)?;
    // The first answer comes before the terminal is touched: a server that cannot be watched is said so in plain text.
    let screen = Screen::new(&args.server.path(), look(&client)?);
    live::show(screen, interval, move || look(&client).map(Box::new))
}

fn once(args: &TopArgs, interval: Duration) -> Outcome {
    let client = operator::connect(&args.server)?;
    let before = look(&client)?;
    std::thread::sleep(interval);
    let view = since(&look(&client)?, Some(&before));
    if args.watch.json { output::json(&view) } else { screen::print(&view) }
}

/// One question.
fn look(client: &Client) -> anyhow::Result<Status> {
    let answer = operator::ask(client, STATS, b"")?;
    serde_json::from_slice(&answer).context("the server's answer cannot be read")
}
