//! What is known of a call beyond its request: whose trace it belongs to, whose session, who asks. A bounded block in front of
//! the request, where both sides have agreed on it by the feature bit [`METADATA`](crate::handshake::METADATA).
//!
//! ```text
//! block   len:u16 { key:u8 len:u8 value[len] }*      keys ascend; len is that of all entries
//! key     1 trace   trace_id[16] parent_id[8] flags:u8
//!         2 session text
//!         3 caller  text
//!         4 token   text: the token of a tool, as it was given out
//!         5 vouched text: who asks, as a part of the server's own process says
//!         128..=255 the application's own
//! ```
//!
//! What cannot be a block is a violation. What is a block whose values mean nothing (a trace of zeros, a text that is none,
//! a key of a newer version) is passed over: a caller's trace is no reason to refuse its call.

use std::{fmt, str::FromStr};

use crate::Violation;

/// Most bytes of a block as it travels, with its length.
pub const MAX_METADATA: usize = 256;
/// Bytes of the length of a block.
const LEN: usize = 2;
/// Most bytes of a text.
const MAX_TEXT: usize = 128;
/// The first key that is the application's own.
const OWN: u8 = 128;
const TRACE: u8 = 1;
const SESSION: u8 = 2;
const CALLER: u8 = 3;
const TOKEN: u8 = 4;
const VOUCHED: u8 = 5;

/// What a caller says of a call beyond its request: at most 254 bytes, of which each entry takes 2 and its value.
///
/// ```
/// use bellrope_proto::metadata::Metadata;
///
/// let metadata = Metadata::new()
///     .trace("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse()?)?
///     .session("window 3")?
///     .caller("refactor")?
///     .token("brt_0123")?
///     .own(0, b"anything")?;
/// assert_eq!(metadata.session_text(), Some("window 3"));
/// assert_eq!(metadata.caller_text(), Some("refactor"));
/// assert_eq!(metadata.token_text(), Some("brt_0123"));
/// assert_eq!((metadata.own_value(0), metadata.own_value(1)), (Some(&b"anything"[..]), None));
/// assert_eq!(
///     metadata.trace_context().unwrap().to_string(),
///     "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
/// );
/// assert!(metadata.session(&"x".repeat(200)).is_err());
/// # Ok::<_, bellrope_proto::metadata::MetadataError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// The entries as they travel, without their length.
    entries: Vec<u8>,
}

/// A token is nothing for a log.
impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.pairs().map(|(key, _)| key).collect();
        f.debug_struct("Metadata").field("keys", &keys).finish_non_exhaustive()
    }
}

/// Why something cannot be said with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// It does not fit.
    #[error(
        "the metadata of a call have at most {limit} bytes together, 2 for each entry among them; these would have {size}"
    )]
    TooLarge {
        /// Bytes that all entries would have.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// A text that is empty, longer than 128 bytes, or has control characters.
    #[error("a text of the metadata has 1 to 128 bytes, and no control characters")]
    Text,
    /// A key of the application's own that is beyond 127.
    #[error("{0} is no key of the application's own; these are 0 to 127")]
    Key(u8),
    /// A trace context that is none.
    #[error(
        "it is no trace context of the W3C (00-TRACE-PARENT-FLAGS, in hexadecimal digits, and neither of the ids 0)"
    )]
    Trace,
}

impl Metadata {
    /// Nothing. [Example](Self).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says which trace the call belongs to. [Example](Self).
    ///
    /// # Errors
    /// [`MetadataError::TooLarge`].
    pub fn trace(self, trace: TraceContext) -> Result<Self, MetadataError> {
        self.with(TRACE, &trace.to_bytes())
    }

    /// Says which session the call belongs to, in the caller's own words. [Example](Self).
    ///
    /// # Errors
    /// [`MetadataError::Text`], [`MetadataError::TooLarge`].
    pub fn session(self, session: &str) -> Result<Self, MetadataError> {
        self.with_text(SESSION, session)
    }

    /// Says who asks: a part of the program, for instance. [Example](Self).
    ///
    /// # Errors
    /// [`MetadataError::Text`], [`MetadataError::TooLarge`].
    pub fn caller(self, caller: &str) -> Result<Self, MetadataError> {
        self.with_text(CALLER, caller)
    }

