//! Buffers of large messages, used again: fresh ones cost a page fault for every 4 KiB.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Buffers kept at once: one for a request and one for its reply.
const SPARES: usize = 2;
/// Below this a fresh buffer is as good.
const WORTH_KEEPING: usize = 64 * 1024;

/// A few buffers between uses, for all workers. They are part of the server's constant memory, not of the budget, and go
/// when a worker has slept for a second.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// A buffer of exactly `len` bytes. What is in it means nothing.
    pub(crate) fn take(&self, len: usize) -> Vec<u8> {
        let mut buffer = self.spare(len);
        buffer.resize(len, 0);
        buffer
    }

    /// An empty buffer that holds `len` bytes without growing.
    pub(crate) fn take_empty(&self, len: usize) -> Vec<u8> {
        let mut buffer = self.spare(len);
        buffer.clear();
        buffer.reserve_exact(len);
        buffer
    }

    /// Takes a buffer back.
    pub(crate) fn put(&self, buffer: Vec<u8>) {
        if buffer.capacity() >= WORTH_KEEPING {
            let mut spares = self.lock();
            if spares.len() < SPARES {
                spares.push(buffer);
            }
        }
    }

    /// Lets go of all spares.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    /// The smallest spare that is large enough, but not one that is far too large.
    fn spare(&self, len: usize) -> Vec<u8> {
        let mut spares = self.lock();
        let fitting = spares.iter().enumerate().filter(|(_, spare)| (len..=4 * len).contains(&spare.capacity()));
        let smallest = fitting.min_by_key(|(_, spare)| spare.capacity()).map(|(index, _)| index);
        smallest.map(|index| spares.swap_remove(index)).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_where_it_fits_and_few_are_kept() {
        let buffers = Buffers::default();
        for len in [100_000, 200_000, 400_000] {
            buffers.put(vec![7; len]);
        }
        assert_eq!(buffers.lock().len(), SPARES);
        let again = buffers.take(150_000);
        assert!(again.len() == 150_000 && again.capacity() == 200_000 && again[0] == 7);
        assert!(buffers.take(1000).capacity() < 100_000, "a far too large one is left alone");
        assert!(buffers.take_empty(90_000).is_empty());
        buffers.put(Vec::with_capacity(10));
        buffers.clear();
        assert!(buffers.lock().is_empty());
    }
}
