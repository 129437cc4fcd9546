//! `bellrope list`: what a server offers.

use std::collections::BTreeMap;

use bellrope::{CallError, Client, client::Style};
use bellrope_terminal::{Outcome, output};
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    logging,
    socket::{self, SocketArg},
};

/// By which a server hands out the schema of a method: `bellrope::service::SCHEMA`.
const SCHEMA: &str = "bellrope.schema";

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
    let types = client.message_types().into_iter();
    let rows: Vec<_> = types.map(|(name, style)| Row { name, style: word(style) }).collect();
    if args.schema {
        return output::json(&schemas(&client, &rows)?);
    }
    if args.json {
        return output::json(&rows);
    }
    let wide = rows.iter().map(|row| row.name.chars().count()).chain([4]).max().unwrap_or(0);
    output::line(format_args!("{:wide$}  STYLE", "NAME"))?;
    rows.iter().try_for_each(|row| output::line(format_args!("{:wide$}  {}", row.name, row.style)))
}

/// The schema of every method that has one, by name.
fn schemas(client: &Client, rows: &[Row]) -> anyhow::Result<BTreeMap<String, Value>> {
    let mut schemas = BTreeMap::new();
    // A server without typed services does not have it.
    if rows.iter().all(|row| row.name != SCHEMA) {
        return Ok(schemas);
    }
    for row in rows {
        match client.call(SCHEMA, &serde_json::to_vec(&json!({ "method": row.name }))?) {
            Ok(schema) => drop(schemas.insert(row.name.clone(), serde_json::from_slice(&schema)?)),
            // Bytes are described nowhere.
            Err(CallError::Handler { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(schemas)
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
