//! `bellrope token`: the tokens by which tools at the API port are told apart. It needs no server; one that runs knows of a
//! change within a second.

use std::path::PathBuf;

use anyhow::Context as _;
use bellrope_books::{Budget, Tokens};
use bellrope_terminal::{Outcome, output};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::settings::{Settings, SettingsArgs};

const HELP: &str = "\
Examples:
  bellrope token add codex
  bellrope token add claude --budget 5USD/day --budget 60requests/minute

A tool shows its token as its API key: `Authorization: Bearer TOKEN` or `x-api-key: TOKEN`. Only a hash of it is kept, in
tokens.json beside the ledger, or in the file that tokens.path names. With tokens.required = true the API port answers only
tools with a token.";

/// What to do with them.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token for a tool, and print it. It is shown only this once.
    #[command(after_help = HELP)]
    Add(AddArgs),
    /// List the names of the tools that have a token, with their budgets.
    #[command(after_help = "Example:\n  bellrope token list --json")]
    List(ListArgs),
    /// Remove the token of a tool: it is refused from now on.
    #[command(after_help = "Example:\n  bellrope token remove codex")]
    Remove(RemoveArgs),
}

/// Whose token.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// The tool's name.
    name: String,
    /// What it may spend, as in 5USD/day, 200000tokens/hour or 60requests/minute. May be given several times.
    #[arg(long, value_name = "BUDGET")]
    budget: Vec<String>,
    #[command(flatten)]
    place: Place,
    /// Print JSON instead of the token alone.
    #[arg(long)]
    json: bool,
}

/// How to print them.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    place: Place,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Whose token.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The tool's name.
    name: String,
    #[command(flatten)]
    place: Place,
}

/// Where the tokens are.
#[derive(Debug, Args)]
struct Place {
    /// The configuration file that may name the file of the tokens.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Place {
    fn tokens(&self) -> anyhow::Result<Tokens> {
        self.settings().map(|(_, tokens)| tokens)
    }

    fn settings(&self) -> anyhow::Result<(Settings, Tokens)> {
        let settings = Settings::load(&SettingsArgs { config: self.config.clone(), ..SettingsArgs::default() })?;
        let tokens = settings
            .tokens()
            .context("there is no place for tokens: neither XDG_STATE_HOME nor HOME is set; set tokens.path")?;
        Ok((settings, tokens))
    }
}

/// Makes, lists or removes.
pub(crate) fn run(command: TokenCommand) -> Outcome {
    match command {
        TokenCommand::Add(args) => add(&args),
        TokenCommand::List(args) => list(&args),
        TokenCommand::Remove(args) => {
            args.place.tokens()?.remove(&args.name)?;
            output::note(format_args!("the token of `{}` is refused from now on", args.name));
            Ok(())
        }
    }
}

fn add(args: &AddArgs) -> Outcome {
    let (settings, tokens) = args.place.settings()?;
    let made = tokens.add(&args.name, &args.budget)?;
    let budgets = args.budget.iter().filter_map(|text| Budget::parse(&args.name, text).ok());
    // Prices may well be in a file that only the server was given.
    let read = match settings.origins.has_file() {
        true => "",
        false => " (no configuration file was read: if the server has one, name it with --config or BELLROPE_CONFIG)",
    };
    let warnings = budgets.filter_map(|budget| Some(format!("{}{read}", settings.unpriced_budget(&budget)?)));
    let warnings: Vec<_> = warnings.collect();
    if args.json {
        let token = json!({ "name": made.name, "token": made.token, "budgets": args.budget, "warnings": warnings });
        return output::json(&token);
    }
    for warning in warnings {
        output::note(format_args!("warning: the budget {warning}"));
    }
    output::note(format_args!("the token of `{}`, shown only this once:", made.name));
    output::line(format_args!("{}", made.token))
}

fn list(args: &ListArgs) -> Outcome {
    let rows = args.place.tokens()?.list()?;
    if args.json {
        let row =
            |row: &bellrope_books::TokenRow| json!({ "name": row.name, "added": row.added, "budgets": row.budgets });
        return output::json(&rows.iter().map(row).collect::<Vec<_>>());
    }
    let cells = |row: &bellrope_books::TokenRow| {
        let budgets = if row.budgets.is_empty() { "-".to_owned() } else { row.budgets.join(", ") };
        [row.name.escape_debug().to_string(), budgets]
    };
    output::table(["NAME", "BUDGETS"], 0..0, &rows.iter().map(cells).collect::<Vec<_>>())
}
