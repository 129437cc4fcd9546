//! What goes to the terminal: results to stdout, everything else to stderr.

use std::{borrow::Cow, fmt, io::Write, ops::Range};

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

/// Prints rows below the names of their columns, each column as wide as its widest text. `numbers`: the columns that stand to
/// the right. The last column is filled up only if it is one of them.
///
/// # Errors
/// As [`line()`].
pub fn table<const N: usize>(names: [&str; N], numbers: Range<usize>, rows: &[[String; N]]) -> Outcome {
    lines(&columns(names, &numbers, rows))
}

fn columns<const N: usize>(names: [&str; N], numbers: &Range<usize>, rows: &[[String; N]]) -> Vec<String> {
    let names = names.map(str::to_owned);
    let all = || std::iter::once(&names).chain(rows);
    let wide: [usize; N] = std::array::from_fn(|at| all().map(|row| row[at].chars().count()).max().unwrap_or_default());
    let text = |row: &[String; N]| {
        let cells = row.iter().zip(wide).enumerate().map(|(at, (cell, wide))| match at {
            _ if numbers.contains(&at) => format!("{cell:>wide$}"),
            _ if at + 1 == N => cell.clone(),
            _ => format!("{cell:wide$}"),
        });
        cells.collect::<Vec<_>>().join("  ")
    };
    all().map(text).collect()
}

/// Prints a result for machines.
///
/// # Errors
/// As [`line()`], or the value has no form in JSON.
pub fn json(value: &impl Serialize) -> Outcome {
    line(format_args!("{}", serde_json::to_string_pretty(value)?))
}

/// A text in which somebody else's words may stand, without the control letters that would steer a terminal.
#[must_use]
pub fn unsteered(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let escaped = text.chars().map(|c| if steers(c) { c.escape_default().to_string() } else { c.to_string() });
    Cow::Owned(escaped.collect())
}

/// Says something to the person at the terminal that is no result.
pub fn note(text: fmt::Arguments<'_>) {
    // Nobody may be reading it any more; that is no reason to fail.
    stderr::write(format!("{text}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_text_and_numbers_stand_to_the_right() {
        let rows = [["a", "1", "x"], ["\u{e4}\u{f6}\u{fc}b", "12345", ""]].map(|row| row.map(str::to_owned));
        let shown = columns(["OF", "N", "REST"], &(1..2), &rows);
        assert_eq!(shown, ["OF        N  REST", "a         1  x", "\u{e4}\u{f6}\u{fc}b  12345  "]);
        assert_eq!(columns(["ONE"], &(0..0), &[]), ["ONE"]);
    }
}
