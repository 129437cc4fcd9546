//! Which callers a breaker has seen fail, and the breakers of single callers: a small table, looked at under the
//! breaker's lock and only while something stands in it.
//!
//! What opens a breaker that everybody shares must come from several callers. What one caller meets alone, by its input
//! or by what it asks for, closes the way for that caller only.

use std::time::Duration;

use super::{
    caller::Caller,
    config::{Live, PROBES_OUT, ROWS, nanos_of},
    state::{BreakerState, CallerSnapshot},
    word::ProbeOf,
};

/// What the table says to a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Nothing.
    Free,
    /// It is a probe of its caller's own breaker, to be settled by this.
    Probe(ProbeOf),
    /// It is refused, with the time to stay away in nanoseconds.
    Refused(u64),
}

/// What a failure leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Nothing,
    /// Its caller's breaker has opened.
    ForCaller,
    /// The breaker of all is to open.
    ForAll,
}

/// What the table is told with every event: the settings, the moment, and a number for the jitter.
#[derive(Clone, Copy)]
pub(super) struct Event<'a> {
    pub(super) live: &'a Live,
    pub(super) now: u64,
    pub(super) random: u64,
}

#[derive(Debug, Default)]
pub(super) struct Callers {
    rows: Vec<Row>,
    /// Failures of the present run whose rows had to make room.
    others: u32,
    /// Who stands for all of these, if that is one.
    others_of: Option<Caller>,
    /// The last [`ProbeOf::round`].
    rounds: u32,
}

#[derive(Debug)]
struct Row {
    caller: Caller,
    /// Its failures in a row.
    failures: u32,
    /// Those since anybody's last success. One, once its own breaker has opened for them.
    run: u32,
    /// When it last failed or was slow.
    last: u64,
    /// When a call of its was last failed or slow, of those that rates count.
    bad: Option<u64>,
    open: Option<Opened>,
}

/// The breaker of one caller, while it is not closed.
#[derive(Debug)]
struct Opened {
    since: u64,
    until: u64,
    recoveries: u32,
    /// While half-open.
    probing: Option<Probing>,
}

#[derive(Debug)]
struct Probing {
    round: u32,
    until: u64,
    out: u32,
    successes: u32,
}

impl Callers {
    /// Whether any caller's own breaker is open or half-open.
    pub(super) fn any_open(&self) -> bool {
        self.rows.iter().any(|row| row.open.is_some())
    }

