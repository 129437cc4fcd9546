//! Sealed memory and bounds-checked views of it.

#![expect(unsafe_code, reason = "forming words over mapped memory is what this crate exists for")]

use std::{
    io,
    ops::Range,
    ptr::NonNull,
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use crate::{
    copy,
    map_error::MapError,
    sync::{AtomicU64, Ordering},
    system::{
        memory::{Mapping, MemoryHandle, PageAdvice},
        wait,
    },
};

/// Bytes of a word.
const WORD: usize = 8;

/// One mapping of memory that other processes may map too. Unmapped when the last [`View`] of it is gone.
///
/// The size is fixed by seals for as long as anybody maps it, so an access inside the bounds can never fault.
#[derive(Debug)]
pub struct SharedMemory {
    /// All access to it goes through atomics or race-tolerant copies, so any thread may use it at any time.
    mapping: Mapping,
}

impl SharedMemory {
    /// Creates fresh, zeroed, sealed memory of `len` bytes and maps it. The handle is for the peer; dropping it leaves
    /// the mapping intact.
    ///
    /// # Errors
    /// What the kernel says: out of descriptors, out of memory.
    pub fn create(len: usize) -> io::Result<(Arc<Self>, MemoryHandle)> {
        let (mapping, handle) = MemoryHandle::create(len)?;
        Ok((Arc::new(Self { mapping }), handle))
    }

    /// Maps memory that a peer created, after checking its seals and its size. The handle may be dropped afterwards.
    ///
    /// # Errors
    /// [`MapError`] says what was wrong with the memory.
    pub fn open(handle: &MemoryHandle, len: usize) -> Result<Arc<Self>, MapError> {
        Ok(Arc::new(Self { mapping: Mapping::of_final_size(handle, len)? }))
    }

    /// Fresh, zeroed memory of `len` bytes that is shared with nobody, and needs neither a descriptor nor a file.
    ///
    /// ```
    /// use bellrope_shm::{SharedMemory, sync::Ordering};
    ///
    /// let memory = SharedMemory::private(8192)?;
    /// let view = memory.view(0..8192);
    /// view.store(4096, 7, Ordering::Relaxed);
    /// view.release_pages();
    /// assert_eq!(view.load(4096, Ordering::Relaxed), 7, "it is kept, as that of shared memory is");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// What the kernel says: out of memory.
    pub fn private(len: usize) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { mapping: Mapping::of_own(len)? }))
    }

    /// Zeroed memory shared with nobody, for tests and models.
    ///
    /// # Panics
    /// If the machine is out of memory.
    #[must_use]
    pub fn anonymous(len: usize) -> Arc<Self> {
        Self::create(len).expect("memory for a test").0
    }

    /// The part of the memory in `range`.
    ///
    /// # Panics
    /// If the range is not 8-byte aligned or does not lie inside the memory. Ranges come from our own layout, never
    /// from a peer.
    #[must_use]
    pub fn view(self: &Arc<Self>, range: Range<usize>) -> View {
        assert!(range.start <= range.end && range.end <= self.mapping.len(), "a view must lie inside its memory");
        assert!(range.start % 8 == 0 && range.end % 8 == 0, "a view must be 8-byte aligned");
        // SAFETY: `range.start <= self.mapping.len()`, so the result is inside the mapping or one past its end.
        let base = unsafe { self.mapping.base().add(range.start) };
        View { base, words: (range.end - range.start) / WORD, memory: Arc::clone(self) }
    }
}

/// A bounds-checked part of a [`SharedMemory`]. Offsets are bytes from the start of the view.
///
/// Every value read here may have been written by a hostile peer, and may change right after.
///
/// ```
/// use bellrope_shm::{SharedMemory, sync::Ordering};
///
/// let memory = SharedMemory::anonymous(4096);
/// let view = memory.view(1024..2048);
/// view.write(16, b"bell");
/// view.store(8, 4, Ordering::Release);
///
/// let mut bytes = [0; 4];
/// assert_eq!(view.load(8, Ordering::Acquire), 4);
/// view.read(16, &mut bytes);
/// assert_eq!(&bytes, b"bell");
/// ```
///
/// # Panics
/// All accessors panic if the access is not inside the view, or a word is not 8-byte aligned. Callers check what a
/// peer told them first; the panic guards against mistakes of our own.
#[derive(Debug, Clone)]
pub struct View {
    base: NonNull<u8>,
    /// How many words it has.
    words: usize,
    memory: Arc<SharedMemory>,
}

