//! The ids and times of answers.

use std::time::{SystemTime, UNIX_EPOCH};

/// What tells one answer from others.
pub(super) fn serial() -> String {
    format!("{:032x}", fastrand::u128(..))
}

pub(super) fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
