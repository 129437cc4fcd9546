//! Events on stderr. How much of them: `BELLROPE_LOG`, else `RUST_LOG`.

use std::io::IsTerminal;

use anyhow::{Context, anyhow};
use tracing_subscriber::EnvFilter;

use crate::Outcome;

/// The variables that say how much is logged, the first that is set.
const VARIABLES: [&str; 2] = ["BELLROPE_LOG", "RUST_LOG"];

/// Starts logging, at `default` if no variable says otherwise.
pub(crate) fn init(default: &str) -> Outcome {
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        // A broken stderr must not bring the program down.
        .log_internal_errors(false)
        .with_env_filter(filter(default, |name| std::env::var(name).ok())?)
        .try_init()
        .map_err(|error| anyhow!("logging cannot be set up: {error}"))
}

fn filter(default: &str, vars: impl Fn(&str) -> Option<String>) -> anyhow::Result<EnvFilter> {
    let set = |name: &&str| vars(name).filter(|value| !value.trim().is_empty());
    let Some((name, value)) = VARIABLES.iter().find_map(|name| Some((name, set(name)?))) else {
        return Ok(EnvFilter::new(default));
    };
    EnvFilter::try_new(&value).with_context(|| {
        format!("{name} is {value:?}; set it to error, warn, info, debug or trace, or to pairs such as bellrope=debug")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_variable_comes_first_and_empty_ones_say_nothing() {
        let of = |own: &'static str, common: &'static str| {
            filter("info", move |name| Some(if name == "RUST_LOG" { common } else { own }.to_owned()))
        };
        assert_eq!(of("debug", "trace").unwrap().to_string(), "debug");
        assert_eq!(of(" ", "bellrope=trace").unwrap().to_string(), "bellrope=trace");
        assert_eq!(of("", "").unwrap().to_string(), "info");
    }

    #[test]
    fn a_level_that_does_not_exist_is_refused_with_the_variable_and_the_mend() {
        let error = filter("info", |name| (name == "BELLROPE_LOG").then(|| "bellrope=loud".to_owned())).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.starts_with(r#"BELLROPE_LOG is "bellrope=loud"; set it to error, warn,"#), "{text}");
    }
}
