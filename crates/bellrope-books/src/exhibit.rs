//! What an operator sees of the books: metrics, and a panel of the live page.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bellrope::status::{Exhibit, Family, Metrics, Panel, PanelFigure, PanelTable, SampleValue};
use bellrope_gateway::account::Outcome;

use crate::bookkeeper::{Bookkeeper, Inner, State};
use crate::price::amount;
use crate::tally::{Series, Today, Totals};

/// Rows of a table on the page.
const MAX_ROWS: usize = 32;
/// Clients that are named below a figure.
const MAX_NAMED: usize = 3;

/// A value with one more label; an empty one is none.
type Labelled = ((&'static str, String), SampleValue);

/// What was used today, by client: those that asked most first.
struct Used {
    clients: Vec<(String, Today)>,
    all: Today,
}

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
        let used = Used::of_today(&mut state, now.wall_ms());
        let figures = used.figures(&state);
        let at_work = state.running.values().take(MAX_ROWS).map(|entry| {
            let model = entry.model.as_deref().unwrap_or("its usual model");
            let model = format!("{} {model}", entry.provider);
            vec![entry.client.clone(), entry.endpoint.to_owned(), model, format!("{} s", entry.took(now).as_secs())]
        });
        let budgets = state.budgets.shown(now.wall_ms());
        let more = budgets.len().saturating_sub(MAX_ROWS);
        let more = (more > 0).then(|| vec![format!("and {more} more, of which less is spent"), String::new()]);
        let budgets = budgets.into_iter().take(MAX_ROWS).map(|(name, spent)| vec![name, spent]).chain(more);
        let tables = vec![
            table("At work", &["client", "asked", "provider and model", "for"], 3, at_work.collect()),
            table("Today (UTC)", &["client", "requests", "tokens", "cost"], 1, used.in_words()),
            table("Budgets", &["budget", "spent"], 2, budgets.collect()),
        ];
        drop(state);
        let trouble = self.0.ledger.as_ref().and_then(|ledger| ledger.trouble());
        let alarm = trouble.map(|trouble| format!("The ledger is not written: {trouble}")).unwrap_or_default();
        let tables = tables.into_iter().filter(|table| !table.rows.is_empty()).collect();
        Panel { title: "AI requests".to_owned(), alarm, tables, figures }
    }
}

impl Used {
    /// What each client used today, here and at other servers, and all together.
    fn of_today(state: &mut State, now_ms: i64) -> Self {
        let currency = state.currency().to_owned();
        let others = state.others_today.clone();
        let today = state.tally.today(now_ms);
        let mut clients: BTreeMap<String, Today> =
            today.into_iter().map(|(client, today)| (client.to_owned(), today.clone())).collect();
        for (client, sum) in others {
            let micros = BTreeMap::from([(currency.clone(), sum.micros)]);
            let more = Today {
                requests: sum.requests,
                tokens: sum.tokens,
                without_price: sum.without_price,
                micros,
                ..Today::default()
            };
            clients.entry(client).or_default().add(&more);
        }
        let mut clients: Vec<_> = clients.into_iter().collect();
        clients.sort_by_key(|(_, today)| std::cmp::Reverse(today.requests));
        let mut all = Today::default();
        clients.iter().for_each(|(_, today)| all.add(today));
        Self { clients, all }
    }

