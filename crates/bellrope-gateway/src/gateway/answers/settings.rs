//! How long and how much is kept.

use serde::{Deserialize, Serialize};

use crate::error::ConfigError;

/// The least and the most that `keep_bytes` may be, and the most of `keep_s`.
const KEEP_BYTES: std::ops::RangeInclusive<u64> = 256 * 1024..=4 * 1024 * 1024 * 1024;
const MAX_KEEP: u32 = 86_400;

/// How long and how much is kept of answers that are to survive their readers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnswerSettings {
    /// How long an answer is kept after its end or after its last reader left, whichever is later; one under way that
    /// nobody reads for so long ends. In seconds, 1 to 86,400; default 60.
    pub keep_s: u32,
    /// The most bytes of all answers that are kept, 256 KiB to 4 GiB, or 0 to keep none. The pieces of one take at most a
    /// quarter. Default 8 MiB: that is also the worst case of their memory.
    pub keep_bytes: u64,
}

impl Default for AnswerSettings {
    fn default() -> Self {
        Self { keep_s: 60, keep_bytes: 8 * 1024 * 1024 }
    }
}

impl AnswerSettings {
    /// Checks what can be wrong.
    pub(in crate::gateway) fn check(&self) -> Result<(), ConfigError> {
        let invalid =
            |key: &'static str, reason: String| ConfigError::Invalid { key: key.into(), reason: reason.into() };
        if self.keep_s == 0 || self.keep_s > MAX_KEEP {
            let reason = format!("is {}; set it to 1 to {MAX_KEEP}", self.keep_s);
            return Err(invalid("gateway.answers.keep_s", reason));
        }
        if self.keep_bytes != 0 && !KEEP_BYTES.contains(&self.keep_bytes) {
            let (least, most) = (KEEP_BYTES.start(), KEEP_BYTES.end());
            let reason = format!("is {}; set it to {least} to {most}, or to 0 to keep none", self.keep_bytes);
            return Err(invalid("gateway.answers.keep_bytes", reason));
        }
        Ok(())
    }
}
