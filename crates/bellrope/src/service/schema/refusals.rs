//! What was refused, and what was tried for that.

use super::offers::{Places, Step, inside_of_its_type};

/// What was tried so far, and where there must be something or nothing.
#[derive(Default)]
pub(super) struct Refusals {
    /// Where this value has nothing to be short, and how deep that is.
    pub(super) shortened: Vec<(usize, Vec<Step>)>,
    /// The variants that it has.
    pub(super) chosen: Vec<(usize, usize)>,
    /// Where the part begins that was refused.
    pub(super) failed: Option<Mark>,
    /// Where there must be something even if it is to be short.
    full: Places,
    /// Where that was tried and leads too deep.
    too_deep: Places,
    /// Where nothing can be inside.
    pub(super) nothing: Places,
}

/// How much was given, chosen and so on before a part: only what comes after can be why it is refused.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mark {
    pub(super) given: usize,
    pub(super) shortened: usize,
    pub(super) chosen: usize,
}

impl Refusals {
    pub(super) fn begin(&mut self) {
        self.shortened.clear();
        self.chosen.clear();
        self.failed = None;
    }

    pub(super) fn mark(&self, given: usize) -> Mark {
        Mark { given, shortened: self.shortened.len(), chosen: self.chosen.len() }
    }

    /// The part that began there was refused, if none inside of it was.
    pub(super) fn failed(&mut self, mark: Mark) {
        self.failed.get_or_insert(mark);
    }

    /// A part was taken, whatever was refused inside of it.
    pub(super) fn taken(&mut self) {
        self.failed = None;
    }

    /// What was refused, so that something else may be looked at meanwhile.
    pub(super) fn take_failed(&mut self) -> Option<Mark> {
        self.failed.take()
    }

    pub(super) fn chose(&mut self, enumeration: usize, variant: usize) {
        self.chosen.push((enumeration, variant));
    }

    pub(super) fn is_nothing(&mut self, path: &[Step], is_short: bool) -> bool {
        let place = inside_of_its_type(path);
        if self.nothing.contains(place) {
            return true;
        }
        let is_nothing = is_short && !self.full.contains(place);
        if is_nothing {
            self.shortened.push((path.len(), place.to_vec()));
        }
        is_nothing
    }

    /// Has something where the part that was refused had nothing to be short, the outermost first.
    pub(super) fn fill(&mut self, from: usize) -> bool {
        let mut shortened = std::mem::take(&mut self.shortened).split_off(from);
        shortened.retain(|(_, place)| !self.full.contains(place) && !self.too_deep.contains(place));
        let depth = shortened.iter().map(|(depth, _)| *depth).min();
        let outermost = shortened.into_iter().filter(|(at, _)| Some(*at) == depth);
        self.full.extend(outermost.map(|(_, place)| place));
        depth.is_some()
    }

    /// What was filled led too deep. `false` if there is nothing of that.
    pub(super) fn have_nothing_again(&mut self) -> bool {
        let filled = std::mem::take(&mut self.full);
        let is_some = !filled.is_empty();
        self.too_deep.extend(filled);
        is_some
    }
}
