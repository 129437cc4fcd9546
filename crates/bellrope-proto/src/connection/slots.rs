use std::collections::HashMap;

use super::Credit;

/// Bits of a call id that say which slot it has; the rest is a serial number, so that no id is ever used again.
const INDEX_BITS: u32 = 16;

/// The most calls a client can have under way, whatever the server allows.
pub(super) const MAX_SLOTS: u32 = (1 << INDEX_BITS) - 1;

/// A call under way, as the client sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    /// The call's id, 0 if the slot is free.
    id: u64,
    /// Position right behind its request.
    pub(super) end: u64,
    /// Whether it is answered with a stream.
    pub(super) stream: bool,
}

/// The receiving end of a stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inflow {
    pub(super) credit: Credit,
    /// Number of the chunk due next.
    pub(super) next: u32,
    /// Credit used by chunks that the application has consumed and that was not returned yet.
    pub(super) owed: i64,
}

/// The calls under way, found by id in constant time.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u16>,
    serial: u64,
    limit: usize,
    streams: HashMap<u64, Inflow>,
}

impl Slots {
    pub(super) fn new(limit: u32) -> Self {
        let limit = limit.min(MAX_SLOTS) as usize;
        Self { slots: Vec::new(), free: Vec::new(), serial: 0, limit, streams: HashMap::new() }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty() && self.slots.len() >= self.limit
    }

    /// The id that the next call will have.
    #[inline]
    pub(super) fn next_id(&self) -> u64 {
        let index = self.free.last().map_or(self.slots.len() as u64, |index| u64::from(*index));
        (self.serial + 1) << INDEX_BITS | index
    }

    /// Takes the slot that [`Self::next_id`] announced. Only to be called when not full.
    #[inline]
    pub(super) fn insert(&mut self, end: u64, stream: Option<Inflow>) -> u64 {
        let id = self.next_id();
        self.serial += 1;
        let slot = Slot { id, end, stream: stream.is_some() };
        match self.free.pop() {
            Some(index) => self.slots[usize::from(index)] = slot,
            None => self.slots.push(slot),
        }
        if let Some(inflow) = stream {
            self.streams.insert(id, inflow);
        }
        id
    }

    #[inline]
    pub(super) fn find(&self, id: u64) -> Option<&Slot> {
        self.slots.get(index_of(id)).filter(|slot| slot.id == id && id != 0)
    }

    /// The receiving end of a stream under way.
    pub(super) fn stream(&mut self, id: u64) -> Option<&mut Inflow> {
        self.streams.get_mut(&id)
    }

    /// Forgets a call. Answers whether it was under way.
    #[inline]
    pub(super) fn remove(&mut self, id: u64) -> bool {
        let Some(Slot { stream, .. }) = self.find(id).copied() else { return false };
        self.slots[index_of(id)].id = 0;
        self.free.push(index_of(id) as u16);
        if stream {
            self.streams.remove(&id);
        }
        true
    }

    /// The ids of all calls under way.
    pub(super) fn ids(&self) -> impl Iterator<Item = u64> + '_ {
        self.slots.iter().map(|slot| slot.id).filter(|id| *id != 0)
    }
}

fn index_of(id: u64) -> usize {
    (id & u64::from(MAX_SLOTS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_never_used_again_and_slots_are() {
        let mut slots = Slots::new(2);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            let first = slots.insert(1, None);
            let second = slots.insert(2, None);
            assert!(slots.is_full());
            assert!(seen.insert(first) && seen.insert(second));
            assert_eq!(slots.find(first).unwrap().end, 1);
            assert!(slots.remove(first) && !slots.remove(first));
            assert!(slots.find(second).is_some());
            slots.remove(second);
        }
        assert_eq!((slots.len(), slots.slots.len()), (0, 2));
        assert!(slots.find(0).is_none() && slots.find(u64::MAX).is_none());
    }
}
