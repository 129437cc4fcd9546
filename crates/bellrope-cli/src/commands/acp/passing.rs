//! An answer on its way from the server to the editor.

use agent_client_protocol_schema::v1::{ContentChunk, SessionId, SessionNotification, SessionUpdate, StopReason};
use bellrope::AsyncClient;
use bellrope_gateway::{Chunk, StopReason as Stop};

use super::wire::Editor;
use crate::commands::chat::Conversation;

/// The target of its log lines, which filters name: it stays when the file moves.
const TARGET: &str = "bellrope::acp::agent";

/// Passes an answer on, piece by piece, at the pace at which the editor reads.
pub(super) async fn pass_on(
    client: &AsyncClient,
    id: &SessionId,
    conversation: &mut Conversation,
    editor: &Editor,
) -> anyhow::Result<StopReason> {
    let mut answer = conversation.begin(client).await?;
    if let Some(note) = conversation.forgotten() {
        tracing::warn!(target: TARGET, session = %id, "{note}");
    }
    loop {
        let update = match answer.next().await?.chunk {
            Chunk::Text { text } => {
                conversation.hear(&text);
                SessionUpdate::AgentMessageChunk(ContentChunk::new(text.into()))
            }
            Chunk::Reasoning { text } | Chunk::Notice { text } => {
                SessionUpdate::AgentThoughtChunk(ContentChunk::new(text.into()))
            }
            Chunk::Done { stop_reason } => {
                answer.part().await;
                return Ok(stopped(stop_reason));
            }
            Chunk::Error(info) => anyhow::bail!("{}: {}", info.code, info.message),
            // No tools are offered; what an answer took has no place in the protocol yet.
            _ => continue,
        };
        editor.update(&SessionNotification::new(id.clone(), update)).await?;
    }
}

fn stopped(reason: Stop) -> StopReason {
    match reason {
        Stop::MaxTokens | Stop::ContextWindow => StopReason::MaxTokens,
        Stop::Refusal | Stop::ContentFilter => StopReason::Refusal,
        _ => StopReason::EndTurn,
    }
}
