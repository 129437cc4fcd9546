//! Bytes that travel as bytes.

use std::{borrow::Cow, fmt, ops::Deref};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
};

/// Bytes: base64 (RFC 4648, with padding) in JSON, where a `Vec<u8>` is a list of numbers three times as long, and themselves
/// in postcard. An argument of the type `&[u8]` travels so by itself.
///
/// ```
/// use bellrope::service::{Bytes, Codec, Json};
///
/// let mut text = Vec::new();
/// Json::encode(&Bytes::from(b"ding!".as_slice()), &mut text).unwrap();
/// assert_eq!(text, br#""ZGluZyE=""#);
/// let bytes: Bytes = Json::decode(&text).unwrap();
/// assert_eq!(bytes.into_vec(), b"ding!");
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes<'a>(Cow<'a, [u8]>);

impl Bytes<'_> {
    /// Reads bytes that are borrowed where that is possible: `#[serde(borrow, deserialize_with = "Bytes::borrow")]` on a field.
    ///
    /// ```
    /// use bellrope::service::{Bytes, Codec, Postcard};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Part<'a> {
    ///     #[serde(borrow, deserialize_with = "Bytes::borrow")]
    ///     content: Bytes<'a>,
    /// }
    ///
    /// let part: Part = Postcard::decode(b"\x05ding!").unwrap();
    /// assert_eq!(*part.content, *b"ding!");
    /// ```
    ///
    /// # Errors
    /// That of the deserializer.
    pub fn borrow<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes<'de>, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Base64)
        } else {
            deserializer.deserialize_bytes(Plain)
        }
    }

    /// The bytes, to keep: copied, if they were borrowed.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.0.into_owned()
    }
}

impl Deref for Bytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Bytes<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl<'a> From<&'a [u8]> for Bytes<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(Cow::Borrowed(bytes))
    }
}

impl From<Vec<u8>> for Bytes<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Cow::Owned(bytes))
    }
}

impl fmt::Debug for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&encode(&self.0))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

/// Owned, as a `Cow` is: see [`Bytes::borrow`].
impl<'de> Deserialize<'de> for Bytes<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Bytes::borrow(deserializer).map(|bytes| Self(Cow::Owned(bytes.into_vec())))
    }
}

struct Base64;

impl Visitor<'_> for Base64 {
    type Value = Bytes<'static>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes as base64")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        decode(text.as_bytes()).map(Bytes::from).ok_or_else(|| E::custom("not base64 with padding (RFC 4648)"))
    }
}

struct Plain;

impl<'de> Visitor<'de> for Plain {
    type Value = Bytes<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(bytes.to_vec().into())
    }

    fn visit_borrowed_bytes<E: de::Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(bytes.into())
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Self::Value, E> {
        Ok(bytes.into())
    }
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// The value of each byte as a digit; 255 for those that are none.
const VALUES: [u8; 256] = {
    let mut values = [255; 256];
    let mut value = 0;
    while value < DIGITS.len() {
        values[DIGITS[value] as usize] = value as u8;
        value += 1;
    }
    values
};

pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let all = group.iter().enumerate().fold(0, |all, (at, byte)| all | u32::from(*byte) << (16 - 8 * at));
        for at in 0..4 {
            let digit = if at <= group.len() { DIGITS[(all >> (18 - 6 * at)) as usize & 63] } else { b'=' };
            text.push(digit.into());
        }
    }
    text
}

/// `None` if that is not what [`encode`] makes of any bytes.
pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() % 4 != 0 {
        return None;
    }
    let padding = text.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for group in text[..text.len() - padding].chunks(4) {
        let mut all = 0;
        for (at, digit) in group.iter().enumerate() {
            let value = VALUES[usize::from(*digit)];
            if value == 255 {
                return None;
            }
            all |= u32::from(value) << (18 - 6 * at);
        }
        let [_, whole @ ..] = all.to_be_bytes();
        let (kept, dropped) = whole.split_at(group.len() - 1);
        if dropped.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(kept);
    }
    Some(bytes)
}
