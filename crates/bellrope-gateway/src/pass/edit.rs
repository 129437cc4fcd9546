//! Changes of a text at places that are known.

use std::ops::Range;

/// Changes, in any order, none of which overlaps another.
#[derive(Debug, Default)]
pub(super) struct Edits {
    replaced: Vec<(Range<usize>, Vec<u8>)>,
    /// New fields of objects: behind which bracket, and whether nothing follows there.
    inserted: Vec<(usize, bool, Vec<u8>)>,
}

impl Edits {
    /// Puts `text` in the place of what stands there.
    pub(super) fn replace(&mut self, place: Range<usize>, text: impl Into<Vec<u8>>) {
        self.replaced.push((place, text.into()));
    }

    /// Puts `field` in front of what is in an object, which is empty or not. `open`: behind its bracket.
    pub(super) fn insert_field(&mut self, open: usize, is_empty: bool, field: Vec<u8>) {
        match self.inserted.iter_mut().find(|(at, ..)| *at == open) {
            Some((.., fields)) => {
                fields.push(b',');
                fields.extend_from_slice(&field);
            }
            None => self.inserted.push((open, is_empty, field)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.replaced.is_empty() && self.inserted.is_empty()
    }

    /// The text with all changes.
    pub(super) fn apply(mut self, text: &[u8]) -> Vec<u8> {
        for (open, is_empty, mut fields) in self.inserted {
            if !is_empty {
                fields.push(b',');
            }
            self.replaced.push((open..open, fields));
        }
        // What is put before a field comes before what it is replaced by.
        self.replaced.sort_by_key(|(place, _)| (place.start, place.end));
        let added: usize = self.replaced.iter().map(|(_, text)| text.len()).sum();
        let mut edited = Vec::with_capacity(text.len() + added);
        let mut at = 0;
        for (place, new) in self.replaced {
            edited.extend_from_slice(&text[at..place.start.max(at)]);
            edited.extend_from_slice(&new);
            at = place.end.max(at);
        }
        edited.extend_from_slice(&text[at..]);
        edited
    }
}

/// A field with a text in it.
pub(super) fn field(name: &str, value: &[u8]) -> Vec<u8> {
    let mut field = serde_json::Value::from(name).to_string().into_bytes();
    field.push(b':');
    field.extend_from_slice(value);
    field
}
