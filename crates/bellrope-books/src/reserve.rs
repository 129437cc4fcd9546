//! What is spent and held of budgets. A request reserves what it may take before it is sent, and gives back what it did not
//! take, so that requests at once cannot overrun a budget together. Knows no file and no clock.

use std::{collections::HashMap, ops::Range, time::Duration};

use bellrope_gateway::{Asker, AskerKind, Usage};

use crate::budget::{Action, Budget};
use crate::calendar::{Window, shown};
use crate::price::{TokenPrice, amount};

/// All budgets, with what is spent and held of each.
#[derive(Debug, Default)]
pub(crate) struct Budgets {
    rules: Vec<Rule>,
    counters: HashMap<Key, Counter>,
}

#[derive(Debug)]
struct Rule {
    name: String,
    window: Window,
    who: Who,
    cost: Option<u64>,
    currency: String,
    tokens: Option<u64>,
    requests: Option<u64>,
    over: Over,
    warn_percent: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    All,
    Token(String),
    Client(String),
}

#[derive(Debug)]
enum Over {
    Refuse,
    Warn,
    Model(String),
}

/// A budget's name, and whose part of it, where everybody has one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key(String, String);

/// Of one budget, or of one's part of it.
#[derive(Debug, Clone, Default)]
struct Counter {
    window: Range<i64>,
    /// What was spent here.
    own: Sum,
    /// What is in the ledger from before this server, and from others.
    others: Sum,
    /// What requests under way may take.
    held: Sum,
}

/// Money in millionths, tokens, requests, and for how many of them there is no price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sum {
    pub(crate) micros: u64,
    pub(crate) tokens: u64,
    pub(crate) requests: u64,
    /// Those of the requests whose price is not known.
    pub(crate) without_price: u64,
}

/// What a request may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Want<'a> {
    pub(crate) asker: &'a Asker,
    pub(crate) provider: &'a str,
    pub(crate) model: Option<&'a str>,
    /// About how many tokens it has itself.
    pub(crate) input: u64,
    /// And hardly more than these, which are held.
    pub(crate) most_input: u64,
    /// Of the answer: what is asked for, or assumed.
    pub(crate) output: u64,
    /// Whether nothing says how long the answer may be: neither the request, nor the provider, nor its price.
    pub(crate) is_open: bool,
    pub(crate) rate: Option<&'a TokenPrice>,
}

/// What became of a reservation.
#[derive(Debug)]
pub(crate) enum Reserved {
    /// `binds`: whether a budget that does more than warn goes by how long the answer is.
    Held {
        hold: Hold,
        max_output: Option<u64>,
        binds: bool,
        notices: Vec<String>,
    },
    Instead {
        model: String,
        notice: String,
    },
    Refused(Denial),
}

/// What one request holds, until it is settled.
#[derive(Debug, Default)]
pub(crate) struct Hold(Vec<(Key, i64, Sum)>);

/// Why a request may not be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    pub(crate) budget: String,
    pub(crate) reason: String,
    pub(crate) retry_after: Duration,
}

/// What the ledger is asked for a budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LedgerQuestion {
    pub(crate) budget: String,
    pub(crate) from: i64,
    pub(crate) until: i64,
    pub(crate) who: Who,
    pub(crate) currency: String,
}

impl LedgerQuestion {
    /// What each client spent on the day of this moment.
    pub(crate) fn of_day(budget: &str, at_ms: i64, currency: &str) -> Self {
        let Range { start, end } = Window::Day.around(at_ms);
        let who = Who::Client("*".to_owned());
        Self { budget: budget.to_owned(), from: start, until: end, who, currency: currency.to_owned() }
    }
}

/// Budgets of one kind of client may have so many parts.
const MAX_COUNTERS: usize = 4_096;
/// An answer is not cut to fewer tokens than this, unless it asks for fewer.
const FEWEST_OUTPUT: u64 = 256;
/// No model's answer is longer. So much is held for one whose length nobody names, as long as there is room; then it is bounded.
const LONGEST_OUTPUT: u64 = 131_072;
/// For so many bounded answers room stays beside it.
const OTHERS: u64 = 16;
/// When to ask again what others hold.
const HELD: Duration = Duration::from_secs(2);

impl Budgets {
    /// These budgets, of which those go on that were there before. `currency`, `warn_percent`: of all that say nothing else.
    pub(crate) fn replace(&mut self, budgets: &[Budget], currency: &str, warn_percent: u32) {
        self.rules = budgets.iter().map(|budget| Rule::new(budget, currency, warn_percent)).collect();
        let rules = &self.rules;
        self.counters.retain(|Key(name, _), counter| {
            rules.iter().any(|rule| rule.name == *name && rule.window.around(counter.window.start) == counter.window)
        });
    }

