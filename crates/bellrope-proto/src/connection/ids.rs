use std::collections::HashSet;

/// Ids of calls. Most connections never have any of those that are answered later, so there is a word for them until then.
#[derive(Debug, Default)]
#[expect(clippy::box_collection, reason = "a set has six words, and most connections have none")]
pub(super) struct Ids(Option<Box<HashSet<u64>>>);

impl Ids {
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |ids| ids.len())
    }

    pub(super) fn contains(&self, id: u64) -> bool {
        self.0.as_ref().is_some_and(|ids| ids.contains(&id))
    }

    pub(super) fn insert(&mut self, id: u64) {
        self.0.get_or_insert_default().insert(id);
    }

    /// Answers whether it was there.
    pub(super) fn remove(&mut self, id: u64) -> bool {
        self.0.as_mut().is_some_and(|ids| ids.remove(&id))
    }
}