    /// Shows the token of a tool, so that what it asks for counts for that. [Example](Self).
    ///
    /// # Errors
    /// [`MetadataError::Text`], [`MetadataError::TooLarge`].
    pub fn token(self, token: &str) -> Result<Self, MetadataError> {
        self.with_text(TOKEN, token)
    }

    /// Says for whom on another machine this process calls its own server: `token NAME`, or any other text for somebody
    /// without a token. Of another process no server believes it.
    ///
    /// # Errors
    /// [`MetadataError::Text`], [`MetadataError::TooLarge`].
    pub fn vouched(self, who: &str) -> Result<Self, MetadataError> {
        self.with_text(VOUCHED, who)
    }

    /// Says something else, under a key of the application's own from 0 to 127. [Example](Self).
    ///
    /// # Errors
    /// [`MetadataError::Key`], [`MetadataError::TooLarge`].
    pub fn own(self, key: u8, value: &[u8]) -> Result<Self, MetadataError> {
        if key >= OWN {
            return Err(MetadataError::Key(key));
        }
        self.with(OWN + key, value)
    }

    /// The trace that the call belongs to, if its caller names one. [Example](Self).
    #[must_use]
    pub fn trace_context(&self) -> Option<TraceContext> {
        TraceContext::from_bytes(self.value(TRACE)?.try_into().ok()?)
    }

    /// The session that the call belongs to. [Example](Self).
    #[must_use]
    pub fn session_text(&self) -> Option<&str> {
        self.text(SESSION)
    }

    /// Who asks. [Example](Self).
    #[must_use]
    pub fn caller_text(&self) -> Option<&str> {
        self.text(CALLER)
    }

    /// The token that the caller shows. [Example](Self).
    #[must_use]
    pub fn token_text(&self) -> Option<&str> {
        self.text(TOKEN)
    }

    /// For whom the caller says that it calls: to be believed of the server's own process alone.
    #[must_use]
    pub fn vouched_text(&self) -> Option<&str> {
        self.text(VOUCHED)
    }

    /// What stands under a key of the application's own. [Example](Self).
    #[must_use]
    pub fn own_value(&self, key: u8) -> Option<&[u8]> {
        self.value(OWN.checked_add(key)?)
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The length as it travels.
    pub(crate) fn head(&self) -> [u8; LEN] {
        (self.entries.len() as u16).to_le_bytes()
    }

    pub(crate) fn entries(&self) -> &[u8] {
        &self.entries
    }

    /// Bytes of the block as it travels.
    pub(crate) fn size(&self) -> usize {
        LEN + self.entries.len()
    }

    /// Bytes of the block that begins so, if it can be one.
    pub(crate) fn size_of(head: [u8; LEN], payload: usize) -> Result<usize, Violation> {
        let size = LEN + usize::from(u16::from_le_bytes(head));
        let fits = (LEN + 1..=MAX_METADATA.min(payload)).contains(&size);
        if fits { Ok(size) } else { Err(Violation::Metadata("length")) }
    }

    /// Takes entries as they came.
    pub(crate) fn decode(entries: &[u8]) -> Result<Self, Violation> {
        let (mut rest, mut last) = (entries, None);
        while !rest.is_empty() {
            let (&[key, len], behind) = rest.split_first_chunk::<2>().ok_or(Violation::Metadata("entry"))?;
            if key == 0 || last.is_some_and(|last| last >= key) {
                return Err(Violation::Metadata("key"));
            }
            rest = behind.get(usize::from(len)..).ok_or(Violation::Metadata("entry"))?;
            last = Some(key);
        }
        Ok(Self { entries: entries.to_vec() })
    }

    fn pairs(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut rest = &self.entries[..];
        std::iter::from_fn(move || {
            let (&[key, len], behind) = rest.split_first_chunk::<2>()?;
            let (value, behind) = behind.split_at_checked(usize::from(len))?;
            rest = behind;
            Some((key, value))
        })
    }

    fn value(&self, wanted: u8) -> Option<&[u8]> {
        self.pairs().find(|(key, _)| *key == wanted).map(|(_, value)| value)
    }

    fn text(&self, key: u8) -> Option<&str> {
        std::str::from_utf8(self.value(key)?).ok().filter(|text| is_text(text))
    }

    fn with_text(self, key: u8, text: &str) -> Result<Self, MetadataError> {
        if is_text(text) { self.with(key, text.as_bytes()) } else { Err(MetadataError::Text) }
    }

    /// The same with this entry, in place of one under the same key.
    fn with(self, key: u8, value: &[u8]) -> Result<Self, MetadataError> {
        let limit = MAX_METADATA - LEN;
        let (mut pairs, one): (Vec<_>, _) = (self.pairs().filter(|(known, _)| *known != key).collect(), (key, value));
        pairs.push(one);
        pairs.sort_unstable_by_key(|(key, _)| *key);
        let size = pairs.iter().map(|(_, value)| 2 + value.len()).sum();
        if size > limit {
            return Err(MetadataError::TooLarge { size, limit });
        }
        let mut entries = Vec::with_capacity(size);
        for (key, value) in pairs {
            entries.extend_from_slice(&[key, value.len() as u8]);
            entries.extend_from_slice(value);
        }
        Ok(Self { entries })
    }
}

fn is_text(text: &str) -> bool {
    (1..=MAX_TEXT).contains(&text.len()) && !text.contains(char::is_control)
}

/// Where a call stands in a trace, as the W3C's `traceparent` tells it: its text is what [`Display`](fmt::Display) writes and
/// [`FromStr`] reads. Neither of the ids is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: [u8; 16],
    parent_id: [u8; 8],
    flags: u8,
}

