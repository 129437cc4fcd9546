//! What is told with an answer: what of the request was left out, changed or put in other words on its way.
//!
//! A request holds what it likes, so its notes are bounded in number and length, and each is told once.

use crate::error::escape;
use crate::text::boundary;

/// The most notes of one answer.
pub const MAX_NOTES: usize = 32;

/// The longest note, in bytes.
pub const MAX_NOTE: usize = 256;

/// The last of [`MAX_NOTES`], when there are more.
const MORE: &str = "there is more of this kind than is told here";

/// The notes of one answer, in the order in which they came up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notes {
    all: Vec<String>,
    most: usize,
}

impl Default for Notes {
    fn default() -> Self {
        Self::up_to(MAX_NOTES)
    }
}

impl Notes {
    /// At most so many.
    pub(crate) fn up_to(most: usize) -> Self {
        Self { all: Vec::new(), most }
    }

    /// Takes a note in, unless it is there already. It is cut to [`MAX_NOTE`] bytes and made fit for a terminal. Whether
    /// it is new.
    pub(crate) fn add(&mut self, note: &str) -> bool {
        if self.all.len() == self.most {
            return false;
        }
        let note = if self.all.len() + 1 == self.most { MORE.to_owned() } else { fit(note) };
        let is_new = !note.is_empty() && !self.all.contains(&note);
        if is_new {
            self.all.push(note);
        }
        is_new
    }

    /// Notes that a field of the request goes no further, and why.
    pub(crate) fn left_out(&mut self, field: &str, reason: &str) {
        self.add(&format!("{field} was left out: {reason}"));
    }

    pub(crate) fn into_vec(self) -> Vec<String> {
        self.all
    }

    pub(crate) fn as_slice(&self) -> &[String] {
        &self.all
    }
}

/// Leaves as many as an answer may have.
pub(crate) fn bound(notes: &mut Vec<String>) {
    if notes.len() > MAX_NOTES {
        notes.truncate(MAX_NOTES - 1);
        notes.push(MORE.to_owned());
    }
}

/// A note without control characters, of at most [`MAX_NOTE`] bytes.
fn fit(note: &str) -> String {
    let mut note = escape(note.trim(), MAX_NOTE);
    if note.len() > MAX_NOTE {
        note.truncate(boundary(&note, MAX_NOTE - '…'.len_utf8()));
        note.push('…');
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fault 75.
    #[test]
    fn each_note_is_told_once_and_all_of_them_are_bounded() {
        let mut notes = Notes::default();
        assert!(notes.add("a\x1b[31m"));
        assert!(!notes.add("a\x1b[31m") && !notes.add(" "));
        assert_eq!(notes.as_slice(), [r"a\u{1b}[31m"]);
        for number in 0..100 {
            notes.add(&format!("{number} {}", "é".repeat(1000)));
        }
        let notes = notes.into_vec();
        assert_eq!(notes.len(), MAX_NOTES);
        assert!(notes.iter().all(|note| note.len() <= MAX_NOTE));
        assert!(notes[1].starts_with("0 é") && notes[1].ends_with('…'));
        assert_eq!(notes[MAX_NOTES - 1], MORE);
    }
}
