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
//!
//! Calls are handed out in the order in which they began, under numbers of our own. A call is held back until its id and
//! its name are known, as readers take both from the first piece. What is missing at the end is made: an id, and `{}` for
//! no arguments.

mod form;
mod made_id;
mod piece;

use std::collections::VecDeque;

use crate::error::ProviderError;
use crate::json::Seam;
use crate::message::{Chunk, ToolCallDelta};
use crate::provider::{MAX_ANSWER, MAX_TOOL_CALLS};

use form::{Form, is_blank};
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
    /// Bytes that came in.
    bytes: usize,
}

#[derive(Debug, Default)]
struct Call {
    id: Option<String>,
    /// The id that the provider gave to another call before, so that this one gets one of its own.
    twin_id: Option<String>,
    spare_id: Option<String>,
    name: String,
    is_named: bool,
    arguments: String,
    form: Form,
    seam: Seam,
    /// Whether further arguments take the place of these.
    is_start: bool,
    /// The call of its id and name that was whole when it began, as long as this one may be a repetition of that.
    repeats: Option<usize>,
    /// Bytes of the arguments that are known to be the same as there.
    same: usize,
    /// Bytes of the arguments that came once more, of a call that is whole.
    again: usize,
    /// Its number, once it is handed out.
    number: Option<u32>,
    /// Bytes of the arguments that were handed out.
    sent: usize,
}

