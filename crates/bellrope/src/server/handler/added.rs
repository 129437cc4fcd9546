//! Message types that come and go while the server runs.
//!
//! Their names and numbers are one value that is never changed, only replaced: whoever holds it, a connection for instance,
//! knows what its client was told. A number is given to one name for ever, so a client that has not heard of a change never
//! calls something else. It knows no handlers.

use std::sync::Arc;

use bellrope_proto::{
    handshake::{SchemaMark, Style, TypeEntry},
    table::TypeChange,
};

/// All of them, in the order of their numbers, with those that are gone.
#[derive(Debug, Default)]
pub(crate) struct AddedTypes(pub(super) Vec<AddedType>);

/// One that was added.
#[derive(Debug, Clone)]
pub(crate) struct AddedType {
    pub(super) name: Arc<str>,
    pub(super) style: Style,
    pub(super) schema: SchemaMark,
    /// How often a request counts in the buffer budget.
    pub(super) weight: u32,
    /// Whether it is there, or gone.
    pub(super) is_there: bool,
}

impl AddedTypes {
    /// The type with this number. `first` is how many numbers come before theirs.
    pub(super) fn of(&self, first: usize, message_type: u16) -> Option<&AddedType> {
        self.0.get(usize::from(message_type).wrapping_sub(1).checked_sub(first)?)
    }

    pub(super) fn largest_weight(&self) -> u32 {
        self.0.iter().map(|added| added.weight).max().unwrap_or(1)
    }

    /// Those that are there, for the table. `first` is how many numbers come before theirs.
    pub(super) fn entries(&self, first: usize) -> impl Iterator<Item = TypeEntry> {
        let there = self.0.iter().enumerate().filter(|(_, added)| added.is_there);
        there.map(move |(place, added)| added.entry(first, place))
    }

    fn count(&self) -> usize {
        self.0.iter().filter(|added| added.is_there).count()
    }

    /// What a client that knows these types is to be told so that it knows `now`: the place of each change, and how many entries
    /// its table has after it. `first` is how many numbers come before theirs.
    pub(crate) fn changes_to<'a>(
        &'a self,
        now: &'a Self,
        first: usize,
    ) -> impl Iterator<Item = (usize, TypeChange, u64)> + 'a {
        let mut entries = (first + self.count()) as u64;
        now.0.iter().enumerate().filter_map(move |(place, added)| {
            let was_there = self.0.get(place).is_some_and(|known| known.is_there);
            let change = match (was_there, added.is_there) {
                (false, true) => {
                    entries += 1;
                    TypeChange::Added(added.entry(first, place))
                }
                (true, false) => {
                    entries -= 1;
                    TypeChange::Removed((first + place + 1) as u16)
                }
                _ => return None,
            };
            Some((place, change, entries))
        })
    }

    /// What a client knows that knew these types and was told the changes to `now` of the first so many places.
    pub(crate) fn as_far_as(self: &Arc<Self>, now: &Self, places: usize) -> Arc<Self> {
        if places == 0 {
            return Arc::clone(self);
        }
        let rest = self.0.get(places..).unwrap_or_default();
        Arc::new(Self(now.0[..places].iter().chain(rest).cloned().collect()))
    }
}

impl AddedType {
    fn entry(&self, first: usize, place: usize) -> TypeEntry {
        TypeEntry {
            message_type: (first + place + 1) as u16,
            style: self.style,
            name: self.name.to_string(),
            schema: self.schema,
        }
    }
}