    /// The figures at the top of the page, once there was a request.
    fn figures(&self, state: &State) -> Vec<PanelFigure> {
        let Today { requests, tokens, without_price, outcomes, .. } = &self.all;
        if *requests == 0 && state.running.is_empty() {
            return Vec::new();
        }
        let figure = |title: &str, value: String, unit: &str, more: String| PanelFigure {
            title: title.to_owned(),
            value,
            unit: unit.to_owned(),
            more,
        };
        let mut at_work: BTreeMap<&str, u64> = BTreeMap::new();
        for entry in state.running.values() {
            *at_work.entry(&entry.client).or_default() += 1;
        }
        let counted = |(name, count): (&str, u64)| format!("{count} {name}");
        let mut for_whom: Vec<_> = at_work.into_iter().take(MAX_NAMED + 1).map(counted).collect();
        if for_whom.len() > MAX_NAMED {
            for_whom[MAX_NAMED] = "and others".to_owned();
        }
        let ended = Outcome::ALL.iter().zip(outcomes).filter(|(_, count)| **count > 0);
        let ended: Vec<_> = ended.map(|(outcome, count)| counted((outcome.word(), *count))).collect();
        // What is not known is not nothing.
        let costs = self.all.micros.iter().filter(|(_, micros)| **micros > 0 || *without_price == 0);
        let mut costs: Vec<_> = costs.map(|(currency, micros)| (*micros, currency.as_str())).collect();
        costs.sort_unstable_by_key(|(micros, _)| std::cmp::Reverse(*micros));
        let (cost, unit) =
            costs.first().map_or(("–".to_owned(), ""), |(micros, currency)| (amount(*micros), currency));
        let further = costs.iter().skip(1).map(|(micros, currency)| format!(", {} {currency}", amount(*micros)));
        let mut below = format!("{tokens} tokens{}", further.collect::<String>());
        if *without_price > 0 {
            below.push_str(&format!(", {without_price} without a price"));
        }
        vec![
            figure("AI at work", state.running.len().to_string(), "running", for_whom.join(", ")),
            figure("AI today (UTC)", requests.to_string(), "requests", ended.join(", ")),
            figure("AI cost today", cost, unit, below),
        ]
    }

    /// The rows of the table.
    fn in_words(mut self) -> Vec<Vec<String>> {
        if self.clients.len() > 1 {
            self.clients.truncate(MAX_ROWS);
            self.clients.push(("all".to_owned(), self.all));
        }
        let in_words = |(client, Today { requests, tokens, without_price, micros, .. }): (String, Today)| {
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
        self.clients.into_iter().map(in_words).collect()
    }
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

#[cfg(test)]
mod tests {
    use bellrope_gateway::account::{Books, Intent, Spent, Verdict};
    use bellrope_gateway::{Asker, AskerKind, Usage};

    use super::*;
    use crate::settings::BookSettings;

    #[test]
    fn what_runs_for_whom_and_what_it_cost_stand_among_the_figures_at_the_top() {
        let price = r#"{"provider": "p", "model": "m", "input": 1, "output": 2.5}"#;
        let settings = BookSettings { prices: vec![serde_json::from_str(price).unwrap()], ..BookSettings::default() };
        let books = Bookkeeper::start(settings, None);
        let shown = Shown(Arc::clone(&books.0));
        let figures = || {
            let figures = shown.panel().figures.into_iter();
            figures.map(|figure| [figure.value, figure.unit, figure.more].join("|")).collect::<Vec<_>>()
        };
        assert!(figures().is_empty(), "who uses no AI sees nothing of it");
        let ask = |name: &str, model| {
            let asker = Asker::new(AskerKind::Program, name, "/v1/messages");
            let intent = Intent {
                asker: &asker,
                provider: "p",
                model: Some(model),
                input_tokens: 10,
                most_input_tokens: 10,
                max_tokens: Some(5),
                has_answer: true,
            };
            match books.admit(&intent).unwrap() {
                Verdict::Send(admission) => admission.entry,
                other => panic!("{other:?}"),
            }
        };
        let asked = [("zed", "m"), ("zed", "m"), ("codex", "m"), ("codex", "x")].map(|(name, model)| ask(name, model));
        assert_eq!(figures(), ["4|running|2 codex, 2 zed", "0|requests|", "–||0 tokens"]);
        let usage = Usage { input_tokens: 1_000, output_tokens: 400, ..Usage::default() };
        let spent = Spent { usage: Some(usage), ..Spent::default() };
        books.settle(asked[0], Outcome::Done, &spent);
        books.settle(asked[2], Outcome::Failed, &Spent::default());
        books.settle(asked[3], Outcome::Done, &spent);
        assert_eq!(
            figures(),
            ["1|running|1 zed", "3|requests|2 done, 1 failed", "0.002|USD|2800 tokens, 1 without a price",]
        );
        for name in ["a", "b", "c"] {
            ask(name, "m");
        }
        assert_eq!(figures()[0], "4|running|1 a, 1 b, 1 c, and others");
    }
}
