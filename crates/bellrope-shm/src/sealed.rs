//! Memory that nobody can write again: the other way to hand a large message over, of which the measurements know the
//! price.

#![expect(unsafe_code, reason = "mapping memory is what this crate exists for")]

use std::{io, ops::Deref, os::fd::OwnedFd, ptr::NonNull};

use rustix::{
    fs::{MemfdFlags, SealFlags},
    io::Errno,
    mm::{MapFlags, ProtFlags},
};

use crate::{MapError, memory::check};

/// What makes bytes final. The kernel sets the first of these only while nobody has the memory mapped for writing.
const SEALS: SealFlags = SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);

/// Bytes that a peer made and nobody can change any more, mapped for reading.
///
/// ```
/// use bellrope_shm::SealedBytes;
///
/// let fd = SealedBytes::seal(b"for good")?;
/// let bytes = SealedBytes::open(&fd, 8)?;
/// assert_eq!(&bytes[..], b"for good");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SealedBytes {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to no thread, and nobody can write to it.
unsafe impl Send for SealedBytes {}
// SAFETY: as above.
unsafe impl Sync for SealedBytes {}

impl SealedBytes {
    /// Copies bytes into fresh memory and seals that, so that it can never be written or resized again, by us neither.
    ///
    /// # Errors
    /// What the kernel says: out of descriptors, out of memory.
    pub fn seal(bytes: &[u8]) -> io::Result<OwnedFd> {
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
        rustix::fs::fcntl_add_seals(&fd, SEALS)?;
        Ok(fd)
    }

    /// Maps what a peer sealed, after checking its seals and its size, with all its pages at once. The descriptor may
    /// be closed afterwards.
    ///
    /// # Errors
    /// [`MapError`] says what was wrong with the descriptor; no bytes at all cannot be mapped.
    pub fn open(fd: &OwnedFd, len: usize) -> Result<Self, MapError> {
        check(fd, SEALS, len)?;
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing that Rust knows of.
        let base = unsafe {
            let flags = MapFlags::SHARED | MapFlags::POPULATE;
            rustix::mm::mmap(std::ptr::null_mut(), len, ProtFlags::READ, flags, fd, 0)?
        };
        let base = NonNull::new(base.cast::<u8>()).expect("mmap never answers with null");
        Ok(Self { base, len })
    }
}

impl Deref for SealedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes are mapped for as long as `self` lives. The seals, which were checked before and cannot be
        // taken off, keep every page backed, and nobody can write to them: neither through a descriptor nor through a
        // mapping, as the first seal is refused while there is one for writing.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl Drop for SealedBytes {
    fn drop(&mut self) {
        // SAFETY: the very mapping that was made in `open`, and every slice of it borrows from `self`.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SharedMemory;

    #[test]
    fn sealed_bytes_can_neither_be_written_nor_resized_by_whoever_has_the_descriptor() {
        let bytes: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
        let fd = SealedBytes::seal(&bytes).unwrap();
        assert_eq!(rustix::io::pwrite(&fd, b"x", 0), Err(Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&fd, 10), Err(Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&fd, 200_000), Err(Errno::PERM));
        let mapped = SealedBytes::open(&fd, bytes.len()).unwrap();
        drop(fd);
        assert!(mapped[..] == bytes[..]);
    }

    // Fault 9.
    #[test]
    fn what_can_still_be_written_or_has_another_size_is_not_mapped_as_sealed_bytes() {
        let (_memory, writable) = SharedMemory::create(4096).unwrap();
        assert!(matches!(SealedBytes::open(&writable, 4096), Err(MapError::NotSealed)));
        let fd = SealedBytes::seal(b"four").unwrap();
        assert!(matches!(SealedBytes::open(&fd, 8192), Err(MapError::Size { expected: 8192, found: 4 })));
    }
}
