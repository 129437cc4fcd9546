//! Whether what the server sent can be what it claims to be.

use super::{super::slots::Slots, answer::AnswerKind};
use crate::{
    Violation,
    frame::{ErrorCode, Kind},
    ring::Record,
    style::Style,
    terms::Terms,
};

/// A response of which some parts have come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Receiving {
    pub(super) id: u64,
    /// Bytes of the whole, at most what the terms allow.
    pub(super) size: u64,
    pub(super) filled: u64,
}

/// Checks an answer against what is known of its call: what it is, and where in the whole it belongs. `None`:
/// nobody waits for it.
pub(super) fn check(
    record: &Record,
    calls: &mut Slots,
    receiving: Option<Receiving>,
    terms: &Terms,
) -> Result<Option<(AnswerKind, usize)>, Violation> {
    let header = record.header;
    let style = calls.find(record.id).map(|slot| slot.style);
    match (header.kind, style) {
        (Kind::Response, Some(style)) if !style.streams() && !header.extended => match receiving {
            None => Ok(Some((AnswerKind::Response, 0))),
            Some(receiving) => check_last(record, receiving),
        },
        (Kind::Error, Some(_)) => {
            let code = ErrorCode::from_bits(header.message_type);
            Ok(Some((AnswerKind::Error { code, detail: record.extension }, 0)))
        }
        (Kind::Error, None) => Ok(None),
        _ => check_rarer(record, style, calls, receiving, terms),
    }
}

/// Checks what the server says of its message types. Whether it fits those that are known, their owner checks.
pub(super) fn check_types(record: &Record, agreed: bool) -> Result<AnswerKind, Violation> {
    let header = record.header;
    if !agreed {
        return Err(Violation::Direction(header.kind as u8));
    }
    if record.id != 0 || header.message_type != 0 || !header.extended || header.len == 0 {
        return Err(Violation::Form(header.kind as u8));
    }
    Ok(AnswerKind::Types { entries: record.extension })
}

/// Checks the last part of a response, or a whole one while another comes in parts.
fn check_last(record: &Record, receiving: Receiving) -> Result<Option<(AnswerKind, usize)>, Violation> {
    if receiving.id != record.id {
        return Ok(Some((AnswerKind::Response, 0)));
    }
    if receiving.filled + u64::from(record.header.len) != receiving.size {
        return Err(Violation::PartialSize { id: record.id, announced: receiving.size });
    }
    Ok(Some((AnswerKind::Response, receiving.filled as usize)))
}

fn check_rarer(
    record: &Record,
    style: Option<Style>,
    calls: &mut Slots,
    receiving: Option<Receiving>,
    terms: &Terms,
) -> Result<Option<(AnswerKind, usize)>, Violation> {
    let (id, header) = (record.id, record.header);
    let (extended, empty) = match header.kind {
        Kind::Fragment => (true, false),
        Kind::Chunk => (true, header.len == 0),
        Kind::End | Kind::Credit => (true, true),
        Kind::Response => (false, header.len == 0),
        kind => return Err(Violation::Direction(kind as u8)),
    };
    let fits_style = style.is_none_or(|style| match header.kind {
        Kind::Fragment | Kind::Response => !style.streams(),
        Kind::Credit => style.uploads(),
        _ => style.streams(),
    });
    if header.extended != extended || (header.len == 0) != empty || !fits_style {
        return Err(Violation::Form(header.kind as u8));
    }
    if style.is_none() {
        return Ok(None);
    }
    match header.kind {
        Kind::Fragment => check_part(record, receiving, terms).map(Some),
        Kind::Credit => {
            // Credit for a stream that we have ended crossed its end on the way.
            if let Some(outflow) = calls.outflow(id) {
                outflow.refill(id, record.extension)?;
            }
            Ok(Some((AnswerKind::Credit, 0)))
        }
        kind => {
            let is_chunk = kind == Kind::Chunk;
            if let Some(inflow) = calls.inflow(id) {
                inflow.check(id, record.extension, is_chunk)?;
            }
            Ok(Some((if is_chunk { AnswerKind::Chunk } else { AnswerKind::End }, 0)))
        }
    }
}

/// Checks a part of a response that is not the last.
fn check_part(record: &Record, receiving: Option<Receiving>, terms: &Terms) -> Result<(AnswerKind, usize), Violation> {
    let (id, size) = (record.id, record.extension);
    let receiving = match receiving {
        Some(receiving) if receiving.id == id => receiving,
        Some(_) => return Err(Violation::Interleaved(id)),
        None => Receiving { id, size, filled: 0 },
    };
    let fits = receiving.filled + u64::from(record.header.len) < size;
    if size != receiving.size || size > u64::from(terms.max_message) || !fits {
        return Err(Violation::PartialSize { id, announced: receiving.size });
    }
    Ok((AnswerKind::Part { size: size as usize }, receiving.filled as usize))
}