    /// Whether a success has anything to end.
    pub(super) fn any_failures(&self) -> bool {
        self.others > 0 || self.rows.iter().any(|row| row.failures > 0 || row.run > 0)
    }

    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.others = 0;
    }

    /// Ends the run of failures that all have to do with. What is open stays open.
    pub(super) fn end_run(&mut self) {
        self.others = 0;
        for row in &mut self.rows {
            row.run = 0;
        }
    }

    /// Forgets the failures of callers whose breakers are closed.
    pub(super) fn forget_failures(&mut self) {
        self.end_run();
        for row in self.rows.iter_mut().filter(|row| row.open.is_none()) {
            row.failures = 0;
        }
    }

    /// Whether a caller may call.
    pub(super) fn admit(&mut self, caller: Caller, event: Event<'_>) -> Admission {
        self.forget_gone(event.now);
        let Some(index) = self.rows.iter().position(|row| row.caller == caller) else { return Admission::Free };
        let Some(open) = &mut self.rows[index].open else { return Admission::Free };
        if let Some(left) = open.refuses(event.now) {
            return Admission::Refused(left);
        }
        if open.probing.as_ref().is_some_and(|probing| event.now >= probing.until && probing.out > 0) {
            // Probes that never ended count as failed.
            open.reopen(event);
            return Admission::Refused(open.until - event.now);
        }
        if open.probing.as_ref().is_none_or(|probing| event.now >= probing.until) {
            self.rounds = self.rounds.wrapping_add(1) & ProbeOf::ROUNDS;
            let until = event.now.saturating_add(nanos_of(event.live.half_open_timeout_ms()));
            open.probing = Some(Probing { round: self.rounds, until, out: 0, successes: 0 });
        }
        match &mut open.probing {
            Some(probing) if probing.out < event.live.half_open_max_requests() => {
                probing.out += 1;
                Admission::Probe(ProbeOf { row: index, round: probing.round })
            }
            probing => {
                let left = probing.as_ref().map_or(0, |probing| probing.until - event.now);
                Admission::Refused(left.min(PROBES_OUT.as_nanos() as u64))
            }
        }
    }

    /// How long a caller is still refused, its probes not asked about.
    pub(super) fn refuses(&self, caller: Caller, now: u64) -> Option<u64> {
        self.rows.iter().find(|row| row.caller == caller)?.open.as_ref()?.refuses(now)
    }

    /// A call has failed while the breaker of all was closed.
    pub(super) fn failed(&mut self, caller: Caller, event: Event<'_>) -> Verdict {
        let now = event.now;
        let threshold = event.live.failure_threshold();
        let row = self.row(caller, now);
        if row.open.is_some() {
            // It was admitted before its breaker opened.
            return Verdict::Nothing;
        }
        if row.run == 0 && now.saturating_sub(row.last) > nanos_of(event.live.rate_window_ms()) {
            row.failures = 0;
        }
        (row.failures, row.run, row.last) = (row.failures.saturating_add(1), row.run.saturating_add(1), now);
        let failures = row.failures;
        if self.is_of_several(event.live) && self.run() >= threshold {
            return Verdict::ForAll;
        }
        if failures < threshold {
            return Verdict::Nothing;
        }
        self.open(caller, event);
        Verdict::ForCaller
    }

    /// A probe of the breaker of all has failed. Answers whether several callers' probes have.
    pub(super) fn failed_probe(&mut self, caller: Caller, event: Event<'_>) -> bool {
        let row = self.row(caller, event.now);
        (row.run, row.last) = (1, event.now);
        self.is_of_several(event.live)
    }

    /// Opens the breaker of one caller, or opens it again and for longer, unless it is open: what was admitted before it
    /// opened says nothing new.
    pub(super) fn open_once(&mut self, caller: Caller, event: Event<'_>) {
        if self.refuses(caller, event.now).is_none() {
            self.open(caller, event);
        }
    }

    fn open(&mut self, caller: Caller, event: Event<'_>) {
        let row = self.row(caller, event.now);
        (row.failures, row.run) = (0, 1);
        match &mut row.open {
            Some(open) => open.reopen(event),
            closed => {
                let until = event.now.saturating_add(event.live.open_for(0, event.random));
                *closed = Some(Opened { since: event.now, until, recoveries: 0, probing: None });
            }
        }
    }

    /// A call went well, which ends the run of failures, and that of its caller.
    pub(super) fn succeeded(&mut self, caller: Option<Caller>, event: Event<'_>) {
        self.end_run();
        let recent = nanos_of(event.live.rate_window_ms());
        for row in &mut self.rows {
            if caller == Some(row.caller) || event.now.saturating_sub(row.last) > recent {
                row.failures = 0;
            }
        }
    }

    /// A probe of the breaker of all went well: so is the breaker of its caller, if that was not closed.
    pub(super) fn recovered(&mut self, caller: Caller) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.caller == caller) {
            (row.failures, row.run, row.open) = (0, 0, None);
        }
    }

    /// A probe of a caller's own breaker has ended; `None`: without a verdict.
    pub(super) fn settle_probe(&mut self, of: ProbeOf, well: Option<bool>, event: Event<'_>) {
        let Some(row) = self.rows.get_mut(of.row) else { return };
        let Some(open) = &mut row.open else { return };
        let Some(probing) = open.probing.as_mut().filter(|probing| probing.round == of.round) else { return };
        probing.out -= 1;
        match well {
            None => {}
            Some(false) => {
                row.last = event.now;
                open.reopen(event);
            }
            Some(true) => {
                probing.successes += 1;
                if probing.successes >= event.live.success_threshold() {
                    (row.failures, row.run, row.open) = (0, 0, None);
                }
            }
        }
    }

    /// A call failed or was slow, and a rate counts it. Answers whether such calls of late come from several callers.
    pub(super) fn bad(&mut self, caller: Caller, event: Event<'_>) -> bool {
        let recent = nanos_of(event.live.rate_window_ms());
        self.row(caller, event.now).bad = Some(event.now);
        let is_recent = |row: &Row| row.bad.is_some_and(|at| event.now.saturating_sub(at) <= recent);
        self.origins(is_recent) >= event.live.min_callers() as usize
    }

    /// The callers whose own breakers are not closed.
    pub(super) fn snapshot(&mut self, now: u64) -> Vec<CallerSnapshot> {
        self.forget_gone(now);
        let shown = |row: &Row| {
            let left = row.open.as_ref()?.until.saturating_sub(now);
            let state = if left > 0 { BreakerState::Open } else { BreakerState::HalfOpen };
            Some(CallerSnapshot { caller: row.caller, state, retry_after: Duration::from_nanos(left) })
        };
        self.rows.iter().filter_map(shown).collect()
    }

    /// Failures since anybody's last success.
    fn run(&self) -> u32 {
        self.rows.iter().fold(self.others, |sum, row| sum.saturating_add(row.run))
    }

    /// Whether those are of as many callers as it takes.
    fn is_of_several(&self, live: &Live) -> bool {
        let is_failing = |row: &Row| row.run > 0;
        let is_further = |origin| !self.rows.iter().any(|row| is_failing(row) && row.caller.origin() == origin);
        let others = self.others > 0 && self.others_of.is_none_or(is_further);
        self.origins(is_failing) + usize::from(others) >= live.min_callers() as usize
    }

    /// How many stand for the callers of these rows.
    fn origins(&self, is_one: impl Fn(&Row) -> bool) -> usize {
        let is_one = &is_one;
        let rows = || self.rows.iter().filter(move |row| is_one(row));
        let is_first =
            |at: usize, row: &Row| rows().take(at).all(|before| before.caller.origin() != row.caller.origin());
        rows().enumerate().filter(|(at, row)| is_first(*at, row)).count()
    }

    /// Closes the breakers of callers that have not called for as long as they were refused. They are gone, mostly.
    fn forget_gone(&mut self, now: u64) {
        for row in &mut self.rows {
            if row.open.as_ref().is_some_and(|open| open.is_forgotten(now)) {
                (row.failures, row.run, row.open) = (0, 0, None);
            }
        }
    }

    /// The row of a caller, made if there is none.
    fn row(&mut self, caller: Caller, now: u64) -> &mut Row {
        let index = match self.rows.iter().position(|row| row.caller == caller) {
            Some(index) => index,
            None => self.place(caller, now),
        };
        &mut self.rows[index]
    }

    fn place(&mut self, caller: Caller, now: u64) -> usize {
        let row = Row { caller, failures: 0, run: 0, last: now, bad: None, open: None };
        if self.rows.len() < ROWS {
            self.rows.push(row);
            return self.rows.len() - 1;
        }
        // The least that is known, and of that the oldest.
        let worth = |row: &Row| (row.open.is_some(), row.run > 0 || row.failures > 0, row.bad.is_some(), row.last);
        let index = (0..ROWS).min_by_key(|index| worth(&self.rows[*index])).unwrap_or(0);
        let gone = std::mem::replace(&mut self.rows[index], row);
        if gone.run > 0 {
            let origin = gone.caller.origin();
            self.others_of = if self.others == 0 { Some(origin) } else { self.others_of.filter(|of| *of == origin) };
        }
        self.others = self.others.saturating_add(gone.run);
        index
    }
}

