//! One request in the ledger.

use bellrope_gateway::{AskerKind, account::Outcome};

use crate::price::Money;

/// One request that is over. No text of it is kept, and none of its answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// When it was asked, in milliseconds since 1970.
    pub(crate) at_ms: i64,
    /// How long it took, whatever the wall clock did meanwhile.
    pub(crate) took_ms: u64,
    pub(crate) provider: String,
    pub(crate) model: Option<String>,
    pub(crate) client: String,
    pub(crate) kind: AskerKind,
    pub(crate) endpoint: &'static str,
    pub(crate) outcome: Outcome,
    pub(crate) tokens: TokenCount,
    /// `None`: its price is not known, which is not zero.
    pub(crate) cost: Option<Money>,
}

/// Tokens, in part as the provider says, in part estimated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct TokenCount {
    pub(crate) input: u64,
    pub(crate) output: u64,
    pub(crate) cached: Option<u64>,
    pub(crate) cache_write: Option<u64>,
    pub(crate) reasoning: Option<u64>,
    /// Whether any of it is an estimate.
    pub(crate) estimated: bool,
}

impl TokenCount {
    /// Those that budgets count.
    pub(crate) fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }
}
