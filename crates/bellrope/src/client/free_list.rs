use std::collections::VecDeque;

use super::shared::Event;

/// The most of each kind that is kept.
const MOST: usize = 16;
/// Bytes of the largest buffer that is kept.
const LARGEST: usize = 64 * 1024;

/// What calls that are over have left for the next ones, so that a small call allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Spares {
    events: Vec<VecDeque<Event>>,
    replies: Vec<Vec<u8>>,
}

impl Spares {
    /// An empty queue of what comes for a call.
    pub(super) fn events(&mut self) -> VecDeque<Event> {
        self.events.pop().unwrap_or_default()
    }

    /// Takes the queue of a call that is over.
    pub(super) fn keep_events(&mut self, events: VecDeque<Event>) {
        if events.is_empty() && events.capacity() <= MOST && self.events.len() < MOST {
            self.events.push(events);
        }
    }

    /// A buffer for a reply. What is in it means nothing.
    pub(super) fn reply(&mut self) -> Vec<u8> {
        self.replies.pop().unwrap_or_default()
    }

    /// Takes a buffer that is done with.
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
        let mut spares = Spares::default();
        (0..100).for_each(|_| spares.keep_reply(Vec::with_capacity(100)));
        spares.keep_reply(Vec::new());
        spares.keep_reply(Vec::with_capacity(LARGEST + 1));
        assert_eq!((0..).take_while(|_| spares.reply().capacity() == 100).count(), MOST);
        (0..100).for_each(|_| spares.keep_events(VecDeque::with_capacity(4)));
        spares.keep_events(VecDeque::with_capacity(10 * MOST));
        spares.keep_events(VecDeque::from([Event::End]));
        assert_eq!(spares.events.len(), MOST);
        assert!(spares.events().is_empty());
    }
}
