//! `bellrope list`: what a server offers.

use bellrope_terminal::{Outcome, output};
use clap::Args;
use serde::Serialize;

use crate::{
    logging,
    schemas::{self, word},
    socket::{self, SocketArg},
};

/// What to list, and how.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  bellrope list --json")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    server: SocketArg,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Print the schemas of the methods of typed services, as JSON.
    #[arg(long, conflicts_with = "json")]
    schema: bool,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    style: &'static str,
}

/// Prints name and style of every message type.
pub(crate) fn run(args: &ListArgs) -> Outcome {
    logging::init("warn")?;
    let client = socket::connect(args.server.config())?;
    if args.schema {
        return output::json(&schemas::all(&client)?);
    }
    let rows: Vec<_> =
        client.message_types().into_iter().map(|(name, style)| Row { name, style: word(style) }).collect();
    if args.json {
        return output::json(&rows);
    }
    let cells = |row: Row| [row.name, row.style.to_owned()];
    output::table(["NAME", "STYLE"], 0..0, &rows.into_iter().map(cells).collect::<Vec<_>>())
}
