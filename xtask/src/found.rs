//! What a check found.

/// What a check looked at, and what is wrong.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
#[must_use]
pub struct Found {
    /// What was looked at, in a few words.
    pub summary: String,
    /// What is wrong, each with what to do.
    pub faults: Vec<String>,
}
