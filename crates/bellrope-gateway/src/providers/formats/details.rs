//! What an answer took, in the names of all formats.

use serde_json::value::RawValue;

use crate::json::{amount, count, fields};
use crate::message::Usage;

/// The counts so far. Each is a side matter: what cannot be read is left out, and later counts, which are of the whole
/// answer, take the place of earlier ones.
#[derive(Debug, Default)]
pub(super) struct Counts {
    is_given: bool,
    /// Whether anything came since [`Self::news`] was asked for last.
    is_news: bool,
    input: Option<u64>,
    output: Option<u64>,
    cached: Option<u64>,
    written_to_cache: Option<u64>,
    reasoning: Option<u64>,
    cost: Option<f64>,
    /// Whether `input` leaves out what came from the cache or went into it, as Anthropic counts.
    is_without_cache: bool,
}

impl Counts {
    /// Takes counts in.
    pub(super) fn update(&mut self, usage: Option<&RawValue>) {
        let Some(usage) = usage else { return };
        let Some(
            [
                prompt,
                input,
                completion,
                output,
                prompt_details,
                input_details,
                completion_details,
                output_details,
                hits,
                at_top,
                read,
                written,
                cost,
            ],
        ) = fields(
            usage,
            [
                "prompt_tokens",
                "input_tokens",
                "completion_tokens",
                "output_tokens",
                "prompt_tokens_details",
                "input_tokens_details",
                "completion_tokens_details",
                "output_tokens_details",
                "prompt_cache_hit_tokens",
                "cached_tokens",
                "cache_read_input_tokens",
                "cache_creation_input_tokens",
                "cost",
            ],
        )
        else {
            return;
        };
        let first = |values: [Option<&RawValue>; 2]| values.into_iter().flatten().find_map(count);
        let cached_in = prompt_details.or(input_details).and_then(|details| inner(details, "cached_tokens"));
        self.is_given = true;
        self.is_news = true;
        self.is_without_cache |= read.is_some() || written.is_some();
        set(&mut self.input, first([prompt, input]));
        set(&mut self.output, first([completion, output]));
        set(
            &mut self.cached,
            cached_in.and_then(count).or_else(|| first([read, hits])).or_else(|| at_top.and_then(count)),
        );
        set(&mut self.written_to_cache, written.and_then(count));
        let reasoning = completion_details.or(output_details).and_then(|details| inner(details, "reasoning_tokens"));
        set(&mut self.reasoning, reasoning.and_then(count));
        // Some servers say what the price is made of.
        let cost = cost.and_then(|cost| amount(cost).or_else(|| inner(cost, "total_cost").and_then(amount)));
        set(&mut self.cost, cost);
    }

    /// How many tokens were written.
    pub(super) fn output(&self) -> Option<u64> {
        self.output
    }

    /// The counts, if there are any.
    pub(super) fn take(&mut self) -> Option<Usage> {
        std::mem::take(self).so_far()
    }

    /// The counts so far, if any came since this was asked for last.
    pub(super) fn news(&mut self) -> Option<Usage> {
        std::mem::take(&mut self.is_news).then(|| self.so_far()).flatten()
    }

    fn so_far(&self) -> Option<Usage> {
        let apart = if self.is_without_cache { [self.cached, self.written_to_cache] } else { [None, None] };
        self.is_given.then(|| Usage {
            input_tokens: apart.into_iter().flatten().fold(self.input.unwrap_or(0), u64::saturating_add),
            output_tokens: self.output.unwrap_or(0),
            cache_read_tokens: self.cached,
            cache_write_tokens: self.written_to_cache,
            reasoning_tokens: self.reasoning,
            total_cost: self.cost,
        })
    }
}

fn set<T>(known: &mut Option<T>, later: Option<T>) {
    if later.is_some() {
        *known = later;
    }
}

fn inner<'a>(object: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    fields(object, [name]).and_then(|[value]| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::raw;

    fn usage(events: &[&str]) -> Option<Usage> {
        let mut counts = Counts::default();
        for event in events {
            raw(event, |event| counts.update(Some(event))).unwrap();
        }
        counts.take()
    }

    // Fault 73.
    #[test]
    fn odd_counts_cost_no_others() {
        for (json, input, output, cost) in [
            (r#"{"prompt_tokens":5,"completion_tokens":2,"cost":{"total_cost":0.06}}"#, 5, 2, Some(0.06)),
            (r#"{"prompt_tokens":"5","completion_tokens":2.0,"cost":"0.5"}"#, 5, 2, Some(0.5)),
            (r#"{"prompt_tokens":-5,"completion_tokens":1e99,"cost":-1}"#, 0, 0, None),
            (r#"{"prompt_tokens":[5],"completion_tokens":2,"cost":{"x":[]},"prompt_tokens_details":7}"#, 0, 2, None),
            (r#"{"input_tokens":null,"output_tokens":{"a":1},"output_tokens_details":[]}"#, 0, 0, None),
            ("{}", 0, 0, None),
        ] {
            let expected = Usage { input_tokens: input, output_tokens: output, total_cost: cost, ..Usage::default() };
            assert_eq!(usage(&[json]), Some(expected), "{json}");
        }
        for json in ["[]", "7", "\"usage\"", "null", "true"] {
            assert_eq!(usage(&[json]), None, "{json}");
        }
    }

    // Fault 73.
    #[test]
    fn what_came_from_the_cache_is_read_wherever_a_provider_says_it() {
        for json in [
            r#"{"prompt_tokens":9,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":4}}"#,
            r#"{"input_tokens":9,"output_tokens":1,"input_tokens_details":{"cached_tokens":"4"}}"#,
            r#"{"prompt_tokens":9,"completion_tokens":1,"prompt_cache_hit_tokens":4,"prompt_cache_miss_tokens":5}"#,
            r#"{"prompt_tokens":9,"completion_tokens":1,"cached_tokens":4}"#,
            r#"{"prompt_tokens":9,"completion_tokens":1,"cached_tokens":4.0,"prompt_tokens_details":null}"#,
        ] {
            let expected = Usage { input_tokens: 9, output_tokens: 1, cache_read_tokens: Some(4), ..Usage::default() };
            assert_eq!(usage(&[json]), Some(expected), "{json}");
        }
    }

    #[test]
    fn later_counts_take_the_place_of_earlier_ones_each_by_itself() {
        let counted =
            usage(&[r#"{"input_tokens":9,"cache_read_input_tokens":3,"output_tokens":1}"#, r#"{"output_tokens":7}"#]);
        let expected = Usage { input_tokens: 12, output_tokens: 7, cache_read_tokens: Some(3), ..Usage::default() };
        assert_eq!(counted, Some(expected));
    }
}
