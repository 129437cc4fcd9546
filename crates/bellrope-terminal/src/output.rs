//! What goes to the terminal: results to stdout, everything else to stderr.

use std::{fmt, io::Write};

use serde::Serialize;

use crate::{outcome::Outcome, stderr};

/// Prints a line of a result.
///
/// # Errors
/// Standard output cannot be written to. A closed pipe ends the program quietly with this error.
pub fn line(text: fmt::Arguments<'_>) -> Outcome {
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

/// Prints a result of several lines.
///
/// # Errors
/// As [`line()`].
pub fn lines(lines: &[String]) -> Outcome {
    lines.iter().try_for_each(|text| line(format_args!("{text}")))
}

/// Prints a result for machines.
///
/// # Errors
/// As [`line()`], or the value has no form in JSON.
pub fn json(value: &impl Serialize) -> Outcome {
    line(format_args!("{}", serde_json::to_string_pretty(value)?))
}

/// Says something to the person at the terminal that is no result.
pub fn note(text: fmt::Arguments<'_>) {
    // Nobody may be reading it any more; that is no reason to fail.
    stderr::write(format!("{text}\n").as_bytes());
}
