//! Sealed memory and bounds-checked views of it.

#![expect(unsafe_code, reason = "mapping memory and forming words over it is what this crate exists for")]

use std::{
    io,
    ops::Range,
    os::fd::OwnedFd,
    ptr::NonNull,
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use rustix::{
    fs::{MemfdFlags, SealFlags},
    io::Errno,
    mm::{Advice, MapFlags, ProtFlags},
    thread::futex,
};

use crate::{
    copy,
    sync::{AtomicU64, Ordering},
    wait,
};

/// What a mapping must be sealed with before anybody maps it.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// Why a descriptor received from a peer was not mapped.
#[derive(Debug)]
pub enum MapError {
    /// The memory could still be shrunk or grown under us, so that reading it could end in SIGBUS; or, where its bytes
    /// were to be final, they could still be written.
    NotSealed,
    /// The memory has another size than the handshake said.
    Size {
        /// Bytes the handshake promised.
        expected: u64,
        /// Bytes the descriptor has.
        found: u64,
    },
    /// The kernel refused.
    Io(io::Error),
}

impl std::fmt::Display for MapError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotSealed => f.write_str("the shared memory is not sealed against resizing"),
            Self::Size { expected, found } => {
                write!(f, "the shared memory has {found} bytes where {expected} were promised")
            }
            Self::Io(error) => write!(f, "mapping the shared memory failed: {error}"),
        }
    }
}

impl std::error::Error for MapError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::NotSealed | Self::Size { .. } => None,
        }
    }
}

impl From<Errno> for MapError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// One mapping of memory that other processes may map too. Unmapped when the last [`View`] of it is gone.
///
/// The size is fixed by seals for as long as anybody maps it, so an access inside the bounds can never fault.
#[derive(Debug)]
pub struct SharedMemory {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is plain memory that belongs to no thread; all access goes through atomics or race-tolerant
// copies, so any thread may use it at any time.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Creates fresh, zeroed, sealed memory of `len` bytes and maps it. The descriptor is for the peer; dropping it
    /// leaves the mapping intact.
    ///
    /// # Errors
    /// What the kernel says: out of descriptors, out of memory.
    pub fn create(len: usize) -> io::Result<(Arc<Self>, OwnedFd)> {
        let fd = rustix::fs::memfd_create("bellrope", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&fd, len as u64)?;
        rustix::fs::fcntl_add_seals(&fd, SEALS)?;
        let memory = Self::map(&fd, len)?;
        Ok((memory, fd))
    }

    /// Maps memory that a peer created, after checking its seals and its size. The descriptor may be closed afterwards.
    ///
    /// # Errors
    /// [`MapError`] says what was wrong with the descriptor.
    pub fn open(fd: &OwnedFd, len: usize) -> Result<Arc<Self>, MapError> {
        check(fd, SEALS, len)?;
        Ok(Self::map(fd, len)?)
    }

    /// Zeroed memory shared with nobody, for tests and models.
    ///
    /// # Panics
    /// If the machine is out of memory.
    #[must_use]
    pub fn anonymous(len: usize) -> Arc<Self> {
        Self::create(len).expect("memory for a test").0
    }

    fn map(fd: &OwnedFd, len: usize) -> rustix::io::Result<Arc<Self>> {
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing that Rust knows of. The seals
        // (checked or set by every caller) keep all its pages backed for as long as it is mapped.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                fd,
                0,
            )?
        };
        let base = NonNull::new(base.cast::<u8>()).expect("mmap never answers with null");
        // A child of fork would write into its parent's rings: it gets none of this. A kernel that cannot say so to the
        // mapping leaves it as it was.
        // SAFETY: the very mapping that was just made. The advice changes nothing for this process.
        let _ = unsafe { rustix::mm::madvise(base.as_ptr().cast(), len, Advice::LinuxDontFork) };
        Ok(Arc::new(Self { base, len }))
    }

    /// The part of the memory in `range`.
    ///
    /// # Panics
    /// If the range is not 8-byte aligned or does not lie inside the memory. Ranges come from our own layout, never
    /// from a peer.
    #[must_use]
    pub fn view(self: &Arc<Self>, range: Range<usize>) -> View {
        assert!(range.start <= range.end && range.end <= self.len, "a view must lie inside its memory");
        assert!(range.start.is_multiple_of(8) && range.end.is_multiple_of(8), "a view must be 8-byte aligned");
        // SAFETY: `range.start <= self.len`, so the result is inside the mapping or one past its end.
        let base = unsafe { self.base.add(range.start) };
        View { base, len: range.end - range.start, memory: Arc::clone(self) }
    }
}

/// Checks what a peer handed over before it is mapped: its seals, and its size.
pub(crate) fn check(fd: &OwnedFd, seals: SealFlags, len: usize) -> Result<(), MapError> {
    let found = rustix::fs::fcntl_get_seals(fd).map_err(|_| MapError::NotSealed)?;
    if !found.contains(seals) {
        return Err(MapError::NotSealed);
    }
    let found = u64::try_from(rustix::fs::fstat(fd)?.st_size).unwrap_or(0);
    if found != len as u64 {
        return Err(MapError::Size { expected: len as u64, found });
    }
    Ok(())
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the last owner is going away and every View holds an owner, so no access can follow.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok());
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
    len: usize,
    memory: Arc<SharedMemory>,
}

