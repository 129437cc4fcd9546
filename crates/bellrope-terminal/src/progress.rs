//! A progress bar.

use indicatif::{ProgressDrawTarget, ProgressStyle};

/// A progress bar on stderr, shown only to a person.
#[derive(Debug)]
pub struct ProgressBar(indicatif::ProgressBar);

impl ProgressBar {
    /// A bar of so many steps, for `what`.
    #[must_use]
    pub fn new(shown: bool, what: &'static str, steps: u64) -> Self {
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template("{msg:>14} {wide_bar} {pos}/{len}");
        let bar = indicatif::ProgressBar::with_draw_target(Some(steps), target).with_message(what);
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.tick();
        Self(bar)
    }

    /// One more step is done.
    pub fn step(&self) {
        self.0.inc(1);
    }
}

impl Drop for ProgressBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
