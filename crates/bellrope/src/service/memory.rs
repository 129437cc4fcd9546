//! How much memory the elements of lists and maps may take: what is small as it travels may be large when it is read, and a peer
//! says how many there are.

use super::codec::CodecError;

/// What is left of it for a value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    left: usize,
    bytes: usize,
}

impl Memory {
    /// That of any value, however few bytes it has.
    const LEAST: usize = 64 << 20;
    /// How much more it is for each byte. An absent text or list takes 24 in one byte, a number of 128 bits 32.
    const EACH: usize = 32;
    /// Elements of less are bounded by the bytes themselves.
    const SMALL: usize = 32;

    /// That of a value of so many bytes.
    pub(super) fn of(bytes: usize) -> Self {
        Self { left: Self::EACH.saturating_mul(bytes).saturating_add(Self::LEAST), bytes }
    }

    /// Whether elements may take more than there is at all: no value of fewer bytes has so many.
    pub(super) fn may_end(bytes: usize) -> bool {
        bytes > 32 << 10
    }

    /// Takes an element of this type out of it.
    #[inline]
    pub(super) fn take<T>(&mut self) -> Result<(), CodecError> {
        if size_of::<T>() > Self::SMALL {
            self.left = self.left.checked_sub(size_of::<T>()).ok_or_else(|| ended(self.bytes))?;
        }
        Ok(())
    }
}

#[cold]
fn ended(bytes: usize) -> CodecError {
    let most = Memory::of(bytes).left;
    CodecError::new(format_args!(
        "the elements of its lists take more than {most} bytes of memory, which is the most for {bytes} bytes"
    ))
}
