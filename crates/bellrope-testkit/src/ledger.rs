//! What happened to calls, and the rules that must hold whichever process died meanwhile.
//!
//! Callers and handlers note events, each in its own order; nothing is assumed about the order between two of them. So
//! the notes of several processes, one after the other, are as good a history as those of a simulation.

use std::{collections::HashMap, fmt};

/// Which way the chunks of a stream go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flow {
    /// From the server to the client.
    Down,
    /// From the client to the server.
    Up,
}

/// Something that happened to a call. Its number is the caller's choice, travels in every payload, and is never used
/// again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants say what their fields are")]
pub enum Event {
    /// Its caller is about to make it, to be run before this moment on the server's clock, if that is set.
    Begun { call: u64, deadline_us: Option<u64> },
    /// Its request has left whole over this connection. Not noted where other callers send over the same connection.
    Sent { call: u64, connection: u64 },
    /// A handler is about to run it, or it begins to.
    Ran { call: u64, at_us: u64 },
    /// A chunk came in; its sender had given it this number.
    Chunk { call: u64, flow: Flow, number: u64 },
    /// The regular end of a stream came in; its sender had sent this many chunks.
    Whole { call: u64, flow: Flow, total: u64 },
    /// Its handler is gone, whether it has answered or not. Not noted by every handler.
    Left { call: u64 },
    /// Its server is lost, and what the client has seen proves that it did not run. Noted over transport 1 where that is known.
    Spared { call: u64 },
    /// Its server is lost, and nothing that the client can have seen says whether it ran. As above.
    Unprovable { call: u64 },
    /// Its caller knows how it ended.
    Ended { call: u64, outcome: Outcome },
}

/// How a call ended, as its caller sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With a response, made for the call of this number.
    Answered {
        /// The call that the response was made for.
        by: u64,
    },
    /// With the end of its stream.
    Finished,
    /// With an error of its handler, or with one in place of its response.
    Failed,
    /// It was refused before its handler ran.
    Refused,
    /// The server was lost, and the call has not run.
    NotExecuted,
    /// The server was lost, and the call may have run.
    Unknown,
    /// The caller cancelled it, or waited no longer.
    GivenUp,
    /// The caller died.
    CallerDied,
}

/// What must be true of every history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A call begins exactly once, before anything else is known of it.
    BegunOnce,
    /// A call ends exactly once.
    EndsOnce,
    /// A call runs at most once.
    RunsAtMostOnce,
    /// Only a call that has run is answered.
    AnsweredOnlyIfRun,
    /// A call that ended as not executed has not run.
    NeverRunIfNotExecuted,
    /// A call of a lost server ends as not executed if that is proven, and as unknown if it is not.
    EndsAsProven,
    /// A call that was refused has not run.
    NeverRunIfRefused,
    /// The response of a call was made for it.
    AnswerReachesItsCaller,
    /// Calls of a connection run in the order in which they were sent.
    AdmittedInOrder,
    /// The chunks of a stream come in order and without a gap.
    ChunksWithoutGap,
    /// Nothing comes after the end of a stream or of its call.
    NothingAfterTheEnd,
    /// A stream that ends regularly is whole.
    StreamWhole,
    /// No call runs after its deadline.
    NeverRunLate,
    /// A handler leaves at most once, and only if it has run.
    LeavesOnceAndOnlyIfRun,
}

/// A rule that was broken, by which call, and all that is known of it.
#[derive(Debug)]
pub struct Fault {
    /// The rule.
    pub rule: Rule,
    /// The call.
    pub call: u64,
    /// Every event of the call, in the order of the history.
    pub events: Vec<Event>,
}

/// How many there were of each.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Calls that began.
    pub calls: u64,
    /// Calls that ran.
    pub runs: u64,
    /// Chunks of all streams.
    pub chunks: u64,
    /// Calls that were answered, also with an error of their handler.
    pub acknowledged: u64,
    /// Calls that were refused before they ran.
    pub refused: u64,
    /// Calls whose server was lost before they ran.
    pub not_executed: u64,
    /// Calls whose server was lost, and which may have run.
    pub unknown: u64,
    /// Of the unknown: those that did run.
    pub unknown_but_run: u64,
    /// Calls that their caller gave up.
    pub given_up: u64,
    /// Calls whose caller died.
    pub callers_died: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.runs += other.runs;
        self.chunks += other.chunks;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.not_executed += other.not_executed;
        self.unknown += other.unknown;
        self.unknown_but_run += other.unknown_but_run;
        self.given_up += other.given_up;
        self.callers_died += other.callers_died;
    }
}