impl Opened {
    fn refuses(&self, now: u64) -> Option<u64> {
        self.until.checked_sub(now).filter(|left| *left > 0)
    }

    fn reopen(&mut self, event: Event<'_>) {
        self.recoveries = self.recoveries.saturating_add(1);
        self.since = event.now;
        self.until = event.now.saturating_add(event.live.open_for(self.recoveries, event.random));
        self.probing = None;
    }

    fn is_forgotten(&self, now: u64) -> bool {
        let length = self.until.saturating_sub(self.since);
        let is_probed = self.probing.as_ref().is_some_and(|probing| now < probing.until || probing.out > 0);
        now >= self.until.saturating_add(length) && !is_probed
    }
}

#[cfg(test)]
mod tests {
    use super::{super::config::BreakerConfig, *};

    fn row(number: u64, last: u64) -> Row {
        Row { caller: Caller::Connection(number), failures: 0, run: 0, last, bad: None, open: None }
    }

    fn opened() -> Option<Opened> {
        Some(Opened { since: 0, until: 1, recoveries: 0, probing: None })
    }

    #[test]
    fn a_success_has_failures_to_end_wherever_they_are_counted() {
        let any_failures =
            |row: Row, others| Callers { rows: vec![row], others, others_of: None, rounds: 0 }.any_failures();
        assert!(!any_failures(row(1, 0), 0));
        assert!(any_failures(row(1, 0), 1), "of those that made room");
        assert!(any_failures(Row { failures: 1, ..row(1, 0) }, 0), "of a caller, although others have succeeded since");
        let live = Live::new(&BreakerConfig::default());
        let mut callers = Callers::default();
        callers.open_once(Caller::Connection(1), Event { live: &live, now: 0, random: 0 });
        assert!(callers.any_failures(), "the run of a caller whose breaker has opened");
    }

    #[test]
    fn of_a_full_table_the_least_that_is_known_makes_room_and_of_that_the_oldest() {
        let mut callers = Callers::default();
        callers.rows.extend((0..ROWS as u64).map(|number| Row { open: opened(), ..row(number, number) }));
        // The less is known of it, the younger it is.
        callers.rows[9] = Row { run: 1, ..row(9, 100) };
        callers.rows[2] = Row { failures: 1, ..row(2, 101) };
        callers.rows[7] = Row { bad: Some(102), ..row(7, 102) };
        callers.rows[5] = row(5, 103);
        for expected in [5, 7, 9, 2, 0, 1, 3] {
            let index = callers.place(Caller::Connection(1_000), 200);
            assert_eq!(index, expected);
            callers.rows[index].open = opened();
        }
        assert_eq!(callers.others, 1, "the run of the one that had one");
    }
}
