//! What is asked about an answer that is kept.

use serde::{Deserialize, Serialize};

use super::version::{version, wire_version};

/// An answer to be gone on with: the payload of `ai.resume`.
///
/// ```
/// use bellrope_gateway::ResumeRequest;
///
/// let request: ResumeRequest = serde_json::from_str(r#"{"id":"00112233445566778899aabbccddeeff","last_seq":41}"#)?;
/// assert_eq!(request.last_seq, Some(41));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeRequest {
    /// The version of this message.
    #[serde(default = "wire_version", deserialize_with = "version")]
    pub version: u32,
    /// The answer's id, as of [`Chunk::Resumable`](super::Chunk::Resumable).
    pub id: String,
    /// The number of the last piece that was seen. Without it all of the answer comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seq: Option<u64>,
}

/// An answer that nobody wants any more: the payload of `ai.cancel`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelRequest {
    /// The version of this message.
    #[serde(default = "wire_version", deserialize_with = "version")]
    pub version: u32,
    /// The answer's id, as of [`Chunk::Resumable`](super::Chunk::Resumable).
    pub id: String,
}

/// What `ai.cancel` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelReport {
    /// The version of this message.
    #[serde(default = "wire_version", deserialize_with = "version")]
    pub version: u32,
    /// Whether the answer was under way, and so was cancelled by this. What came of it can be read for a while.
    pub cancelled: bool,
}
