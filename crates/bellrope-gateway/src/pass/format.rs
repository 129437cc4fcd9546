//! What may go through as it came.

/// What a tool may ask for in a format that goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PassFormat {
    /// OpenAI's chat completions.
    ChatCompletions,
    /// OpenAI's completions of a prompt.
    Completions,
    /// OpenAI's responses.
    Responses,
    /// Anthropic's messages.
    Messages,
    /// The tokens of a request of Anthropic's messages.
    CountTokens,
}

impl PassFormat {
    /// Whether a stream of it says what it took only if that is asked for.
    pub(super) fn asks_for_usage(self) -> bool {
        matches!(self, Self::ChatCompletions | Self::Completions)
    }
}
