//! What goes to the terminal: results to stdout, everything else to stderr.

use std::{fmt, io::Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::Outcome;

/// Prints a line of a result. A closed pipe ends the program quietly with an error.
pub(crate) fn line(text: fmt::Arguments<'_>) -> Outcome {
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

/// Prints a result of several lines.
pub(crate) fn lines(lines: &[String]) -> Outcome {
    lines.iter().try_for_each(|text| line(format_args!("{text}")))
}

/// Prints a result for machines.
pub(crate) fn json(value: &impl Serialize) -> Outcome {
    line(format_args!("{}", serde_json::to_string_pretty(value)?))
}

/// Says something to the person at the terminal that is no result.
pub(crate) fn note(text: fmt::Arguments<'_>) {
    // Nobody may be reading it any more; that is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A progress bar on stderr, shown only to a person.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn new(shown: bool, what: &'static str, steps: u64) -> Self {
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template("{msg:>14} {wide_bar} {pos}/{len}");
        let bar = ProgressBar::with_draw_target(Some(steps), target).with_message(what);
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.tick();
        Self(bar)
    }

    pub(crate) fn step(&self) {
        self.0.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