impl TraceContext {
    const LEN: usize = 25;

    /// The trace of this id, the span in it that calls, and the flags (1: it is sampled). `None` if one of the ids is 0.
    #[must_use]
    pub fn new(trace_id: [u8; 16], parent_id: [u8; 8], flags: u8) -> Option<Self> {
        (trace_id != [0; 16] && parent_id != [0; 8]).then_some(Self { trace_id, parent_id, flags })
    }

    /// The id of the trace.
    #[must_use]
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The id of the span that calls.
    #[must_use]
    pub fn parent_id(&self) -> [u8; 8] {
        self.parent_id
    }

    /// The flags; 1: the trace is sampled.
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.flags
    }

    fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..16].copy_from_slice(&self.trace_id);
        bytes[16..24].copy_from_slice(&self.parent_id);
        bytes[24] = self.flags;
        bytes
    }

    fn from_bytes(bytes: &[u8; Self::LEN]) -> Option<Self> {
        let (trace_id, rest) = bytes.split_first_chunk()?;
        let (parent_id, flags) = rest.split_first_chunk()?;
        Self::new(*trace_id, *parent_id, flags[0])
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, parent) = (u128::from_be_bytes(self.trace_id), u64::from_be_bytes(self.parent_id));
        write!(f, "00-{trace:032x}-{parent:016x}-{:02x}", self.flags)
    }
}

impl FromStr for TraceContext {
    type Err = MetadataError;

    /// Reads a `traceparent`. One of a newer version may go on behind its flags, which is passed over.
    fn from_str(text: &str) -> Result<Self, MetadataError> {
        let mut fields = text.split('-');
        let mut field = |digits: usize| {
            let is_hex = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
            fields.next().filter(|field| field.len() == digits && field.bytes().all(is_hex))
        };
        let read = || {
            let version = u8::from_str_radix(field(2)?, 16).ok().filter(|version| *version != 0xFF)?;
            let trace = u128::from_str_radix(field(32)?, 16).ok()?;
            let parent = u64::from_str_radix(field(16)?, 16).ok()?;
            let flags = u8::from_str_radix(field(2)?, 16).ok()?;
            let ended = version > 0 || text.len() == 55;
            Self::new(trace.to_be_bytes(), parent.to_be_bytes(), flags).filter(|_| ended)
        };
        let mut read = read;
        read().ok_or(MetadataError::Trace)
    }
}

#[cfg(test)]
mod tests;