/// What is known of one call.
#[derive(Debug, Default)]
struct Entry {
    begun: bool,
    deadline_us: Option<u64>,
    ran: bool,
    left: bool,
    /// How it must end if its server was lost, where that was noted.
    lost: Option<Outcome>,
    outcome: Option<Outcome>,
    down: Stream,
    up: Stream,
}

#[derive(Debug, Default)]
struct Stream {
    next: u64,
    whole: bool,
}

/// Checks a history, and counts what is in it.
///
/// # Errors
/// The first rule that is broken, with the call that breaks it.
pub fn check(events: &[Event]) -> Result<Tally, Box<Fault>> {
    let mut calls: HashMap<u64, Entry> = HashMap::new();
    let mut tally = Tally::default();
    for event in events {
        let call = event.call();
        note(calls.entry(call).or_default(), event, &mut tally).map_err(|rule| Fault::of(rule, call, events))?;
    }
    // In the order of their numbers, so that the same history always has the same fault.
    let mut numbers: Vec<_> = calls.keys().copied().collect();
    numbers.sort_unstable();
    for call in numbers {
        judge(&calls[&call], &mut tally).map_err(|rule| Fault::of(rule, call, events))?;
    }
    check_order(events)?;
    Ok(tally)
}

/// What an event alone, and those before it from the same side, may break.
fn note(entry: &mut Entry, event: &Event, tally: &mut Tally) -> Result<(), Rule> {
    match *event {
        Event::Begun { deadline_us, .. } => {
            hold(Rule::BegunOnce, !entry.begun)?;
            entry.begun = true;
            entry.deadline_us = deadline_us;
        }
        Event::Sent { .. } => {}
        Event::Ran { at_us, .. } => {
            hold(Rule::RunsAtMostOnce, !entry.ran)?;
            hold(Rule::NeverRunLate, entry.deadline_us.is_none_or(|deadline_us| at_us < deadline_us))?;
            entry.ran = true;
            tally.runs += 1;
        }
        Event::Chunk { flow, number, .. } => {
            let caller_is_done = flow == Flow::Down && entry.outcome.is_some();
            let stream = entry.stream(flow);
            hold(Rule::NothingAfterTheEnd, !stream.whole && !caller_is_done)?;
            hold(Rule::ChunksWithoutGap, number == stream.next)?;
            stream.next += 1;
            tally.chunks += 1;
        }
        Event::Whole { flow, total, .. } => {
            let caller_is_done = flow == Flow::Down && entry.outcome.is_some();
            let stream = entry.stream(flow);
            hold(Rule::NothingAfterTheEnd, !stream.whole && !caller_is_done)?;
            hold(Rule::StreamWhole, total == stream.next)?;
            stream.whole = true;
        }
        Event::Spared { .. } => entry.lost = Some(Outcome::NotExecuted),
        Event::Unprovable { .. } => entry.lost = Some(Outcome::Unknown),
        Event::Left { .. } => {
            hold(Rule::LeavesOnceAndOnlyIfRun, entry.ran && !entry.left)?;
            entry.left = true;
        }
        Event::Ended { call, outcome } => {
            hold(Rule::EndsOnce, entry.outcome.is_none())?;
            if let Outcome::Answered { by } = outcome {
                hold(Rule::AnswerReachesItsCaller, by == call)?;
            }
            hold(Rule::StreamWhole, outcome != Outcome::Finished || entry.down.whole)?;
            hold(Rule::EndsAsProven, entry.lost.is_none_or(|lost| lost == outcome))?;
            entry.outcome = Some(outcome);
        }
    }
    Ok(())
}

/// What both sides together may break.
fn judge(entry: &Entry, tally: &mut Tally) -> Result<(), Rule> {
    hold(Rule::BegunOnce, entry.begun)?;
    let outcome = entry.outcome.ok_or(Rule::EndsOnce)?;
    tally.calls += 1;
    let count = match outcome {
        Outcome::Answered { .. } | Outcome::Finished | Outcome::Failed => {
            hold(Rule::AnsweredOnlyIfRun, entry.ran)?;
            &mut tally.acknowledged
        }
        Outcome::Refused => {
            hold(Rule::NeverRunIfRefused, !entry.ran)?;
            &mut tally.refused
        }
        Outcome::NotExecuted => {
            hold(Rule::NeverRunIfNotExecuted, !entry.ran)?;
            &mut tally.not_executed
        }
        Outcome::Unknown => {
            tally.unknown_but_run += u64::from(entry.ran);
            &mut tally.unknown
        }
        Outcome::GivenUp => &mut tally.given_up,
        Outcome::CallerDied => &mut tally.callers_died,
    };
    *count += 1;
    Ok(())
}

