//! What came with a tool's request beside the conversation, and is no part of the JSON of `ai.*`.

use crate::input_tokens::InputTokens;
use crate::pass::{Carried, PassFormat, ToolKey};

/// What came with the request of a tool at the API port, and matters to some providers alone; and what was found out about a
/// long one as it was read, apart from the threads that serve others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FromTool {
    /// The format in which the tool asks.
    pub format: Option<PassFormat>,
    /// Fields that nobody here knows, for providers of the tool's own format.
    pub carried: Option<Carried>,
    /// The tool's own key, for providers that take it.
    pub key: Option<ToolKey>,
    /// How many providers of its route have been asked in vain already.
    pub tried: usize,
    /// How many tokens the request may have, where it was counted as it was read.
    pub(crate) tokens: Option<InputTokens>,
}
