//! Memory that two processes share: made, sealed, checked, mapped and given back.

#![expect(unsafe_code, reason = "mapping memory is what this crate exists for")]

use std::{
    fs::File,
    io,
    ops::Range,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    ptr::NonNull,
};

use rustix::{
    fs::{MemfdFlags, SealFlags},
    io::Errno,
    mm::{Advice, MapFlags, ProtFlags},
};

use super::{denied::named, limits};
use crate::map_error::MapError;

/// What makes the size of memory final, before anybody maps it.
const FIXED_SIZE: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);
/// What makes its bytes final too. The kernel sets the first of these only while nobody has the memory mapped for
/// writing.
const FIXED_BYTES: SealFlags = FIXED_SIZE.union(SealFlags::WRITE);

/// Memory that is not mapped, or not here: what one process hands to another over a
/// [socket](crate::socket::Socket::send_with_memory). Dropping it leaves every mapping of the memory intact.
#[derive(Debug)]
pub struct MemoryHandle(pub(super) OwnedFd);

/// What can be done to whole pages of a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageAdvice {
    /// They leave this process's resident set until they are next used.
    Release,
    /// They are freed for every process, and read as zeros afterwards.
    Punch,
}

/// Mapped memory. Its size is fixed by seals for as long as it is mapped, so an access inside the bounds can never fault.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

impl MemoryHandle {
    /// Fresh, zeroed memory of `len` bytes whose size is final, and a mapping of it.
    pub(crate) fn create(len: usize) -> io::Result<(Mapping, Self)> {
        check_file_size(len)?;
        let fd = rustix::fs::memfd_create("bellrope", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&fd, len as u64)?;
        rustix::fs::fcntl_add_seals(&fd, FIXED_SIZE)?;
        let handle = Self(fd);
        Ok((Mapping::writable(&handle, len)?, handle))
    }

    /// Fresh memory with these bytes, which are final.
    pub(crate) fn with_final_bytes(bytes: &[u8]) -> io::Result<Self> {
        check_file_size(bytes.len())?;
        let fd = rustix::fs::memfd_create("bellrope-sealed", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let mut left = bytes;
        while !left.is_empty() {
            match rustix::io::write(&fd, left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => left = &left[written..],
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        rustix::fs::fcntl_add_seals(&fd, FIXED_BYTES)?;
        Ok(Self(fd))
    }

    /// Checks what a peer handed over before it is mapped: its seals, and its size.
    fn check(&self, seals: SealFlags, len: usize) -> Result<(), MapError> {
        let found = rustix::fs::fcntl_get_seals(&self.0).map_err(|errno| match errno {
            Errno::PERM | Errno::NOSYS => MapError::Io(named("fcntl")(errno)),
            _ => MapError::NotSealed,
        })?;
        if !found.contains(seals) {
            return Err(MapError::NotSealed);
        }
        let found = u64::try_from(rustix::fs::fstat(&self.0)?.st_size).unwrap_or(0);
        if found != len as u64 {
            return Err(MapError::Size { expected: len as u64, found });
        }
        Ok(())
    }
}

/// Refuses memory that is larger than this process may make a file. The kernel would refuse it too, but with a signal that
/// ends the process (`SIGXFSZ`).
fn check_file_size(len: usize) -> io::Result<()> {
    match limits::on_files() {
        Some(limit) if limit < len as u64 => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!(
                "{len} bytes are more than the limit on the size of files, {limit} bytes (RLIMIT_FSIZE, ulimit -f)"
            ),
        )),
        _ => Ok(()),
    }
}

/// Memory that another process has, opened by its path, as tests and measurements do. It is checked when it is mapped.
impl From<File> for MemoryHandle {
    fn from(file: File) -> Self {
        Self(file.into())
    }
}

impl AsFd for MemoryHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for MemoryHandle {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl From<Errno> for MapError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

// SAFETY: the mapping is plain memory that belongs to no thread; all access goes through its users, who say for their
// part how they share it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps memory for reading and writing, after checking that its size is final and `len`.
    pub(crate) fn of_final_size(handle: &MemoryHandle, len: usize) -> Result<Self, MapError> {
        handle.check(FIXED_SIZE, len)?;
        Ok(Self::writable(handle, len)?)
    }

