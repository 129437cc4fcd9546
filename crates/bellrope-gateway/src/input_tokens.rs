//! How many tokens a request may have.

use std::iter::Sum;
use std::ops::Add;

/// The tokens of a request before anybody has counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct InputTokens {
    /// About how many.
    pub(crate) likely: u64,
    /// Hardly more than this.
    pub(crate) most: u64,
}

impl Add for InputTokens {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { likely: self.likely + other.likely, most: self.most + other.most }
    }
}

impl Sum for InputTokens {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), Add::add)
    }
}
