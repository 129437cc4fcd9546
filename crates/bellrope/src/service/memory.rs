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
    /// What is counted for a list, an object or a `null` of JSON whose type is chosen only when all of it was read (`untagged`, `tag`,
    /// `flatten`). It may become anything, of whatever size: `{}` a struct whose fields all have defaults. Whoever sends 8 bytes
    /// for each, as objects with a field have, never meets the bound.
    const UNKNOWN: usize = 8 * Self::EACH;

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
        if size_of::<T>() > Self::SMALL { self.take_bytes(size_of::<T>()) } else { Ok(()) }
    }

    /// Takes something out of it whose type is not known yet.
    pub(super) fn take_unknown(&mut self) -> Result<(), CodecError> {
        self.take_bytes(Self::UNKNOWN)
    }

    fn take_bytes(&mut self, bytes: usize) -> Result<(), CodecError> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| ended(self.bytes))?;
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
