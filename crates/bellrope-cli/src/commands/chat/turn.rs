//! A turn of a conversation: a question asked, and its answer shown and remembered as far as it comes.

use std::time::Duration;

use bellrope::AsyncClient;
use bellrope_gateway::{Chunk, StopReason};
use bellrope_terminal::Outcome;

use super::{answer::ChatAnswer, conversation::Conversation, figures::Figures, kept, screen::Screen};
use crate::socket;

/// How long nothing may come before somebody at a terminal is told that the answer is waited for.
const QUIET: Duration = Duration::from_secs(1);

/// Asks the server for the next turn of a conversation, which takes it in as far as it comes. Fails unless it comes to
/// its end; whether that is the end of all the model would have said. Dropping it cancels the answer.
pub(super) async fn turn(
    client: &AsyncClient,
    conversation: &mut Conversation,
    screen: &mut Screen,
) -> anyhow::Result<bool> {
    let figures = Figures::start();
    let answer = conversation.begin(client).await?;
    if let Some(note) = conversation.forgotten() {
        screen.note(&note)?;
    }
    show(answer, figures, screen, |text| conversation.hear(text)).await
}

/// Shows an answer that is kept, from its beginning. As [`turn`].
pub(super) async fn resume(client: &AsyncClient, id: &str, screen: &mut Screen) -> anyhow::Result<bool> {
    let figures = Figures::start();
    let answer = ChatAnswer::resume(client, id).await.map_err(socket::explain_call)?;
    show(answer, figures, screen, |_| {}).await
}

async fn show(
    mut answer: ChatAnswer,
    mut figures: Figures,
    screen: &mut Screen,
    mut hear: impl FnMut(&str),
) -> anyhow::Result<bool> {
    loop {
        let piece = {
            let mut next = std::pin::pin!(answer.next());
            match tokio::time::timeout(QUIET, next.as_mut()).await {
                Ok(piece) => piece?,
                Err(_) => {
                    screen.wait(QUIET);
                    next.await?
                }
            }
        };
        figures.take(&piece.chunk);
        if let Chunk::Text { text } = &piece.chunk {
            hear(text);
        }
        if let Chunk::Resumable { id } = &piece.chunk
            && let Some(fault) = kept::note(id)
        {
            screen.note(&fault)?;
        }
        let stop_reason = match &piece.chunk {
            Chunk::Done { stop_reason } => Some(*stop_reason),
            _ => None,
        };
        screen.show(piece)?;
        if let Some(stop_reason) = stop_reason {
            answer.part().await;
            part(screen, &figures, stop_reason)?;
            let is_cut =
                matches!(stop_reason, StopReason::MaxTokens | StopReason::ContextWindow | StopReason::ContentFilter);
            return Ok(!is_cut);
        }
    }
}

/// Says what an answer took, and why it stopped if it stopped early.
fn part(screen: &mut Screen, figures: &Figures, stop_reason: StopReason) -> Outcome {
    if stop_reason != StopReason::EndTurn {
        screen.note(&match stop_reason {
            StopReason::Other => "the model stopped for a reason that is not known".to_owned(),
            early => format!("the model stopped early: {}", word(early)),
        })?;
    }
    screen.aside(&figures.line())
}

/// The word that a reason to stop has on the wire.
fn word(reason: StopReason) -> String {
    serde_json::to_value(reason).ok().and_then(|word| Some(word.as_str()?.to_owned())).unwrap_or_default()
}
