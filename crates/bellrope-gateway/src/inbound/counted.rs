//! What a tool is told of the tokens that its answer took: what the provider says, and an estimate of what it does not say.
//! A count that nobody said is never told as 0.

use super::count::BYTES_A_TOKEN;
use crate::message::{ChatResponse, Chunk, Usage};

/// What one answer took, as far as it is known.
#[derive(Debug, Clone, Default)]
pub(super) struct ToldTokens {
    /// About how many tokens were read.
    read: u64,
    /// Bytes that were written.
    written: u64,
    usage: Option<Usage>,
}

impl ToldTokens {
    /// The request has about so many tokens.
    pub(super) fn expect(&mut self, read: u64) {
        self.read = read;
    }

    /// About how many tokens were read, before anybody has counted them.
    pub(super) fn expected(&self) -> u64 {
        self.read
    }

    /// Takes in a piece of the answer.
    pub(super) fn take_in(&mut self, chunk: &Chunk) {
        match chunk {
            Chunk::Text { text } | Chunk::Reasoning { text } => self.written += text.len() as u64,
            Chunk::ToolCall(delta) => self.written += delta.arguments.len() as u64,
            Chunk::Usage(usage) => self.usage = Some(usage.clone()),
            _ => {}
        }
    }

    /// Takes in a whole answer.
    pub(super) fn take_whole(&mut self, response: &ChatResponse) {
        let called: usize = response.tool_calls.iter().map(|call| call.arguments.len()).sum();
        self.written += (response.text.len() + response.reasoning.len() + called) as u64;
        self.usage.clone_from(&response.usage);
    }

    /// What the answer took, for formats that need not say it: nothing where the provider has counted neither what was read nor
    /// what was written. Where it has counted one, the other is estimated.
    pub(super) fn said(&self) -> Option<Usage> {
        let usage = self.usage.as_ref().filter(|usage| !(usage.unsaid.input && usage.unsaid.output))?;
        Some(self.with_estimates(usage.clone()))
    }

    /// What the answer took, for formats that have to say it.
    pub(super) fn all(&self) -> Usage {
        let nothing = || Usage {
            input_tokens: self.read,
            output_tokens: self.written.div_ceil(BYTES_A_TOKEN),
            ..Usage::default()
        };
        self.usage.clone().map_or_else(nothing, |usage| self.with_estimates(usage))
    }

    fn with_estimates(&self, mut usage: Usage) -> Usage {
        if usage.unsaid.input {
            let of_cache = usage.cache_read_tokens.unwrap_or(0).saturating_add(usage.cache_write_tokens.unwrap_or(0));
            usage.input_tokens = self.read.max(usage.input_tokens).max(of_cache);
        }
        if usage.unsaid.output {
            let written = self.written.div_ceil(BYTES_A_TOKEN);
            usage.output_tokens = written.max(usage.output_tokens).max(usage.reasoning_tokens.unwrap_or(0));
        }
        usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Unsaid;

    #[test]
    fn what_nobody_counted_is_left_out_or_estimated_and_never_nought() {
        let mut counted = ToldTokens::default();
        counted.expect(21);
        counted.take_in(&Chunk::text("twelve bytes"));
        let tokens = |usage: Usage| (usage.input_tokens, usage.output_tokens);
        assert_eq!((counted.said(), tokens(counted.all())), (None, (21, 3)));
        let unsaid = |input, output| Unsaid { input, output };
        for (usage, said, all) in [
            (Usage { unsaid: unsaid(true, true), total_cost: Some(0.1), ..Usage::default() }, None, (21, 3)),
            (Usage { input_tokens: 9, unsaid: unsaid(false, true), ..Usage::default() }, Some((9, 3)), (9, 3)),
            (Usage { output_tokens: 7, unsaid: unsaid(true, false), ..Usage::default() }, Some((21, 7)), (21, 7)),
            // What is a part says how large the whole is at the least.
            (
                Usage {
                    cache_read_tokens: Some(90),
                    output_tokens: 7,
                    unsaid: unsaid(true, false),
                    ..Usage::default()
                },
                Some((90, 7)),
                (90, 7),
            ),
            (
                Usage { input_tokens: 9, reasoning_tokens: Some(40), unsaid: unsaid(false, true), ..Usage::default() },
                Some((9, 40)),
                (9, 40),
            ),
            // A provider's nought is one.
            (Usage::default(), Some((0, 0)), (0, 0)),
        ] {
            counted.take_in(&Chunk::Usage(usage.clone()));
            assert_eq!((counted.said().map(tokens), tokens(counted.all())), (said, all), "{usage:?}");
        }
    }
}
