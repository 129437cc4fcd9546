//! What the message types of the gateway are called.

/// The message types that [`register`](super::register) adds.
pub const MESSAGE_TYPES: [&str; 9] =
    [CHAT, CHAT_STREAM, COMPLETE, COMPLETE_STREAM, RESUME, CANCEL, EMBED, MODELS, HEALTH];

pub(crate) const CHAT: &str = "ai.chat";
pub(crate) const CHAT_STREAM: &str = "ai.chat_stream";
pub(crate) const COMPLETE: &str = "ai.complete";
pub(crate) const COMPLETE_STREAM: &str = "ai.complete_stream";
pub(crate) const RESUME: &str = "ai.resume";
pub(crate) const CANCEL: &str = "ai.cancel";
pub(crate) const EMBED: &str = "ai.embed";
pub(crate) const MODELS: &str = "ai.models";
pub(crate) const HEALTH: &str = "ai.health";
