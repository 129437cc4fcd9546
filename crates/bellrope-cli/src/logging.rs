//! Events on stderr. How much of them can be changed while the program runs.

use std::{fmt, io::IsTerminal, sync::OnceLock};

use anyhow::anyhow;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, fmt::format::FmtSpan};

use crate::Outcome;

/// The variables that say how much is logged, the first that is set.
const VARIABLES: [&str; 2] = ["BELLROPE_LOG", "RUST_LOG"];

type Change = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

/// Changes how much is logged, once something is.
static CHANGE: OnceLock<Change> = OnceLock::new();

/// What an event on stderr looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    /// A line for people, coloured at a terminal.
    #[default]
    Pretty,
    /// A line of JSON.
    Json,
}

impl LogFormat {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pretty => "pretty",
            Self::Json => "json",
        }
    }
}

/// Starts logging for people, at `default` if no variable says otherwise.
pub(crate) fn init(default: &str) -> Outcome {
    start(chosen(default, |name| std::env::var(name).ok())?, LogFormat::Pretty)
}

/// Starts logging as a server's settings say.
pub(crate) fn serve(level: &str, format: LogFormat) -> Outcome {
    start(filter(level).map_err(|mend| Unusable { name: "log".to_owned(), value: level.to_owned(), mend })?, format)
}

/// Logs so much from now on. The text must be one that [`filter`] takes.
pub(crate) fn change(level: &str) -> Result<(), String> {
    let change = CHANGE.get().ok_or("nothing is logged")?;
    change(filter(level)?)
}

/// What a text means that says how much is logged, or how to mend it.
pub(crate) fn filter(text: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(text).map_err(|error| {
        format!("set it to error, warn, info, debug or trace, or to pairs such as bellrope=debug ({error})")
    })
}

fn start(filter: EnvFilter, format: LogFormat) -> Outcome {
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // A broken stderr must not bring the program down.
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).log_internal_errors(false);
    // A call's span says at its end how long it took and how it ended.
    let builder = builder.with_span_events(FmtSpan::CLOSE);
    let (started, change): (_, Change) = match format {
        LogFormat::Pretty => {
            let builder = builder.with_ansi(colours).with_env_filter(filter).with_filter_reloading();
            let handle = builder.reload_handle();
            let change = move |filter| handle.reload(filter).map_err(|error| error.to_string());
            (builder.try_init(), Box::new(change))
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_env_filter(filter).with_filter_reloading();
            let handle = builder.reload_handle();
            let change = move |filter| handle.reload(filter).map_err(|error| error.to_string());
            (builder.try_init(), Box::new(change))
        }
    };
    started.map_err(|error| anyhow!("logging cannot be set up: {error}"))?;
    let _ = CHANGE.set(change);
    Ok(())
}

/// A setting that says how much is logged, and does not.
#[derive(Debug, thiserror::Error)]
struct Unusable {
    name: String,
    value: String,
    mend: String,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {:?}; {}", self.name, self.value, self.mend)
    }
}

fn chosen(default: &str, vars: impl Fn(&str) -> Option<String>) -> Result<EnvFilter, Unusable> {
    let set = |name: &&str| vars(name).filter(|value| !value.trim().is_empty());
    let Some((name, value)) = VARIABLES.iter().find_map(|name| Some((*name, set(name)?))) else {
        return Ok(EnvFilter::new(default));
    };
    filter(&value).map_err(|mend| Unusable { name: name.to_owned(), value, mend })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_variable_comes_first_and_empty_ones_say_nothing() {
        let of = |own: &'static str, common: &'static str| {
            chosen("info", move |name| Some(if name == "RUST_LOG" { common } else { own }.to_owned()))
        };
        assert_eq!(of("debug", "trace").unwrap().to_string(), "debug");
        assert_eq!(of(" ", "bellrope=trace").unwrap().to_string(), "bellrope=trace");
        assert_eq!(of("", "").unwrap().to_string(), "info");
    }

    #[test]
    fn a_level_that_does_not_exist_is_refused_with_the_variable_and_the_mend() {
        let error = chosen("info", |name| (name == "BELLROPE_LOG").then(|| "bellrope=loud".to_owned())).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(r#"BELLROPE_LOG is "bellrope=loud"; set it to error, warn,"#), "{text}");
    }
}
