//! Buffers used again: of large messages, because fresh ones cost a page fault for every 4 KiB, and of small replies that
//! had to wait for room, so that a client which is a little behind costs no allocation.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bellrope_proto::BufferBudget;

/// Buffers kept at once, of whatever size: one for a request and one for its reply.
const FREE: usize = 2;
/// Bytes up to which there may be more of them: a connection with many large calls under way has one that comes in, and
/// replies of a megabyte and one more that go out.
const FREE_BYTES: usize = 4 * 1024 * 1024;
/// Small or not, no more than so many.
const MOST_FREE: usize = 16;
/// From here on a buffer is a large one.
const LARGE: usize = 64 * 1024;
/// Small buffers kept at once, and the largest that is kept as one. What is in between is rare.
const SMALL_FREE: usize = 16;
const SMALL: usize = 8 * 1024;

/// A few buffers between uses, for all workers. They count for nothing in the budget, but large ones are there only as long as
/// it has as much room left, and all go when a worker has slept for a second.
#[derive(Debug)]
pub(crate) struct SpareBuffers {
    free: Mutex<FreeLists>,
    budget: Arc<BufferBudget>,
}

#[derive(Debug, Default)]
struct FreeLists {
    /// Those used last are at the end.
    large: Vec<Vec<u8>>,
    small: Vec<Vec<u8>>,
}

impl SpareBuffers {
    pub(crate) fn new(budget: &Arc<BufferBudget>) -> Self {
        Self { free: Mutex::default(), budget: Arc::clone(budget) }
    }

    /// A buffer that holds `len` bytes without growing. What is in it means nothing, and a fresh one has nothing in it: memory
    /// costs when it is first used, and whoever announces a message may never send it. `None`: the system gives us no memory of
    /// that size, as where a limit on data (`RLIMIT_DATA`) is lower than the budget.
    pub(crate) fn take(&self, len: usize) -> Option<Vec<u8>> {
        let mut buffer = self.reuse(len);
        buffer.truncate(len);
        buffer.try_reserve_exact(len - buffer.len()).ok()?;
        Some(buffer)
    }

    /// An empty buffer that holds `len` bytes without growing. `None`: as for [`Self::take`].
    pub(crate) fn take_empty(&self, len: usize) -> Option<Vec<u8>> {
        let mut buffer = self.reuse(len);
        buffer.clear();
        buffer.try_reserve_exact(len).ok()?;
        Some(buffer)
    }

    /// An empty buffer for a small reply, which may have to grow.
    pub(crate) fn take_small(&self) -> Vec<u8> {
        let mut buffer = self.lock().small.pop().unwrap_or_default();
        buffer.clear();
        buffer
    }

    /// Takes a buffer back.
    pub(crate) fn put(&self, buffer: Vec<u8>) {
        let mut free = self.lock();
        let FreeLists { large, small } = &mut *free;
        match buffer.capacity() {
            1..=SMALL if small.len() < SMALL_FREE => small.push(buffer),
            LARGE.. => {
                let kept = |large: &[Vec<u8>]| large.iter().map(Vec::capacity).sum::<usize>() + buffer.capacity();
                // Those that were not used for longest go: messages of another size have come.
                while large.len() == MOST_FREE || large.len() >= FREE && kept(large) > FREE_BYTES {
                    large.remove(0);
                }
                if self.budget.used() + kept(large) as u64 <= self.budget.limit() {
                    large.push(buffer);
                }
            }
            _ => {}
        }
    }

    /// Lets go of the large free buffers if the budget has no room for them any more: to be called when much of it was given out.
    pub(crate) fn make_way(&self) {
        let mut free = self.lock();
        let kept: usize = free.large.iter().map(Vec::capacity).sum();
        if kept > 0 && self.budget.used() + kept as u64 > self.budget.limit() {
            free.large.clear();
        }
    }

    /// Lets go of all free buffers.
    pub(crate) fn clear(&self) {
        *self.lock() = FreeLists::default();
    }

