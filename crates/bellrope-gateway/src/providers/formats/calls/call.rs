//! One call of a tool, as far as it has come.

use std::collections::VecDeque;

use super::form::{Form, is_blank};
use super::piece::{Arguments, CallPiece};
use crate::json::Seam;
use crate::message::{Chunk, ToolCallDelta};

/// A call.
#[derive(Debug, Default)]
pub(super) struct Call {
    pub(super) id: Option<String>,
    /// Which of the pieces that name a tool was its last one: its number, from 1.
    pub(super) named_by: u64,
    /// The id that the provider gave to another call before, so that this one gets one of its own.
    pub(super) twin_id: Option<String>,
    pub(super) spare_id: Option<String>,
    pub(super) name: String,
    pub(super) is_named: bool,
    pub(super) arguments: String,
    pub(super) form: Form,
    pub(super) seam: Seam,
    /// Whether further arguments take the place of these.
    pub(super) is_start: bool,
    /// The call of its id and name that was whole when it began, as long as this one may be a repetition of that.
    pub(super) repeats: Option<usize>,
    /// Bytes of the arguments that are known to be the same as there.
    pub(super) same: usize,
    /// Bytes of the arguments that came once more, of a call that is whole.
    pub(super) again: usize,
    /// Its number, once it is handed out.
    pub(super) number: Option<u32>,
    /// Bytes of the arguments that were handed out.
    pub(super) sent: usize,
}

impl Call {
    /// Whether a piece for this place is more of this call, rather than the beginning of the next one. `is_explicit`:
    /// whether the piece itself says that it is for this place.
    pub(super) fn goes_on_with(&self, piece: &CallPiece, is_explicit: bool) -> bool {
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
    pub(super) fn goes_by(&self, id: &str) -> bool {
        [&self.id, &self.twin_id].into_iter().flatten().any(|known| known == id)
    }

    pub(super) fn take_id(&mut self, id: Option<String>, is_all: bool) {
        let Some(id) = id else { return };
        match &mut self.id {
            None => self.id = Some(id),
            // Nothing but more of an id is the rest of one that came in pieces.
            Some(known) if is_all && *known != id && self.arguments.is_empty() && !self.is_named => known.push_str(&id),
            Some(_) => {}
        }
    }

    pub(super) fn take_name(&mut self, name: Option<String>) {
        let Some(name) = name.filter(|name| *name != self.name) else { return };
        if self.name.is_empty() || name.starts_with(&self.name) && self.is_blank() {
            self.name = name;
        } else if self.is_blank() && !self.is_named {
            self.name.push_str(&name);
        }
    }

    /// How many bytes were taken in.
    pub(super) fn take_arguments(&mut self, arguments: Arguments) -> usize {
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
    pub(super) fn append_half(&mut self, rest: Option<char>) {
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
    pub(super) fn is_blank(&self) -> bool {
        self.form.is_blank()
    }

    /// Whether the arguments are whole, as far as can be seen.
    pub(super) fn is_over(&self) -> bool {
        self.form.is_whole() && !self.is_blank() && !self.is_start
    }

    /// Whether its first piece can be handed out. Where a name may come in pieces, the arguments show that it is whole.
    pub(super) fn is_known(&self) -> bool {
        let is_another = self.repeats.is_none();
        is_another && self.id.is_some() && !self.name.is_empty() && (self.is_named || !self.is_blank())
    }

    /// Whether it is another one once more, and nothing else: that was whole with the same arguments.
    pub(super) fn is_repetition(&self) -> bool {
        self.repeats.is_some() && self.is_over()
    }

    /// Hands out what was not handed out yet, with the next number if that is the first of it.
    pub(super) fn push(&mut self, next: &mut u32, out: &mut VecDeque<Chunk>) {
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
