//! What tokens cost at a date.

use bellrope_gateway::Usage;
use serde::{Deserialize, Serialize};

use crate::calendar::{DAY, day_of};

/// What the tokens of some models cost from a date on: one row of the table `[[prices]]`. None is built in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// The provider's name; `*` for any.
    pub provider: String,
    /// The model's name, in which `*` stands for any text.
    pub model: String,
    /// From which day on, in UTC, as in `2026-11-01`. Default: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// A million tokens of requests.
    pub input: f64,
    /// A million tokens of answers.
    pub output: f64,
    /// A million tokens that came from the provider's cache. Default: as `input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached: Option<f64>,
    /// A million tokens that went into the provider's cache. Default: as `input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<f64>,
    /// The currency. Default: `books.currency`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// The most tokens of an answer of these models, which budgets reserve for a request that names no number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output: Option<u32>,
}

/// The prices, as they are looked up.
#[derive(Debug, Default)]
pub(crate) struct Prices(Vec<Known>);

#[derive(Debug)]
struct Known {
    provider: String,
    model: String,
    /// The first day.
    from: i64,
    rate: TokenPrice,
}

/// What a token costs, in billionths of the currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenPrice {
    input: u64,
    pub(crate) output: u64,
    cached: u64,
    cache_write: u64,
    pub(crate) currency: String,
    pub(crate) max_output: Option<u32>,
}

/// Money in millionths of a currency.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Money {
    pub(crate) micros: u64,
    pub(crate) currency: String,
}

/// The dearest that a million tokens may be.
pub(crate) const DEAREST: f64 = 1_000_000.0;

impl Prices {
    /// Of rows that were checked. `currency`: of those that name none.
    pub(crate) fn new(rows: &[Price], currency: &str) -> Self {
        let mut known: Vec<_> = rows
            .iter()
            .map(|row| Known {
                provider: row.provider.clone(),
                model: row.model.to_ascii_lowercase(),
                from: row.from.as_deref().and_then(day_of).unwrap_or(i64::MIN),
                rate: TokenPrice {
                    input: billionths(row.input),
                    output: billionths(row.output),
                    cached: billionths(row.cached.unwrap_or(row.input)),
                    cache_write: billionths(row.cache_write.unwrap_or(row.input)),
                    currency: row.currency.clone().unwrap_or_else(|| currency.to_owned()),
                    max_output: row.max_output,
                },
            })
            .collect();
        // What says most comes first, and of the same the latest.
        known.sort_by_key(|row| {
            let letters = row.model.bytes().filter(|byte| *byte != b'*').count();
            (std::cmp::Reverse((row.provider != "*", letters)), std::cmp::Reverse(row.from))
        });
        Self(known)
    }

    /// The price of a model at a moment. `None`: it is not known, which is not nothing.
    pub(crate) fn of(&self, provider: &str, model: Option<&str>, at_ms: i64) -> Option<&TokenPrice> {
        self.fitting(provider, model, at_ms).map(|row| &row.rate)
    }

    fn fitting(&self, provider: &str, model: Option<&str>, at_ms: i64) -> Option<&Known> {
        let (day, model) = (at_ms.div_euclid(DAY), model?.to_ascii_lowercase());
        let fits = |row: &&Known| {
            row.from <= day && (row.provider == "*" || row.provider == provider) && matches(&row.model, &model)
        };
        self.0.iter().find(fits)
    }
}

impl Prices {
    /// As [`Self::of`], of rows that name the provider.
    pub(crate) fn of_named(&self, provider: &str, model: Option<&str>, at_ms: i64) -> Option<&TokenPrice> {
        // What names one comes before what fits any.
        self.fitting(provider, model, at_ms).filter(|row| row.provider != "*").map(|row| &row.rate)
    }
}

impl TokenPrice {
    /// What these tokens cost. Those of the cache are part of the input, and each is counted once.
    pub(crate) fn cost(&self, usage: &Usage) -> Money {
        let cached = usage.cache_read_tokens.unwrap_or(0).min(usage.input_tokens);
        let written = usage.cache_write_tokens.unwrap_or(0).min(usage.input_tokens - cached);
        let plain = usage.input_tokens - cached - written;
        let parts = [
            (plain, self.input),
            (cached, self.cached),
            (written, self.cache_write),
            (usage.output_tokens, self.output),
        ];
        let billionths: u128 = parts.iter().map(|(tokens, rate)| u128::from(*tokens) * u128::from(*rate)).sum();
        let micros = u64::try_from(billionths.div_ceil(1_000)).unwrap_or(u64::MAX);
        // A sum of a database has 63 bits.
        Money { micros: micros.min(u64::MAX >> 12), currency: self.currency.clone() }
    }
}

