//! Calls of tools one after the other: OpenAI's own clients take a piece of another call for the end of the one before. Pieces
//! of calls that interleave are held until the call before is whole, or the answer ends.

use std::collections::{HashSet, VecDeque};

use serde_json::Value;

use crate::inbound::wholeness::Wholeness;
use crate::message::ToolCallDelta;

/// The most bytes of arguments that are held. Beyond that pieces go out as they come.
const MAX_HELD: usize = 1024 * 1024;

/// What a piece takes beside its arguments, at the most.
const CALL: usize = 64;

/// The most calls that are held.
const MAX_CALLS: usize = 256;

/// Whose pieces go out now, and what waits for its end.
#[derive(Debug, Default)]
pub(super) struct InTurn {
    open: Option<(u32, Wholeness)>,
    /// The calls that are over.
    over: HashSet<u32>,
    held: VecDeque<HeldCall>,
    held_bytes: usize,
    /// Whether too much had to be held.
    is_off: bool,
}

/// What came of a call whose turn it is not.
#[derive(Debug)]
pub(super) struct HeldCall {
    pub(super) delta: ToolCallDelta,
    /// What the provider wants back with it.
    pub(super) extra: Option<Value>,
}

impl InTurn {
    /// Gives a piece back that goes out now, and holds any other one.
    pub(super) fn admit(&mut self, delta: ToolCallDelta) -> Option<ToolCallDelta> {
        match &mut self.open {
            _ if self.is_off => Some(delta),
            Some((open, wholeness)) if *open == delta.index => {
                wholeness.read(&delta.arguments);
                Some(delta)
            }
            // Blanks behind its end.
            _ if self.over.contains(&delta.index) && delta.arguments.trim().is_empty() => None,
            Some((_, wholeness)) if !wholeness.is_whole() => {
                self.hold(delta);
                None
            }
            _ => {
                self.open(&delta);
                Some(delta)
            }
        }
    }

    /// Keeps what the provider wants back with a call with that call, if it is held. Gives it back if it is not.
    pub(super) fn admit_extra(&mut self, index: u32, extra: Value) -> Option<Value> {
        match self.held.iter_mut().find(|held| held.delta.index == index) {
            Some(held) => {
                self.held_bytes += extra.to_string().len();
                held.extra = Some(extra);
                None
            }
            None => Some(extra),
        }
    }

    /// How many bytes are held.
    pub(super) fn held(&self) -> usize {
        self.held_bytes
    }

    /// The next call that was held and whose turn has come. `is_over`: nothing more comes of the one before.
    pub(super) fn next(&mut self, is_over: bool) -> Option<HeldCall> {
        let waits = self.open.as_ref().is_some_and(|(_, wholeness)| !wholeness.is_whole());
        if waits && !is_over && !self.is_off {
            return None;
        }
        let held = self.held.pop_front()?;
        if self.held.is_empty() {
            self.held_bytes = 0;
        }
        self.open(&held.delta);
        Some(held)
    }

    fn open(&mut self, delta: &ToolCallDelta) {
        let mut wholeness = Wholeness::default();
        wholeness.read(&delta.arguments);
        if let Some((over, _)) = self.open.replace((delta.index, wholeness))
            && self.over.len() < MAX_CALLS
        {
            self.over.insert(over);
        }
    }

    fn hold(&mut self, delta: ToolCallDelta) {
        self.held_bytes += delta.arguments.len() + CALL;
        match self.held.iter_mut().find(|held| held.delta.index == delta.index) {
            Some(held) => held.delta.arguments.push_str(&delta.arguments),
            None => self.held.push_back(HeldCall { delta, extra: None }),
        }
        self.is_off |= self.held_bytes > MAX_HELD || self.held.len() > MAX_CALLS;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn piece(index: u32, arguments: &str) -> ToolCallDelta {
        ToolCallDelta { index, arguments: arguments.to_owned(), ..ToolCallDelta::default() }
    }

    /// What goes out of these pieces, and what only at the end: `index:arguments`.
    fn told(pieces: &[(u32, &str)]) -> (Vec<String>, Vec<String>) {
        let word = |delta: &ToolCallDelta| format!("{}:{}", delta.index, delta.arguments);
        let (mut turns, mut out) = (InTurn::default(), Vec::new());
        for (index, arguments) in pieces {
            out.extend(turns.admit(piece(*index, arguments)).iter().map(word));
            out.extend(std::iter::from_fn(|| turns.next(false)).map(|held| word(&held.delta)));
        }
        let rest = std::iter::from_fn(|| turns.next(true)).map(|held| word(&held.delta)).collect();
        (out, rest)
    }

    #[test]
    fn a_call_waits_until_the_one_before_is_whole_or_the_answer_ends() {
        for (pieces, now, at_the_end) in [
            (
                &[(0, "{\"x\":"), (1, "{\"x\":"), (2, "{}"), (1, "2}"), (0, "1}")][..],
                &["0:{\"x\":", "0:1}", "1:{\"x\":2}", "2:{}"][..],
                &[][..],
            ),
            (&[(0, "{}"), (1, "{"), (1, "}"), (0, "")], &["0:{}", "1:{", "1:}"], &[]),
            // One without arguments, which has no end.
            (&[(0, ""), (1, "{}"), (2, "{")], &["0:"], &["1:{}", "2:{"]),
        ] {
            let (out, rest) = told(pieces);
            assert_eq!(
                (&out[..], &rest[..]),
                (
                    &now.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()[..],
                    &at_the_end.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()[..]
                )
            );
        }
    }

    #[test]
    fn what_is_held_has_a_bound_beyond_which_pieces_go_out_as_they_come() {
        let long = "x".repeat(MAX_HELD - CALL);
        let (out, rest) = told(&[(0, "{"), (1, &long), (1, "y"), (0, "}")]);
        assert_eq!((out.len(), rest.len()), (3, 0));
        assert!(out[1].len() > long.len() && out[1].ends_with("xy") && out[2] == "0:}");
    }

    #[test]
    fn what_belongs_to_a_held_call_waits_with_it() {
        let mut turns = InTurn::default();
        assert!(turns.admit(piece(0, "{")).is_some() && turns.admit(piece(1, "{}")).is_none());
        assert_eq!(turns.admit_extra(0, json!(1)), Some(json!(1)));
        assert_eq!(turns.admit_extra(1, json!(2)), None);
        assert!(turns.next(false).is_none() && turns.admit(piece(0, "}")).is_some());
        let held = turns.next(false).unwrap();
        assert_eq!((held.delta.index, held.extra), (1, Some(json!(2))));
    }
}
