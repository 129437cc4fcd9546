//! What is read out of the ledger, and erased from it.

use std::path::Path;
use std::time::SystemTime;

use rusqlite::params;
use serde::Serialize;

use crate::calendar::{millis_of, shown_day};
use crate::ledger::store::{Store, StoreError, unsigned};
use crate::price::amount;

/// What requests are summed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum By {
    /// The day, in UTC.
    #[default]
    Day,
    /// The model.
    Model,
    /// The provider.
    Provider,
    /// Who asked.
    Client,
}

/// What is asked of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UsageQuery {
    /// What requests are summed by.
    pub by: By,
    /// From which moment on; `None` for all.
    pub since: Option<SystemTime>,
}

/// What was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsageReport {
    /// The days in the order of time, all else by what was asked most.
    pub rows: Vec<UsageRow>,
    /// Everything together, the rows that found no place among it.
    pub total: UsageRow,
    /// Rows that found no place: 10,000 are told.
    pub left_out: usize,
}

/// What was used of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct UsageRow {
    /// The day, model, provider or client; empty for the total.
    pub of: String,
    /// Whether a client has a token, is a process or says so; absent for all else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Requests, however they ended.
    pub requests: u64,
    /// Those whose answer came whole.
    pub done: u64,
    /// Those that nobody waited for any longer.
    pub cancelled: u64,
    /// Those whose answer broke off.
    pub cut: u64,
    /// Those that were not sent.
    pub refused: u64,
    /// Those without an answer.
    pub failed: u64,
    /// Tokens of requests, those of the cache among them.
    pub input_tokens: u64,
    /// Tokens of answers, those of reasoning among them.
    pub output_tokens: u64,
    /// Tokens that came from the providers' caches.
    pub cached_tokens: u64,
    /// Tokens of reasoning.
    pub reasoning_tokens: u64,
    /// Requests some of whose tokens were estimated.
    pub estimated: u64,
    /// Requests whose price is not known. They are in no cost.
    pub without_price: u64,
    /// What the others cost.
    pub costs: Vec<Cost>,
}

/// Money in one currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Millionths of it.
    pub micros: u64,
    /// The currency.
    pub currency: String,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", amount(self.micros), self.currency)
    }
}

/// What is erased. Nothing unless something is named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forget {
    /// Only what is from before this moment.
    pub before: Option<SystemTime>,
    /// Only what this client asked: by its name, or by that and its kind, as in `codex (token)`.
    pub client: Option<String>,
    /// Whether to erase everything if neither is named.
    pub all: bool,
}

/// The most rows of a report.
const MAX_ROWS: usize = 10_000;

/// What was used, by the ledger in this file.
///
/// # Errors
/// There is no ledger, or it cannot be read.
pub fn usage(path: &Path, query: &UsageQuery) -> Result<UsageReport, StoreError> {
    // Of constants alone.
    let (of, kind) = match query.by {
        By::Day => ("CAST(at_ms / 86400000 AS TEXT)", "NULL"),
        By::Model => ("coalesce(model, 'unknown')", "NULL"),
        By::Provider => ("provider", "NULL"),
        By::Client => ("client", "client_kind"),
    };
    let text = format!(
        "SELECT {of}, {kind}, currency, count(*), sum(outcome = 'done'), sum(outcome = 'cancelled'), sum(outcome = 'cut'), \
         sum(outcome = 'refused'), sum(outcome = 'failed'), sum(input_tokens), sum(output_tokens), sum(cached_tokens), \
         sum(reasoning_tokens), sum(estimated), sum(cost_micros IS NULL), sum(cost_micros) FROM requests \
         WHERE at_ms >= ?1 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    );
    let mut rows: Vec<UsageRow> = Vec::new();
    let mut total = UsageRow::default();
    let mut left_out = 0;
    Store::existing(path)?.ask(|connection| {
        let mut ask = connection.prepare(&text)?;
        let mut found = ask.query(params![query.since.map_or(i64::MIN, millis_of)])?;
        while let Some(row) = found.next()? {
            let of: String = row.get(0)?;
            let count = |at: usize| row.get::<_, Option<i64>>(at).map(unsigned);
            let currency: Option<String> = row.get(2)?;
            let part = UsageRow {
                of: if query.by == By::Day { of.parse().map(shown_day).unwrap_or(of) } else { of },
                kind: row.get(1)?,
                requests: count(3)?,
                done: count(4)?,
                cancelled: count(5)?,
                cut: count(6)?,
                refused: count(7)?,
                failed: count(8)?,
                input_tokens: count(9)?,
                output_tokens: count(10)?,
                cached_tokens: count(11)?,
                reasoning_tokens: count(12)?,
                estimated: count(13)?,
                without_price: count(14)?,
                costs: match currency {
                    Some(currency) => vec![Cost { micros: count(15)?, currency }],
                    None => Vec::new(),
                },
            };
            total.add(&part);
            let has_place = rows.len() < MAX_ROWS;
            match rows.last_mut().filter(|last| last.of == part.of && last.kind == part.kind) {
                Some(last) => last.add(&part),
                None if has_place => rows.push(part),
                None => left_out += 1,
            }
        }
        Ok(())
    })?;
    if query.by != By::Day {
        rows.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.of.cmp(&b.of)));
    }
    Ok(UsageReport { rows, total, left_out })
}

/// Erases from the ledger in this file, and gives the room back. The number of requests that were erased.
///
/// # Errors
/// There is no ledger, or it cannot be written.
pub fn forget(path: &Path, what: &Forget) -> Result<usize, StoreError> {
    if what.before.is_none() && what.client.is_none() && !what.all {
        return Ok(0);
    }
    Store::existing(path)?.ask(|connection| {
        let erased = connection.execute(
            "DELETE FROM requests WHERE (?1 IS NULL OR at_ms < ?1) \
             AND (?2 IS NULL OR client = ?2 OR client || ' (' || client_kind || ')' = ?2)",
            params![what.before.map(millis_of), what.client],
        )?;
        // What was erased stands in the log of changes until that is written back, and in the file until that is made smaller.
        connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")?;
        Ok(erased)
    })
}

impl UsageRow {
    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.done += other.done;
        self.cancelled += other.cancelled;
        self.cut += other.cut;
        self.refused += other.refused;
        self.failed += other.failed;
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.cached_tokens += other.cached_tokens;
        self.reasoning_tokens += other.reasoning_tokens;
        self.estimated += other.estimated;
        self.without_price += other.without_price;
        for cost in &other.costs {
            match self.costs.iter_mut().find(|known| known.currency == cost.currency) {
                Some(known) => known.micros += cost.micros,
                None => self.costs.push(cost.clone()),
            }
        }
    }
}
