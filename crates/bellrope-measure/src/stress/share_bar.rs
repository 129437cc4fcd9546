//! A progress bar of which so much of a suite is filled as is over.

use bellrope_terminal::ProgressBar;

/// A bar that shows a share.
pub(super) struct ShareBar<'a> {
    bar: &'a ProgressBar,
    shown: u64,
}

/// Steps of such a bar.
pub(super) const BAR_STEPS: u64 = 50;

impl<'a> ShareBar<'a> {
    pub(super) fn new(bar: &'a ProgressBar) -> Self {
        Self { bar, shown: 0 }
    }

    pub(super) fn show(&mut self, share: f64) {
        while self.shown < (share * BAR_STEPS as f64) as u64 {
            self.bar.step();
            self.shown += 1;
        }
    }
}
