//! Memory that ended calls leave for later ones. It does not know what a queue holds.

use std::collections::VecDeque;

/// The most of each kind that is kept.
const MOST: usize = 16;
/// Bytes of the largest buffer that is kept as a small one.
const LARGEST: usize = 64 * 1024;
/// Bytes of all larger ones together. Fresh memory of that size costs a page fault for every 4 KiB, more than its copy.
const LARGE_BYTES: usize = 4 * 1024 * 1024;

/// Queues and buffers of calls that have ended, for reuse: a small call allocates nothing.
#[derive(Debug)]
pub(crate) struct FreeList<E> {
    events: Vec<VecDeque<E>>,
    replies: Vec<Vec<u8>>,
    /// Larger than [`LARGEST`].
    large: Vec<Vec<u8>>,
}

impl<E> Default for FreeList<E> {
    fn default() -> Self {
        Self { events: Vec::new(), replies: Vec::new(), large: Vec::new() }
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

    /// Puts a buffer for a reply of so many bytes that comes in parts in the place of this one, if there is one that is neither
    /// too small nor far too large. Its content means nothing.
    pub(super) fn exchange(&mut self, reply: &mut Vec<u8>, size: usize) {
        let fits = |reply: &Vec<u8>| (size..=4 * size).contains(&reply.capacity());
        if fits(reply) {
            return;
        }
        if let Some(fitting) = self.large.iter().position(fits) {
            let large = self.large.swap_remove(fitting);
            self.keep_reply(std::mem::replace(reply, large));
        }
    }

    /// Takes a buffer that is no longer used.
    pub(super) fn keep_reply(&mut self, reply: Vec<u8>) {
        match reply.capacity() {
            0 => {}
            1..=LARGEST if self.replies.len() < MOST => self.replies.push(reply),
            1..=LARGEST => {}
            size => {
                let kept: usize = self.large.iter().map(Vec::capacity).sum();
                if kept + size <= LARGE_BYTES {
                    self.large.push(reply);
                }
            }
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
        assert_eq!((0..).take_while(|_| free_list.reply().capacity() == 100).count(), MOST);
        (0..100).for_each(|_| free_list.keep_events(VecDeque::with_capacity(4)));
        free_list.keep_events(VecDeque::with_capacity(10 * MOST));
        free_list.keep_events(VecDeque::from([1]));
        assert_eq!(free_list.events.len(), MOST);
        assert!(free_list.events().is_empty());
    }

    #[test]
    fn large_buffers_are_kept_up_to_a_few_megabytes_and_given_where_they_fit() {
        let mut free_list = FreeList::<u8>::default();
        (0..100).for_each(|_| free_list.keep_reply(Vec::with_capacity(1 << 20)));
        free_list.keep_reply(Vec::with_capacity(LARGE_BYTES + 1));
        assert_eq!(free_list.large.len(), 4);
        let mut reply = Vec::with_capacity(100);
        for size in [(1 << 20) + 1, 100_000] {
            free_list.exchange(&mut reply, size);
            assert_eq!(reply.capacity(), 100, "too small, or far too large");
        }
        free_list.exchange(&mut reply, 1_000_000);
        assert_eq!((reply.capacity(), free_list.large.len()), (1 << 20, 3));
        free_list.exchange(&mut reply, 1_000_000);
        assert_eq!((free_list.reply().capacity(), free_list.large.len()), (100, 3), "what fits stays where it is");
    }
}