    /// Reserves what a request may take, of all budgets that it is for or of none.
    pub(crate) fn reserve(&mut self, now: i64, want: &Want<'_>) -> Reserved {
        // Of an answer whose length nobody names the longest is held, if others need not wait for it, or it is bounded.
        let longest = Want { output: want.output.max(LONGEST_OUTPUT), ..*want };
        let roomy = Want { output: longest.output.saturating_add(want.output.saturating_mul(OTHERS)), ..*want };
        let has_room = want.is_open && self.has_room(now, &roomy);
        let want = if has_room { &longest } else { want };
        let mut notices = Vec::new();
        let (mut allowed, mut binds, mut refusal) = (want.output, false, None);
        for (rule, part) in concerned(&self.rules, want.asker) {
            let counter = counter(&mut self.counters, rule, part, now);
            if let Some(notice) = rule.warning(counter) {
                notices.push(notice);
            }
            match (&rule.over, rule.room(counter, want, now)) {
                (Over::Warn, _) => {}
                (_, Ok(most)) => {
                    allowed = most.map_or(allowed, |most| allowed.min(most));
                    binds |= rule.counts(want);
                }
                (Over::Model(model), Err(_)) if is_of(want, model) => {}
                (Over::Model(model), Err(Denial { reason, .. })) => {
                    let notice = format!("asked {model} instead: of the budget `{}` {reason}", rule.name);
                    return Reserved::Instead { model: model.clone(), notice };
                }
                (Over::Refuse, Err(reason)) => drop(refusal.get_or_insert(reason)),
            }
        }
        if let Some(refusal) = refusal {
            return Reserved::Refused(refusal);
        }
        let mut hold = Hold::default();
        for (rule, part) in concerned(&self.rules, want.asker) {
            let counter = counter(&mut self.counters, rule, part, now);
            let micros = rule.cost_of(&want.at_most(), allowed).unwrap_or(0);
            let sum = Sum { micros, tokens: want.most_input.saturating_add(allowed), ..Sum::default() };
            counter.held = counter.held.plus(sum);
            counter.own.requests += 1;
            hold.0.push((Key(rule.name.clone(), part.to_owned()), counter.window.start, sum));
        }
        let max_output = (allowed < want.output || binds && want.is_open && !has_room).then_some(allowed);
        if let Some(most) = max_output {
            let no_room = "a budget has no room for the longest, and the request names no number";
            let reason = if allowed < want.output { "a budget has no more left" } else { no_room };
            notices.push(format!("the answer has at most {most} tokens: {reason}"));
        }
        Reserved::Held { hold, max_output, binds, notices }
    }

    /// Whether every budget that does more than warn has room for all of it.
    fn has_room(&mut self, now: i64, want: &Want<'_>) -> bool {
        concerned(&self.rules, want.asker).all(|(rule, part)| {
            let counter = counter(&mut self.counters, rule, part, now);
            match &rule.over {
                Over::Warn => true,
                Over::Model(model) if is_of(want, model) => true,
                _ => matches!(rule.room(counter, want, now), Ok(None)),
            }
        })
    }

    /// Gives back what a request held, and counts what it took. `sent`: whether it left at all.
    pub(crate) fn settle(&mut self, hold: Hold, took: Sum, sent: bool) {
        for (key, window, held) in hold.0 {
            // What began in a window that is over counts there.
            let Some(counter) = self.counters.get_mut(&key).filter(|counter| counter.window.start == window) else {
                continue;
            };
            counter.held = counter.held.minus(held);
            counter.own = counter.own.plus(Sum { requests: 0, ..took });
            if !sent {
                counter.own.requests = counter.own.requests.saturating_sub(1);
            }
        }
    }

    /// What the ledger is to be asked.
    pub(crate) fn questions(&self, now: i64) -> Vec<LedgerQuestion> {
        let question = |rule: &Rule| {
            let window = rule.window.around(now);
            LedgerQuestion {
                budget: rule.name.clone(),
                from: window.start,
                until: window.end,
                who: rule.who.clone(),
                currency: rule.currency.clone(),
            }
        };
        self.rules.iter().map(question).collect()
    }

    /// What the ledger says that others spent of a budget, by client.
    pub(crate) fn others_spent(&mut self, question: &LedgerQuestion, sums: Vec<(String, Sum)>) {
        let Some(rule) = self.rules.iter().find(|rule| rule.name == question.budget) else { return };
        for (client, sum) in sums {
            let part = if rule.has_parts() { &*client } else { "" };
            let counter = counter(&mut self.counters, rule, part, question.from);
            if counter.window.start == question.from {
                counter.others = sum;
            }
        }
    }

