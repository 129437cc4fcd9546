//! The table of message types as it travels: in the body of an answer, in pages behind it, and in what a server says later of
//! its changes.
//!
//! ```text
//! entry   message_type:u16 style:u8 name_len:u8 name[name_len] (codec:u8 hash:u64)?
//! page    first:u16 count:u16 len:u32 entry[count]
//! change  { entry | message_type:u16 255:u8 0:u8 }*
//! ```
//!
//! Schemas follow a name with the feature [`SCHEMAS`](crate::handshake::SCHEMAS); pages and changes come with
//! [`TABLE`](crate::handshake::TABLE). A page says how many entries came before it, how many it has and their bytes. A change
//! takes types out or adds some; how many entries there are afterwards stands beside it, so that two sides that mean different
//! tables find out. Entries of a style that is not known count, and are passed over.

use std::collections::HashSet;

use crate::{style::Style, violation::Violation};

/// Most entries of a table.
pub const MAX_TYPES: usize = 4096;
/// Most bytes of the entries of a page.
pub const MAX_PAGE: usize = 64 * 1024;
/// Bytes of the head of a page.
pub const PAGE_HEAD_LEN: usize = 8;
/// In place of a style: the type is there no longer.
const REMOVED: u8 = 255;
/// Bytes of an entry before its name.
const ENTRY_HEAD: usize = 4;

/// One message type that a server offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeEntry {
    /// The number that travels in headers.
    pub message_type: u16,
    /// How it is answered.
    pub style: Style,
    /// Its name, 1 to 255 bytes.
    pub name: String,
    /// What its payloads are.
    pub schema: SchemaMark,
}

/// What the payloads of a message type are, so that both sides can tell whether they mean the same. It travels with
/// [`SCHEMAS`](crate::handshake::SCHEMAS) alone; without it nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct SchemaMark {
    /// The number of the codec; 0 if that is not known.
    pub codec: u8,
    /// The hash of the types; 0 if that is not known.
    pub hash: u64,
}

impl SchemaMark {
    /// Bytes of a mark in the table.
    pub const LEN: usize = 9;
}

/// What is wrong with a table, a page or a change: the name of the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadTable(pub(crate) &'static str);

impl From<BadTable> for Violation {
    fn from(BadTable(field): BadTable) -> Self {
        Self::Types(field)
    }
}

/// Entries as they travel.
pub(crate) fn encode(types: &[TypeEntry], with_schemas: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    types.iter().for_each(|entry| put(&mut bytes, entry, with_schemas));
    bytes
}

/// How many of the first entries have at most so many bytes together.
pub(crate) fn fitting(types: &[TypeEntry], with_schemas: bool, room: usize) -> usize {
    let mut left = room;
    let fits = |entry: &&TypeEntry| {
        let len = len_of(entry, with_schemas);
        left.checked_sub(len).map(|rest| left = rest).is_some()
    };
    types.iter().take_while(fits).count()
}

/// The pages with all entries from the one in place `first` on.
pub(crate) fn encode_pages(types: &[TypeEntry], mut first: usize, with_schemas: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    while first < types.len() {
        let count = fitting(&types[first..], with_schemas, MAX_PAGE);
        let entries = encode(&types[first..first + count], with_schemas);
        bytes.extend_from_slice(&(first as u16).to_le_bytes());
        bytes.extend_from_slice(&(count as u16).to_le_bytes());
        bytes.extend_from_slice(&(entries.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&entries);
        first += count;
    }
    bytes
}

fn put(bytes: &mut Vec<u8>, entry: &TypeEntry, with_schemas: bool) {
    let name_len = u8::try_from(entry.name.len()).expect("a name of a message type has at most 255 bytes");
    bytes.extend_from_slice(&entry.message_type.to_le_bytes());
    bytes.push(entry.style.to_bits());
    bytes.push(name_len);
    bytes.extend_from_slice(entry.name.as_bytes());
    if with_schemas {
        bytes.push(entry.schema.codec);
        bytes.extend_from_slice(&entry.schema.hash.to_le_bytes());
    }
}

fn len_of(entry: &TypeEntry, with_schemas: bool) -> usize {
    ENTRY_HEAD + entry.name.len() + if with_schemas { SchemaMark::LEN } else { 0 }
}

/// One change, on its way from a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypeChange {
    /// A type is there that was not.
    Added(TypeEntry),
    /// A type is there no longer. Its number is not given to another one.
    Removed(u16),
}

impl TypeChange {
    /// Appends the change as it travels.
    pub fn encode(&self, bytes: &mut Vec<u8>, with_schemas: bool) {
        match self {
            Self::Added(entry) => put(bytes, entry, with_schemas),
            Self::Removed(message_type) => {
                bytes.extend_from_slice(&message_type.to_le_bytes());
                bytes.extend_from_slice(&[REMOVED, 0]);
            }
        }
    }
}

/// What came of an entry.
enum Found {
    Entry(TypeEntry),
    /// Of a style of a newer version.
    Unknown(u16),
    Removed(u16),
}