// SAFETY: as for SharedMemory, which the view keeps alive.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    #[inline]
    fn word(&self, offset: usize) -> &AtomicU64 {
        // The number of the word, were it not for the three bits that are zero in a multiple of 8 and make it huge
        // otherwise: one comparison checks both.
        let number = offset.rotate_right(3);
        assert!(number < self.len / 8, "a shared word must lie inside its view");
        // SAFETY: `offset` is a multiple of 8 below `len`, which is a multiple of 8, so all 8 bytes lie inside the
        // mapping, which lives as long as `self`; mappings are page-aligned and views 8-aligned, so the word is
        // aligned; shared words are only ever accessed atomically.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().cast::<u64>().add(number)) }
    }

    #[inline]
    fn bytes(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset <= self.len && len <= self.len - offset, "shared bytes must lie inside their view");
        // SAFETY: `offset <= self.len`, so the pointer stays inside the mapping or one past its end.
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// Bytes in the view.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the view has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
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
        let timeout = wait::timespec(timeout);
        match futex::wait(self.half_word(offset), futex::Flags::empty(), expected as u32, Some(&timeout)) {
            Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Wakes everybody, of all processes, who sleeps on the word at `offset`.
    pub fn futex_wake(&self, offset: usize) {
        // It fails for no word that is mapped.
        let woken = futex::wake(self.half_word(offset), futex::Flags::empty(), u32::MAX >> 1);
        debug_assert!(woken.is_ok(), "{woken:?}");
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

    /// Asks the processor to fetch the line at `offset`, if that lies inside the view. A hint: nothing else happens.
    #[inline]
    pub fn prefetch(&self, offset: usize) {
        #[cfg(target_arch = "x86_64")]
        if offset < self.len {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a prefetch of any address has no effect that a program can see, and this one is mapped.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.base.as_ptr().add(offset).cast()) }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = offset;
    }

    /// As [`Self::prefetch`], for a line that will be written: it comes without a copy staying elsewhere.
    #[inline]
    pub fn prefetch_to_write(&self, offset: usize) {
        #[cfg(target_arch = "x86_64")]
        if offset < self.len {
            // The compiler's own hint becomes one for reading, unless the target is said to have the other, and then
            // the store still has to take the line away from whoever reads it.
            // SAFETY: as in `prefetch`; processors that do not know the instruction take it for nothing.
            unsafe {
                std::arch::asm!(
                    "prefetchw [{}]",
                    in(reg) self.base.as_ptr().add(offset),
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
        self.advise(Advice::LinuxDontNeed, 0);
    }

    /// Frees the view's pages from byte `offset` on, for every process: they read as zeros afterwards. Pages that lie
    /// only partly in that range are left alone.
    pub fn punch_pages(&self, offset: usize) {
        self.advise(Advice::LinuxRemove, offset);
    }

    fn advise(&self, advice: Advice, offset: usize) {
        let page = rustix::param::page_size();
        let start = (self.bytes(offset, 0) as usize).next_multiple_of(page);
        let end = (self.base.as_ptr() as usize + self.len) / page * page;
        if start >= end {
            return;
        }
        // SAFETY: whole pages inside a mapping that `self` keeps alive. Nothing is unmapped: dropped pages of a shared
        // mapping are faulted in again (with their contents, or as zeros after a punch), which shared words and
        // racy copies tolerate like any other write of a peer's.
        let advised = unsafe { rustix::mm::madvise(start as *mut std::ffi::c_void, end - start, advice) };
        // A kernel that cannot do it keeps the pages: more memory, no other harm.
        debug_assert!(advised.is_ok(), "{advised:?}");
    }

    /// Bytes of the whole mapping that this view is a part of.
    #[must_use]
    pub fn mapping_len(&self) -> usize {
        self.memory.len
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
    fn created_memory_can_neither_shrink_nor_grow_nor_lose_its_seals() {
        let (_memory, fd) = SharedMemory::create(8192).unwrap();
        assert!(rustix::fs::ftruncate(&fd, 4096).is_err());
        assert!(rustix::fs::ftruncate(&fd, 16384).is_err());
        assert!(rustix::fs::fcntl_add_seals(&fd, SealFlags::WRITE).is_err());
    }

    // Fault 9.
    #[test]
    fn unsealed_memory_is_refused() {
        let fd = rustix::fs::memfd_create("loose", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&fd, 4096).unwrap();
        assert!(matches!(SharedMemory::open(&fd, 4096), Err(MapError::NotSealed)));
        let plain = tempfile::tempfile().unwrap();
        plain.set_len(4096).unwrap();
        let error = SharedMemory::open(&plain.into(), 4096).unwrap_err();
        assert_eq!(error.to_string(), "the shared memory is not sealed against resizing");
    }

    // Fault 9.
    #[test]
    fn memory_of_another_size_is_refused() {
        let (_memory, fd) = SharedMemory::create(4096).unwrap();
        let error = SharedMemory::open(&fd, 8192).unwrap_err();
        assert!(matches!(error, MapError::Size { expected: 8192, found: 4096 }), "{error}");
        assert_eq!(error.to_string(), "the shared memory has 4096 bytes where 8192 were promised");
    }

    #[test]
    fn memory_that_the_kernel_will_not_map_is_refused_with_its_words() {
        use std::error::Error as _;

        let fd = rustix::fs::memfd_create("empty", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::fcntl_add_seals(&fd, SEALS).unwrap();
        let error = SharedMemory::open(&fd, 0).unwrap_err();
        assert_eq!(error.to_string(), "mapping the shared memory failed: Invalid argument (os error 22)");
        assert!(error.source().is_some_and(|source| source.to_string().contains("Invalid argument")));
        assert!(MapError::NotSealed.source().is_none());
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
