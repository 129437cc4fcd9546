//! What an operator sees of the books: metrics, and a panel of the live page.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bellrope::status::{Exhibit, Family, Metrics, Panel, PanelTable, SampleValue};
use bellrope_gateway::account::Outcome;

use crate::bookkeeper::{Bookkeeper, Inner, State};
use crate::price::amount;
use crate::tally::{Series, Totals};

/// Rows of a table on the page.
const MAX_ROWS: usize = 32;

/// A value with one more label; an empty one is none.
type Labelled = ((&'static str, String), SampleValue);

/// Requests, tokens, requests without a price, and money by currency.
type Used = (u64, u64, u64, BTreeMap<String, u64>);

/// The books, as they are shown.
struct Shown(Arc<Inner>);

impl Bookkeeper {
    /// Shows what is kept among the server's metrics and on its page.
    pub fn watch(&self, metrics: &Metrics) {
        metrics.watch_exhibit(Arc::new(Shown(Arc::clone(&self.0))));
    }
}

impl Exhibit for Shown {
    fn families(&self) -> Vec<Family> {
        let state = self.0.state();
        let series: Vec<_> = state.tally.series().collect();
        let of = |samples: &dyn Fn(&Totals) -> Vec<Labelled>| {
            let of_one = |(series, totals): &(&Series, &Totals)| {
                let labels = labels(series);
                let with = move |(label, value): Labelled| {
                    (labels.iter().cloned().chain(Some(label).filter(|label| !label.0.is_empty())).collect(), value)
                };
                samples(totals).into_iter().map(with).collect::<Vec<_>>()
            };
            series.iter().flat_map(of_one).collect::<Vec<_>>()
        };
        let whole = SampleValue::Whole;
        let requests = of(&|totals| {
            let outcomes = Outcome::ALL.iter().zip(totals.outcomes);
            outcomes.map(|(outcome, count)| (("outcome", outcome.word().to_owned()), whole(count))).collect()
        });
        let tokens = of(&|totals| {
            let kinds = [
                ("input", totals.input),
                ("output", totals.output),
                ("cached", totals.cached),
                ("reasoning", totals.reasoning),
            ];
            kinds.into_iter().map(|(kind, count)| (("kind", kind.to_owned()), whole(count))).collect()
        });
        let cost = of(&|totals| {
            let micros = totals.micros.iter();
            micros
                .map(|(currency, micros)| (("currency", currency.clone()), SampleValue::Millionths(*micros)))
                .collect()
        });
        let without = of(&|totals| vec![(("", String::new()), whole(totals.without_price))]);
        let counter = |name, help, samples| Family { name, is_counter: true, help, samples };
        let gauge =
            |name, help, value| Family { name, is_counter: false, help, samples: vec![(Vec::new(), whole(value))] };
        let mut families = vec![
            counter("ai_requests_total", "Requests to AI providers that are over, by how they ended.", requests),
            counter(
                "ai_tokens_total",
                "Tokens of requests and answers; cached ones are part of the input, those of reasoning part of the output.",
                tokens,
            ),
            counter("ai_cost_total", "What requests of a known price cost.", cost),
            counter("ai_without_price_total", "Requests whose price is not known; they are in no cost.", without),
            gauge("ai_running_requests", "Requests to AI providers under way.", state.running.len() as u64),
        ];
        if let Some(ledger) = &self.0.ledger {
            let rows = [("written", ledger.written()), ("lost", ledger.lost())];
            let samples = rows.map(|(outcome, count)| (vec![("outcome", outcome.to_owned())], whole(count))).to_vec();
            families.push(counter("ai_ledger_rows_total", "Rows for the ledger, by what became of them.", samples));
            let failing = u64::from(ledger.trouble().is_some());
            families.push(gauge("ai_ledger_failing", "1 while the ledger cannot be written; answers go on.", failing));
        }
        families
    }

    fn panel(&self) -> Panel {
        let now = self.0.now();
        let mut state = self.0.state();
        let table = |caption: &str, columns: &[&str], numbers_from, rows: Vec<Vec<String>>| PanelTable {
            caption: caption.to_owned(),
            columns: columns.iter().map(|column| (*column).to_owned()).collect(),
            numbers_from,
            rows,
        };
        let at_work = state.running.values().take(MAX_ROWS).map(|entry| {
            let model = entry.model.as_deref().unwrap_or("its usual model");
            let model = format!("{} {model}", entry.provider);
            vec![entry.client.clone(), entry.endpoint.to_owned(), model, format!("{} s", entry.took(now).as_secs())]
        });
        let budgets = state.budgets.shown(now.wall_ms);
        let more = budgets.len().saturating_sub(MAX_ROWS);
        let more = (more > 0).then(|| vec![format!("and {more} more, of which less is spent"), String::new()]);
        let budgets = budgets.into_iter().take(MAX_ROWS).map(|(name, spent)| vec![name, spent]).chain(more);
        let tables = vec![
            table("At work", &["client", "asked", "provider and model", "for"], 3, at_work.collect()),
            table("Today (UTC)", &["client", "requests", "tokens", "cost"], 1, today(&mut state, now.wall_ms)),
            table("Budgets", &["budget", "spent"], 2, budgets.collect()),
        ];
        drop(state);
        let trouble = self.0.ledger.as_ref().and_then(|ledger| ledger.trouble());
        let alarm = trouble.map(|trouble| format!("The ledger is not written: {trouble}")).unwrap_or_default();
        let tables = tables.into_iter().filter(|table| !table.rows.is_empty()).collect();
        Panel { title: "AI requests".to_owned(), alarm, tables }
    }
}

/// What each client used today, here and at other servers, and all together.
fn today(state: &mut State, now_ms: i64) -> Vec<Vec<String>> {
    let currency = state.currency().to_owned();
    let others = state.others_today.clone();
    let mut clients: BTreeMap<String, Used> = BTreeMap::new();
    for (client, today) in state.tally.today(now_ms) {
        clients.insert(client.to_owned(), (today.requests, today.tokens, today.without_price, today.micros.clone()));
    }
    for (client, sum) in others {
        let row = clients.entry(client).or_default();
        (row.0, row.1, row.2) = (row.0 + sum.requests, row.1 + sum.tokens, row.2 + sum.without_price);
        *row.3.entry(currency.clone()).or_default() += sum.micros;
    }
    let mut rows: Vec<_> = clients.into_iter().collect();
    rows.sort_by_key(|(_, (requests, ..))| std::cmp::Reverse(*requests));
    let all = rows.iter().fold((0, 0, 0, BTreeMap::new()), |mut all, (_, row)| {
        (all.0, all.1, all.2) = (all.0 + row.0, all.1 + row.1, all.2 + row.2);
        for (currency, micros) in &row.3 {
            *all.3.entry(currency.clone()).or_default() += micros;
        }
        all
    });
    if rows.len() > 1 {
        rows.truncate(MAX_ROWS);
        rows.push(("all".to_owned(), all));
    }
    let in_words = |(client, (requests, tokens, without_price, micros)): (String, Used)| {
        let mut cost: Vec<_> =
            // That what was never sent cost nothing says nothing of what has no price.
            micros
                .iter()
                .filter(|(_, micros)| **micros > 0 || without_price == 0)
                .map(|(currency, micros)| format!("{} {currency}", amount(*micros)))
                .collect();
        if without_price > 0 {
            cost.push(format!("{without_price} without a price"));
        }
        vec![client, requests.to_string(), tokens.to_string(), cost.join(" + ")]
    };
    rows.into_iter().map(in_words).collect()
}

fn labels(series: &Series) -> Vec<(&'static str, String)> {
    let Series { provider, model, client } = series.clone();
    vec![("provider", provider), ("model", model), ("client", client)]
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown")
    }
}