    /// Maps memory for reading, with all its pages at once, after checking that its bytes are final and `len` many.
    pub(crate) fn of_final_bytes(handle: &MemoryHandle, len: usize) -> Result<Self, MapError> {
        handle.check(FIXED_BYTES, len)?;
        Ok(Self::map(handle, len, ProtFlags::READ, MapFlags::SHARED | MapFlags::POPULATE)?)
    }

    fn writable(handle: &MemoryHandle, len: usize) -> rustix::io::Result<Self> {
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        let mapping = Self::map(handle, len, ProtFlags::READ | ProtFlags::WRITE, flags)?;
        mapping.keep_from_children();
        Ok(mapping)
    }

    /// Fresh, zeroed memory of `len` bytes that no other process can have, and that no descriptor stands for. It behaves as
    /// shared memory does: pages that are released keep their contents.
    pub(crate) fn of_own(len: usize) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing that Rust knows of. Nobody else can
        // reach it, so all its pages stay backed for as long as it is mapped.
        let base = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, access, flags)? };
        let mapping = Self { base: NonNull::new(base.cast::<u8>()).expect("mmap never answers with null"), len };
        mapping.keep_from_children();
        Ok(mapping)
    }

    /// A child of fork would write into its parent's rings: it gets none of this. A kernel that cannot say so to the
    /// mapping leaves it as it was.
    fn keep_from_children(&self) {
        // SAFETY: the whole of a mapping that `self` keeps alive. The advice changes nothing for this process.
        let _ = unsafe { rustix::mm::madvise(self.base.as_ptr().cast(), self.len, Advice::LinuxDontFork) };
    }

    fn map(handle: &MemoryHandle, len: usize, access: ProtFlags, flags: MapFlags) -> rustix::io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing that Rust knows of. The seals
        // (checked or set by every caller) keep all its pages backed for as long as it is mapped.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, access, flags, &handle.0, 0)? };
        let base = NonNull::new(base.cast::<u8>()).expect("mmap never answers with null");
        Ok(Self { base, len })
    }

    /// Its first byte.
    #[inline]
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes of it.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Advises the kernel about the pages that lie whole inside `range`, counted from the first byte.
    ///
    /// # Panics
    /// If the range does not lie inside the mapping.
    pub(crate) fn advise(&self, range: Range<usize>, advice: PageAdvice) {
        assert!(range.start <= range.end && range.end <= self.len, "pages must lie inside their mapping");
        let page = rustix::param::page_size();
        // A mapping begins with a page.
        let (start, end) = (range.start.next_multiple_of(page), range.end / page * page);
        if start >= end {
            return;
        }
        let advice = match advice {
            PageAdvice::Release => Advice::LinuxDontNeed,
            PageAdvice::Punch => Advice::LinuxRemove,
        };
        // SAFETY: whole pages inside a mapping that `self` keeps alive. Nothing is unmapped: dropped pages of a shared
        // mapping are faulted in again (with their contents, or as zeros after a punch), which shared words and
        // racy copies tolerate like any other write of a peer's.
        let advised = unsafe { rustix::mm::madvise(self.base.as_ptr().add(start).cast(), end - start, advice) };
        // A kernel that cannot do it keeps the pages: more memory, no other harm.
        debug_assert!(advised.is_ok(), "{advised:?}");
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the very mapping that was made in `map`. Its owner is going away, and whoever has a pointer or a slice
        // into it holds or borrows that owner, so no access can follow.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SharedMemory;

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
        assert!(matches!(SharedMemory::open(&MemoryHandle(fd), 4096), Err(MapError::NotSealed)));
        let plain = tempfile::tempfile().unwrap();
        plain.set_len(4096).unwrap();
        let error = SharedMemory::open(&plain.into(), 4096).unwrap_err();
        assert_eq!(error.to_string(), "the shared memory is not sealed against resizing");
    }

    #[test]
    fn memory_that_the_kernel_will_not_map_is_refused_with_its_words() {
        use std::error::Error as _;

        let empty = rustix::fs::memfd_create("empty", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::fcntl_add_seals(&empty, FIXED_SIZE).unwrap();
        let error = SharedMemory::open(&MemoryHandle(empty), 0).unwrap_err();
        assert_eq!(error.to_string(), "mapping the shared memory failed: Invalid argument (os error 22)");
        assert!(error.source().is_some_and(|source| source.to_string().contains("Invalid argument")));
        assert!(MapError::NotSealed.source().is_none());
    }
}
