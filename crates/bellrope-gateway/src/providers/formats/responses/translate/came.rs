//! What of a response came in pieces, and where that belongs.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::value::RawValue;

use crate::json::{TextPiece, count, words};
use crate::providers::formats::calls::Place;
use crate::providers::formats::parts::Speech;

/// A part of an item, by hashes: a server may give it names of any length.
pub(super) type Part = (Speech, u64, u64);

/// What came of a part.
#[derive(Debug, Clone, Default)]
pub(super) struct CameSoFar {
    /// Bytes of its text.
    len: usize,
    /// Of the text.
    hasher: DefaultHasher,
    /// Whether it did not come as plain text, so that nothing can be said of it.
    pub(super) is_odd: bool,
}

/// What has come of an answer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Came {
    pub(super) text: bool,
    pub(super) reasoning: bool,
}

impl Came {
    pub(super) fn has(self, speech: Speech) -> bool {
        match speech {
            Speech::Text | Speech::Refusal => self.text,
            Speech::Reasoning => self.reasoning,
        }
    }
}

/// What the whole text of a part has beyond what came of it.
pub(super) enum Beyond {
    Nothing,
    Text(String),
    /// Something else came.
    Other,
}

impl CameSoFar {
    pub(super) fn push(&mut self, said: &RawValue) {
        match TextPiece::of(said).as_ref().and_then(TextPiece::whole) {
            Some(text) => {
                self.len += text.len();
                self.hasher.write(text.as_bytes());
            }
            None => self.is_odd = true,
        }
    }

    pub(super) fn rest_of(&self, whole: &str) -> Beyond {
        let Some((head, rest)) = whole.split_at_checked(self.len) else { return Beyond::Other };
        let mut hasher = DefaultHasher::new();
        hasher.write(head.as_bytes());
        match hasher.finish() == self.hasher.finish() {
            true if rest.is_empty() => Beyond::Nothing,
            true => Beyond::Text(rest.to_owned()),
            false => Beyond::Other,
        }
    }
}

/// What an event says of where it belongs.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Where<'a> {
    pub(super) output_index: Option<&'a RawValue>,
    pub(super) item_id: Option<&'a RawValue>,
    pub(super) part: Option<&'a RawValue>,
}

impl Where<'_> {
    pub(super) fn place(self) -> Place {
        match (self.output_index.and_then(count), self.item_id.and_then(words)) {
            (Some(index), _) => Place::Index(index),
            // llama.cpp leaves the index out.
            (None, Some(id)) => Place::Item(id),
            (None, None) => Place::Latest,
        }
    }
}

/// The names under which a part may be known: by its item's place, and by its item's id.
pub(super) fn parts(speech: Speech, at: Where<'_>) -> Vec<Part> {
    let hash = |value: Option<&RawValue>| {
        let mut hasher = DefaultHasher::new();
        value.map(RawValue::get).hash(&mut hasher);
        hasher.finish()
    };
    let part = hash(at.part);
    let items = [at.output_index, at.item_id].into_iter().flatten().map(|item| hash(Some(item)));
    let mut parts: Vec<_> = items.map(|item| (speech, item, part)).collect();
    if parts.is_empty() {
        parts.push((speech, 0, part));
    }
    parts
}
