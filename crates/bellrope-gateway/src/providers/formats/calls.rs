//! The calls of tools in an answer, put together from the pieces in which servers send them.
//!
//! One implementation for all formats, for streams and whole answers. Servers leave indices, ids and names out, repeat
//! them with every piece, split them, or count all calls with the same index; what they mean is decided here and nowhere
//! else:
//!
//! - An id belongs to one call, whatever its index, unless another name stands with it at another index, or the same one once
//!   the call is whole: then the provider gave two calls one id. Another id with a name is another call, whatever its index.
//! - Without an id the index tells calls apart; without an index a name begins the next call.
//! - Once the arguments of a call are whole, further ones are a repetition, which counts once, or another call. A call with the
//!   id and the name of a whole one is held back until its arguments show which of the two it is.
//! - The entries of one list that name a tool are calls of their own, whatever they have in common: only what comes later repeats.
//!
//! Calls are handed out in the order in which they began, under numbers of our own. A call is held back until its id and
//! its name are known, as readers take both from the first piece. What is missing at the end is made: an id, and `{}` for
//! no arguments.

mod call;
mod form;
mod made_id;
mod piece;

use std::collections::VecDeque;

use crate::error::ProviderError;
use crate::message::Chunk;
use crate::provider::{MAX_ANSWER, MAX_TOOL_CALLS};

use call::Call;
use form::Form;
pub(super) use made_id::AnswerHash;
use made_id::made_id;
pub(super) use piece::{Arguments, CallPiece, Place};

/// How many places may be told apart: a hostile server could name a new one with every piece.
const MAX_PLACES: usize = 4 * MAX_TOOL_CALLS;

/// The calls of one answer.
#[derive(Debug, Default)]
pub(super) struct Calls {
    calls: Vec<Call>,
    /// The places used so far; `None` for what is no call.
    places: Vec<(Place, Option<usize>)>,
    latest: Option<usize>,
    /// How many calls, from the first, were handed out, or are known to repeat another one.
    begun: usize,
    /// How many were handed out.
    numbered: u32,
    /// Pieces that came in, and how many had as the list began of which the next is an entry.
    pieces: u64,
    list_from: u64,
    /// Bytes that came in.
    bytes: usize,
}

impl Calls {
    /// Takes a piece in, and hands out what that makes known.
    ///
    /// # Errors
    /// The calls are too many or too large.
    pub(super) fn take(&mut self, mut piece: CallPiece, out: &mut VecDeque<Chunk>) -> Result<(), ProviderError> {
        piece.id = piece.id.filter(|id| !id.trim().is_empty());
        piece.name = piece.name.filter(|name| !name.trim().is_empty());
        self.pieces += 1;
        let found = self.find(&piece);
        let is_twin = match found {
            Found::Call(at) => self.calls[at].twin_id == piece.id,
            _ => piece.id.as_deref().is_some_and(|id| self.position(id).is_some()),
        };
        let twin_id = if is_twin { piece.id.take() } else { None };
        let at = match found {
            Found::NoCall => return Ok(()),
            Found::Call(at) => at,
            Found::New => {
                if self.calls.len() == MAX_TOOL_CALLS {
                    return Err(too_many());
                }
                let repeats = twin_id.as_deref().and_then(|id| self.position(id)).filter(|first| {
                    let first = &self.calls[*first];
                    first.is_over() && piece.name.as_ref() == Some(&first.name)
                });
                let repeats = repeats.filter(|first| !self.is_beside(*first, &piece));
                self.calls.push(Call { repeats, ..Call::default() });
                self.calls.len() - 1
            }
        };
        self.latest = Some(at);
        let CallPiece { place, id, spare_id, name, is_named, arguments } = piece;
        let texts = [&id, &spare_id, &name];
        let mut bytes: usize = texts.into_iter().flatten().map(String::len).sum();
        self.put(place, Some(at))?;
        let call = &mut self.calls[at];
        if name.is_some() {
            call.named_by = self.pieces;
        }
        call.twin_id = call.twin_id.take().or(twin_id);
        let no_more = match &arguments {
            Arguments::None => true,
            Arguments::More(text) => text.is_empty(),
            Arguments::Whole(_) | Arguments::Start(_) => false,
        };
        call.take_id(id, name.is_none() && no_more);
        call.spare_id = call.spare_id.take().or(spare_id);
        call.take_name(name);
        call.is_named |= is_named;
        bytes += call.take_arguments(arguments);
        self.bytes += bytes;
        if self.bytes > MAX_ANSWER {
            return Err(ProviderError::TooLarge { what: "the calls of tools in the answer", limit: MAX_ANSWER });
        }
        self.compare(at);
        self.hand_out(at, out);
        Ok(())
    }

