//! The message types that a server offers, by name.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::{BuildHasher, BuildHasherDefault, Hash, Hasher},
    sync::LazyLock,
};

#[cfg(feature = "service")]
use bellrope_proto::handshake::SchemaMark;
use bellrope_proto::{
    handshake::{Pages, Style, TypeEntry},
    table::BadTable,
};

use crate::error::CallError;

/// The keys under which this process hashes names and tables. They are random and told to nobody, so no server can choose
/// names that collide.
static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// A message type, looked up by name once and used for many calls: they do not look at names. It is good for every client,
/// connection and pool of the process. Where the server is another one by now and numbers its types otherwise, the type is
/// found again by its name.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("echo.sock");
/// # let server = bellrope::Server::builder()
/// #     .unary("shout", |call, reply| { reply.put(&call.payload().to_ascii_uppercase()); Ok(()) }).bind(&path)?;
/// let client = bellrope::Client::connect(&path)?;
/// let shout = client.message_type("shout")?;
/// assert_eq!(client.call(shout, b"ding")?, b"DING");
/// assert_eq!(client.call("shout", b"dong")?, b"DONG"); // the same, with one look into a hash table
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageType {
    pub(crate) number: u16,
    pub(crate) style: Style,
    /// Whether it is good for that table alone, and not for what another one has under its name.
    pinned: bool,
    /// The fingerprint of the table that the number is from.
    table: u64,
    /// The hash of its name, by which other tables are asked.
    name: u64,
}

impl MessageType {
    /// The same, for the server that is there now: with another table a call ends as [`CallError::MessageTypeGone`], so that
    /// whoever has checked what this server offers can do so again.
    #[cfg(feature = "service")]
    pub(crate) fn pinned(self) -> Self {
        Self { pinned: true, ..self }
    }
}

/// What a call is addressed to. Every method that calls takes a name or a [`MessageType`], as `impl Into<Target>`.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Target<'a> {
    /// A name, looked up in a hash table.
    Name(&'a str),
    /// What was looked up before.
    Type(MessageType),
}

impl<'a, S: AsRef<str> + ?Sized> From<&'a S> for Target<'a> {
    #[inline(always)]
    fn from(name: &'a S) -> Self {
        Self::Name(name.as_ref())
    }
}

impl From<MessageType> for Target<'_> {
    #[inline(always)]
    fn from(message_type: MessageType) -> Self {
        Self::Type(message_type)
    }
}

impl From<&MessageType> for Target<'_> {
    #[inline(always)]
    fn from(message_type: &MessageType) -> Self {
        Self::Type(*message_type)
    }
}

/// The table from the handshake, and what it has become.
#[derive(Debug)]
pub(crate) struct TypeTable {
    /// The same for tables that say the same.
    fingerprint: u64,
    entries: Vec<TypeEntry>,
    /// Where a name stands, by its hash.
    by_name: HashMap<u64, usize, BuildHasherDefault<Hashed>>,
    /// What follows the changes.
    pages: Pages,
}

impl TypeTable {
    pub(crate) fn new(entries: Vec<TypeEntry>, pages: Pages) -> Self {
        let mut all = KEYS.build_hasher();
        let mut by_name = HashMap::with_capacity_and_hasher(entries.len(), BuildHasherDefault::default());
        for (at, TypeEntry { message_type, style, name, schema }) in entries.iter().enumerate() {
            (message_type, style, name, schema).hash(&mut all);
            by_name.entry(KEYS.hash_one(name.as_str())).or_insert(at);
        }
        Self { fingerprint: all.finish(), entries, by_name, pages }
    }

    /// Changes the table as the server says, which has so many entries then.
    pub(crate) fn change(&mut self, change: &[u8], entries: u64) -> Result<(), BadTable> {
        let (mut types, mut pages) = (std::mem::take(&mut self.entries), std::mem::take(&mut self.pages));
        let changed = pages.change(change, entries, &mut types);
        *self = Self::new(types, pages);
        changed
    }

    pub(crate) fn entries(&self) -> &[TypeEntry] {
        &self.entries
    }

    /// Finds what a call is addressed to, which must be answered in this style.
    #[inline(always)]
    pub(crate) fn find_styled(&self, target: Target<'_>, style: Style) -> Result<MessageType, CallError> {
        match target {
            Target::Type(found) if found.table == self.fingerprint && found.style == style => Ok(found),
            target => self.look_up_styled(target, style),
        }
    }

    #[inline(never)]
    fn look_up_styled(&self, target: Target<'_>, style: Style) -> Result<MessageType, CallError> {
        let (entry, found) = self.look_up(target)?;
        if found.style == style {
            return Ok(found);
        }
        Err(CallError::WrongStyle { name: entry.name.clone(), style: found.style })
    }

    /// Looks a name up, of whatever style.
    pub(crate) fn find(&self, name: &str) -> Result<MessageType, CallError> {
        self.look_up(Target::Name(name)).map(|(_, found)| found)
    }

    /// As [`Self::find`], with what its payloads are.
    #[cfg(feature = "service")]
    pub(crate) fn find_marked(&self, name: &str) -> Result<(MessageType, SchemaMark), CallError> {
        self.look_up(Target::Name(name)).map(|(entry, found)| (found, entry.schema))
    }