impl Calls {
    /// Takes a piece in, and hands out what that makes known.
    ///
    /// # Errors
    /// The calls are too many or too large.
    pub(super) fn take(&mut self, mut piece: CallPiece, out: &mut VecDeque<Chunk>) -> Result<(), ProviderError> {
        piece.id = piece.id.filter(|id| !id.trim().is_empty());
        piece.name = piece.name.filter(|name| !name.trim().is_empty());
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

    /// Hands out all that is left. How many calls had to be left out because nothing says which tool they call.
    pub(super) fn finish(&mut self, answer: AnswerHash, out: &mut VecDeque<Chunk>) -> usize {
        let mut nameless = 0;
        for at in 0..self.calls.len() {
            let call = &mut self.calls[at];
            if call.repeats.is_some() {
                continue;
            }
            if call.name.is_empty() {
                nameless += 1;
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
        nameless
    }

    fn find(&self, piece: &CallPiece) -> Found {
        let named = self.places.iter().find(|(place, _)| *place == piece.place).map(|(_, at)| *at);
        let is_explicit = matches!(piece.place, Place::Index(_) | Place::Item(_));
        let of_id: Vec<_> = match &piece.id {
            Some(id) => (0..self.calls.len()).filter(|at| self.calls[*at].goes_by(id)).collect(),
            None => Vec::new(),
        };
        if !of_id.is_empty() {
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
            Some(at) if self.calls[at].goes_on_with(piece, is_explicit) => Found::Call(at),
            _ => Found::New,
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

enum Found {
    Call(usize),
    New,
    NoCall,
}

impl Call {
    /// Whether a piece for this place is more of this call, rather than the beginning of the next one. `is_explicit`:
    /// whether the piece itself says that it is for this place.
    fn goes_on_with(&self, piece: &CallPiece, is_explicit: bool) -> bool {
        let more = match &piece.arguments {
            Arguments::None => None,
            Arguments::More(text) => Some(text.as_str()),
            Arguments::Whole(text) | Arguments::Start(text) => Some(text.as_str()),
        };
        let more = more.filter(|more| !is_blank(more));
        let is_over = self.form.is_whole() && !self.is_blank() && !self.is_start;
        let is_whole = matches!(piece.arguments, Arguments::Whole(_));
        let is_repeated = is_whole || more.is_none_or(|more| more == self.arguments);
        let has_other_id = self.id.is_some() && piece.id.is_some() && self.id != piece.id;
        match &piece.name {
            // Some servers give every piece an id of its own: a call has a name.
            None if has_other_id => !is_over || is_repeated,
            None => true,
            Some(_) if has_other_id => false,
            Some(_) if self.name.is_empty() => true,
            Some(name) if is_over => is_repeated && *name == self.name,
            Some(name) if *name == self.name => true,
            // More of a name that came in pieces.
            Some(_) => is_explicit && self.is_blank() && !self.is_named,
        }
    }

    /// Whether the provider calls it so.
    fn goes_by(&self, id: &str) -> bool {
        [&self.id, &self.twin_id].into_iter().flatten().any(|known| known == id)
    }

    fn take_id(&mut self, id: Option<String>, is_all: bool) {
        let Some(id) = id else { return };
        match &mut self.id {
            None => self.id = Some(id),
            // Nothing but more of an id is the rest of one that came in pieces.
            Some(known) if is_all && *known != id && self.arguments.is_empty() && !self.is_named => known.push_str(&id),
            Some(_) => {}
        }
    }

    fn take_name(&mut self, name: Option<String>) {
        let Some(name) = name.filter(|name| *name != self.name) else { return };
        if self.name.is_empty() || name.starts_with(&self.name) && self.is_blank() {
            self.name = name;
        } else if self.is_blank() && !self.is_named {
            self.name.push_str(&name);
        }
    }

    /// How many bytes were taken in.
    fn take_arguments(&mut self, arguments: Arguments) -> usize {
        match arguments {
            Arguments::None => 0,
            Arguments::More(piece) => {
                let text = self.seam.join(piece);
                if text.is_empty() || self.is_again(&text) {
                    return 0;
                }
                if self.is_all_so_far(&text) {
                    let from = self.arguments.len();
                    self.append(&text[from..]);
                    return text.len() - from;
                }
                let mut len = text.len();
                if self.again > 0 {
                    // It was no repetition after all.
                    let again = self.arguments[..std::mem::take(&mut self.again)].to_owned();
                    len += again.len();
                    self.append(&again);
                }
                if self.sent == 0 && (self.is_start || self.is_blank()) && !is_blank(&text) {
                    self.clear();
                }
                self.append(&text);
                len
            }
            Arguments::Start(text) => {
                if self.arguments.is_empty() && !is_blank(&text) {
                    self.append(&text);
                    self.is_start = true;
                }
                text.len()
            }
            Arguments::Whole(text) => {
                self.again = 0;
                let rest = self.seam.rest();
                let known = text.get(..self.arguments.len()).is_some_and(|head| head == self.arguments);
                if known {
                    let from = self.arguments.len();
                    self.append(&text[from..]);
                } else if self.sent == 0 && !is_blank(&text) {
                    self.clear();
                    self.append(&text);
                } else {
                    // What was handed out cannot be taken back.
                    self.append_half(rest);
                }
                self.is_start = false;
                text.len()
            }
        }
    }

    /// Whether a piece has all of the arguments so far, as some servers send them again with each piece: it could stand behind
    /// them in no JSON.
    fn is_all_so_far(&self, text: &str) -> bool {
        // Looked at last: it may go over all of them.
        let may_nest = || !self.form.is_in_string() && self.arguments.trim_end().ends_with([':', '[', ',']);
        text.starts_with(&self.arguments) && self.arguments.contains('"') && !self.form.is_whole() && !may_nest()
    }

    /// Whether a piece of its arguments, which are whole, is the next part of a repetition of them.
    fn is_again(&mut self, text: &str) -> bool {
        let is_whole = self.form.is_whole() && !self.is_start;
        if is_whole && self.again == 0 && text == self.arguments {
            return true;
        }
        let is_next = self.is_over() && self.arguments[self.again..].starts_with(text);
        if is_next {
            self.again = (self.again + text.len()) % self.arguments.len();
        }
        is_next
    }

    /// Appends what stands for half of a character that got no other half.
    fn append_half(&mut self, rest: Option<char>) {
        if let Some(rest) = rest {
            self.append(rest.encode_utf8(&mut [0; 4]));
        }
    }

    fn append(&mut self, text: &str) {
        self.form.push(text);
        self.arguments.push_str(text);
    }

    fn clear(&mut self) {
        self.arguments.clear();
        (self.same, self.again) = (0, 0);
        self.form = Form::default();
        self.is_start = false;
    }

    /// Whether the arguments say nothing so far.
    fn is_blank(&self) -> bool {
        self.form.is_blank()
    }

    /// Whether the arguments are whole, as far as can be seen.
    fn is_over(&self) -> bool {
        self.form.is_whole() && !self.is_blank() && !self.is_start
    }

    /// Whether its first piece can be handed out. Where a name may come in pieces, the arguments show that it is whole.
    fn is_known(&self) -> bool {
        let is_another = self.repeats.is_none();
        is_another && self.id.is_some() && !self.name.is_empty() && (self.is_named || !self.is_blank())
    }

    /// Whether it is another one once more, and nothing else: that was whole with the same arguments.
    fn is_repetition(&self) -> bool {
        self.repeats.is_some() && self.is_over()
    }

    /// Hands out what was not handed out yet, with the next number if that is the first of it.
    fn push(&mut self, next: &mut u32, out: &mut VecDeque<Chunk>) {
        if self.repeats.is_some() {
            return;
        }
        // What may be replaced is held back; at the end nothing is.
        let is_held = self.sent == 0 && (self.is_start || self.is_blank() && !self.form.is_final());
        let arguments = if is_held { String::new() } else { self.arguments[self.sent..].to_owned() };
        if self.number.is_some() && arguments.is_empty() {
            return;
        }
        self.sent += arguments.len();
        let is_new = self.number.is_none();
        let (id, name) = if is_new { (self.id.clone(), Some(self.name.clone())) } else { (None, None) };
        let index = *self.number.get_or_insert(*next);
        *next += u32::from(is_new);
        out.push_back(Chunk::ToolCall(ToolCallDelta { index, id, name, arguments }));
    }
}

fn too_many() -> ProviderError {
    ProviderError::Malformed { reason: "more tool calls than an answer may hold".into() }
}

#[cfg(test)]
mod tests;
