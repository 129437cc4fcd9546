//! The exit code of a command.

use std::process::ExitCode;

use crate::{
    outcome::{ApplicationError, Failed, Interrupted, Outcome, WrongSettings, in_words, is_closed_pipe},
    output,
};

/// What the parser of the command line ends with, too.
const WRONG_USAGE: u8 = 2;

/// An application has answered with an error of its own.
const APPLICATION_ERROR: u8 = 3;

/// The exit code of a command, after saying what failed unless that was said already: 0 success, 1 failure, 2 wrong
/// settings, 3 an application's own error, 130 for Ctrl-C.
#[must_use]
pub fn exit_code(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Interrupted>() => ExitCode::from(130),
        Err(error) if error.is::<Failed>() => ExitCode::FAILURE,
        Err(error) if is_closed_pipe(&error) => ExitCode::FAILURE,
        Err(error) if matches!(error.downcast_ref(), Some(WrongSettings(None))) => ExitCode::from(WRONG_USAGE),
        Err(error) if matches!(error.downcast_ref(), Some(ApplicationError(None))) => ExitCode::from(APPLICATION_ERROR),
        Err(error) => {
            output::note(format_args!("error: {}", output::unsteered(&in_words(&error))));
            match &error {
                error if error.is::<WrongSettings>() => ExitCode::from(WRONG_USAGE),
                error if error.is::<ApplicationError>() => ExitCode::from(APPLICATION_ERROR),
                _ => ExitCode::FAILURE,
            }
        }
    }
}
