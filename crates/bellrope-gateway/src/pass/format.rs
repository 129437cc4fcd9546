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
    /// The fields that say how many tokens an answer may have: the first is the inventor's, the last everybody's.
    pub(super) fn token_fields(self) -> &'static [&'static str] {
        match self {
            Self::ChatCompletions => &["max_completion_tokens", "max_tokens"],
            Self::Responses => &["max_output_tokens"],
            Self::Completions | Self::Messages | Self::CountTokens => &["max_tokens"],
        }
    }

    /// Whether a stream of it says what it took only if that is asked for.
    pub(super) fn asks_for_usage(self) -> bool {
        matches!(self, Self::ChatCompletions | Self::Completions)
    }
}