/// The calls of a connection are run in the order in which their requests left.
fn check_order(events: &[Event]) -> Result<(), Box<Fault>> {
    let mut places = HashMap::new();
    let mut last = HashMap::new();
    for event in events {
        if let Event::Sent { call, connection } = *event {
            let place = places.len();
            places.insert(call, (connection, place));
        }
    }
    for event in events {
        if let Event::Ran { call, .. } = *event
            && let Some((connection, place)) = places.get(&call)
            && last.insert(*connection, *place).is_some_and(|before| before > *place)
        {
            return Err(Fault::of(Rule::AdmittedInOrder, call, events));
        }
    }
    Ok(())
}

fn hold(rule: Rule, holds: bool) -> Result<(), Rule> {
    if holds { Ok(()) } else { Err(rule) }
}

impl Entry {
    fn stream(&mut self, flow: Flow) -> &mut Stream {
        match flow {
            Flow::Down => &mut self.down,
            Flow::Up => &mut self.up,
        }
    }
}

impl Event {
    /// The call that this happened to.
    pub fn call(&self) -> u64 {
        match *self {
            Self::Begun { call, .. }
            | Self::Sent { call, .. }
            | Self::Ran { call, .. }
            | Self::Chunk { call, .. }
            | Self::Whole { call, .. }
            | Self::Left { call }
            | Self::Spared { call }
            | Self::Unprovable { call }
            | Self::Ended { call, .. } => call,
        }
    }
}

impl Fault {
    fn of(rule: Rule, call: u64, events: &[Event]) -> Box<Self> {
        let events = events.iter().filter(|event| event.call() == call).copied().collect();
        Box::new(Self { rule, call, events })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call {:#x} breaks {:?}; all that is known of it: {:?}", self.call, self.rule, self.events)
    }
}

/// The checker can fail: each rule once.
#[cfg(test)]
mod tests {
    use super::*;

    fn begun(call: u64) -> Event {
        Event::Begun { call, deadline_us: None }
    }

    fn ran(call: u64) -> Event {
        Event::Ran { call, at_us: 10 }
    }

    fn sent(call: u64) -> Event {
        Event::Sent { call, connection: 1 }
    }

    fn ended(call: u64, outcome: Outcome) -> Event {
        Event::Ended { call, outcome }
    }

    fn answered(call: u64) -> Event {
        ended(call, Outcome::Answered { by: call })
    }

    fn chunk(flow: Flow, number: u64) -> Event {
        Event::Chunk { call: 1, flow, number }
    }

    fn whole(flow: Flow, total: u64) -> Event {
        Event::Whole { call: 1, flow, total }
    }

    #[track_caller]
    fn breaks(rule: Rule, events: &[Event]) {
        let fault = check(events).expect_err("the history is wrong");
        assert_eq!(fault.rule, rule, "{fault}");
    }

    #[test]
    fn an_honest_history_is_tallied() {
        let both = [chunk(Flow::Up, 0), whole(Flow::Up, 1), chunk(Flow::Down, 0), whole(Flow::Down, 1)];
        let mut events = vec![begun(1), sent(1), ran(1)];
        events.extend(both);
        events.push(ended(1, Outcome::Finished));
        let others = [
            (2, Outcome::Answered { by: 2 }, true),
            (3, Outcome::Failed, true),
            (4, Outcome::Refused, false),
            (5, Outcome::NotExecuted, false),
            (6, Outcome::Unknown, false),
            (7, Outcome::Unknown, true),
            (8, Outcome::GivenUp, true),
            (9, Outcome::CallerDied, false),
        ];
        for (call, outcome, runs) in others {
            events.extend([begun(call), sent(call), ended(call, outcome)]);
            events.extend(runs.then_some(ran(call)));
        }
        let tally = Tally {
            calls: 9,
            runs: 5,
            chunks: 2,
            acknowledged: 3,
            refused: 1,
            not_executed: 1,
            unknown: 2,
            unknown_but_run: 1,
            given_up: 1,
            callers_died: 1,
        };
        assert_eq!(check(&events).unwrap(), tally);
    }

