//! What both directions know of records among bytes.

use crate::{
    frame::Header,
    layout::{RECORD_HEAD, WORD},
};

/// Bytes that are gathered for one write, and read ahead, unless a single record is larger.
pub const BATCH: usize = 16 * 1024;

/// Bytes of a record as it travels.
pub(super) fn size_of_record(header: Header) -> usize {
    RECORD_HEAD as usize + usize::from(header.extended) * WORD as usize + header.len as usize
}
