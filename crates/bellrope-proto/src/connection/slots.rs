use std::collections::HashMap;

use super::flow::{Inflow, Outflow};
use crate::style::Style;

/// Bits of a call id that say which slot it has; the rest is a serial number, so that no id is ever used again.
const INDEX_BITS: u32 = 16;

/// The most calls a client can have under way, whatever the server allows.
pub(super) const MAX_SLOTS: u32 = (1 << INDEX_BITS) - 1;

/// A call under way, as the client sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    /// The call's id, [`FREE`] if the slot is.
    id: u64,
    /// Position right behind its request, [`u64::MAX`] while that has not been sent whole.
    pub(super) end: u64,
    pub(super) style: Style,
    /// Of a free slot: the one that became free before it, or [`NONE`].
    next_free: u16,
}

/// The id that no call has: its slot would be one more than there are.
const FREE: u64 = u64::MAX;

/// No slot: there are fewer than this.
const NONE: u16 = MAX_SLOTS as u16;

/// The calls under way, found by id in constant time.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    serial: u64,
    /// The slot that became free last, or [`NONE`].
    free: u16,
    under_way: usize,
    limit: usize,
    /// The receiving ends of streams from the server.
    inflows: HashMap<u64, Inflow>,
    /// The sending ends of streams to the server.
    outflows: HashMap<u64, Outflow>,
}

impl Slots {
    pub(super) fn new(limit: u32) -> Self {
        let limit = limit.min(MAX_SLOTS) as usize;
        Self {
            slots: Vec::new(),
            serial: 0,
            free: NONE,
            under_way: 0,
            limit,
            inflows: HashMap::new(),
            outflows: HashMap::new(),
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.under_way
    }

    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.under_way >= self.limit
    }

    /// The id that the next call will have.
    #[inline]
    pub(super) fn next_id(&self) -> u64 {
        let index = if self.free == NONE { self.slots.len() as u64 } else { u64::from(self.free) };
        (self.serial + 1) << INDEX_BITS | index
    }

    /// Takes the slot of this id, which is the one that [`Self::next_id`] announced. Only to be called when not full.
    #[inline(always)]
    pub(super) fn insert(&mut self, id: u64, end: u64, style: Style, window: u32) {
        debug_assert_eq!(id, self.next_id());
        self.serial += 1;
        self.under_way += 1;
        match self.slots.get_mut(index_of(id)) {
            Some(slot) => {
                self.free = slot.next_free;
                (slot.id, slot.end, slot.style) = (id, end, style);
            }
            None => self.slots.push(Slot { id, end, style, next_free: NONE }),
        }
        if style.streams() {
            self.inflows.insert(id, Inflow::new(window));
        }
        if style.uploads() {
            self.outflows.insert(id, Outflow::new(window));
        }
    }

    /// Notes that the request of a call has been sent whole, and ends at this position.
    pub(super) fn sent(&mut self, id: u64, end: u64) {
        if self.find(id).is_some() {
            self.slots[index_of(id)].end = end;
        }
    }

    #[inline]
    pub(super) fn find(&self, id: u64) -> Option<&Slot> {
        self.slots.get(index_of(id)).filter(|slot| slot.id == id)
    }

    /// The receiving end of a stream from the server.
    pub(super) fn inflow(&mut self, id: u64) -> Option<&mut Inflow> {
        self.inflows.get_mut(&id)
    }

    /// The sending end of a stream to the server, until that has been ended.
    pub(super) fn outflow(&mut self, id: u64) -> Option<&mut Outflow> {
        self.outflows.get_mut(&id)
    }

    /// Notes that the stream to the server has been ended.
    pub(super) fn end_outflow(&mut self, id: u64) {
        self.outflows.remove(&id);
    }

    /// The slot of a call that ends with one response and nothing else, to be [released](Taken::release).
    #[inline(always)]
    pub(super) fn unary(&mut self, id: u64) -> Option<Taken<'_>> {
        let Self { slots, free, under_way, .. } = self;
        let slot = slots.get_mut(index_of(id))?;
        if slot.id != id || slot.style != Style::Unary {
            return None;
        }
        Some(Taken { slot, free, under_way })
    }

    /// Forgets a call. Answers whether it was under way.
    #[inline(always)]
    pub(super) fn remove(&mut self, id: u64) -> bool {
        let Self { slots, free, under_way, .. } = self;
        let Some(slot) = slots.get_mut(index_of(id)).filter(|slot| slot.id == id) else { return false };
        let style = slot.style;
        Taken { slot, free, under_way }.release();
        if style.streams() {
            self.inflows.remove(&id);
        }
        if style.uploads() {
            self.outflows.remove(&id);
        }
        true
    }

    /// The ids of all calls under way.
    pub(super) fn ids(&self) -> impl Iterator<Item = u64> + '_ {
        self.slots.iter().map(|slot| slot.id).filter(|id| *id != FREE)
    }
}

/// The slot of a call under way.
pub(super) struct Taken<'a> {
    slot: &'a mut Slot,
    free: &'a mut u16,
    under_way: &'a mut usize,
}

impl Taken<'_> {
    /// Frees the slot. The call has no streams, or they are forgotten beside this.
    #[inline(always)]
    pub(super) fn release(self) {
        let index = index_of(self.slot.id) as u16;
        (self.slot.id, self.slot.next_free) = (FREE, *self.free);
        *self.free = index;
        *self.under_way -= 1;
    }
}

pub(super) fn index_of(id: u64) -> usize {
    (id & u64::from(MAX_SLOTS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fault 38.
    #[test]
    fn ids_are_never_used_again_and_slots_are() {
        let mut slots = Slots::new(2);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            let first = slots.next_id();
            slots.insert(first, 1, Style::Unary, 1);
            let second = slots.next_id();
            slots.insert(second, 2, Style::Duplex, 1);
            assert!(slots.is_full());
            assert!(seen.insert(first) && seen.insert(second));
            assert!(index_of(first) != index_of(second) && index_of(first).max(index_of(second)) < 2);
            assert_eq!(slots.find(first).unwrap().end, 1);
            assert!(slots.remove(first) && !slots.remove(first));
            assert!(slots.find(second).is_some());
            slots.remove(second);
        }
        assert_eq!((slots.len(), slots.slots.len()), (0, 2));
        assert!(slots.inflows.is_empty() && slots.outflows.is_empty());
        assert!(slots.find(0).is_none() && slots.find(u64::MAX).is_none());
    }
}