    #[test]
    fn a_call_begins_and_ends_exactly_once() {
        breaks(Rule::BegunOnce, &[begun(1), begun(1)]);
        breaks(Rule::BegunOnce, &[ran(1), answered(1)]);
        breaks(Rule::EndsOnce, &[begun(1), ran(1)]);
        breaks(Rule::EndsOnce, &[begun(1), ran(1), answered(1), answered(1)]);
        breaks(Rule::EndsOnce, &[begun(1), ended(1, Outcome::GivenUp), ended(1, Outcome::NotExecuted)]);
    }

    #[test]
    fn a_call_runs_at_most_once_and_only_if_it_may() {
        breaks(Rule::RunsAtMostOnce, &[begun(1), ran(1), ran(1), answered(1)]);
        breaks(Rule::RunsAtMostOnce, &[begun(1), ran(1), ran(1), ended(1, Outcome::Unknown)]);
        let left = Event::Left { call: 1 };
        breaks(Rule::LeavesOnceAndOnlyIfRun, &[begun(1), ran(1), left, left]);
        breaks(Rule::LeavesOnceAndOnlyIfRun, &[begun(1), left]);
        breaks(Rule::NeverRunIfNotExecuted, &[begun(1), ended(1, Outcome::NotExecuted), ran(1)]);
        breaks(Rule::NeverRunIfRefused, &[begun(1), ran(1), ended(1, Outcome::Refused)]);
        breaks(Rule::EndsAsProven, &[begun(1), Event::Spared { call: 1 }, ended(1, Outcome::Unknown)]);
        breaks(Rule::EndsAsProven, &[begun(1), Event::Unprovable { call: 1 }, ended(1, Outcome::NotExecuted)]);
        breaks(
            Rule::NeverRunIfNotExecuted,
            &[begun(1), ran(1), Event::Spared { call: 1 }, ended(1, Outcome::NotExecuted)],
        );
        let late = Event::Begun { call: 1, deadline_us: Some(10) };
        breaks(Rule::NeverRunLate, &[late, ran(1), answered(1)]);
    }

    #[test]
    fn an_answer_comes_from_a_run_of_the_very_call() {
        for outcome in [Outcome::Answered { by: 1 }, Outcome::Failed] {
            breaks(Rule::AnsweredOnlyIfRun, &[begun(1), ended(1, outcome)]);
        }
        breaks(Rule::AnsweredOnlyIfRun, &[begun(1), whole(Flow::Down, 0), ended(1, Outcome::Finished)]);
        breaks(Rule::AnswerReachesItsCaller, &[begun(1), ran(1), ended(1, Outcome::Answered { by: 2 })]);
    }

    #[test]
    fn calls_of_a_connection_run_in_the_order_in_which_they_were_sent() {
        breaks(
            Rule::AdmittedInOrder,
            &[begun(1), begun(2), sent(1), sent(2), ran(2), ran(1), answered(1), answered(2)],
        );
        let elsewhere = Event::Sent { call: 2, connection: 2 };
        check(&[begun(1), begun(2), sent(1), elsewhere, ran(2), ran(1), answered(1), answered(2)]).unwrap();
    }

    #[test]
    fn a_stream_is_whole_in_order_and_has_one_end() {
        for flow in [Flow::Down, Flow::Up] {
            breaks(Rule::ChunksWithoutGap, &[begun(1), ran(1), chunk(flow, 1)]);
            breaks(Rule::ChunksWithoutGap, &[begun(1), ran(1), chunk(flow, 0), chunk(flow, 0)]);
            breaks(Rule::StreamWhole, &[begun(1), ran(1), chunk(flow, 0), whole(flow, 2)]);
            breaks(Rule::NothingAfterTheEnd, &[begun(1), ran(1), whole(flow, 0), whole(flow, 0)]);
            breaks(Rule::NothingAfterTheEnd, &[begun(1), ran(1), whole(flow, 0), chunk(flow, 0)]);
        }
        breaks(Rule::StreamWhole, &[begun(1), ran(1), chunk(Flow::Down, 0), ended(1, Outcome::Finished)]);
        breaks(Rule::NothingAfterTheEnd, &[begun(1), ran(1), ended(1, Outcome::GivenUp), chunk(Flow::Down, 0)]);
    }
}
