//! Streams from the client, as the server keeps them: what may come, and which of them credit is due for.

use std::collections::{HashMap, VecDeque};

use super::flow::Inflow;

/// Streams from the client to open calls. Most connections never have any, so there is a word for them until then.
#[derive(Debug, Default)]
pub(super) struct Uploads(Option<Box<Flows>>);

#[derive(Debug, Default)]
struct Flows {
    inflows: HashMap<u64, Inflow>,
    /// Bytes that came for any of them.
    came: u64,
    /// Those whose client is to be given credit as soon as there is room to say so. Each stands here once at the most.
    due: VecDeque<u64>,
}

impl Uploads {
    pub(super) fn open(&mut self, id: u64, window: u32) {
        self.0.get_or_insert_default().inflows.insert(id, Inflow::new(window));
    }

    pub(super) fn get(&self, id: u64) -> Option<&Inflow> {
        self.0.as_ref()?.inflows.get(&id)
    }

    /// Notes that nothing more may come. Credit that was due is not.
    pub(super) fn close(&mut self, id: u64) {
        let Some(flows) = &mut self.0 else { return };
        if flows.inflows.remove(&id).is_some_and(|inflow| inflow.due().is_some()) {
            flows.due.retain(|due| *due != id);
        }
    }

    /// Notes that the handler has consumed a chunk. Answers whether credit has become due by that.
    pub(super) fn consumed(&mut self, id: u64, len: usize) -> bool {
        let Some(flows) = &mut self.0 else { return false };
        let due = flows.inflows.get_mut(&id).is_some_and(|inflow| inflow.consumed(len));
        if due {
            flows.due.push_back(id);
        }
        due
    }

    /// Notes a chunk that was checked.
    pub(super) fn took(&mut self, id: u64, len: usize) {
        let Some(flows) = &mut self.0 else { return };
        if let Some(inflow) = flows.inflows.get_mut(&id) {
            inflow.took(len);
            flows.came = flows.came.wrapping_add(len as u64);
        }
    }

    /// How many bytes came, if there is a stream of which the handler has consumed all that did.
    pub(super) fn awaited(&self) -> Option<u64> {
        let flows = self.0.as_ref()?;
        flows.inflows.values().any(Inflow::is_consumed).then_some(flows.came)
    }

    /// Whether credit is due for any.
    #[inline(always)]
    pub(super) fn any_due(&self) -> bool {
        self.0.as_ref().is_some_and(|flows| !flows.due.is_empty())
    }

    /// The stream whose client is to be given credit next, and how much.
    pub(super) fn due(&self) -> Option<(u64, u64)> {
        let flows = self.0.as_ref()?;
        let id = *flows.due.front()?;
        let amount = flows.inflows.get(&id).and_then(Inflow::due);
        debug_assert!(amount.is_some(), "what is not due is not listed");
        Some((id, amount.unwrap_or(0)))
    }

    /// Notes that the client of the stream whose turn it was has been told.
    pub(super) fn returned(&mut self) {
        let Some(flows) = &mut self.0 else { return };
        if let Some(inflow) = flows.due.pop_front().and_then(|id| flows.inflows.get_mut(&id)) {
            inflow.returned();
        }
    }

    /// How many wait for their credit to be told.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.0.as_ref().map_or(0, |flows| flows.due.len())
    }
}
