//! The message types that a server offers, by name.

use std::sync::Arc;

use bellrope_proto::handshake::{Style, TypeEntry};

use crate::error::CallError;

/// A message type of the server at the other end, looked up by name once and used for many calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageType {
    pub(crate) number: u16,
    pub(crate) style: Style,
}

/// The table from the handshake.
#[derive(Debug, Clone)]
pub(crate) struct TypeTable(Arc<[TypeEntry]>);

impl TypeTable {
    pub(crate) fn new(entries: Vec<TypeEntry>) -> Self {
        Self(entries.into())
    }

    pub(crate) fn entries(&self) -> &[TypeEntry] {
        &self.0
    }

    /// Looks a name up.
    pub(crate) fn find(&self, name: &str) -> Result<MessageType, CallError> {
        match self.0.iter().find(|entry| entry.name == name) {
            Some(entry) => Ok(MessageType { number: entry.message_type, style: entry.style }),
            None => Err(CallError::UnknownMessageType { name: name.to_owned(), nearest: self.nearest(name) }),
        }
    }

    /// Looks a name up that must be answered in this style.
    pub(crate) fn find_styled(&self, name: &str, style: Style) -> Result<MessageType, CallError> {
        let found = self.find(name)?;
        if found.style == style {
            return Ok(found);
        }
        Err(CallError::WrongStyle { name: name.to_owned(), style: found.style })
    }

    /// Up to three names, the most similar first.
    fn nearest(&self, name: &str) -> Vec<String> {
        // Longer than any registered name: the cost of comparing is bounded.
        let name: String = name.chars().take(256).collect();
        let mut names: Vec<_> = self.0.iter().map(|entry| (edit_distance(&name, &entry.name), &entry.name)).collect();
        names.sort();
        names.into_iter().take(3).map(|(_, name)| name.clone()).collect()
    }
}

/// Insertions, deletions and substitutions between two names (Levenshtein 1965), with one row of the table at a time.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (above, l) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (column, r) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(l != *r);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TypeTable {
        let entry = |(index, name): (usize, &&str)| TypeEntry {
            message_type: index as u16 + 1,
            style: if name.ends_with("stream") { Style::ServerStream } else { Style::Unary },
            name: (*name).to_owned(),
        };
        TypeTable::new(["echo", "ai.chat", "ai.chat_stream", "ai.models"].iter().enumerate().map(entry).collect())
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest() {
        let error = table().find("ai.caht").unwrap_err().to_string();
        assert!(error.contains("nearest known: ai.chat,"), "{error}");
        assert_eq!(table().find("ai.models").unwrap().number, 4);
    }

    #[test]
    fn the_style_is_checked_before_anything_is_sent() {
        let error = table().find_styled("ai.chat_stream", Style::Unary).unwrap_err().to_string();
        assert!(error.contains("called with stream()"), "{error}");
        let error = table().find_styled("echo", Style::ServerStream).unwrap_err().to_string();
        assert!(error.contains("called with call()"), "{error}");
    }

    #[test]
    fn distances_are_those_of_the_book() {
        let distances = [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "abc", 0), ("flaw", "lawn", 2)];
        for (left, right, distance) in distances {
            assert_eq!(edit_distance(left, right), distance);
        }
    }
}
