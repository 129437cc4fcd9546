//! Streams from the client, as the server keeps them: what may come, and which of them credit is due for.

use std::collections::{HashMap, VecDeque};

use super::flow::Inflow;

/// Streams from the client to open calls.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    inflows: HashMap<u64, Inflow>,
    /// Bytes that came for any of them.
    came: u64,
    /// Those whose client is to be given credit as soon as there is room to say so. Each stands here once at the most.
    due: VecDeque<u64>,
}

impl Uploads {
    pub(super) fn open(&mut self, id: u64, window: u32) {
        self.inflows.insert(id, Inflow::new(window));
    }

    pub(super) fn get(&self, id: u64) -> Option<&Inflow> {
        self.inflows.get(&id)
    }

    /// Notes that nothing more may come. Credit that was due is not.
    pub(super) fn close(&mut self, id: u64) {
        if self.inflows.remove(&id).is_some_and(|inflow| inflow.due().is_some()) {
            self.due.retain(|due| *due != id);
        }
    }

    /// Notes that the handler has consumed a chunk. Answers whether credit has become due by that.
    pub(super) fn consumed(&mut self, id: u64, len: usize) -> bool {
        let due = self.inflows.get_mut(&id).is_some_and(|inflow| inflow.consumed(len));
        if due {
            self.due.push_back(id);
        }
        due
    }

    /// Notes a chunk that was checked.
    pub(super) fn took(&mut self, id: u64, len: usize) {
        if let Some(inflow) = self.inflows.get_mut(&id) {
            inflow.took(len);
            self.came = self.came.wrapping_add(len as u64);
        }
    }

    /// How many bytes came, if there is a stream of which the handler has consumed all that did.
    pub(super) fn awaited(&self) -> Option<u64> {
        self.inflows.values().any(Inflow::is_consumed).then_some(self.came)
    }

    /// Whether credit is due for any.
    #[inline(always)]
    pub(super) fn any_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// The stream whose client is to be given credit next, and how much.
    pub(super) fn due(&self) -> Option<(u64, u64)> {
        let id = *self.due.front()?;
        let amount = self.inflows.get(&id).and_then(Inflow::due);
        debug_assert!(amount.is_some(), "what is not due is not listed");
        Some((id, amount.unwrap_or(0)))
    }

    /// Notes that the client of the stream whose turn it was has been told.
    pub(super) fn returned(&mut self) {
        if let Some(inflow) = self.due.pop_front().and_then(|id| self.inflows.get_mut(&id)) {
            inflow.returned();
        }
    }

    /// How many wait for their credit to be told.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.due.len()
    }
}
