//! How a type is found out: serde reads values of it until every variant of every enum was one.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::{Deserialize, Serialize};

use super::{
    super::{
        codec::{Codec, CodecError},
        method::Method,
    },
    announced::{Looks, compare},
    found::{Found, MOST_STEPS},
    model::{Schema, Shape},
    offers::Empty,
    reading::{Reader, caught},
    writing::announced,
};

/// Values of one type that are read at the most.
const MOST_PASSES: usize = 2_000;

/// What is known of a method.
pub(crate) struct KnownTypes {
    /// `None` if something could not be found out.
    pub(crate) schema: Option<Schema>,
    /// What could not, or of what it could not be tried whether it is read as it is written.
    pub(crate) doubts: Vec<String>,
}

/// That of a method.
///
/// # Errors
/// What the codec could not carry.
pub(crate) fn schema_of<M: Method>() -> Result<KnownTypes, CodecError> {
    let mut found = Found::new(M::Codec::NAMED);
    let again = |bytes: &[u8]| rewritten::<M::Codec, M::Request<'_>>(bytes);
    let request = trace::<M::Codec, M::Request<'static>>(&mut found, "the arguments", again)?;
    let again = |bytes: &[u8]| rewritten::<M::Codec, M::Output>(bytes);
    let answer = trace::<M::Codec, M::Output>(&mut found, "the answer", again)?;
    let again = |bytes: &[u8]| rewritten::<M::Codec, M::Sent>(bytes);
    let sent = trace::<M::Codec, M::Sent>(&mut found, "what is sent", again)?;
    let doubts = std::mem::take(&mut found.doubts);
    let (Some(request), Some(answer), Some(sent), Some(types)) = (request, answer, sent, found.types()) else {
        return Ok(KnownTypes { schema: None, doubts });
    };
    let schema = Schema { codec: M::Codec::NAME.to_owned(), request, answer, sent, types };
    schema.check_size()?;
    Ok(KnownTypes { schema: Some(schema), doubts })
}

/// Finds a type out. `None` if it cannot be.
///
/// # Errors
/// A value of it, read and written `again`, is another one.
fn trace<C: Codec, T: Serialize + Deserialize<'static>>(
    found: &mut Found,
    what: &'static str,
    again: impl Fn(&[u8]) -> Result<Vec<u8>, CodecError>,
) -> Result<Option<Shape>, CodecError> {
    let mut differs = Ok(());
    for _ in 0..MOST_PASSES {
        let (read, shape) = read::<T>(found);
        if found.steps >= MOST_STEPS {
            if found.doubts.is_empty() {
                found.doubts.push(format!("{what} have too many types"));
            }
            return differs.map(|()| None);
        }
        match read {
            Some(value) => {
                found.offers.taken();
                look::<C>(found, shape.as_ref(), &value, Looks::Full).map_err(|error| error.in_field(what))?;
                if !C::NAMED {
                    // When all is known there may be better words for it.
                    let same = catch_unwind(AssertUnwindSafe(|| check::<C>(&value, &again))).unwrap_or(Ok(()));
                    differs = differs.and_then(|()| same.map_err(|error| error.in_field(what)));
                }
                if found.is_complete() {
                    leave_out::<C, T>(found).map_err(|error| error.in_field(what))?;
                    return differs.map(|()| shape);
                }
            }
            None if found.asked => return Err(asks().in_field(what)),
            None if found.too_deep => {
                if !found.end_otherwise() {
                    return differs.map(|()| None);
                }
            }
            None => {
                if found.advanced {
                    found.offers.taken();
                } else if found.offers.another() {
                    continue;
                } else if !found.block() && !found.learnt && !found.is_complete() {
                    return differs.map(|()| None);
                }
                if found.is_complete() {
                    return differs.map(|()| shape);
                }
            }
        }
    }
    differs.map(|()| None)
}

/// Reads a value. One that panics takes no such value.
fn read<T: Deserialize<'static>>(found: &mut Found) -> (Option<T>, Option<Shape>) {
    found.begin();
    let mut shape = None;
    let read = caught(found, |found| T::deserialize(Reader { found, shape: &mut shape }));
    (read.ok(), shape)
}

/// Looks at what is announced when a value is written.
fn look<C: Codec>(
    found: &mut Found,
    shape: Option<&Shape>,
    value: &impl Serialize,
    looks: Looks,
) -> Result<(), CodecError> {
    let said = catch_unwind(AssertUnwindSafe(|| announced(value, C::NAMED)));
    // What cannot be written at all says so to whoever writes it.
    let (Some(shape), Ok(Ok(said))) = (shape, said) else { return Ok(()) };
    compare(found, shape, &said, looks)
}

/// Reads values of 0, "" and nothing, which types may leave out when they are written.
fn leave_out<C: Codec, T: Serialize + Deserialize<'static>>(found: &mut Found) -> Result<(), CodecError> {
    let steps = found.steps;
    for (but_the_last, nothing) in [(true, false), (true, true), (false, false), (false, true)] {
        // With names, what comes short at its end is read as it was meant.
        if C::NAMED && !but_the_last {
            break;
        }
        found.offers.set_empty(Some(Empty { but_the_last, nothing }));
        found.steps = steps;
        found.read_again();
        for _ in 0..MOST_PASSES {
            let open = found.open_variants();
            let (read, shape) = read::<T>(found);
            match read {
                Some(value) => look::<C>(found, shape.as_ref(), &value, Looks::Empty)?,
                None if found.offers.another() => continue,
                None => {}
            }
            if found.open_variants() == 0 || found.open_variants() == open {
                break;
            }
        }
    }
    found.offers.set_empty(None);
    found.steps = steps;
    Ok(())
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