    /// Every budget with what is spent of it, in words: first those of which least is left.
    pub(crate) fn shown(&self, now: i64) -> Vec<(String, String)> {
        let mut rows: Vec<(f64, String, String)> = self
            .counters
            .iter()
            .filter(|(_, counter)| counter.window.contains(&now))
            .filter_map(|(Key(name, part), counter)| {
                let rule = self.rules.iter().find(|rule| rule.name == *name)?;
                let name = if part.is_empty() { name.clone() } else { format!("{name} ({part})") };
                Some((rule.share(counter), name, rule.in_words(counter)))
            })
            .collect();
        rows.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        rows.into_iter().map(|(_, name, spent)| (name, spent)).collect()
    }

    /// What is held of all budgets together.
    #[cfg(test)]
    fn held(&self) -> Sum {
        self.counters.values().fold(Sum::default(), |sum, counter| sum.plus(counter.held))
    }
}

/// The budgets that a request counts for, each with the part of it.
fn concerned<'a>(rules: &'a [Rule], asker: &'a Asker) -> impl Iterator<Item = (&'a Rule, &'a str)> {
    rules.iter().filter_map(|rule| {
        let (name, is_token) = (asker.name(), asker.kind == AskerKind::Token);
        match &rule.who {
            Who::All => Some((rule, "")),
            Who::Token(token) if token == "*" => is_token.then_some((rule, name)),
            Who::Token(token) => (is_token && token == name).then_some((rule, "")),
            Who::Client(client) if client == "*" => Some((rule, name)),
            Who::Client(client) => (client == name).then_some((rule, "")),
        }
    })
}

/// The counter of a budget, in its window of this moment.
fn counter<'a>(counters: &'a mut HashMap<Key, Counter>, rule: &Rule, part: &str, now: i64) -> &'a mut Counter {
    let window = rule.window.around(now);
    let mut key = Key(rule.name.clone(), part.to_owned());
    if counters.len() >= MAX_COUNTERS && !counters.contains_key(&key) {
        counters.retain(|_, counter| counter.window.end > now);
        if counters.len() >= MAX_COUNTERS {
            // Whoever comes with ever new names shares what is left.
            key.1 = "others".to_owned();
        }
    }
    let counter = counters.entry(key).or_default();
    let length = window.end - window.start;
    // A clock that is set back opens no window that was used up, unless it is far from there.
    if now >= counter.window.end || counter.window.start - now > length {
        *counter = Counter { window, ..Counter::default() };
    }
    counter
}

/// Whether a request is for this model already.
fn is_of(want: &Want<'_>, model: &str) -> bool {
    let Some(own) = want.model else { return false };
    own == model || model.split_once('/').is_some_and(|(provider, model)| provider == want.provider && own == model)
}

impl Rule {
    fn new(budget: &Budget, currency: &str, warn_percent: u32) -> Self {
        let over = match (&budget.model, budget.action) {
            (Some(model), _) => Over::Model(model.clone()),
            (None, Some(Action::Warn)) => Over::Warn,
            (None, _) => Over::Refuse,
        };
        let who = match (&budget.token, &budget.client) {
            (Some(token), _) => Who::Token(token.clone()),
            (None, Some(client)) => Who::Client(client.clone()),
            (None, None) => Who::All,
        };
        Self {
            name: budget.name.clone(),
            window: budget.window,
            who,
            cost: budget.cost.map(micros),
            currency: budget.currency.clone().unwrap_or_else(|| currency.to_owned()),
            tokens: budget.tokens,
            requests: budget.requests,
            over,
            warn_percent: warn_percent.into(),
        }
    }

    fn has_parts(&self) -> bool {
        matches!(&self.who, Who::Token(name) | Who::Client(name) if name == "*")
    }

    /// What a request costs with an answer of so many tokens, in the currency of this budget.
    fn cost_of(&self, want: &Want<'_>, output: u64) -> Option<u64> {
        let rate = want.rate.filter(|rate| rate.currency == self.currency)?;
        let usage = Usage { input_tokens: want.input, output_tokens: output, ..Usage::default() };
        Some(rate.cost(&usage).micros)
    }

