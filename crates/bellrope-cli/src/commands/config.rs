//! `bellrope config`: what the settings are and where they come from, and what is wrong with a file.

use std::path::PathBuf;

use bellrope_terminal::{Outcome, WrongSettings, output};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    serve::API_PORT_MEMORY,
    settings::{Faults, Settings, SettingsArgs, check},
};

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every setting that `bellrope serve` would have here, with its origin.
    Show(ShowArgs),
    /// Say all that is wrong with a configuration file, and what fixes it. Exit code 2 if anything is.
    Check(CheckArgs),
}

/// The same options as `bellrope serve`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bellrope config show --config bellrope.toml\n  \
                        BELLROPE_SERVER__MAX_CONNECTIONS=500 bellrope config show --json")]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Which file.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bellrope config check bellrope.toml\n  bellrope config check --config bellrope.toml"
)]
pub(crate) struct CheckArgs {
    /// The configuration file.
    #[arg(required_unless_present = "config")]
    file: Option<PathBuf>,
    /// The same, as `bellrope serve` takes it.
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// Shows or checks.
pub(crate) fn run(command: ConfigCommand) -> Outcome {
    match command {
        ConfigCommand::Show(args) => show(&args),
        ConfigCommand::Check(args) => check(args),
    }
}

fn show(args: &ShowArgs) -> Outcome {
    let settings = Settings::load(&args.settings)?;
    let mut entries = settings.entries();
    let mut own = settings.providers_own(|name| std::env::var(name).ok());
    own.extend(settings.pass_through());
    // What they say comes before the same key elsewhere.
    entries.retain(|entry| own.iter().all(|own| own.key != entry.key));
    entries.extend(own);
    for entry in &mut entries {
        entry.value = fit_to_be_seen(&entry.value);
    }
    if args.json {
        return output::json(&entries);
    }
    let rows: Vec<_> = entries.iter().map(|entry| (&entry.key, text(&entry.value), entry.origin.to_string())).collect();
    let wide = |of: &dyn Fn(&(&String, String, String)) -> usize| rows.iter().map(of).max().unwrap_or(0);
    let (key, value) = (wide(&|row| row.0.chars().count()), wide(&|row| row.1.chars().count()).min(40));
    output::line(format_args!("{:key$}  {:value$}  FROM", "KEY", "VALUE"))?;
    rows.iter().try_for_each(|row| output::line(format_args!("{:key$}  {:value$}  {}", row.0, row.1, row.2)))?;
    output::line(format_args!(
        "\nAt the very most {} MiB: server.max_connections x (two rings, a reply that waits{}) + \
         server.buffer_budget_bytes + gateway.answers.keep_bytes{}",
        settings.memory_bound() / 1_048_576,
        if settings.server.stream_transport { ", 8 KiB read ahead" } else { "" },
        if settings.api_port.is_some() {
            format!(" + {} MiB of the API port: bodies, their values and answers, heads", API_PORT_MEMORY / 1_048_576)
        } else {
            String::new()
        }
    ))
}

fn check(args: CheckArgs) -> Outcome {
    let file = args.file.or(args.config).unwrap_or_default();
    let shown = file.display().to_string();
    let found = check::check(&file);
    if args.json {
        let (warnings, faults) = match &found {
            Ok(warnings) => (&warnings[..], &[][..]),
            Err(Faults(faults)) => (&[][..], &faults[..]),
        };
        output::json(&json!({ "file": shown, "ok": found.is_ok(), "faults": faults, "warnings": warnings }))?;
        return if found.is_ok() { Ok(()) } else { Err(WrongSettings(None).into()) };
    }
    for warning in found? {
        output::note(format_args!("warning: {warning}"));
    }
    output::line(format_args!("{shown}: nothing is wrong with it"))
}

/// A value as somebody may see it who must not see keys: those may stand in the address of a provider.
fn fit_to_be_seen(value: &Value) -> Value {
    let Value::String(text) = value else { return value.clone() };
    let Some((scheme, rest)) = text.split_once("://") else { return value.clone() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority.to_owned(), |(_, host)| format!("(hidden)@{host}"));
    let path = path.split_once('?').map_or(path.to_owned(), |(path, _)| format!("{path}?(hidden)"));
    format!("{scheme}://{host}{path}").into()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::String(text) => text.escape_debug().to_string(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_addresses_are_not_shown() {
        let shown = |text: &str| fit_to_be_seen(&text.into());
        assert_eq!(shown("http://127.0.0.1:8080/v1"), "http://127.0.0.1:8080/v1");
        assert_eq!(shown("https://me:sk-1@host/v1?key=sk-2"), "https://(hidden)@host/v1?(hidden)");
        assert_eq!(shown("${WORK_KEY}"), "${WORK_KEY}");
    }
}
