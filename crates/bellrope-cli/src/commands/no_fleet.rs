//! What `bellrope fleet` says in a program that was built without it.

use anyhow::bail;
use bellrope_terminal::Outcome;
use clap::Args;

/// Anything that somebody may give.
#[derive(Debug, Args)]
pub(crate) struct AnyArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    _given: Vec<String>,
}

/// Says how to get it.
pub(crate) fn run() -> Outcome {
    bail!("{}", bellrope_measure::WITHOUT_FLEET)
}
