//! Shared memory under loom: words on the heap that the model checker watches.

use std::{ops::Range, sync::Arc};

use crate::sync::{AtomicU64, Ordering};

/// Heap memory that stands in for a mapping while a model is checked.
#[derive(Debug)]
pub struct SharedMemory {
    words: Vec<AtomicU64>,
}

impl SharedMemory {
    /// Zeroed memory of `len` bytes (a multiple of 8).
    ///
    /// # Panics
    /// If `len` is no multiple of 8.
    #[must_use]
    pub fn anonymous(len: usize) -> Arc<Self> {
        assert_eq!(len % 8, 0);
        Arc::new(Self { words: (0..len / 8).map(|_| AtomicU64::new(0)).collect() })
    }

    /// The part of the memory in `range`.
    ///
    /// # Panics
    /// If the range is not 8-byte aligned or does not lie inside the memory.
    #[must_use]
    pub fn view(self: &Arc<Self>, range: Range<usize>) -> View {
        assert!(range.start % 8 == 0 && range.end % 8 == 0 && range.end <= self.words.len() * 8);
        View { memory: Arc::clone(self), start: range.start, len: range.end - range.start }
    }
}

/// See the shipping `View`: the same operations, on loom's words.
#[derive(Debug, Clone)]
pub struct View {
    memory: Arc<SharedMemory>,
    start: usize,
    len: usize,
}

#[expect(missing_docs, reason = "documented at the View that ships")]
impl View {
    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset % 8 == 0 && offset + 8 <= self.len);
        &self.memory.words[(self.start + offset) / 8]
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[must_use]
    pub fn load(&self, offset: usize, order: Ordering) -> u64 {
        self.word(offset).load(order)
    }

    pub fn store(&self, offset: usize, value: u64, order: Ordering) {
        self.word(offset).store(value, order);
    }

    pub fn swap(&self, offset: usize, value: u64, order: Ordering) -> u64 {
        self.word(offset).swap(value, order)
    }

    pub fn compare_exchange(
        &self,
        offset: usize,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.word(offset).compare_exchange(current, new, success, failure)
    }

    pub fn prefetch(&self, _offset: usize) {}

    pub fn prefetch_to_write(&self, _offset: usize) {}

    pub fn read(&self, offset: usize, into: &mut [u8]) {
        for (index, byte) in into.iter_mut().enumerate() {
            let at = offset + index;
            let word = self.word(at & !7).load(Ordering::Relaxed);
            *byte = word.to_le_bytes()[at & 7];
        }
    }

    pub fn write(&self, offset: usize, from: &[u8]) {
        for (index, byte) in from.iter().enumerate() {
            let at = offset + index;
            let mut bytes = self.word(at & !7).load(Ordering::Relaxed).to_le_bytes();
            bytes[at & 7] = *byte;
            self.word(at & !7).store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
    }
}
