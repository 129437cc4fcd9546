//! A message that is read part by part: where its reader is. Both sides read so, a caller its reply and a handler its request.

use std::io;

/// The most bytes that are gathered before they leave as one part, unless a quarter of the ring is less.
pub(crate) const PART: usize = 32 * 1024;

/// The part that is being read.
#[derive(Debug, Default)]
pub(crate) struct PartReader {
    part: Vec<u8>,
    /// Bytes of it that were read.
    at: usize,
}

impl PartReader {
    /// What is left of the part. Where nothing is, `next` has the one after it; nothing at all means that the message is over.
    pub(crate) fn fill(&mut self, mut next: impl FnMut() -> io::Result<Option<Vec<u8>>>) -> io::Result<&[u8]> {
        while self.at == self.part.len() {
            match next()? {
                Some(part) => (self.part, self.at) = (part, 0),
                None => return Ok(&[]),
            }
        }
        Ok(&self.part[self.at..])
    }

    /// So many bytes of what [`Self::fill`] has shown were read.
    pub(crate) fn consume(&mut self, amount: usize) {
        self.at = self.part.len().min(self.at.saturating_add(amount));
    }

    /// Reads as much as is there, as [`io::Read::read`] has it: nothing is waited for where nothing is asked for.
    pub(crate) fn read(
        &mut self,
        into: &mut [u8],
        next: impl FnMut() -> io::Result<Option<Vec<u8>>>,
    ) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        let there = self.fill(next)?;
        let len = there.len().min(into.len());
        into[..len].copy_from_slice(&there[..len]);
        self.consume(len);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[test]
    fn parts_are_read_in_order_whatever_their_sizes_and_the_end_stays_the_end() {
        let mut parts: VecDeque<&[u8]> = [&b""[..], b"ding", b"", b"", b" dong"].into();
        let mut next = || Ok(parts.pop_front().map(<[u8]>::to_vec));
        let mut reader = PartReader::default();
        let mut buffer = [0; 3];
        let mut came = Vec::new();
        assert_eq!(reader.read(&mut [], || panic!("nothing is asked for")).unwrap(), 0);
        loop {
            match reader.read(&mut buffer, &mut next).unwrap() {
                0 => break,
                len => came.extend_from_slice(&buffer[..len]),
            }
        }
        assert_eq!(came, b"ding dong");
        assert_eq!(reader.read(&mut buffer, &mut next).unwrap(), 0);
        reader.consume(usize::MAX);
        assert_eq!(reader.fill(&mut next).unwrap(), b"");
    }

    #[test]
    fn a_part_that_cannot_be_had_is_an_error_and_the_one_before_it_was_read() {
        let mut parts = [Ok(Some(b"a".to_vec())), Err(io::ErrorKind::ConnectionAborted.into())].into_iter();
        let mut next = || parts.next().unwrap_or(Ok(None));
        let mut reader = PartReader::default();
        let mut buffer = [0; 8];
        assert_eq!(reader.read(&mut buffer, &mut next).unwrap(), 1);
        assert_eq!(reader.read(&mut buffer, &mut next).unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
