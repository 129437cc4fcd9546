//! The codec `postcard`: the wire format of the crate of that name (<https://postcard.jamesmunns.com>), version 1.
//!
//! Nothing but values travels: no names, no types. It is written here, and not taken from there, because bytes from a peer
//! may nest as deep as they like, and because a field that is left out must be an error rather than another value.

pub(super) mod depth;
pub(super) mod reading;
mod writing;

use std::io;

use serde::{Deserialize, Serialize};

use super::codec::{Codec, CodecError};

/// Values as small as they get, without names: see [`Codec`]. Both sides must agree on every field.
///
/// Lists and texts have at most as many elements as there are bytes, and values nest at most 128 deep. Attributes of serde
/// that need names (`untagged`, `flatten`, `tag`) and fields that are left out (`skip_serializing_if`) are errors.
///
/// ```
/// use bellrope::service::{Codec, Postcard};
///
/// let mut bytes = Vec::new();
/// Postcard::encode(&(300_u32, "ding", Some(true)), &mut bytes).unwrap();
/// assert_eq!(bytes, b"\xAC\x02\x04ding\x01\x01");
/// assert_eq!(Postcard::decode::<(u32, &str, Option<bool>)>(&bytes).unwrap(), (300, "ding", Some(true)));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Postcard;

impl Codec for Postcard {
    const NAME: &'static str = "postcard";
    const NUMBER: u8 = 2;
    const NAMED: bool = false;

    fn encode<T: Serialize + ?Sized>(value: &T, to: impl io::Write) -> Result<(), CodecError> {
        let mut writer = writing::Writer::new(to);
        value.serialize(&mut writer)?;
        writer.finish()
    }

    fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
        let mut reader = reading::Reader::new(bytes);
        let value = T::deserialize(&mut reader)?;
        reader.is_done()?;
        Ok(value)
    }
}