    /// The smallest free buffer that is large enough, but not one that is far too large.
    fn reuse(&self, len: usize) -> Vec<u8> {
        let mut free = self.lock();
        let large = &mut free.large;
        let fitting = large.iter().enumerate().filter(|(_, buffer)| (len..=4 * len).contains(&buffer.capacity()));
        let smallest = fitting.min_by_key(|(_, buffer)| buffer.capacity()).map(|(index, _)| index);
        smallest.map(|index| large.remove(index)).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, FreeLists> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_messages_of_another_size_their_buffers_are_used_again() {
        let buffers = SpareBuffers::new(&BufferBudget::new(100 << 20));
        let two = |len: usize| {
            let (request, reply) = (buffers.take(len).unwrap(), buffers.take(len).unwrap());
            let places = [request.as_ptr(), reply.as_ptr()];
            buffers.put(request);
            buffers.put(reply);
            places
        };
        for mib in [1, 8, 1, 8] {
            let fresh = two(mib << 20);
            for _ in 0..3 {
                assert!(two(mib << 20).iter().all(|place| fresh.contains(place)), "{mib} MiB");
            }
        }
        assert_eq!(buffers.lock().large.len(), FREE);
    }

    #[test]
    fn no_large_buffer_is_kept_where_the_budget_is_used_or_comes_to_be() {
        let budget = BufferBudget::new(1_000_000);
        let buffers = SpareBuffers::new(&budget);
        let used = budget.reserve(700_001).unwrap();
        buffers.put(vec![7; 300_000]);
        assert!(buffers.lock().large.is_empty());
        drop(used);
        buffers.put(vec![7; 600_000]);
        buffers.put(vec![7; 500_000]);
        assert_eq!(buffers.lock().large.len(), 1);
        let _most = budget.reserve(400_000).unwrap();
        buffers.make_way();
        assert_eq!(buffers.lock().large.len(), 1, "both have room");
        let _rest = budget.reserve(1).unwrap();
        buffers.make_way();
        assert!(buffers.lock().large.is_empty());
    }

    #[test]
    fn a_buffer_is_used_again_where_it_fits_and_few_are_kept() {
        let buffers = SpareBuffers::new(&BufferBudget::new(1_000_000));
        for len in [100_000, 200_000] {
            buffers.put(vec![7; len]);
        }
        let again = buffers.take(150_000).unwrap();
        assert!(again.len() == 150_000 && again.capacity() == 200_000 && again[0] == 7);
        assert!(buffers.take(400_000).unwrap().is_empty(), "nothing is cleared before it is used");
        assert!(buffers.take(1000).unwrap().capacity() < 100_000, "a far too large one is left alone");
        assert!(buffers.take_empty(90_000).unwrap().is_empty());
        assert!(buffers.take(1 << 60).is_none() && buffers.take_empty(1 << 60).is_none());
        buffers.clear();
        assert!(buffers.lock().large.is_empty());
    }

    #[test]
    fn of_large_buffers_two_are_kept_and_more_where_they_are_small_together() {
        let buffers = SpareBuffers::new(&BufferBudget::new(1 << 30));
        (0..100).for_each(|_| buffers.put(vec![7; 1 << 20]));
        assert_eq!(buffers.lock().large.len(), FREE_BYTES >> 20);
        buffers.clear();
        (0..100).for_each(|_| buffers.put(vec![7; 100_000]));
        assert_eq!(buffers.lock().large.len(), MOST_FREE);
        buffers.clear();
        (0..100).for_each(|_| buffers.put(vec![7; 10 << 20]));
        assert_eq!(buffers.lock().large.len(), FREE);
    }

    #[test]
    fn small_buffers_are_used_again_too_and_neither_many_nor_middling_ones_are_kept() {
        let buffers = SpareBuffers::new(&BufferBudget::new(1_000_000));
        buffers.put(vec![7; 1000]);
        let again = buffers.take_small();
        assert!(again.is_empty() && again.capacity() == 1000);
        assert_eq!(buffers.take_small().capacity(), 0);
        (0..100).for_each(|_| buffers.put(vec![7; 1000]));
        buffers.put(Vec::new());
        buffers.put(vec![7; SMALL + 1]);
        let kept = |buffers: &SpareBuffers| {
            let free = buffers.lock();
            (free.small.len(), free.large.len())
        };
        assert_eq!(kept(&buffers), (SMALL_FREE, 0));
        buffers.clear();
        assert_eq!(kept(&buffers), (0, 0));
    }
}
