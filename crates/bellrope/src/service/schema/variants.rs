//! The variants of an enum, as far as they were seen.

use std::collections::HashMap;

use super::contents::Contents;

pub(super) struct Variant {
    pub(super) name: String,
    pub(super) contents: Option<Contents>,
    /// Whether it was in a value that could be made, or no value with it can be.
    pub(super) is_looked_at: bool,
    /// Whether a type was refused for having it inside.
    pub(super) is_refused: bool,
}

impl Variant {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), contents: None, is_looked_at: false, is_refused: false }
    }

    pub(super) fn is_open(&self) -> bool {
        self.contents.as_ref().is_none_or(Contents::is_open) || !self.is_looked_at
    }

    /// Whether there may be a value of it.
    pub(super) fn may_be(&self) -> bool {
        !self.is_refused && self.contents.as_ref().is_none_or(|contents| contents.is_whole || !contents.is_blocked)
    }
}

/// What tells the variants of an enum apart.
#[derive(Default)]
pub(super) struct Marks {
    /// The first variant of each mark.
    first: HashMap<u64, usize>,
    /// The first variant whose mark is another one than those before.
    second: Option<usize>,
}

impl Marks {
    /// Whether a variant with this mark is none of those before it under another name.
    pub(super) fn is_own(&mut self, variant: usize, mark: u64) -> bool {
        let is_known = self.first.get(&mark).is_some_and(|first| *first < variant);
        // What is no enum has one mark for all.
        let is_own = !is_known || self.second.is_none_or(|second| variant <= second);
        if is_own {
            let first = self.first.entry(mark).or_insert(variant);
            *first = variant.min(*first);
            if self.first.len() == 2 && self.second.is_none() {
                self.second = Some(variant);
            }
        }
        is_own
    }
}