    fn look_up(&self, target: Target<'_>) -> Result<(&TypeEntry, MessageType), CallError> {
        let hash = match target {
            Target::Name(name) => KEYS.hash_one(name),
            Target::Type(known) => known.name,
        };
        let entry = self.by_name.get(&hash).map(|at| &self.entries[*at]);
        let entry = match target {
            Target::Name(name) => entry
                .filter(|entry| entry.name == name)
                .ok_or_else(|| CallError::UnknownMessageType { name: name.to_owned(), nearest: self.nearest(name) }),
            Target::Type(known) => {
                entry.filter(|_| !known.pinned || known.table == self.fingerprint).ok_or(CallError::MessageTypeGone)
            }
        }?;
        let (number, style) = (entry.message_type, entry.style);
        let found = MessageType { number, style, pinned: false, table: self.fingerprint, name: hash };
        Ok((entry, found))
    }

    /// Up to three names, the most similar first.
    fn nearest(&self, name: &str) -> Vec<String> {
        // Longer than any registered name: the cost of comparing is bounded.
        let name: String = name.chars().take(256).collect();
        let mut names: Vec<_> =
            self.entries.iter().map(|entry| (edit_distance(&name, &entry.name), &entry.name)).collect();
        names.sort();
        names.into_iter().take(3).map(|(_, name)| name.clone()).collect()
    }
}

/// Takes what is a hash already as it is.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("only hashes are keys");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
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

    const NAMES: [&str; 4] = ["echo", "ai.chat", "ai.chat_stream", "ai.models"];

    fn table(names: &[&str]) -> TypeTable {
        let entry = |(index, name): (usize, &&str)| TypeEntry {
            message_type: index as u16 + 1,
            style: if name.ends_with("stream") { Style::ServerStream } else { Style::Unary },
            name: (*name).to_owned(),
            schema: Default::default(),
        };
        TypeTable::new(names.iter().enumerate().map(entry).collect(), Pages::default())
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest() {
        let error = table(&NAMES).find("ai.caht").unwrap_err().to_string();
        assert!(error.contains("nearest known: ai.chat,"), "{error}");
        assert_eq!(table(&NAMES).find("ai.models").unwrap().number, 4);
    }

    #[test]
    fn the_style_is_checked_before_anything_is_sent() {
        let table = table(&NAMES);
        let [chats, echo] = ["ai.chat_stream", "echo"].map(|name| Target::Type(table.find(name).unwrap()));
        for target in ["ai.chat_stream".into(), chats] {
            let error = table.find_styled(target, Style::Unary).unwrap_err().to_string();
            assert!(error.contains("\"ai.chat_stream\" is called with stream()"), "{error}");
        }
        for target in ["echo".into(), echo] {
            let error = table.find_styled(target, Style::ServerStream).unwrap_err().to_string();
            assert!(error.contains("\"echo\" is called with call()"), "{error}");
        }
    }

    #[test]
    fn a_type_is_found_again_by_name_in_a_table_of_another_order() {
        let first = table(&NAMES);
        let chat = first.find("ai.chat").unwrap();
        assert_eq!(first.find_styled(chat.into(), Style::Unary).unwrap(), chat);
        assert_eq!(table(&NAMES).find_styled(chat.into(), Style::Unary).unwrap(), chat, "the same table, another link");
        let other = table(&["ai.models", "echo", "ai.chat"]);
        let again = other.find_styled(chat.into(), Style::Unary).unwrap();
        assert_eq!((chat.number, again.number), (2, 3));
        assert_eq!(other.find("ai.chat").unwrap(), again);
        // Only the style differs, or only the numbers.
        let unary =
            TypeEntry { message_type: 2, style: Style::Unary, name: "ai.chat".to_owned(), schema: Default::default() };
        let duplex = TypeTable::new(vec![TypeEntry { style: Style::Duplex, ..unary.clone() }], Pages::default());
        assert!(matches!(duplex.find_styled(chat.into(), Style::Unary), Err(CallError::WrongStyle { .. })));
        let renumbered = TypeTable::new(vec![TypeEntry { message_type: 7, ..unary }], Pages::default());
        assert_eq!(renumbered.find_styled(chat.into(), Style::Unary).unwrap().number, 7);
        let without = table(&["echo", "ai.models"]);
        let error = without.find_styled(chat.into(), Style::Unary).unwrap_err();
        assert!(matches!(error, CallError::MessageTypeGone), "{error}");
    }

    #[test]
    fn of_a_name_that_stands_twice_the_first_counts_and_an_empty_table_has_none() {
        let table_of_two = table(&["echo", "echo"]);
        assert_eq!(table_of_two.find("echo").unwrap().number, 1);
        assert!(matches!(table(&[]).find("echo"), Err(CallError::UnknownMessageType { .. })));
    }

    #[test]
    fn distances_are_those_of_the_book() {
        let distances = [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "abc", 0), ("flaw", "lawn", 2)];
        for (left, right, distance) in distances {
            assert_eq!(edit_distance(left, right), distance);
        }
    }
}
