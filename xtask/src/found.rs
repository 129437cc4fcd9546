//! What a check found.

/// What a check looked at, and what is wrong.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
#[must_use]
pub struct Found {
    /// What was looked at, in a few words.
    pub summary: String,
    /// What is worth knowing all the same: figures, and what could not be checked.
    pub notes: Vec<String>,
    /// What is wrong, each with what to do.
    pub faults: Vec<String>,
}

impl Found {
    /// A check that has nothing else to say.
    pub fn new(summary: String, faults: Vec<String>) -> Self {
        Self { summary, notes: Vec::new(), faults }
    }
}
