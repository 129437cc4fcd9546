//! Memory that ended calls leave for later ones. It does not know what a queue holds.

use std::collections::VecDeque;

/// The most of each kind that is kept.
const MOST: usize = 16;
/// Bytes of the largest buffer that is kept.
const LARGEST: usize = 64 * 1024;

/// Queues and buffers of calls that have ended, for reuse: a small call allocates nothing.
#[derive(Debug)]
pub(crate) struct FreeList<E> {
    events: Vec<VecDeque<E>>,
    replies: Vec<Vec<u8>>,
}

impl<E> Default for FreeList<E> {
    fn default() -> Self {
        Self { events: Vec::new(), replies: Vec::new() }
    }
}

impl<E> FreeList<E> {
    /// An empty queue for the events of a call.
    pub(super) fn events(&mut self) -> VecDeque<E> {
        self.events.pop().unwrap_or_default()
    }

    /// Takes the queue of a call that has ended.
    pub(super) fn keep_events(&mut self, events: VecDeque<E>) {
        if events.is_empty() && events.capacity() <= MOST && self.events.len() < MOST {
            self.events.push(events);
        }
    }

    /// A buffer for a reply. Its content means nothing.
    pub(super) fn reply(&mut self) -> Vec<u8> {
        self.replies.pop().unwrap_or_default()
    }

    /// Takes a buffer that is no longer used.
    pub(super) fn keep_reply(&mut self, reply: Vec<u8>) {
        if (1..=LARGEST).contains(&reply.capacity()) && self.replies.len() < MOST {
            self.replies.push(reply);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_small_few_and_used_again() {
        let mut free_list = FreeList::<u8>::default();
        (0..100).for_each(|_| free_list.keep_reply(Vec::with_capacity(100)));
        free_list.keep_reply(Vec::new());
        free_list.keep_reply(Vec::with_capacity(LARGEST + 1));
        assert_eq!((0..).take_while(|_| free_list.reply().capacity() == 100).count(), MOST);
        (0..100).for_each(|_| free_list.keep_events(VecDeque::with_capacity(4)));
        free_list.keep_events(VecDeque::with_capacity(10 * MOST));
        free_list.keep_events(VecDeque::from([1]));
        assert_eq!(free_list.events.len(), MOST);
        assert!(free_list.events().is_empty());
    }
}