/// Takes the entry at the front of `bytes`.
fn take(bytes: &mut &[u8], with_schemas: bool) -> Result<Found, BadTable> {
    const BAD: BadTable = BadTable("types");
    let (&[t0, t1, style, name_len], rest) = bytes.split_first_chunk::<ENTRY_HEAD>().ok_or(BAD)?;
    let message_type = u16::from_le_bytes([t0, t1]);
    if (style, name_len) == (REMOVED, 0) {
        *bytes = rest;
        return Ok(Found::Removed(message_type));
    }
    let (name, mut rest) = rest.split_at_checked(usize::from(name_len)).ok_or(BAD)?;
    let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty() && !name.contains(char::is_control));
    let name = name.ok_or(BAD)?;
    let mut schema = SchemaMark::default();
    if with_schemas {
        let (&[codec, ref hash @ ..], after) = rest.split_first_chunk::<{ SchemaMark::LEN }>().ok_or(BAD)?;
        schema = SchemaMark { codec, hash: u64::from_le_bytes(*hash) };
        rest = after;
    }
    *bytes = rest;
    Ok(match Style::from_bits(style) {
        Some(style) => Found::Entry(TypeEntry { message_type, style, name: name.to_owned(), schema }),
        None => Found::Unknown(message_type),
    })
}

/// The head of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHead {
    count: u16,
    len: u32,
}

impl PageHead {
    /// Bytes of the entries that follow, at most [`MAX_PAGE`].
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no page is empty")]
    pub fn len(&self) -> usize {
        self.len as usize
    }
}

/// How far a client has got with the table of its server, and what it needs to follow the changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pages {
    with_schemas: bool,
    /// Entries of the whole table, and those that came.
    entries: usize,
    came: usize,
    /// The numbers of those that were passed over.
    passed_over: HashSet<u16>,
}

impl Pages {
    /// Reads the body of an answer. `entries` is how many the whole table has, where the server says so.
    pub(crate) fn begin(
        mut body: &[u8],
        with_schemas: bool,
        entries: Option<u32>,
        types: &mut Vec<TypeEntry>,
    ) -> Result<Self, BadTable> {
        let most = entries.map_or(usize::MAX, |entries| entries as usize);
        if entries.is_some() && most > MAX_TYPES {
            return Err(BadTable("entries"));
        }
        let mut pages = Self { with_schemas, entries: most, ..Self::default() };
        while !body.is_empty() {
            pages.add(&mut body, types)?;
        }
        if entries.is_none() {
            pages.entries = pages.came;
        }
        Ok(pages)
    }

    /// Whether nothing more is to come.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.came == self.entries
    }

    /// Reads the head of the next page.
    ///
    /// # Errors
    /// What is wrong with it: it does not go on where the last one ended, has no entries, or more than are to come.
    pub fn head(&self, bytes: &[u8; PAGE_HEAD_LEN]) -> Result<PageHead, BadTable> {
        let [f0, f1, c0, c1, len @ ..] = *bytes;
        let (first, count) = (u16::from_le_bytes([f0, f1]), u16::from_le_bytes([c0, c1]));
        let len = u32::from_le_bytes(len);
        let fits = usize::from(count) <= self.entries - self.came && (1..=MAX_PAGE).contains(&(len as usize));
        if usize::from(first) != self.came || count == 0 || !fits {
            return Err(BadTable("page"));
        }
        Ok(PageHead { count, len })
    }

    /// Reads the entries of a page.
    ///
    /// # Errors
    /// What is wrong with them, or that there are more or fewer than its head says.
    pub fn page(&mut self, head: PageHead, mut bytes: &[u8], types: &mut Vec<TypeEntry>) -> Result<(), BadTable> {
        for _ in 0..head.count {
            self.add(&mut bytes, types)?;
        }
        if bytes.is_empty() { Ok(()) } else { Err(BadTable("page")) }
    }

    fn add(&mut self, bytes: &mut &[u8], types: &mut Vec<TypeEntry>) -> Result<(), BadTable> {
        if self.is_whole() {
            return Err(BadTable("entries"));
        }
        match take(bytes, self.with_schemas)? {
            Found::Entry(entry) => types.push(entry),
            Found::Unknown(message_type) => drop(self.passed_over.insert(message_type)),
            Found::Removed(_) => return Err(BadTable("types")),
        }
        self.came += 1;
        Ok(())
    }

    /// Changes the table `types` of this connection as the server says, which has so many `entries` then. What is wrong leaves
    /// it half changed: then the connection must be closed.
    ///
    /// # Errors
    /// The change cannot be read, takes out what is not there, adds a number that is, or leaves another number of entries.
    pub fn change(&mut self, mut bytes: &[u8], entries: u64, types: &mut Vec<TypeEntry>) -> Result<(), BadTable> {
        let mut numbers: HashSet<u16> = types.iter().map(|entry| entry.message_type).collect();
        let mut removed = HashSet::new();
        while !bytes.is_empty() {
            match take(&mut bytes, self.with_schemas)? {
                Found::Removed(message_type) => {
                    if numbers.remove(&message_type) {
                        removed.insert(message_type);
                    } else if !self.passed_over.remove(&message_type) {
                        return Err(BadTable("removed"));
                    }
                    self.came -= 1;
                }
                Found::Entry(TypeEntry { message_type, .. }) | Found::Unknown(message_type)
                    if numbers.contains(&message_type) || self.passed_over.contains(&message_type) =>
                {
                    return Err(BadTable("added"));
                }
                Found::Entry(entry) => {
                    numbers.insert(entry.message_type);
                    if removed.remove(&entry.message_type) {
                        types.retain(|known| known.message_type != entry.message_type);
                    }
                    types.push(entry);
                    self.came += 1;
                }
                Found::Unknown(message_type) => {
                    self.passed_over.insert(message_type);
                    self.came += 1;
                }
            }
            if self.came > MAX_TYPES {
                return Err(BadTable("entries"));
            }
        }
        types.retain(|entry| !removed.contains(&entry.message_type));
        self.entries = self.came;
        if self.came as u64 == entries { Ok(()) } else { Err(BadTable("entries")) }
    }
}

#[cfg(test)]
mod tests;
