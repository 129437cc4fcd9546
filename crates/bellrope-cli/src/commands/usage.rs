//! `bellrope usage`: what AI requests took and cost, by the ledger. It needs no server; one that runs is asked to write first
//! what waits.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use bellrope::{CallError, Client};
use bellrope_books::{By, FLUSH, FLUSH_WITHIN, Forget, UsageQuery, UsageReport, UsageRow, day_of, forget, usage};
use bellrope_terminal::{Outcome, output};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::{
    settings::{Settings, SettingsArgs},
    socket::SocketArg,
};

const DAY: Duration = Duration::from_secs(86_400);

/// How long a server may take to let us in. Its answer may take as much more than it waits itself.
const PATIENCE: Duration = Duration::from_millis(500);

const HELP: &str = "\
Examples:
  bellrope usage
  bellrope usage --by model --since 7d
  bellrope usage --by client --since 2026-11-01 --json
  bellrope usage forget --before 90d
  bellrope usage forget --client codex

The ledger is the file that books.path names, else $XDG_STATE_HOME/bellrope/books.db, or the same below ~/.local/state. Days
begin at midnight in UTC. It holds no text of a request or an answer.";

/// What to show of the ledger, or to erase.
#[derive(Debug, Args)]
#[command(after_help = HELP, args_conflicts_with_subcommands = true)]
pub(crate) struct UsageArgs {
    #[command(subcommand)]
    command: Option<UsageCommand>,
    #[command(flatten)]
    place: Place,
    /// Group by.
    #[arg(long, value_enum, default_value_t = Kind::Day)]
    by: Kind,
    /// Only requests since: a number of days, as in 7d, or a day, as in 2026-11-01 [default: everything].
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    since: Option<SystemTime>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum UsageCommand {
    /// Erase requests from the ledger, for good.
    Forget(ForgetArgs),
}

/// What to erase. With several options, what fits all of them.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bellrope usage forget --before 90d\n  bellrope usage forget --client 'codex (token)'\n\n\
                  With --before and --client only the requests that fit both are erased."
)]
#[group(id = "what", required = true, multiple = true, args = ["before", "client", "all"])]
struct ForgetArgs {
    #[command(flatten)]
    place: Place,
    /// Erase requests older than this: a number of days, as in 90d, or a day, as in 2026-11-01.
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    before: Option<SystemTime>,
    /// Erase this client's requests: a name, or one with its kind, as in 'codex (token)'.
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
    /// Erase everything.
    #[arg(long, conflicts_with_all = ["before", "client"])]
    all: bool,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// Where the ledger is.
#[derive(Debug, Args)]
struct Place {
    /// The ledger [default: as the settings say].
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// The configuration file that may name it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Day,
    Model,
    Provider,
    Client,
}

/// Shows or erases.
pub(crate) fn run(args: &UsageArgs) -> Outcome {
    if let Some(UsageCommand::Forget(args)) = &args.command {
        return erase(args);
    }
    let by = match args.by {
        Kind::Day => By::Day,
        Kind::Model => By::Model,
        Kind::Provider => By::Provider,
        Kind::Client => By::Client,
    };
    let report = usage(&args.place.ready()?, &UsageQuery { by, since: args.since })?;
    if args.json {
        return output::json(&report);
    }
    table(&report, args.by)
}

fn erase(args: &ForgetArgs) -> Outcome {
    let what = Forget { before: args.before, client: args.client.clone(), all: args.all };
    let erased = forget(&args.place.ready()?, &what)?;
    if let (0, Some(client)) = (erased, &args.client) {
        output::note(format_args!(
            "no such request of a client `{}` is in the ledger; `bellrope usage --by client` lists who is",
            client.escape_debug()
        ));
    }
    if args.json {
        return output::json(&json!({ "erased": erased }));
    }
    output::line(format_args!("erased {erased} {}", if erased == 1 { "request" } else { "requests" }))
}

impl Place {
    /// The ledger, with all in it that a running server has to write.
    fn ready(&self) -> anyhow::Result<PathBuf> {
        if let Some(path) = &self.ledger {
            ask_to_write(&SocketArg::default());
            return Ok(path.clone());
        }
        let settings = Settings::load(&SettingsArgs { config: self.config.clone(), ..SettingsArgs::default() })?;
        let path = settings.books().path.context("there is no ledger: books.path is \"off\", or neither XDG_STATE_HOME nor HOME is set; name one with --ledger")?;
        ask_to_write(&SocketArg { socket: Some(settings.socket) });
        Ok(path)
    }
}

/// Has a server at this socket write what waits. None, or one that is too old for that, is left alone.
fn ask_to_write(server: &SocketArg) {
    let mut config = server.config();
    (config.connect_timeout, config.call_timeout) = (PATIENCE, FLUSH_WITHIN + PATIENCE);
    let Ok(client) = Client::with(config) else { return };
    let is_written = match client.call(FLUSH, b"") {
        Ok(answer) => serde_json::from_slice::<Value>(&answer).is_ok_and(|answer| answer["written"] == true),
        Err(CallError::UnknownMessageType { .. }) => true,
        Err(_) => false,
    };
    if !is_written {
        output::note(format_args!("the server has not written its last requests into the ledger yet"));
    }
}

fn table(report: &UsageReport, by: Kind) -> Outcome {
    let heading = match by {
        Kind::Day => "DAY",
        Kind::Model => "MODEL",
        Kind::Provider => "PROVIDER",
        Kind::Client => "CLIENT",
    };
    let name = |row: &UsageRow| {
        let kind = row.kind.as_deref().filter(|kind| *kind != row.of).map(|kind| format!(" ({kind})"));
        format!("{}{}", row.of.escape_debug(), kind.unwrap_or_default())
    };
    let total = UsageRow { of: "all".to_owned(), ..report.total.clone() };
    let rows = report.rows.iter().chain([&total]).map(|row| {
        [
            name(row),
            row.requests.to_string(),
            row.input_tokens.to_string(),
            row.output_tokens.to_string(),
            row.cached_tokens.to_string(),
            cost(row),
        ]
    });
    let names = [heading, "REQUESTS", "INPUT", "OUTPUT", "CACHED", "COST"];
    output::table(names, 1..5, &rows.collect::<Vec<_>>())?;
    let total = &report.total;
    let ends = [
        (total.cancelled, "cancelled"),
        (total.cut, "cut"),
        (total.failed, "failed"),
        (total.refused, "refused"),
        (total.estimated, "with an estimate of tokens"),
    ];
    let ends: Vec<_> =
        ends.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    if !ends.is_empty() {
        output::line(format_args!("\nOf these: {}", ends.join(", ")))?;
    }
    match report.left_out {
        0 => Ok(()),
        left_out => {
            output::line(format_args!("{left_out} more rows are left out; ask from a later day on with --since"))
        }
    }
}

fn cost(row: &UsageRow) -> String {
    // That what was never sent cost nothing says nothing of what has no price.
    let costs = row.costs.iter().filter(|cost| cost.micros > 0 || row.without_price == 0);
    let mut parts: Vec<_> = costs.map(ToString::to_string).collect();
    if row.without_price > 0 {
        parts.push(format!("{} without a price", row.without_price));
    }
    if parts.is_empty() { "-".to_owned() } else { parts.join(" + ") }
}

/// A moment as people write it.
fn moment(text: &str) -> Result<SystemTime, String> {
    moment_from(text, SystemTime::now())
}

fn moment_from(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok());
    // The clock of a system may begin with 1970, and nothing in a ledger is older.
    let midnight = |day: i64| UNIX_EPOCH + DAY * u32::try_from(day).unwrap_or(0);
    days.map(|days| now.checked_sub(DAY * days).unwrap_or(UNIX_EPOCH))
        .or_else(|| day_of(text).map(midnight))
        .ok_or_else(|| "give a number of days, as in 7d, or a day, as in 2026-11-01".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_people_write_them() {
        assert_eq!(moment_from("7d", UNIX_EPOCH + 10 * DAY), Ok(UNIX_EPOCH + 3 * DAY));
        assert_eq!(moment_from("1970-01-03", UNIX_EPOCH), Ok(UNIX_EPOCH + 2 * DAY));
        assert_eq!(moment_from("1969-12-31", UNIX_EPOCH), Ok(UNIX_EPOCH));
        for wrong in ["", "d", "7", "-1d", "7h", "1970-13-01", "yesterday"] {
            assert!(moment_from(wrong, UNIX_EPOCH).is_err(), "{wrong}");
        }
    }
}
