//! What a tool asks.

use super::responses::StoredRequest;
use super::writer::AnswerWriter;
use crate::message::ChatRequest;

/// What a tool asks.
pub struct Asked {
    /// The request as the gateway takes it.
    pub chat: ChatRequest,
    /// Whether the answer is to come in pieces.
    pub stream: bool,
    /// What writes the answer in the tool's format.
    pub writer: Box<dyn AnswerWriter>,
    /// What is to be kept of the answer, or what it goes on from: of OpenAI's responses alone.
    pub stored: Option<StoredRequest>,
}