// SAFETY: the mapping, which the view keeps alive, is plain memory that belongs to no thread; all access goes through
// atomics or race-tolerant copies, so any thread may use it at any time.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    #[inline]
    fn word(&self, offset: usize) -> &AtomicU64 {
        // The number of the word if `offset` is a multiple of 8. If it is not, its lowest bits have become the highest, and
        // no view has so many words: one comparison for both.
        let number = offset.rotate_right(WORD.ilog2());
        assert!(number < self.words, "a shared word must lie inside its view");
        // SAFETY: `offset` is `8 * number`, since `words` is far below 2^61, and `number` is below `words`, so all 8 bytes
        // lie inside the mapping, which lives as long as `self`; mappings are page-aligned and views 8-aligned, so the word
        // is aligned; shared words are only ever accessed atomically.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset).cast::<u64>()) }
    }

    #[inline]
    fn bytes(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset <= self.len() && len <= self.len() - offset, "shared bytes must lie inside their view");
        // SAFETY: `offset <= self.len()`, so the pointer stays inside the mapping or one past its end.
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// Bytes in the view.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.words * WORD
    }

    /// Whether the view has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words == 0
    }

    /// Loads the word at `offset`.
    #[inline]
    #[must_use]
    pub fn load(&self, offset: usize, order: Ordering) -> u64 {
        self.word(offset).load(order)
    }

    /// Stores the word at `offset`.
    #[inline]
    pub fn store(&self, offset: usize, value: u64, order: Ordering) {
        self.word(offset).store(value, order);
    }

    /// Swaps the word at `offset` and returns what was there.
    #[inline]
    pub fn swap(&self, offset: usize, value: u64, order: Ordering) -> u64 {
        self.word(offset).swap(value, order)
    }

    /// Compare-exchanges the word at `offset`.
    ///
    /// # Errors
    /// The value found, if it was not `current`.
    #[inline]
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

    /// Sleeps while the lower half of the word at `offset` is that of `expected`, until somebody [wakes](Self::futex_wake)
    /// those who sleep there, at most `timeout`. May return early; always look again.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn futex_wait(&self, offset: usize, expected: u64, timeout: Duration) -> io::Result<()> {
        wait::on_word(self.half_word(offset), expected as u32, timeout)
    }

    /// Wakes everybody, of all processes, who sleeps on the word at `offset`.
    pub fn futex_wake(&self, offset: usize) {
        wait::wake_word(self.half_word(offset));
    }

    /// The lower half of a word, for its address: only the kernel looks into it.
    fn half_word(&self, offset: usize) -> &AtomicU32 {
        let word: *mut u64 = self.word(offset).as_ptr();
        let half = if cfg!(target_endian = "little") { 0 } else { 1 };
        // SAFETY: `word` checked that all 8 bytes lie inside the mapping, which lives as long as `self`; both halves
        // are aligned for 4 bytes. Nothing is loaded or stored through this reference in this process: the calls above
        // hand its address to the kernel, which reads it atomically.
        unsafe { AtomicU32::from_ptr(word.cast::<u32>().add(half)) }
    }

    /// Asks the processor to fetch the line at `offset`, which may lie beyond the view. A hint: nothing else happens.
    #[inline]
    pub fn prefetch(&self, offset: usize) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a prefetch of any address, mapped or not, has no effect that a program can see, and `wrapping_add` makes
            // any.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.base.as_ptr().wrapping_add(offset).cast()) }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = offset;
    }

    /// As [`Self::prefetch`], for a line that will be written: it comes without a copy staying elsewhere.
    #[inline]
    pub fn prefetch_to_write(&self, offset: usize) {
        #[cfg(target_arch = "x86_64")]
        {
            // The compiler's own hint becomes one for reading, unless the target is said to have the other, and then
            // the store still has to take the line away from whoever reads it.
            // SAFETY: as in `prefetch`; processors that do not know the instruction take it for nothing.
            unsafe {
                std::arch::asm!(
                    "prefetchw [{}]",
                    in(reg) self.base.as_ptr().wrapping_add(offset),
                    options(nostack, preserves_flags, readonly)
                );
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = offset;
    }

    /// Copies `into.len()` bytes from `offset` into private memory.
    #[inline]
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        let from = self.bytes(offset, into.len());
        // SAFETY: `bytes` checked the shared range; `into` is an exclusive borrow of private memory, which cannot
        // overlap a mapping that no reference points into.
        unsafe { copy::out_of_shared(from, into.as_mut_ptr(), into.len()) }
    }

    /// Copies `from` into shared memory at `offset`.
    #[inline]
    pub fn write(&self, offset: usize, from: &[u8]) {
        let into = self.bytes(offset, from.len());
        // SAFETY: as in `read`, with the roles exchanged.
        unsafe { copy::into_shared(from.as_ptr(), into, from.len()) }
    }

    /// Takes the view's pages out of this process's resident set. Their contents stay; the next access maps them
    /// again. Pages that lie only partly inside the view are left alone.
    pub fn release_pages(&self) {
        self.advise(PageAdvice::Release, 0);
    }

    /// Frees the view's pages from byte `offset` on, for every process: they read as zeros afterwards. Pages that lie
    /// only partly in that range are left alone.
    pub fn punch_pages(&self, offset: usize) {
        self.advise(PageAdvice::Punch, offset);
    }

    fn advise(&self, advice: PageAdvice, offset: usize) {
        assert!(offset <= self.len(), "shared bytes must lie inside their view");
        let start = self.base.as_ptr() as usize - self.memory.mapping.base().as_ptr() as usize;
        self.memory.mapping.advise(start + offset..start + self.len(), advice);
    }

    /// Bytes of the whole mapping that this view is a part of.
    #[must_use]
    pub fn mapping_len(&self) -> usize {
        self.memory.mapping.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_the_same_bytes() {
        let (ours, fd) = SharedMemory::create(8192).unwrap();
        let theirs = SharedMemory::open(&fd, 8192).unwrap();
        ours.view(0..8192).write(100, b"hello");
        let mut seen = [0; 5];
        theirs.view(96..8192).read(4, &mut seen);
        assert_eq!(&seen, b"hello");
    }

    // Fault 9.
    #[test]
    fn memory_of_another_size_is_refused() {
        let (_memory, fd) = SharedMemory::create(4096).unwrap();
        let error = SharedMemory::open(&fd, 8192).unwrap_err();
        assert!(matches!(error, MapError::Size { expected: 8192, found: 4096 }), "{error}");
        assert_eq!(error.to_string(), "the shared memory has 4096 bytes where 8192 were promised");
    }

    // Fault 6.
    #[test]
    #[should_panic(expected = "inside its view")]
    fn a_word_beyond_the_view_is_never_touched() {
        let memory = SharedMemory::anonymous(4096);
        let _ = memory.view(0..64).load(64, Ordering::Relaxed);
    }

    // Fault 6.
    #[test]
    fn a_word_that_is_not_aligned_is_never_touched() {
        let memory = SharedMemory::anonymous(4096);
        let view = memory.view(0..64);
        for offset in (0..64).filter(|offset| offset % 8 != 0).chain([usize::MAX, usize::MAX - 7, 1 << 63, 1 << 61]) {
            let touched = std::panic::catch_unwind(|| view.load(offset, Ordering::Relaxed));
            assert!(touched.is_err(), "{offset}");
        }
    }

    // Fault 6.
    #[test]
    #[should_panic(expected = "inside their view")]
    fn bytes_beyond_the_view_are_never_touched() {
        let memory = SharedMemory::anonymous(4096);
        memory.view(0..64).write(60, b"12345");
    }

    #[test]
    fn who_sleeps_on_a_word_wakes_when_another_mapping_of_it_changes_and_wakes() {
        let (ours, fd) = SharedMemory::create(4096).unwrap();
        let theirs = SharedMemory::open(&fd, 4096).unwrap();
        let long = Duration::from_secs(60);
        let (here, there) = (ours.view(0..4096), theirs.view(0..4096));
        here.futex_wait(8, 1, long).unwrap(); // another value: no sleep at all
        let sleeper = std::thread::spawn(move || {
            let began = std::time::Instant::now();
            while there.load(8, Ordering::Acquire) == 0 {
                there.futex_wait(8, 0, long).unwrap();
            }
            began.elapsed()
        });
        here.store(8, 1, Ordering::Release);
        here.futex_wake(8);
        assert!(sleeper.join().unwrap() < long, "it slept to its time-out");
        here.futex_wait(8, 1, Duration::from_millis(1)).unwrap();
    }

    #[test]
    fn a_view_may_be_empty_or_hold_no_whole_page_to_free() {
        let memory = SharedMemory::anonymous(2 * 4096);
        assert!(memory.view(64..64).is_empty());
        let view = memory.view(64..2 * 4096 - 64);
        assert!(!view.is_empty());
        view.write(0, b"kept");
        view.punch_pages(0);
        let mut seen = [0; 4];
        view.read(0, &mut seen);
        assert_eq!(&seen, b"kept");
    }

    // Fault 10.
    #[test]
    fn released_pages_keep_their_contents_and_punched_pages_read_as_zeros() {
        let memory = SharedMemory::anonymous(4 * 4096);
        let view = memory.view(0..4 * 4096);
        for page in 0..4 {
            view.store(page * 4096, 7 + page as u64, Ordering::Relaxed);
        }
        view.release_pages();
        assert_eq!(view.load(3 * 4096, Ordering::Relaxed), 10);
        view.punch_pages(100);
        assert_eq!(view.load(0, Ordering::Relaxed), 7);
        assert_eq!(view.load(4096, Ordering::Relaxed), 0);
    }
}
