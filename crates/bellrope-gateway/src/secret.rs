//! Keys that cannot be shown.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use crate::error::Excerpt;

/// A key file larger than this is not a key file. In bytes.
const MAX_FILE: u64 = 8 * 1024;

/// A shorter key is not looked for in texts: it would match by chance. In bytes.
const MIN_REDACTED: usize = 6;

const SHOWN: &str = "[secret]";

/// A provider's key. It can be sent to the provider and nowhere else: `Debug` shows `[secret]`, and there is neither
/// `Display` nor `Serialize`.
///
/// ```
/// # use bellrope_gateway::Secret;
/// assert_eq!(format!("{:?}", Secret::new("sk-123456")), "[secret]");
/// ```
///
/// ```compile_fail,E0277
/// # use bellrope_gateway::Secret;
/// println!("{}", Secret::new("sk-123456"));
/// ```
///
/// ```compile_fail,E0277
/// # use bellrope_gateway::Secret;
/// serde_json::to_string(&Secret::new("sk-123456"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Keeps `key` without the white space around it.
    pub fn new(key: impl AsRef<str>) -> Self {
        Self(key.as_ref().trim().into())
    }

    /// Reads a key from a file of at most 8 KiB.
    ///
    /// # Errors
    /// The file cannot be read, is larger, or holds no text.
    pub fn from_file(path: &Path) -> io::Result<Self> {
        let mut text = String::new();
        let taken = File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
        if taken as u64 > MAX_FILE {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 8 KiB"));
        }
        let key = Self::new(text);
        if key.0.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "empty"));
        }
        Ok(key)
    }

    /// The key itself, for the header it is sent in.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// `text` with every occurrence of the key replaced: some providers quote the key in their error messages.
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.0.len() < MIN_REDACTED || !text.contains(&*self.0) {
            return Cow::Borrowed(text);
        }
        Cow::Owned(text.replace(&*self.0, SHOWN))
    }

    /// An excerpt of `text` without the key, if there is one.
    pub(crate) fn excerpt(key: Option<&Self>, text: &str) -> Excerpt {
        match key {
            // Before it is cut: half a key at the end would not be found.
            Some(key) => Excerpt::new(&key.redact(text)),
            None => Excerpt::new(text),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SHOWN)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    // Fault 55.
    #[test]
    fn a_key_quoted_by_the_provider_is_redacted() {
        let key = Secret::new(" sk-abcdef\n");
        assert_eq!(key.redact("bad key sk-abcdef, sk-abcdef!"), "bad key [secret], [secret]!");
        assert_eq!(key.redact("nothing here"), "nothing here");
        assert_eq!(Secret::new("a").redact("a cat"), "a cat");
    }

    #[test]
    fn a_key_file_is_trimmed_and_bounded() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Secret::from_file(file.path()).unwrap_err().to_string(), "empty");
        writeln!(file, "  sk-1234567  ").unwrap();
        assert_eq!(Secret::from_file(file.path()).unwrap().expose(), "sk-1234567");
        file.write_all(&[b'x'; 9000]).unwrap();
        assert_eq!(Secret::from_file(file.path()).unwrap_err().to_string(), "larger than 8 KiB");
    }
}
