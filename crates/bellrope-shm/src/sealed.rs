//! Memory that nobody can write again: the other way to hand a large message over, of which the measurements know the
//! price.

#![expect(unsafe_code, reason = "forming a slice over mapped memory is what this crate exists for")]

use std::{io, ops::Deref};

use crate::{
    map_error::MapError,
    system::memory::{Mapping, MemoryHandle},
};

/// Bytes that a peer made and nobody can change any more, mapped for reading.
///
/// ```
/// use bellrope_shm::SealedBytes;
///
/// let handle = SealedBytes::seal(b"for good")?;
/// let bytes = SealedBytes::open(&handle, 8)?;
/// assert_eq!(&bytes[..], b"for good");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SealedBytes {
    /// Nobody can write to it.
    mapping: Mapping,
}

impl SealedBytes {
    /// Copies bytes into fresh memory and seals that, so that it can never be written or resized again, by us neither.
    ///
    /// # Errors
    /// What the kernel says: out of descriptors, out of memory.
    pub fn seal(bytes: &[u8]) -> io::Result<MemoryHandle> {
        MemoryHandle::with_final_bytes(bytes)
    }

    /// Maps what a peer sealed, after checking its seals and its size, with all its pages at once. The handle may be
    /// dropped afterwards.
    ///
    /// # Errors
    /// [`MapError`] says what was wrong with the memory; no bytes at all cannot be mapped.
    pub fn open(handle: &MemoryHandle, len: usize) -> Result<Self, MapError> {
        Ok(Self { mapping: Mapping::of_final_bytes(handle, len)? })
    }
}

impl Deref for SealedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes are mapped for as long as `self` lives. The seals, which were checked before and cannot be
        // taken off, keep every page backed, and nobody can write to them: neither through a descriptor nor through a
        // mapping, as the first seal is refused while there is one for writing.
        unsafe { std::slice::from_raw_parts(self.mapping.base().as_ptr(), self.mapping.len()) }
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

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
