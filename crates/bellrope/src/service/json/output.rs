//! JSON as it is written, piece by piece.

use std::io;

use serde::Serialize;

use super::super::codec::CodecError;

/// How deep values may nest: as deep as serde_json reads.
const MOST_DEPTH: u32 = 127;

/// Writes values.
pub(super) struct Writer<W> {
    to: W,
    /// Bytes written so far.
    pub(super) written: usize,
    /// Where the last `null` began.
    pub(super) null_at: Option<usize>,
    /// How much deeper values may nest.
    depth_left: u32,
}

impl<W: io::Write> Writer<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to, written: 0, null_at: None, depth_left: MOST_DEPTH }
    }

    #[inline]
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), CodecError> {
        self.written += bytes.len();
        self.to.write_all(bytes).map_err(CodecError::new)
    }

    /// Writes the name of a field and what stands around it: mostly in one piece, for each piece costs more than its bytes.
    #[inline]
    pub(super) fn key(&mut self, name: &str, is_first: bool) -> Result<(), CodecError> {
        const MOST: usize = 28;
        let mut piece = [0; MOST + 4];
        if name.len() > MOST || name.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
            return self.long_key(name, is_first);
        }
        let mut len = 0;
        let mut add = |byte| {
            piece[len] = byte;
            len += 1;
        };
        if !is_first {
            add(b',');
        }
        add(b'"');
        name.bytes().for_each(&mut add);
        add(b'"');
        add(b':');
        self.put(&piece[..len])
    }

    #[cold]
    fn long_key(&mut self, name: &str, is_first: bool) -> Result<(), CodecError> {
        if !is_first {
            self.put(b",")?;
        }
        self.plain(name)?;
        self.put(b":")
    }

    /// Writes what has no parts as serde_json does.
    #[inline]
    pub(super) fn plain<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        value.serialize(&mut serde_json::Serializer::new(&mut *self)).map_err(CodecError::new)
    }

    pub(super) fn null(&mut self) -> Result<(), CodecError> {
        self.null_at = Some(self.written);
        self.put(b"null")
    }

    /// Opens an object or a list.
    pub(super) fn open(&mut self, bracket: &'static [u8; 1]) -> Result<(), CodecError> {
        self.depth_left = self.depth_left.checked_sub(1).ok_or_else(too_deep)?;
        self.put(bracket)
    }

    pub(super) fn close(&mut self, bracket: &'static [u8; 1]) -> Result<(), CodecError> {
        self.depth_left += 1;
        self.put(bracket)
    }

    /// Opens an object with a variant, whose contents follow.
    pub(super) fn open_variant(&mut self, variant: &'static str) -> Result<(), CodecError> {
        self.open(b"{")?;
        self.key(variant, true)
    }
}

impl<W: io::Write> io::Write for Writer<W> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.written += written;
        Ok(written)
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len();
        self.to.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cold]
fn too_deep() -> CodecError {
    CodecError::new(format_args!("it nests deeper than {MOST_DEPTH}"))
}

#[cold]
pub(super) fn no_number(value: impl std::fmt::Display) -> CodecError {
    CodecError::new(format_args!("JSON has no {value}"))
}
