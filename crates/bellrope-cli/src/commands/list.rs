//! `bellrope list`: what a server offers.

use bellrope::client::Style;
use bellrope_terminal::{Outcome, output};
use clap::Args;
use serde::Serialize;

use crate::{
    logging,
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
    let types = client.message_types().into_iter();
    let rows: Vec<_> = types.map(|(name, style)| Row { name, style: word(style) }).collect();
    if args.json {
        return output::json(&rows);
    }
    let wide = rows.iter().map(|row| row.name.chars().count()).chain([4]).max().unwrap_or(0);
    output::line(format_args!("{:wide$}  STYLE", "NAME"))?;
    rows.iter().try_for_each(|row| output::line(format_args!("{:wide$}  {}", row.name, row.style)))
}

/// What a style is called, here and in JSON.
fn word(style: Style) -> &'static str {
    match style {
        Style::Unary => "unary",
        Style::ServerStream => "server_stream",
        Style::ClientStream => "client_stream",
        Style::Duplex => "duplex",
    }
}
