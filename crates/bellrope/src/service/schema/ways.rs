//! The ways to what is not known yet, and those by which a value ends soonest.

use super::model::Shape;

/// No way leads there.
pub(super) const FAR: u32 = u32::MAX;

/// What was found out of ways. It is found out anew when it has cost less than the values that were read with it, or when it
/// leads nowhere.
#[derive(Default)]
pub(super) struct Ways {
    /// From each type to the nearest that is open.
    pub(super) distances: Vec<u32>,
    pub(super) is_due: bool,
    /// What it has cost, and when it was done.
    pub(super) cost: usize,
    pub(super) done_at: usize,
    /// How many types and variants were closed, and how many when endings were last looked for.
    pub(super) closed: usize,
    pub(super) ended_at: Option<usize>,
}

impl Ways {
    pub(super) fn begin(&mut self, steps: usize) {
        self.is_due |= steps.saturating_sub(self.done_at) >= self.cost;
    }

    /// They may lead elsewhere now.
    pub(super) fn forget(&mut self) {
        self.is_due = true;
    }

    pub(super) fn closed(&mut self) {
        self.closed += 1;
    }
}

/// How many levels what must be in a value has at least.
pub(super) fn height(shape: &Shape, heights: &[u32]) -> u32 {
    match shape {
        Shape::Tuple(parts) => parts.iter().map(|part| height(part, heights)).max().unwrap_or(0),
        Shape::Type(at) => heights.get(*at as usize).copied().unwrap_or(FAR),
        _ => 0,
    }
}

/// Every type that a shape names.
pub(super) fn each_type(shape: &Shape, found: &mut impl FnMut(usize)) {
    match shape {
        Shape::Optional(inner) => each_type(inner, found),
        Shape::List(inner) => inner.iter().for_each(|inner| each_type(inner, found)),
        Shape::Map(entry) => entry.iter().for_each(|entry| {
            each_type(&entry.0, found);
            each_type(&entry.1, found);
        }),
        Shape::Tuple(parts) => parts.iter().for_each(|part| each_type(part, found)),
        Shape::Type(at) => found(*at as usize),
        _ => {}
    }
}
