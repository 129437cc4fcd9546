//! What was counted since the server started: for metrics, and for today.

use std::collections::BTreeMap;

use bellrope_gateway::account::Outcome;

use crate::calendar::DAY;
use crate::row::Row;

/// Series of metrics: names of models and clients come from requests, and others share one row.
const MAX_SERIES: usize = 256;
/// Clients of today.
const MAX_CLIENTS: usize = 64;
/// What further ones are called.
const OTHER: &str = "other";

/// What was counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    series: BTreeMap<Series, Totals>,
    day: i64,
    today: BTreeMap<String, Today>,
}

/// Whose totals.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Series {
    pub(crate) provider: String,
    pub(crate) model: String,
    pub(crate) client: String,
}

/// Totals since the start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Totals {
    /// In the order of [`Outcome::ALL`].
    pub(crate) outcomes: [u64; Outcome::ALL.len()],
    pub(crate) input: u64,
    pub(crate) output: u64,
    pub(crate) cached: u64,
    pub(crate) reasoning: u64,
    pub(crate) without_price: u64,
    /// By currency.
    pub(crate) micros: BTreeMap<String, u64>,
}

/// What a client used today.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Today {
    pub(crate) requests: u64,
    pub(crate) tokens: u64,
    pub(crate) without_price: u64,
    pub(crate) micros: BTreeMap<String, u64>,
    /// In the order of [`Outcome::ALL`].
    pub(crate) outcomes: [u64; Outcome::ALL.len()],
}

impl Today {
    /// Adds what another has used.
    pub(crate) fn add(&mut self, other: &Self) {
        let sums =
            [&mut self.requests, &mut self.tokens, &mut self.without_price].into_iter().chain(&mut self.outcomes);
        let more = [other.requests, other.tokens, other.without_price].into_iter().chain(other.outcomes);
        sums.zip(more).for_each(|(sum, more)| *sum = sum.saturating_add(more));
        for (currency, micros) in &other.micros {
            let sum = self.micros.entry(currency.clone()).or_default();
            *sum = sum.saturating_add(*micros);
        }
    }
}

impl Tally {
    pub(crate) fn count(&mut self, row: &Row, now_ms: i64) {
        self.turn(now_ms);
        let totals = self.totals(row);
        let at = Outcome::ALL.iter().position(|outcome| *outcome == row.outcome).unwrap_or(0);
        totals.outcomes[at] += 1;
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut totals.input, row.tokens.input);
        add(&mut totals.output, row.tokens.output);
        add(&mut totals.cached, row.tokens.cached.unwrap_or(0));
        add(&mut totals.reasoning, row.tokens.reasoning.unwrap_or(0));
        let paid = |micros: &mut BTreeMap<String, u64>, without: &mut u64| match &row.cost {
            Some(money) if micros.len() < MAX_CLIENTS || micros.contains_key(&money.currency) => {
                add(micros.entry(money.currency.clone()).or_default(), money.micros);
            }
            Some(_) => {}
            None => *without += 1,
        };
        paid(&mut totals.micros, &mut totals.without_price);
        let name = match self.today.contains_key(&row.client) || self.today.len() < MAX_CLIENTS {
            true => row.client.clone(),
            false => OTHER.to_owned(),
        };
        let today = self.today.entry(name).or_default();
        today.requests += 1;
        today.outcomes[at] += 1;
        today.tokens = today.tokens.saturating_add(row.tokens.total());
        paid(&mut today.micros, &mut today.without_price);
    }

    pub(crate) fn series(&self) -> impl Iterator<Item = (&Series, &Totals)> {
        self.series.iter()
    }

    /// Every client of today, those that asked most first.
    pub(crate) fn today(&mut self, now_ms: i64) -> Vec<(&str, &Today)> {
        self.turn(now_ms);
        let mut rows: Vec<_> = self.today.iter().map(|(name, today)| (name.as_str(), today)).collect();
        rows.sort_by(|a, b| b.1.requests.cmp(&a.1.requests).then_with(|| a.0.cmp(b.0)));
        rows
    }

    /// Begins a new day.
    fn turn(&mut self, now_ms: i64) {
        let day = now_ms.div_euclid(DAY);
        if day != self.day {
            self.day = day;
            self.today.clear();
        }
    }

    fn totals(&mut self, row: &Row) -> &mut Totals {
        let mut series = Series {
            provider: row.provider.clone(),
            model: row.model.clone().unwrap_or_else(|| "unknown".to_owned()),
            client: row.client.clone(),
        };
        if !self.series.contains_key(&series) && self.series.len() >= MAX_SERIES {
            (series.model, series.client) = (OTHER.to_owned(), OTHER.to_owned());
        }
        self.series.entry(series).or_default()
    }
}

#[cfg(test)]
mod tests {
    use bellrope_gateway::AskerKind;

    use super::*;
    use crate::price::Money;
    use crate::row::TokenCount;

    #[test]
    fn names_from_requests_make_a_bounded_number_of_series_and_lose_no_count() {
        let mut tally = Tally::default();
        let row = |number: usize| Row {
            at_ms: 0,
            took_ms: 1,
            provider: "p".into(),
            model: Some(number.to_string()),
            client: number.to_string(),
            kind: AskerKind::Program,
            endpoint: "",
            outcome: Outcome::Done,
            tokens: TokenCount { input: 1, output: 2, ..TokenCount::default() },
            cost: number.is_multiple_of(2).then(|| Money { micros: 5, currency: "USD".into() }),
        };
        (0..1_000).for_each(|number| tally.count(&row(number), 7));
        assert_eq!(tally.series().count(), MAX_SERIES + 1);
        let sum = |of: fn(&Totals) -> u64| tally.series().map(|(_, totals)| of(totals)).sum::<u64>();
        assert_eq!((sum(|totals| totals.outcomes[0]), sum(|totals| totals.output)), (1_000, 2_000));
        assert_eq!(
            (sum(|totals| totals.without_price), sum(|totals| totals.micros.get("USD").copied().unwrap_or(0))),
            (500, 2_500)
        );
        let rows = tally.today(8);
        assert_eq!((rows.len(), rows[0].0, rows[0].1.requests), (MAX_CLIENTS + 1, OTHER, 1_000 - MAX_CLIENTS as u64));
        assert!(tally.today(DAY).is_empty());
    }
}
