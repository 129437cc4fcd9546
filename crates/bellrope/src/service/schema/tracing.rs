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
    let mut found = Found::new(M::Codec::NAMED, M::SAMPLES);
    let again = |bytes: &[u8]| rewritten::<M::Codec, M::Request<'_>>(bytes);
    let request = trace::<M::Codec, M::Request<'static>>(&mut found, ARGUMENTS, again)?;
    let again = |bytes: &[u8]| rewritten::<M::Codec, M::Output>(bytes);
    let answer = trace::<M::Codec, M::Output>(&mut found, ANSWER, again)?;
    let again = |bytes: &[u8]| rewritten::<M::Codec, M::Sent>(bytes);
    let sent = trace::<M::Codec, M::Sent>(&mut found, SENT, again)?;
    let doubts = std::mem::take(&mut found.doubts);
    let (Some(mut request), Some(mut answer), Some(mut sent), false) = (request, answer, sent, found.is_torn) else {
        return Ok(KnownTypes { schema: None, doubts });
    };
    if !M::Codec::NAMED {
        found.check_all_was_read(&[(ARGUMENTS, &request), (ANSWER, &answer), (SENT, &sent)])?;
    }
    let Some(types) = found.types([&mut request, &mut answer, &mut sent]) else {
        return Ok(KnownTypes { schema: None, doubts });
    };
    let schema = Schema { codec: M::Codec::NAME.to_owned(), request, answer, sent, types };
    schema.check_size()?;
    Ok(KnownTypes { schema: Some(schema), doubts })
}

const ARGUMENTS: &str = "the arguments";
const ANSWER: &str = "the answer";
const SENT: &str = "what is sent";

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
    found.look_again();
    let (mut known, mut is_made, mut is_stuck): (Option<Shape>, _, _) = (None, false, false);
    loop {
        let (read, shape) = read::<T>(found);
        if found.is_torn {
            return differs.map(|()| None);
        }
        if found.steps >= MOST_STEPS {
            found.doubts.push(format!("{what} have too many types"));
            return differs.map(|()| None);
        }
        let is_new = match read {
            Some(value) => {
                found.offers.taken();
                look::<C>(found, shape.as_ref(), &value, Looks::Full).map_err(|error| error.in_field(what))?;
                if !C::NAMED {
                    // When all is known there may be better words for it.
                    let same = catch_unwind(AssertUnwindSafe(|| check::<C>(&value, &again))).unwrap_or(Ok(()));
                    differs = differs.and_then(|()| same.map_err(|error| error.in_field(what)));
                }
                is_made = true;
                found.looked()
            }
            None if found.asked.is_some() => {
                let asked = found.asked.take().unwrap_or_default();
                return Err(found.asks(&asked).in_field(what));
            }
            None if found.too_deep => {
                if !found.end_otherwise() {
                    return differs.map(|()| None);
                }
                true
            }
            None if found.advanced => {
                found.offers.taken();
                found.looked()
            }
            None if found.another_value() || found.block() => true,
            None => (!found.learnt && found.leave_empty()) | found.looked(),
        };
        known = match (known, shape) {
            (Some(known), Some(shape)) => known.merged(&shape).or(Some(shape)),
            (known, shape) => shape.or(known),
        };
        let is_done = found.is_complete() || (!is_new && is_stuck);
        if is_done && found.is_known() {
            if is_made {
                leave_out::<C, T>(found).map_err(|error| error.in_field(what))?;
            }
            return differs.map(|()| known);
        }
        if is_done {
            return differs.map(|()| None);
        }
        is_stuck = !is_new;
        if is_stuck {
            found.ways.forget();
        }
    }
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
    let steps = std::mem::take(&mut found.steps);
    let mut looked = Ok(());
    for (but_the_last, nothing) in [(true, false), (true, true), (false, false), (false, true)] {
        // With names, what comes short at its end is read as it was meant.
        if C::NAMED && !but_the_last {
            break;
        }
        found.offers.set_empty(Some(Empty { but_the_last, nothing }));
        found.look_again();
        looked = looked.and_then(|()| look_at_all::<C, T>(found));
    }
    found.offers.set_empty(None);
    found.steps = steps;
    looked
}

fn look_at_all<C: Codec, T: Serialize + Deserialize<'static>>(found: &mut Found) -> Result<(), CodecError> {
    let mut is_stuck = false;
    while !found.is_complete() && found.steps < MOST_STEPS {
        let (read, shape) = read::<T>(found);
        let is_new = match read {
            Some(value) => {
                look::<C>(found, shape.as_ref(), &value, Looks::Empty)?;
                found.looked()
            }
            None if found.too_deep => found.end_otherwise(),
            None => found.another_value() || found.looked(),
        };
        if is_stuck && !is_new {
            break;
        }
        is_stuck = !is_new;
        if is_stuck {
            found.ways.forget();
        }
    }
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
    match C::encode(value, &mut bytes) {
        // Of what was left out this time, the sender learns.
        Err(error) if error.is_left_out() => return Ok(()),
        other => other?,
    }
    if again(&bytes)? == bytes { Ok(()) } else { Err(differs()) }
}

#[cold]
fn differs() -> CodecError {
    CodecError::new("what is written is read as something else (#[serde(skip_serializing)], or unlike serialize_with?)")
}
