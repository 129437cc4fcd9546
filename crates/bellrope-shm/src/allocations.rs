//! An allocator that can count, so that "allocates nothing" is something to measure.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

/// The system's allocator. While it is told to, it counts how often any thread of the process allocates; otherwise that
/// costs an allocation one load.
///
/// ```
/// use bellrope_shm::CountingAllocator;
///
/// #[global_allocator]
/// static ALLOCATOR: CountingAllocator = CountingAllocator::new();
///
/// ALLOCATOR.start();
/// let boxed = std::hint::black_box(Box::new(7_u64));
/// assert!(ALLOCATOR.stop() >= 1);
/// # drop(boxed);
/// ```
#[derive(Debug, Default)]
pub struct CountingAllocator {
    counting: AtomicBool,
    /// Since the last start.
    allocations: AtomicU64,
}

impl CountingAllocator {
    /// One that does not count yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { counting: AtomicBool::new(false), allocations: AtomicU64::new(0) }
    }

    /// Starts to count, from 0.
    pub fn start(&self) {
        self.allocations.store(0, Relaxed);
        self.counting.store(true, Relaxed);
    }

    /// Stops counting and says how often something was allocated, or grown or shrunk, since the start. What is given
    /// back is not counted: nothing is that was not allocated.
    pub fn stop(&self) -> u64 {
        self.counting.store(false, Relaxed);
        self.allocations.load(Relaxed)
    }

    #[inline]
    fn count(&self) {
        if self.counting.load(Relaxed) {
            self.allocations.fetch_add(1, Relaxed);
        }
    }
}

// SAFETY: every method hands its arguments on to `System`, whose contract is the same, and returns what that returns.
// Counting touches nothing but two atomics, so it neither allocates nor unwinds.
#[expect(unsafe_code, reason = "an allocator cannot be written without")]
unsafe impl GlobalAlloc for CountingAllocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.count();
        // SAFETY: the caller keeps the contract of `alloc`, which is that of `System`.
        unsafe { System.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.count();
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        self.count();
        // SAFETY: the caller got the block from us with this layout, and so from `System`.
        unsafe { System.realloc(block, layout, new_size) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as in `realloc`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(unsafe_code, reason = "an allocator is called as the language calls it")]
    fn allocations_are_counted_between_start_and_stop_and_at_no_other_time() {
        let allocator = CountingAllocator::new();
        let layout = Layout::from_size_align(64, 8).unwrap();
        let once = || {
            // SAFETY: the layout has a size, and each block is given back with the layout that it has.
            unsafe {
                let block = allocator.alloc(layout);
                let block = allocator.realloc(block, layout, 128);
                allocator.dealloc(block, Layout::from_size_align(128, 8).unwrap());
                let zeroed = allocator.alloc_zeroed(layout);
                assert_eq!(*zeroed, 0);
                allocator.dealloc(zeroed, layout);
            }
        };
        once();
        allocator.start();
        once();
        assert_eq!(allocator.stop(), 3);
        once();
        assert_eq!(allocator.stop(), 3);
        allocator.start();
        assert_eq!(allocator.stop(), 0);
    }
}