    /// Says that what comes next are the entries of a list, or of none.
    pub(super) fn begin_list(&mut self) {
        self.list_from = self.pieces;
    }

    /// Says that what comes for this place is no call.
    pub(super) fn pass_over(&mut self, place: Place) -> Result<(), ProviderError> {
        self.put(place, None)
    }

    /// Whether there is a call that can be made, as far as is known.
    pub(super) fn are_there(&self) -> bool {
        self.calls.iter().any(|call| !call.name.is_empty())
    }

    /// Whether some call's arguments have begun and are not at their end.
    pub(super) fn is_within_one(&self) -> bool {
        self.calls.iter().any(|call| call.repeats.is_none() && !call.is_blank() && !call.form.is_whole())
    }

    /// Hands out all that is left. What was left out.
    pub(super) fn finish(&mut self, answer: AnswerHash, out: &mut VecDeque<Chunk>) -> LeftOut {
        let mut left_out = LeftOut::default();
        for at in 0..self.calls.len() {
            let call = &mut self.calls[at];
            if call.repeats.is_some() {
                left_out.repeated = true;
                continue;
            }
            if call.name.is_empty() {
                left_out.nameless = true;
                continue;
            }
            let rest = call.seam.rest();
            call.append_half(rest);
            if call.is_blank() && call.sent == 0 {
                call.arguments = "{}".to_owned();
                call.form = Form::whole();
            }
            call.is_start = false;
            if call.id.is_none() {
                let spare = call.spare_id.take().filter(|spare| self.position(spare).is_none());
                let call = &self.calls[at];
                let made = || made_id(answer, at, &call.name, &call.arguments);
                self.calls[at].id = Some(spare.unwrap_or_else(made));
            }
            self.calls[at].push(&mut self.numbered, out);
        }
        self.begun = self.calls.len();
        left_out
    }

    fn find(&self, piece: &CallPiece) -> Found {
        let named = self.places.iter().find(|(place, _)| *place == piece.place).map(|(_, at)| *at);
        let is_explicit = matches!(piece.place, Place::Index(_) | Place::Item(_));
        let of_id: Vec<_> = match &piece.id {
            Some(id) => (0..self.calls.len()).filter(|at| self.calls[*at].goes_by(id)).collect(),
            None => Vec::new(),
        };
        let is_known = !of_id.is_empty();
        let of_id: Vec<_> = of_id.into_iter().filter(|at| !self.is_beside(*at, piece)).collect();
        if is_known {
            let here = named.flatten().filter(|at| is_explicit && of_id.contains(at));
            let is_elsewhere = here.is_none() && of_id.iter().all(|at| self.is_another(*at, piece));
            let goes_on = |at: &usize| self.calls[*at].goes_on_with(piece, true);
            return match here.filter(&goes_on).or_else(|| of_id.iter().copied().find(&goes_on)) {
                Some(at) if !is_elsewhere => Found::Call(at),
                _ => Found::New,
            };
        }
        let at = match (named, is_explicit) {
            (Some(None), _) if piece.name.is_none() => return Found::NoCall,
            (Some(None), _) => None,
            // A list of one piece says no more than that it is a piece.
            (Some(Some(at)), false) if piece.name.is_none() && self.calls[at].is_over() => self.latest,
            (Some(at), _) => at,
            (None, true) => None,
            // The entries of one list are calls of their own.
            (None, false) if matches!(piece.place, Place::InList(1..)) && piece.name.is_some() => None,
            (None, false) => self.latest,
        };
        match at {
            Some(at) if !self.is_beside(at, piece) && self.calls[at].goes_on_with(piece, is_explicit) => {
                Found::Call(at)
            }
            _ => Found::New,
        }
    }

