//! What the books are told, and what can be wrong with it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::budget::Budget;
use crate::calendar::day_of;
use crate::price::{DEAREST, Price, Prices, check_currency, is_currency};

/// What the books are told: the section `[books]`, with the tables `[[prices]]` and `[[budgets]]` beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BookSettings {
    /// The ledger. `None`: there is none, and what is counted is forgotten with the process. Up to 300 bytes a request.
    pub path: Option<PathBuf>,
    /// How long a row of the ledger is kept: in whole days as `keep_days`, 1 to 36,500. Default 400 days.
    #[serde(rename = "keep_days", with = "whole_days")]
    pub keep: Duration,
    /// The most tokens of an answer where neither the request nor the table of prices names a number and a budget has no room
    /// for the longest there is: it is reserved, and sent with the request. 1 to 1,000,000; default 4,096.
    pub reserve_tokens: u32,
    /// The currency of prices and budgets that name none: 1 to 8 capital letters. Default `USD`.
    pub currency: String,
    /// From which part of a budget on an answer comes with a notice, in percent, 1 to 100. Default 80.
    pub warn_percent: u32,
    /// What tokens cost.
    #[serde(skip)]
    pub prices: Vec<Price>,
    /// What may be spent.
    #[serde(skip)]
    pub budgets: Vec<Budget>,
}

impl Default for BookSettings {
    fn default() -> Self {
        Self {
            path: None,
            keep: 400 * A_DAY,
            reserve_tokens: 4_096,
            currency: "USD".to_owned(),
            warn_percent: 80,
            prices: Vec::new(),
            budgets: Vec::new(),
        }
    }
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} {fault}")]
pub struct SettingFault {
    /// Its key: below `books`, or `prices` or `budgets`.
    pub key: String,
    /// The row of that table, counted from 0.
    pub row: Option<usize>,
    /// What is wrong with it, and what would be right.
    pub fault: String,
}

const A_DAY: Duration = Duration::from_secs(86_400);

/// The most rows of the table of prices, and the most budgets: all are looked at for every request.
const MAX_ROWS: usize = 1_000;

impl BookSettings {
    /// Whether all of it can be used.
    ///
    /// # Errors
    /// The first setting that cannot.
    pub fn check(&self) -> Result<(), SettingFault> {
        self.faults().into_iter().next().map_or(Ok(()), Err)
    }

    /// Every setting that cannot be used, of each row of a table the first one.
    #[must_use]
    pub fn faults(&self) -> Vec<SettingFault> {
        let mut faults = Vec::new();
        let mut add = |key: &str, row: Option<usize>, fault: String| {
            faults.push(SettingFault { key: key.to_owned(), row, fault });
        };
        let numbers = [
            ("books.keep_days", days(self.keep), 36_500),
            ("books.reserve_tokens", self.reserve_tokens.into(), 1_000_000),
            ("books.warn_percent", self.warn_percent.into(), 100),
        ];
        for (key, value, most) in numbers {
            if !(1..=most).contains(&value) {
                add(key, None, format!("is {value}; set it to 1 to {most}"));
            }
        }
        if !is_currency(&self.currency) {
            let fault = format!("is {:?}; give 1 to 8 capital letters, as in USD", self.currency);
            add("books.currency", None, fault);
        }
        for (key, rows) in [("prices", self.prices.len()), ("budgets", self.budgets.len())] {
            if rows > MAX_ROWS {
                add(key, None, format!("has {rows} rows; give at most {MAX_ROWS}"));
            }
        }
        for (at, price) in self.prices.iter().enumerate().take(MAX_ROWS) {
            if let Err(text) = price.check() {
                let which = format!("row {} ({}/{})", at + 1, shown(&price.provider), shown(&price.model));
                add("prices", Some(at), format!("{which}: {text}"));
            }
        }
        let mut names = BTreeSet::new();
        for (at, budget) in self.budgets.iter().enumerate().take(MAX_ROWS) {
            let checked = budget.check().and_then(|()| match names.insert(&budget.name) {
                true => Ok(()),
                false => Err("is there twice; give each budget a name of its own".to_owned()),
            });
            if let Err(text) = checked {
                add("budgets", Some(at), format!("`{}`: {text}", shown(&budget.name)));
            }
        }
        faults
    }