/// A price a million tokens is as many millionths a token.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "prices are checked: 0 to a million")]
fn billionths(price: f64) -> u64 {
    (price * 1_000.0).round() as u64
}

/// Whether a text fits a pattern, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let parts: Vec<_> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Whether a currency that is named is one.
pub(crate) fn check_currency(currency: Option<&str>) -> Result<(), String> {
    match currency.filter(|currency| !is_currency(currency)) {
        Some(currency) => Err(format!("currency is {currency:?}; give 1 to 8 capital letters, as in USD")),
        None => Ok(()),
    }
}

/// Whether a text can be the name of a currency.
pub(crate) fn is_currency(text: &str) -> bool {
    (1..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_uppercase())
}

impl std::fmt::Display for Money {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&amount(self.micros))?;
        write!(f, " {}", self.currency)
    }
}

/// Millionths as a decimal number: at least two places, and no zeros after them.
pub(crate) fn amount(micros: u64) -> String {
    let mut text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    while text.ends_with('0') && !text[..text.len() - 1].ends_with('.') && text.len() - text.find('.').unwrap_or(0) > 3
    {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(provider: &str, model: &str, from: Option<&str>, input: f64) -> Price {
        Price {
            provider: provider.into(),
            model: model.into(),
            from: from.map(str::to_owned),
            input,
            output: 10.0,
            cached: Some(0.125),
            cache_write: None,
            currency: None,
            max_output: None,
        }
    }

    #[test]
    fn the_row_that_says_most_counts_from_its_day_on_and_what_fits_none_is_unknown() {
        let rows = [
            price("*", "*", None, 1.0),
            price("openai", "gpt-5*", None, 2.0),
            price("openai", "gpt-5*", Some("2026-11-01"), 3.0),
            price("openai", "gpt-5-mini", Some("2026-11-01"), 4.0),
            price("openai", "*", None, 5.0),
        ];
        let prices = Prices::new(&rows, "USD");
        let input = |provider, model, day| prices.of(provider, Some(model), day_of(day).unwrap() * DAY).unwrap().input;
        assert_eq!(input("openai", "gpt-5", "2026-10-31"), 2_000);
        assert_eq!(input("openai", "GPT-5", "2026-11-01"), 3_000);
        assert_eq!(input("openai", "gpt-5-mini", "2026-11-02"), 4_000);
        assert_eq!(input("openai", "gpt-5-mini", "2026-10-02"), 2_000);
        assert_eq!(input("openai", "o9", "2026-11-02"), 5_000);
        assert_eq!(input("ollama", "gpt-5", "2026-11-02"), 1_000);
        assert!(Prices::new(&rows[1..], "USD").of("ollama", Some("gpt-5"), 0).is_none());
        assert!(prices.of("openai", None, 0).is_none());
    }

    // Row 53: cached tokens counted twice.
    #[test]
    fn cached_tokens_are_part_of_the_input_and_are_paid_once() {
        let prices = Prices::new(&[price("p", "m", None, 1.25)], "EUR");
        let usage = Usage { input_tokens: 1_000, output_tokens: 100, cache_read_tokens: Some(800), ..Usage::default() };
        let money = prices.of("p", Some("m"), 0).unwrap().cost(&usage);
        // 200 x 1.25 + 800 x 0.125 + 100 x 10 millionths.
        assert_eq!((money.micros, &*money.currency), (250 + 100 + 1_000, "EUR"));
        let odd = Usage { input_tokens: 10, cache_read_tokens: Some(u64::MAX), ..Usage::default() };
        assert_eq!(prices.of("p", Some("m"), 0).unwrap().cost(&odd).micros, 2);
        let most = Usage { input_tokens: u64::MAX, output_tokens: u64::MAX, ..Usage::default() };
        assert!(prices.of("p", Some("m"), 0).unwrap().cost(&most).micros > 1 << 50);
    }

    #[test]
    fn a_pattern_fits_the_whole_name() {
        for (pattern, text, fits) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("a*c", "abc", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a**a", "aa", true),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn money_is_written_with_two_places_or_as_many_as_it_has() {
        for (micros, text) in
            [(0, "0.00"), (1, "0.000001"), (1_500_000, "1.50"), (12_345_600, "12.3456"), (10, "0.00001")]
        {
            assert_eq!(amount(micros), text);
        }
    }
}