    /// Whether a piece is an entry of the list in which another entry was this call, and is a call of its own: each names a tool,
    /// and the other one is not broken off. At one index, and so from a server that may send pieces in a list, both are whole.
    fn is_beside(&self, at: usize, piece: &CallPiece) -> bool {
        let call = &self.calls[at];
        if piece.name.is_none() || call.named_by <= self.list_from {
            return false;
        }
        let has_place = matches!(piece.place, Place::Index(_) | Place::Item(_))
            && self.places.iter().any(|(place, of)| *of == Some(at) && *place == piece.place);
        match has_place {
            true => call.form.is_whole() && !call.is_start && piece.arguments.is_whole(),
            // One that has begun, and is filled in within the same list, has one id in both places.
            false => call.form.is_whole() || call.is_blank() && (call.id.is_none() || piece.id != call.id),
        }
    }

    /// Whether a piece with the id of this call begins another one: it stands elsewhere among its like, and has another name, or
    /// comes when the call is whole and does not repeat it.
    fn is_another(&self, at: usize, piece: &CallPiece) -> bool {
        let Some(name) = &piece.name else { return false };
        let is_like = |place: &Place| {
            matches!((place, &piece.place), (Place::Index(_), Place::Index(_)) | (Place::Item(_), Place::Item(_)))
        };
        let stands_elsewhere =
            self.places.iter().any(|(place, of)| *of == Some(at) && is_like(place) && *place != piece.place);
        let call = &self.calls[at];
        let repeats = || matches!(&piece.arguments, Arguments::Whole(text) if *text == call.arguments);
        let has_other_name =
            !call.name.is_empty() && *name != call.name && (call.is_named || !call.arguments.is_empty());
        stands_elsewhere && (has_other_name || call.is_over() && !repeats())
    }

    fn position(&self, id: &str) -> Option<usize> {
        self.calls.iter().position(|call| call.id.as_deref() == Some(id))
    }

    fn put(&mut self, place: Place, at: Option<usize>) -> Result<(), ProviderError> {
        if place == Place::Latest {
            return Ok(());
        }
        if let Some((_, known)) = self.places.iter_mut().find(|(known, _)| *known == place) {
            *known = at;
            return Ok(());
        }
        if self.places.len() == MAX_PLACES {
            return Err(too_many());
        }
        if let Place::Item(id) = &place {
            self.bytes += id.len();
        }
        self.places.push((place, at));
        Ok(())
    }

    /// Sees whether a call that may be a repetition is one so far.
    fn compare(&mut self, at: usize) {
        let call = &self.calls[at];
        let Some(first) = call.repeats.map(|first| &self.calls[first]) else { return };
        if call.is_blank() || call.is_start {
            return;
        }
        // Each byte is looked at once, however many pieces there are.
        let (same, len) = (call.same, call.arguments.len());
        let is_same = first.arguments.get(same..).is_some_and(|rest| rest.starts_with(&call.arguments[same..]));
        let call = &mut self.calls[at];
        match is_same {
            true => call.same = len,
            false => call.repeats = None,
        }
    }

    /// Hands out what is known, after a piece for the call at `at`.
    fn hand_out(&mut self, at: usize, out: &mut VecDeque<Chunk>) {
        if at < self.begun {
            self.calls[at].push(&mut self.numbered, out);
        }
        while let Some(call) = self.calls.get_mut(self.begun).filter(|call| call.is_known() || call.is_repetition()) {
            call.push(&mut self.numbered, out);
            self.begun += 1;
        }
    }
}

/// What was left out of the calls of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// A call, as nothing says of which tool.
    pub(super) nameless: bool,
    /// A call that came once more.
    pub(super) repeated: bool,
}

enum Found {
    Call(usize),
    New,
    NoCall,
}

fn too_many() -> ProviderError {
    ProviderError::Malformed { reason: "more tool calls than an answer may hold".into() }
}

#[cfg(test)]
mod tests;
