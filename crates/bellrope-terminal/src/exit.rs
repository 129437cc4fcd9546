//! The exit code of a command.

use std::process::ExitCode;

use crate::{
    outcome::{Failed, Interrupted, Outcome, is_closed_pipe},
    output,
};

/// The exit code of a command, after saying what failed unless that was said already: 0 success, 1 failure, 130 for
/// Ctrl-C.
#[must_use]
pub fn exit_code(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Interrupted>() => ExitCode::from(130),
        Err(error) if error.is::<Failed>() => ExitCode::FAILURE,
        Err(error) if is_closed_pipe(&error) => ExitCode::FAILURE,
        Err(error) => {
            output::note(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
