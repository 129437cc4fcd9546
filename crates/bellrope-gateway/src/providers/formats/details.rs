//! What an answer took, in the names of all formats.

use serde_json::value::RawValue;

use crate::json::{self, amount, fields};
use crate::message::{MOST_TOKENS, Unsaid, Usage};

/// The counts so far. Each is a side matter: what cannot be read is left out, and later counts, which are of the whole
/// answer, take the place of earlier ones.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Whether anything came since [`Self::news`] was asked for last.
    is_news: bool,
    input: Option<u64>,
    output: Option<u64>,
    /// Whether that is what an answer begins with, and not what it took.
    is_placeholder: bool,
    /// Of both together.
    total: Option<u64>,
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
                total,
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
                "total_tokens",
            ],
        )
        else {
            return;
        };
        let first = |values: [Option<&RawValue>; 2]| values.into_iter().flatten().find_map(count);
        let cached_in = prompt_details.or(input_details).and_then(|details| inner(details, "cached_tokens"));
        self.is_news = true;
        self.is_without_cache |= read.is_some() || written.is_some();
        set(&mut self.input, first([prompt, input]));
        let written_out = first([completion, output]);
        self.is_placeholder &= written_out.is_none();
        set(&mut self.output, written_out);
        set(&mut self.total, total.and_then(count));
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

    /// Takes in that the answer begins: what was said of its output so far is a placeholder.
    pub(super) fn begin(&mut self) {
        self.is_placeholder = self.output.is_some();
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

    /// What was said, if anything was. The sum of both tells one count that is missing; what is a part is no more than its whole.
    fn so_far(&self) -> Option<Usage> {
        let says = [self.input, self.output, self.cached, self.written_to_cache, self.reasoning];
        if says.iter().all(Option::is_none) && self.cost.is_none() {
            return None;
        }
        let apart = if self.is_without_cache { [self.cached, self.written_to_cache] } else { [None, None] };
        let whole = |input: u64| apart.into_iter().flatten().fold(input, u64::saturating_add);
        let rest = |other: Option<u64>| self.total.zip(other).and_then(|(total, other)| total.checked_sub(other));
        let input = self.input.map(whole).or_else(|| rest(self.output));
        let output = self.output.or_else(|| rest(input));
        let within = |part: Option<u64>, whole: Option<u64>| part.map(|part| part.min(whole.unwrap_or(part)));
        Some(Usage {
            input_tokens: input.unwrap_or_else(|| whole(0)),
            output_tokens: output.unwrap_or(0),
            cache_read_tokens: within(self.cached, input),
            cache_write_tokens: within(self.written_to_cache, input),
            reasoning_tokens: within(self.reasoning, output),
            total_cost: self.cost,
            unsaid: Unsaid { input: input.is_none(), output: output.is_none() || self.is_placeholder },
            answered_by: None,
        })
    }
}

/// A count of tokens.
fn count(value: &RawValue) -> Option<u64> {
    json::count(value).filter(|count| *count <= MOST_TOKENS)
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
            (r#"{"prompt_tokens":5,"completion_tokens":2,"cost":{"total_cost":0.06}}"#, Some(5), Some(2), Some(0.06)),
            (r#"{"prompt_tokens":"5","completion_tokens":2.0,"cost":"0.5"}"#, Some(5), Some(2), Some(0.5)),
            (r#"{"prompt_tokens":-5,"completion_tokens":1e99,"cost":1}"#, None, None, Some(1.0)),
            (
                r#"{"prompt_tokens":[5],"completion_tokens":2,"cost":{"x":[]},"prompt_tokens_details":7}"#,
                None,
                Some(2),
                None,
            ),
            (r#"{"prompt_tokens":5}"#, Some(5), None, None),
            (r#"{"prompt_tokens":0,"completion_tokens":0}"#, Some(0), Some(0), None),
            (r#"{"prompt_tokens":5,"total_tokens":7}"#, Some(5), Some(2), None),
            (r#"{"completion_tokens":2,"total_tokens":"7"}"#, Some(5), Some(2), None),
            (r#"{"prompt_tokens":5,"total_tokens":4}"#, Some(5), None, None),
            (r#"{"prompt_tokens":1e18,"completion_tokens":2}"#, None, Some(2), None),
            (r#"{"prompt_tokens":5,"completion_tokens":100000001,"total_tokens":1e18}"#, Some(5), None, None),
            (r#"{"prompt_tokens":100000000,"completion_tokens":0}"#, Some(100_000_000), Some(0), None),
        ] {
            let expected = Usage {
                input_tokens: input.unwrap_or(0),
                output_tokens: output.unwrap_or(0),
                total_cost: cost,
                unsaid: Unsaid { input: input.is_none(), output: output.is_none() },
                ..Usage::default()
            };
            assert_eq!(usage(&[json]), Some(expected), "{json}");
        }
        let nothing = [
            "{}",
            r#"{"input_tokens":null,"output_tokens":{"a":1},"output_tokens_details":[]}"#,
            r#"{"prompt_tokens":true,"cost":-1}"#,
            r#"{"total_tokens":500}"#,
        ];
        for json in ["[]", "7", "\"usage\"", "null", "true"].into_iter().chain(nothing) {
            assert_eq!(usage(&[json]), None, "{json}");
        }
    }

    #[test]
    fn a_part_is_no_more_than_its_whole() {
        let odd = r#"{"prompt_tokens":10,"prompt_tokens_details":{"cached_tokens":1000000},"completion_tokens":3,"completion_tokens_details":{"reasoning_tokens":9}}"#;
        let odd = usage(&[odd]).unwrap();
        assert_eq!((odd.cache_read_tokens, odd.reasoning_tokens), (Some(10), Some(3)));
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

    // Row 56: a placeholder is no count.
    #[test]
    fn what_an_answer_begins_with_is_not_what_it_took() {
        let mut counts = Counts::default();
        raw(r#"{"input_tokens":9,"output_tokens":1}"#, |event| counts.update(Some(event))).unwrap();
        counts.begin();
        let unsaid = |counts: &Counts| counts.so_far().map(|usage| (usage.output_tokens, usage.unsaid.output));
        assert_eq!(unsaid(&counts), Some((1, true)));
        raw("{}", |event| counts.update(Some(event))).unwrap();
        assert_eq!(unsaid(&counts), Some((1, true)));
        raw(r#"{"output_tokens":1}"#, |event| counts.update(Some(event))).unwrap();
        assert_eq!(unsaid(&counts), Some((1, false)));
    }

    #[test]
    fn later_counts_take_the_place_of_earlier_ones_each_by_itself() {
        let counted =
            usage(&[r#"{"input_tokens":9,"cache_read_input_tokens":3,"output_tokens":1}"#, r#"{"output_tokens":7}"#]);
        let expected = Usage { input_tokens: 12, output_tokens: 7, cache_read_tokens: Some(3), ..Usage::default() };
        assert_eq!(counted, Some(expected));
    }
}