    /// Why a budget of money does not limit what it seems to, if it does not: its name, and what to do about it. `models`:
    /// providers, each with the model that requests go to which name none. `None`: it limits requests, or it is none of money.
    #[must_use]
    pub fn unpriced(&self, budget: &Budget, models: &[(String, String)]) -> Option<String> {
        // What counts tokens or requests as well limits whatever comes.
        if budget.cost.is_none() || budget.tokens.is_some() || budget.requests.is_some() {
            return None;
        }
        let name = shown(&budget.name);
        let currency = budget.currency.as_deref().unwrap_or(&self.currency);
        let counts = |price: &&Price| price.currency.as_deref().unwrap_or(&self.currency) == currency;
        let rows: Vec<_> = self.prices.iter().filter(counts).cloned().collect();
        let fix = "add [[prices]] for what it is to limit, or set tokens as well";
        if rows.is_empty() {
            return Some(format!("`{name}` limits nothing, as no price in {currency} is known; {fix}"));
        }
        let prices = Prices::new(&rows, &self.currency);
        // A price that begins later is one that was thought of.
        let is_unknown = |(provider, model): &&(String, String)| prices.of(provider, Some(model), i64::MAX).is_none();
        let unlimited: Vec<_> = models.iter().filter(is_unknown).collect();
        let (provider, model) = unlimited.first()?;
        let others = match unlimited.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        Some(format!(
            "`{name}` does not limit {provider}/{model}{others}, as no price of it in {currency} is known; {fix}"
        ))
    }
}

/// How many whole days that is.
fn days(time: Duration) -> u64 {
    time.as_secs() / A_DAY.as_secs()
}

mod whole_days {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(super::days(*time))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u32::deserialize(deserializer).map(|days| days * super::A_DAY)
    }
}

impl Price {
    fn check(&self) -> Result<(), String> {
        if self.provider.is_empty() || self.model.is_empty() {
            return Err("give a provider and a model; `*` is any".to_owned());
        }
        let prices = [
            ("input", Some(self.input)),
            ("output", Some(self.output)),
            ("cached", self.cached),
            ("cache_write", self.cache_write),
        ];
        for (key, price) in prices {
            // Not a number is in no range.
            if let Some(price) = price.filter(|price| !(0.0..=DEAREST).contains(price)) {
                return Err(format!("{key} is {price}; give what a million tokens cost, 0 to {DEAREST}"));
            }
        }
        if let Some(from) = self.from.as_deref().filter(|from| day_of(from).is_none()) {
            return Err(format!("from is {from:?}; give a day, as in 2026-11-30"));
        }
        check_currency(self.currency.as_deref())
    }
}

/// A text of the settings within an error: bounded, and without what a terminal obeys.
fn shown(text: &str) -> String {
    text.chars().take(64).collect::<String>().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Action;
    use crate::calendar::Window;

    #[test]
    fn what_cannot_be_used_is_named_with_what_would_be_right() {
        let good = BookSettings {
            prices: vec![serde_json::from_str(r#"{"provider":"p","model":"m","input":1,"output":2.5}"#).unwrap()],
            budgets: vec![Budget { cost: Some(5.0), ..Budget::named("all", Window::Day) }],
            ..BookSettings::default()
        };
        good.check().unwrap();
        let with_price = |change: fn(&mut Price)| {
            let mut settings = good.clone();
            change(&mut settings.prices[0]);
            settings
        };
        let with_budget = |change: fn(&mut Budget)| {
            let mut settings = good.clone();
            change(&mut settings.budgets[0]);
            settings
        };
        for (settings, expected) in [
            (BookSettings { keep: Duration::ZERO, ..good.clone() }, "books.keep_days is 0; set it to 1 to 36500"),
            (BookSettings { currency: "usd".into(), ..good.clone() }, "books.currency is \"usd\"; give 1 to 8"),
            (with_price(|price| price.input = f64::NAN), "prices row 1 (p/m): input is NaN; give what a million"),
            (with_price(|price| price.cached = Some(-1.0)), "prices row 1 (p/m): cached is -1; "),
            (
                with_price(|price| price.from = Some("1.11.2026".into())),
                "prices row 1 (p/m): from is \"1.11.2026\"; give a day",
            ),
            (with_price(|price| price.model.clear()), "prices row 1 (p/): give a provider and a model"),
            (with_budget(|budget| budget.cost = None), "budgets `all`: give at least one of cost, tokens and requests"),
            (with_budget(|budget| budget.cost = Some(f64::INFINITY)), "budgets `all`: cost is inf; "),
            (
                with_budget(|budget| (budget.token, budget.client) = (Some("a".into()), Some("b".into()))),
                "budgets `all`: it is for a token or for a client",
            ),
            (
                with_budget(|budget| (budget.action, budget.model) = (Some(Action::Warn), Some("x".into()))),
                "budgets `all`: action = \"warn\" lets",
            ),
            (
                BookSettings { budgets: [good.budgets.clone(), good.budgets.clone()].concat(), ..good.clone() },
                "budgets `all`: is there twice",
            ),
        ] {
            let fault = settings.check().unwrap_err().to_string();
            assert!(fault.starts_with(expected), "{fault}");
        }
    }
}
