//! Which texts and numbers are tried, for types that do not take any.

use std::collections::{HashMap, HashSet};

use super::steps::{Step, inside_of_its_type};

const TEXTS: [&str; 24] = [
    "a",
    "aaaa",
    "1",
    "127.0.0.1",
    "127.0.0.1:1",
    "00000000-0000-0000-0000-000000000001",
    "http://a.b/",
    "2000-01-01T00:00:00Z",
    "1.0.0",
    "a@b.c",
    "A",
    "en",
    "USD",
    "en-US",
    "/a",
    "a/b",
    "a=b",
    "#ffffff",
    "00:00:00",
    "2000-01-01",
    "1s",
    "+12025550123",
    "00000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000000",
];
/// Also a port that is nobody's, and a year.
const NUMBERS: [i128; 5] = [1, 0, 2, 100, 2000];
/// Most values that are refused one after the other before a type is given up: as many as there are of two texts.
const MOST_REFUSALS: usize = 600;

/// What was tried in each place, and what is next. Places are counted apart, for two may have one reader and take other values.
#[derive(Debug, Default)]
pub(super) struct Offers {
    /// Texts that the author has given, which are tried first, and the numbers among them.
    texts: &'static [&'static str],
    numbers: Vec<i128>,
    next: HashMap<Vec<Step>, usize>,
    /// What was given since the value began, and how many there are for that place.
    given: Vec<(Vec<Step>, usize)>,
    hopeless: HashSet<Vec<Step>>,
    refusals: usize,
    /// Whether 0, "" and so on are given, which types may leave out when they are written.
    empty: Option<Empty>,
    never_empty: HashSet<Vec<Step>>,
}

/// What is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Empty {
    /// Not the last part of a tuple.
    pub(super) but_the_last: bool,
    /// Options and lists, too.
    pub(super) nothing: bool,
}

impl Offers {
    pub(super) fn new(samples: &'static [&'static str]) -> Self {
        let numbers = samples.iter().filter_map(|sample| sample.parse().ok()).collect();
        Self { texts: samples, numbers, ..Self::default() }
    }

    pub(super) fn begin(&mut self) {
        self.given.clear();
    }

    pub(super) fn text(&mut self, path: &[Step]) -> &'static str {
        let own = self.texts;
        let offer = self.offer(path, own.len() + TEXTS.len());
        offer.map_or("", |offer| own.get(offer).copied().unwrap_or_else(|| TEXTS[offer - own.len()]))
    }

    pub(super) fn number(&mut self, path: &[Step]) -> i128 {
        let own = self.numbers.len();
        let offer = self.offer(path, own + NUMBERS.len());
        offer.map_or(0, |offer| self.numbers.get(offer).copied().unwrap_or_else(|| NUMBERS[offer - own]))
    }

    pub(super) fn truth(&mut self, path: &[Step]) -> bool {
        self.offer(path, 2).is_some_and(|offer| offer == 0)
    }

    /// Notes that there is nothing else to be tried.
    pub(super) fn only(&mut self, path: &[Step]) {
        self.offer(path, 1);
    }

    /// Whether there is to be nothing in an option or a list.
    pub(super) fn nothing(&mut self, path: &[Step]) -> bool {
        self.empty.is_some_and(|empty| empty.nothing) && self.offer(path, 1).is_none()
    }

    fn offer(&mut self, path: &[Step], limit: usize) -> Option<usize> {
        let key = inside_of_its_type(path);
        let offer = self.next.get(key).copied().unwrap_or(0);
        let empty = self.are_empty() && !self.never_empty.contains(key) && !self.is_last(path);
        let limit = if self.hopeless.contains(key) { 1 } else { limit };
        self.given.push((key.to_vec(), limit));
        (!empty).then_some(offer % limit)
    }

    /// Whether the last part of a tuple is to be something.
    pub(super) fn is_last(&self, path: &[Step]) -> bool {
        self.empty.is_some_and(|empty| empty.but_the_last) && path.contains(&LAST)
    }

    /// How much was given since the value began.
    pub(super) fn given(&self) -> usize {
        self.given.len()
    }

    /// After a part was refused before which so much was given: has something else given in it. `false` if there is nothing
    /// else.
    pub(super) fn another(&mut self, from: usize) -> bool {
        let mut given = self.given.split_off(from.min(self.given.len()));
        if self.are_empty() {
            // It does not take 0 there.
            let Some((key, _)) = given.into_iter().rev().find(|(key, _)| !self.never_empty.contains(key)) else {
                return false;
            };
            return self.never_empty.insert(key);
        }
        let mut seen = HashSet::new();
        given.retain(|(key, _)| seen.insert(key.clone()));
        self.refusals += 1;
        let last = given.last().cloned();
        if self.refusals <= MOST_REFUSALS {
            while let Some((key, limit)) = given.pop() {
                let offer = self.next.entry(key).or_default();
                *offer += 1;
                if *offer < limit {
                    return true;
                }
                *offer = 0;
            }
        }
        self.refusals = 0;
        self.hopeless.extend(last.map(|(key, _)| key));
        false
    }

    /// Nothing else is to be tried in the place that was last given something.
    pub(super) fn end(&mut self) {
        let last = self.given.pop();
        self.hopeless.extend(last.map(|(key, _)| key));
        self.given.clear();
    }

    /// A value was taken.
    pub(super) fn taken(&mut self) {
        self.refusals = 0;
    }

    pub(super) fn are_empty(&self) -> bool {
        self.empty.is_some()
    }

    pub(super) fn set_empty(&mut self, empty: Option<Empty>) {
        self.empty = empty;
    }
}

/// Marks in a path the last part of a tuple.
pub(super) const LAST: Step = Step::Part(usize::MAX);
