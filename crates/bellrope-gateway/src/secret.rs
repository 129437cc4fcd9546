//! Keys that cannot be shown.

mod strike;

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use thiserror::Error;

use crate::error::Excerpt;

use strike::SHOWN;
pub(crate) use strike::Strike;
#[cfg(feature = "http")]
pub(crate) use strike::Striking;

/// A key file larger than this is not a key file. In bytes.
const MAX_FILE: u64 = 8 * 1024;

/// Why a text is no key. It never holds the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyFault {
    /// There is nothing in it.
    #[error("empty")]
    Empty,
    /// More than one line is in it.
    #[error("several lines; a key is one line and nothing else")]
    Lines,
    /// `NAME=key`, `${NAME}` and the like.
    #[error("an assignment or the name of a variable in place of the key itself; put the key there alone")]
    Assignment,
    /// A quotation mark that does not stand around the whole key.
    #[error("a quotation mark within the key; take it out")]
    Quote,
    /// A blank or a control character is in it.
    #[error("a blank or a control character within the key; take it out")]
    Blank,
    /// A character that is not ASCII is in it.
    #[error("a character that no key has, such as a typographic quote or dash; copy the key again")]
    NotAscii,
}

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

    /// The key in a text as people save it: what stands around it and is none of it is taken off, such as white space, a
    /// byte order mark, quotes, and `Bearer`.
    ///
    /// ```
    /// # use bellrope_gateway::{KeyFault, Secret};
    /// assert_eq!(Secret::parse("\"sk-123456\"\r\n").map(|key| key.expose().to_owned()), Ok("sk-123456".to_owned()));
    /// assert_eq!(Secret::parse("sk-123\nsk-456"), Err(KeyFault::Lines));
    /// ```
    ///
    /// # Errors
    /// What is left cannot be a key.
    pub fn parse(text: &str) -> Result<Self, KeyFault> {
        let mut key = text;
        loop {
            let bare = bare(key);
            if bare.len() == key.len() {
                break;
            }
            key = bare;
        }
        let is_assignment = || {
            let (name, _) = key.split_once('=').unwrap_or_default();
            let is_name =
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
            let is_variable = ["KEY", "TOKEN", "SECRET"].iter().any(|word| name.contains(word));
            (is_name && is_variable) || key.starts_with("export ") || key.starts_with('$')
        };
        let has = |what: fn(char) -> bool| key.chars().any(what);
        Err(match key {
            "" => KeyFault::Empty,
            _ if has(|c| matches!(c, '\n' | '\r')) => KeyFault::Lines,
            _ if is_assignment() => KeyFault::Assignment,
            _ if has(|c| !c.is_ascii()) => KeyFault::NotAscii,
            _ if has(|c| matches!(c, '"' | '\'' | '`')) => KeyFault::Quote,
            _ if has(|c| c == ' ' || c.is_ascii_control()) => KeyFault::Blank,
            _ => return Ok(Self(key.into())),
        })
    }

    /// Reads a key from a file of at most 8 KiB, as [`Secret::parse`] does.
    ///
    /// # Errors
    /// It is no file, cannot be read, is larger, or holds no key.
    pub fn from_file(path: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        // Opening a pipe waits for its other end.
        let kind = std::fs::metadata(path)?.file_type();
        if kind.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory; name the file in it"));
        }
        if !kind.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no ordinary file"));
        }
        let taken = File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        if taken as u64 > MAX_FILE {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 8 KiB"));
        }
        let unreadable = "bytes that are no text; save it as UTF-8";
        let text = std::str::from_utf8(&bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, unreadable))?;
        Self::parse(text).map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))
    }

    /// The key itself, for the header it is sent in.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// `text` with every occurrence of the key replaced: some providers quote the key in their error messages, also with
    /// escapes of JSON or of addresses, and in base64. A key of less than 6 bytes is not looked for.
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.strike().and_then(|strike| strike.struck(text.as_bytes())) {
            Some(struck) => Cow::Owned(String::from_utf8_lossy(&struck).into_owned()),
            None => Cow::Borrowed(text),
        }
    }

    /// What finds the key in bytes, unless it is too short.
    pub(crate) fn strike(&self) -> Option<Strike> {
        Strike::new(&self.0)
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

/// A text without one layer of what people put around keys.
fn bare(text: &str) -> &str {
    const QUOTES: [(char, char); 6] = [('"', '"'), ('\'', '\''), ('`', '`'), ('“', '”'), ('‘', '’'), ('„', '“')];
    let text = text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '\u{feff}' | '\u{200b}'));
    let quoted = QUOTES.iter().find_map(|&(open, close)| text.strip_prefix(open)?.strip_suffix(close));
    let after = |word: &str| {
        let (begin, rest) = text.split_at_checked(word.len())?;
        let ends = word.ends_with(':') || rest.chars().next().is_none_or(char::is_whitespace);
        (ends && begin.eq_ignore_ascii_case(word)).then_some(rest)
    };
    quoted.or_else(|| after("Bearer")).or_else(|| after("Authorization:")).unwrap_or(text)
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
    fn what_people_put_around_a_key_is_taken_off() {
        for text in [
            "sk-1234567",
            "  sk-1234567\t\r\n",
            "\u{feff}sk-1234567\r\n\r\n",
            "\"sk-1234567\"\n",
            "'sk-1234567'",
            "` sk-1234567 `",
            "“sk-1234567”",
            "\"'sk-1234567'\"",
            "Bearer sk-1234567",
            "bearer  \"sk-1234567\"",
            "Authorization: Bearer sk-1234567\n",
            "\u{a0}sk-1234567\u{200b}",
        ] {
            assert_eq!(Secret::parse(text).map(|key| key.expose().to_owned()).as_deref(), Ok("sk-1234567"), "{text:?}");
        }
        // A key may end as base64 does.
        assert_eq!(Secret::parse("abc+/def==").unwrap().expose(), "abc+/def==");
    }

    // Fault 55.
    #[test]
    fn what_is_no_key_is_refused_with_its_reason_and_never_quoted() {
        for (text, fault) in [
            ("", KeyFault::Empty),
            (" \r\n\u{feff}", KeyFault::Empty),
            ("\"\"", KeyFault::Empty),
            ("Bearer ", KeyFault::Empty),
            ("sk-1234567\nsk-7654321\n", KeyFault::Lines),
            ("sk-1234567\r\n# mine", KeyFault::Lines),
            ("OPENAI_API_KEY=sk-1234567", KeyFault::Assignment),
            ("export OPENAI_API_KEY=sk-1234567", KeyFault::Assignment),
            ("${OPENAI_API_KEY}", KeyFault::Assignment),
            ("sk-1234567é", KeyFault::NotAscii),
            ("sk–1234567", KeyFault::NotAscii),
            ("\"sk-1234567", KeyFault::Quote),
            ("sk-\"1234567\"", KeyFault::Quote),
            ("sk-123 4567", KeyFault::Blank),
            ("sk-123\x004567", KeyFault::Blank),
        ] {
            assert_eq!(Secret::parse(text), Err(fault), "{text:?}");
            assert!(!fault.to_string().contains("4567"));
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            assert_eq!(Secret::from_file(file.path()).unwrap_err().to_string(), fault.to_string(), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_file_of_text_is_refused_at_once() {
        let place = tempfile::tempdir().unwrap();
        let fault = |path: &Path| Secret::from_file(path).unwrap_err().to_string();
        assert_eq!(fault(place.path()), "it is a directory; name the file in it");
        assert_eq!(fault(Path::new("/dev/zero")), "it is no ordinary file");
        assert!(fault(&place.path().join("missing")).contains("No such file"));
        let wide = place.path().join("wide");
        std::fs::write(&wide, b"\xff\xfes\0k\0").unwrap();
        assert_eq!(fault(&wide), "bytes that are no text; save it as UTF-8");
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
