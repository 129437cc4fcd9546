//! How a type is found out: serde reads values of it until every variant of every enum was one.

use serde::{Deserialize, Serialize};

use super::{
    super::{
        codec::{Codec, CodecError},
        method::Method,
    },
    found::{Found, MOST_STEPS},
    model::{Schema, Shape},
    reading::Reader,
};

/// Values of one type that are read at the most.
const MOST_PASSES: usize = 2_000;

/// That of a method. `None` if it cannot be found out: some type takes only values that nobody could guess.
///
/// # Errors
/// With a codec without names: what it could not carry.
pub(crate) fn schema_of<M: Method>() -> Result<Option<Schema>, CodecError> {
    let mut found = Found::new(M::Codec::NAMED);
    let again = |bytes: &[u8]| rewritten::<M::Codec, M::Request<'_>>(bytes);
    let request = trace::<M::Codec, M::Request<'static>>(&mut found, "the arguments", again)?;
    let again = |bytes: &[u8]| rewritten::<M::Codec, M::Output>(bytes);
    let answer = trace::<M::Codec, M::Output>(&mut found, "the answer", again)?;
    let again = |bytes: &[u8]| rewritten::<M::Codec, M::Sent>(bytes);
    let sent = trace::<M::Codec, M::Sent>(&mut found, "what is sent", again)?;
    let (Some(request), Some(answer), Some(sent), Some(types)) = (request, answer, sent, found.types()) else {
        return Ok(None);
    };
    let schema = Schema { codec: M::Codec::NAME.to_owned(), request, answer, sent, types };
    schema.check_size()?;
    Ok(Some(schema))
}

/// Finds a type out. `None` if it takes no value that is offered.
///
/// # Errors
/// With a codec without names: a value of it, read and written `again`, is another one.
fn trace<C: Codec, T: Serialize + Deserialize<'static>>(
    found: &mut Found,
    what: &'static str,
    again: impl Fn(&[u8]) -> Result<Vec<u8>, CodecError>,
) -> Result<Option<Shape>, CodecError> {
    for _ in 0..MOST_PASSES {
        found.begin();
        let mut shape = None;
        let read = T::deserialize(Reader { found, shape: &mut shape });
        if found.steps > MOST_STEPS {
            return Ok(None);
        }
        match read {
            Ok(value) => {
                if !C::NAMED {
                    check::<C>(&value, &again).map_err(|error| error.in_field(what))?;
                }
                if found.is_complete() {
                    return Ok(shape);
                }
            }
            Err(_) if found.asked => return Err(asks().in_field(what)),
            Err(_) if found.too_deep => {
                if !found.end_otherwise() {
                    return Ok(None);
                }
            }
            Err(_) => {
                if !found.offer_another() {
                    return Ok(None);
                }
            }
        }
    }
    Ok(None)
}

/// Reads a value and writes it again.
fn rewritten<'a, C: Codec, T: Serialize + Deserialize<'a>>(bytes: &'a [u8]) -> Result<Vec<u8>, CodecError> {
    let mut again = Vec::new();
    C::encode(&C::decode::<T>(bytes)?, &mut again)?;
    Ok(again)
}

/// Whether what is written of a value is read as the same.
fn check<C: Codec>(
    value: &impl Serialize,
    again: impl Fn(&[u8]) -> Result<Vec<u8>, CodecError>,
) -> Result<(), CodecError> {
    let mut bytes = Vec::new();
    C::encode(value, &mut bytes)?;
    if again(&bytes)? == bytes { Ok(()) } else { Err(differs()) }
}

#[cold]
fn differs() -> CodecError {
    CodecError::new("what is written is read as something else (#[serde(skip_serializing)], or unlike serialize_with?)")
}

#[cold]
fn asks() -> CodecError {
    CodecError::new(
        "a type asks what comes next (#[serde(untagged)], #[serde(flatten)], #[serde(tag)]), which only a codec with names \
         says; use json",
    )
}