    /// The most tokens that an answer may have, if that is less than is wanted.
    ///
    /// # Errors
    /// Nothing is left, or others hold it.
    fn room(&self, counter: &Counter, want: &Want<'_>, now: i64) -> Result<Option<u64>, Denial> {
        let (spent, held) = (counter.spent(), counter.held);
        let over = |reason: String| {
            let end = format!("this {} ends at {}", self.window.word(), shown(counter.window.end));
            let left = u64::try_from(counter.window.end - now).unwrap_or(0);
            Denial {
                budget: self.name.clone(),
                reason: format!("{reason}, and {end}"),
                retry_after: Duration::from_millis(left.max(1)),
            }
        };
        let busy = |unit: &str| Denial {
            budget: self.name.clone(),
            reason: format!("requests under way hold the {unit} that are left"),
            retry_after: HELD,
        };
        if let Some(limit) = self.requests.filter(|limit| spent.requests >= *limit) {
            return Err(over(format!("{} of {limit} requests are made", spent.requests)));
        }
        let fewest = want.output.min(FEWEST_OUTPUT);
        let mut most = None::<u64>;
        if let Some(limit) = self.tokens {
            let left = limit.saturating_sub(spent.tokens);
            if want.input.saturating_add(fewest) > left || left == 0 {
                let answer = if fewest > 0 { format!(", an answer needs {fewest}") } else { String::new() };
                let request = format!("this request has about {}{answer}", want.input);
                return Err(over(format!("{} of {limit} tokens are spent ({request})", spent.tokens)));
            }
            let free = left.saturating_sub(held.tokens);
            if want.most_input.saturating_add(want.output) > free {
                if held.tokens > 0 {
                    return Err(busy("tokens"));
                }
                // Alone it may take what is likely to be left.
                most = Some(want.output.min(free - want.input));
            }
        }
        if let (Some(limit), Some(cost)) = (self.cost, self.cost_of(&want.at_most(), want.output)) {
            let left = limit.saturating_sub(spent.micros);
            let least = self.cost_of(want, fewest).unwrap_or(0);
            // What costs nothing may go on for ever.
            if least > left {
                let money = format!("{} of {} {} are spent", amount(spent.micros), amount(limit), self.currency);
                return Err(over(format!("{money} (this request costs at least {})", amount(least))));
            }
            let free = left.saturating_sub(held.micros);
            if cost > free {
                if held.micros > 0 {
                    return Err(busy(&self.currency));
                }
                let input = self.cost_of(want, 0).unwrap_or(0);
                let rate = want.rate.map_or(1, |rate| rate.output.max(1));
                // The whole request is rounded up once.
                let affordable = (free - input).saturating_sub(1).saturating_mul(1_000) / rate;
                most = Some(most.unwrap_or(u64::MAX).min(affordable.max(fewest)));
            }
        }
        Ok(most)
    }

    /// Whether the length of an answer counts here.
    fn counts(&self, want: &Want<'_>) -> bool {
        self.tokens.is_some() || self.cost.is_some() && self.cost_of(want, 1).is_some()
    }

    /// What whoever asks should know of this budget.
    fn warning(&self, counter: &Counter) -> Option<String> {
        let spent = counter.spent();
        let parts = [(spent.micros, self.cost), (spent.tokens, self.tokens), (spent.requests, self.requests)];
        let near = |(spent, limit): &(u64, Option<u64>)| {
            let limit = limit.unwrap_or(u64::MAX);
            u128::from(*spent) * 100 >= u128::from(limit) * u128::from(self.warn_percent) && limit < u64::MAX
        };
        // A budget of nothing refuses before it warns.
        parts.iter().any(|part| near(part) && part.0 > 0).then(|| {
            format!("of the budget `{}` {} until {}", self.name, self.in_words(counter), shown(counter.window.end))
        })
    }

    /// Which part of it is spent: of what is counted that of which least is left.
    fn share(&self, counter: &Counter) -> f64 {
        let spent = counter.spent();
        let parts = [(spent.micros, self.cost), (spent.tokens, self.tokens), (spent.requests, self.requests)];
        let shares = parts.into_iter().filter_map(|(spent, limit)| Some(spent as f64 / limit?.max(1) as f64));
        shares.fold(0.0, f64::max)
    }

    fn in_words(&self, counter: &Counter) -> String {
        let spent = counter.spent();
        let cost = self.cost.map(|limit| format!("{} of {} {}", amount(spent.micros), amount(limit), self.currency));
        let tokens = self.tokens.map(|limit| format!("{} of {limit} tokens", spent.tokens));
        let requests = self.requests.map(|limit| format!("{} of {limit} requests", spent.requests));
        let parts: Vec<_> = [cost, tokens, requests].into_iter().flatten().collect();
        format!("{} are spent", parts.join(", "))
    }
}

impl Want<'_> {
    /// As if it had as many tokens as it may have.
    fn at_most(&self) -> Self {
        Self { input: self.most_input, ..*self }
    }
}

impl Counter {
    fn spent(&self) -> Sum {
        self.own.plus(self.others)
    }
}

impl Sum {
    fn plus(self, other: Self) -> Self {
        Self {
            micros: self.micros.saturating_add(other.micros),
            tokens: self.tokens.saturating_add(other.tokens),
            requests: self.requests.saturating_add(other.requests),
            without_price: self.without_price.saturating_add(other.without_price),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            micros: self.micros.saturating_sub(other.micros),
            tokens: self.tokens.saturating_sub(other.tokens),
            requests: self.requests.saturating_sub(other.requests),
            without_price: self.without_price.saturating_sub(other.without_price),
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is checked: 0 to a billion")]
fn micros(amount: f64) -> u64 {
    (amount * 1e6).round() as u64
}

#[cfg(test)]
mod tests;
