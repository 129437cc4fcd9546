//! How long and how much is kept.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{error::ConfigError, units::seconds};

/// The least and the most that `keep_bytes` may be, and the most of `keep_s`.
const KEEP_BYTES: std::ops::RangeInclusive<u64> = 256 * 1024..=4 * 1024 * 1024 * 1024;
const MAX_KEEP: Duration = Duration::from_secs(86_400);

/// How long and how much is kept of answers that are to survive their readers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnswerSettings {
    /// How long an answer is kept after its end or after its last reader left, whichever is later; one under way that
    /// nobody reads for so long ends. In whole seconds as `keep_s`, 1 to 86,400; default 60.
    #[serde(rename = "keep_s", with = "seconds")]
    pub keep: Duration,
    /// The most bytes of all answers that are kept, 256 KiB to 4 GiB, or 0 to keep none. The pieces of one take at most a
    /// quarter. Default 8 MiB: that is also the worst case of their memory.
    pub keep_bytes: u64,
}

impl Default for AnswerSettings {
    fn default() -> Self {
        Self { keep: Duration::from_secs(60), keep_bytes: 8 * 1024 * 1024 }
    }
}

impl AnswerSettings {
    /// Checks what can be wrong.
    pub(in crate::gateway) fn check(&self) -> Result<(), ConfigError> {
        let invalid =
            |key: &'static str, reason: String| ConfigError::Invalid { key: key.into(), reason: reason.into() };
        if self.keep.as_secs() == 0 || self.keep > MAX_KEEP {
            let reason = format!("is {}; set it to 1 to {}", self.keep.as_secs(), MAX_KEEP.as_secs());
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
