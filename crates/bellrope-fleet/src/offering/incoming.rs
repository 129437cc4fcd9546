//! What comes from the caller of one call.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use bellrope::client::ErrorCode;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::{
    flow::{Assembly, MOST_PART, Owed, WINDOW, cost},
    frame::ItemPart,
};

/// What may wait for the handler of one call; more is against the rules.
const MOST_QUEUED: usize = WINDOW + WINDOW / 2;
/// What a permit of the room for assemblies stands for.
pub(super) const ROOM_UNIT: u64 = 1024;

/// What the importing server sent.
#[derive(Debug)]
pub(super) enum FromCaller {
    Data(ItemPart, Bytes),
    Finish,
}

impl FromCaller {
    /// What it takes of the room of its call while it waits.
    fn cost(&self) -> usize {
        match self {
            Self::Data(_, bytes) => cost(bytes.len()),
            Self::Finish => cost(0),
        }
    }
}

/// Where it arrives.
#[derive(Debug)]
pub(super) struct Door {
    events: mpsc::UnboundedSender<FromCaller>,
    queued: Arc<AtomicUsize>,
}

impl Door {
    /// `false` if it is more than may come.
    #[must_use]
    pub(super) fn put(&self, event: FromCaller) -> bool {
        let is_too_long = matches!(&event, FromCaller::Data(_, bytes) if bytes.len() > MOST_PART);
        if is_too_long || self.queued.fetch_add(event.cost(), Relaxed) > MOST_QUEUED {
            return false;
        }
        // The handler may have ended meanwhile.
        let _ = self.events.send(event);
        true
    }
}

/// Why nothing more can be taken: a code and words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stop(pub(super) ErrorCode, pub(super) &'static str);

/// Takes items, and says what credit that gives back.
#[derive(Debug)]
pub(super) struct Incoming {
    events: mpsc::UnboundedReceiver<FromCaller>,
    queued: Arc<AtomicUsize>,
    assembly: Assembly,
    owed: Owed,
    /// For items in more than one part, of all calls.
    room: Arc<Semaphore>,
    /// What this call holds of it.
    held: Option<OwnedSemaphorePermit>,
    /// Most bytes of an item.
    most: u64,
}

/// What came next.
#[derive(Debug)]
pub(super) enum Next {
    /// A part that ends no item.
    Part,
    Item(Vec<u8>),
    Finish,
}

/// A door, and what is behind it. `most` is the most bytes of an item.
pub(super) fn channel(room: &Arc<Semaphore>, most: u64) -> (Door, Incoming) {
    let (sender, events) = mpsc::unbounded_channel();
    let queued = Arc::<AtomicUsize>::default();
    let door = Door { events: sender, queued: Arc::clone(&queued) };
    let (assembly, owed) = (Assembly::default(), Owed::default());
    (door, Incoming { events, queued, assembly, owed, room: Arc::clone(room), held: None, most })
}

impl Incoming {
    /// Waits for what comes next. When the caller is gone, the task that waits is ended.
    pub(super) async fn next(&mut self) -> Result<(Next, usize), Stop> {
        let event = self.events.recv().await;
        self.queued.fetch_sub(event.as_ref().map_or(0, FromCaller::cost), Relaxed);
        match event {
            Some(FromCaller::Data(part, bytes)) => Ok((self.part(part, &bytes)?, bytes.len())),
            Some(FromCaller::Finish) => Ok((Next::Finish, 0)),
            None => std::future::pending().await,
        }
    }

    /// Takes a part.
    pub(super) fn part(&mut self, part: ItemPart, bytes: &[u8]) -> Result<Next, Stop> {
        if self.assembly.begins_large(part, bytes) {
            if part.size > self.most {
                return Err(Stop(ErrorCode::MessageTooLarge, "the message is larger than the server takes"));
            }
            let units = u32::try_from(part.size / ROOM_UNIT + 1).unwrap_or(u32::MAX);
            self.held = None;
            let held = Arc::clone(&self.room).try_acquire_many_owned(units);
            self.held = Some(held.map_err(|_| {
                Stop(ErrorCode::Rejected, "the instance has no room for so large a message (fleet.assembly_bytes)")
            })?);
        }
        let item = self.assembly.take(part, bytes);
        match item.map_err(|_| Stop(ErrorCode::Unknown, "a part of what the caller sent is missing"))? {
            Some(item) => Ok(Next::Item(item)),
            None => Ok(Next::Part),
        }
    }

    /// A part of so many bytes is dealt with. Answers with the credit to give back now.
    pub(super) fn dealt_with(&mut self, len: usize) -> Option<u32> {
        self.owed.add(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_again_and_again_counts_though_it_holds_nothing() {
        let (door, _incoming) = channel(&Arc::new(Semaphore::new(1)), 1);
        let taken = (0..1_000_000).take_while(|_| door.put(FromCaller::Finish)).count();
        assert!(taken <= MOST_QUEUED / cost(0) + 1, "{taken}");
        let (door, _incoming) = channel(&Arc::new(Semaphore::new(1)), 1);
        let long = Bytes::from(vec![0; MOST_PART + 1]);
        let is_put = door.put(FromCaller::Data(ItemPart { seq: 0, size: 1 << 20 }, long));
        assert!(!is_put, "it would cost as much as a part does, and hold any number of bytes");
    }
}
