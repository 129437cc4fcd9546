use std::io;

use crate::ring::Draft;

/// Where a handler writes its reply: into the response ring as long as it fits there.
///
/// [`Reply::put`] appends bytes. It is also an [`io::Write`], for `write!` and for whatever serialises into a writer. Writing
/// never fails: of a reply that grows over the limit on messages nothing more is kept, and when the handler is done its
/// caller gets `MessageTooLarge` with the size that the reply would have had.
#[derive(Debug)]
pub struct Reply<'a> {
    pub(super) draft: Option<Draft<'a>>,
    pub(super) spill: &'a mut Vec<u8>,
    /// Bytes written so far, once there is no draft any more, which knows its own.
    pub(super) len: usize,
    pub(super) limit: usize,
}

impl Reply<'_> {
    /// Appends to the reply. A reply that grows over the limit is replaced by an error when the handler is done.
    #[inline(always)]
    pub fn put(&mut self, bytes: &[u8]) {
        if let Some(draft) = &mut self.draft {
            if draft.append_few(bytes) {
                return;
            }
        }
        self.put_rest(bytes);
    }

    /// As [`Self::put`], for what is not in one copy in the ring.
    #[inline(never)]
    fn put_rest(&mut self, bytes: &[u8]) {
        if let Some(draft) = &mut self.draft {
            if draft.append(bytes) {
                return;
            }
            self.len = draft.len();
            self.spill.resize(draft.len(), 0);
            draft.read_back(self.spill);
            self.draft = None;
        }
        self.len = self.len.saturating_add(bytes.len());
        if self.len <= self.limit {
            self.spill.extend_from_slice(bytes);
        }
    }

    /// Makes the reply of what `message` holds, in place of anything written so far. A reply that is too large for the
    /// ring is not copied: its buffer is exchanged for another, and what `message` holds afterwards means nothing.
    pub fn adopt(&mut self, message: &mut Vec<u8>) {
        self.len = message.len();
        if let Some(draft) = &mut self.draft {
            if draft.is_empty() && draft.append(message) {
                return;
            }
            self.draft = None;
        }
        if self.len <= self.limit {
            std::mem::swap(self.spill, message);
        }
    }

    /// Bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.draft.as_ref().map_or(self.len, Draft::len)
    }

    /// Whether nothing was written so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Never fails: see [`Reply`].
impl io::Write for Reply<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes);
        Ok(bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.put(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
