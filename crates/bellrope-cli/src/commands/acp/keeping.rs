//! Sessions from disk: loaded, gone on with, listed, deleted, and kept after each turn.

use std::{path::PathBuf, sync::Arc};

use agent_client_protocol_schema::v1::{
    ContentBlock, ContentChunk, DeleteSessionResponse, Error, ImageContent, ListSessionsRequest, ListSessionsResponse,
    SessionConfigOption, SessionId, SessionInfo, SessionNotification, SessionUpdate,
};
use bellrope::date::rfc_3339;
use bellrope_gateway::{ChatRequest, Content, Message, Part, Role};

use super::{
    agent::{Agent, failed, invalid, unready},
    models,
    sessions::Unready,
    store::{Header, Missing, Store},
    wire::Editor,
};
use crate::commands::chat::Conversation;

/// The target of its log lines, which filters name: it stays when the file moves.
const TARGET: &str = "bellrope::acp::keeping";

/// Sessions that are listed at once.
const PAGE: usize = 50;

impl Agent {
    /// Opens a session again. `replay`: who is to be told what was said in it, before the request is answered.
    pub(super) async fn load(
        &self,
        id: &SessionId,
        cwd: PathBuf,
        replay: Option<&Editor>,
    ) -> Result<Vec<SessionConfigOption>, Error> {
        let (mut header, messages) = match self.on_disk(id, |store, id| store.load(&id)).await? {
            Ok(session) => session,
            Err(Missing::Unknown) => return Err(unready(Unready::Unknown, id)),
            Err(Missing::Broken(words)) => return Err(invalid(words)),
        };
        let models = self.models().await.map_err(|error| failed(&error))?;
        let mut request = self.request.clone();
        if let (Some(provider), Some(model)) = (&header.provider, &header.model) {
            let choice = format!("{provider}/{model}");
            if let Err(why) = models::choose(&mut request, &choice, &self.request, &models.models) {
                tracing::warn!(target: TARGET, session = %id, "the session goes on with the default model: {why}");
            }
        }
        let option = models::option(&models.models, &models::chosen(&request));
        header.cwd = cwd;
        let said = replay.is_some().then(|| messages.clone());
        let conversation = Conversation::new(ChatRequest { messages, ..request });
        // It is there before anything is said of it.
        self.sessions().open(header, conversation).map_err(|fault| unready(fault, id))?;
        if let (Some(editor), Some(said)) = (replay, said) {
            for update in said.iter().flat_map(updates) {
                // An editor that is gone has no use for the rest.
                if editor.update(&SessionNotification::new(id.clone(), update)).await.is_err() {
                    break;
                }
            }
        }
        Ok(option.into_iter().collect())
    }

    /// Lists the sessions on disk, a page at a time.
    pub(super) async fn list(&self, request: ListSessionsRequest) -> Result<ListSessionsResponse, Error> {
        let from: usize = match request.cursor.as_deref() {
            Some(cursor) => cursor.parse().map_err(|_| invalid(format!("there is no page {cursor:?}")))?,
            None => 0,
        };
        let (headers, broken) = self.on_disk(&SessionId::new(""), |store, _| store.list()).await?;
        broken.iter().for_each(|words| tracing::warn!(target: TARGET, "{words}"));
        let is_asked = |header: &Header| request.cwd.as_ref().is_none_or(|cwd| *cwd == header.cwd);
        let headers: Vec<_> = headers.into_iter().filter(is_asked).collect();
        let next = from.saturating_add(PAGE);
        let more = (next < headers.len()).then(|| next.to_string());
        let info = |Header { id, cwd, title, updated, .. }: Header| {
            let title = (!title.is_empty()).then_some(title);
            SessionInfo::new(id, cwd).title(title).updated_at(rfc_3339(updated))
        };
        let page = headers.into_iter().skip(from).take(PAGE).map(info).collect();
        Ok(ListSessionsResponse::new(page).next_cursor(more))
    }

    /// Forgets a session, here and on disk. One that does not exist is forgotten already.
    pub(super) async fn delete(&self, id: &SessionId) -> Result<DeleteSessionResponse, Error> {
        self.sessions().close(&id.0);
        let deleted = self.on_disk(id, |store, id| store.delete(&id)).await?;
        deleted.map_err(|error| invalid(format!("the session cannot be deleted: {error}")))?;
        Ok(DeleteSessionResponse::new())
    }

    /// Keeps a session after a turn, if it is still open and something was said in it. That it cannot be kept costs no
    /// answer.
    pub(super) async fn keep(&self, id: &SessionId, conversation: &Conversation) {
        let request = conversation.request();
        let first = request.messages.first().map(|message| text(&message.content)).unwrap_or_default();
        if !self.store.keeps() || request.messages.is_empty() {
            return;
        }
        let Some(mut header) = self.sessions().named(&id.0, &first) else { return };
        (header.provider, header.model) = (request.provider.clone(), request.model.clone());
        let Ok(messages) = serde_json::to_vec(&request.messages) else { return };
        let saved = self.on_disk(id, move |store, _| store.save(header, &messages)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(target: TARGET, session = %id, "the session cannot be kept on disk: {error}");
        }
    }

    /// Does what takes the disk's time on a thread that may wait.
    async fn on_disk<T: Send + 'static>(
        &self,
        id: &SessionId,
        work: impl FnOnce(Store, Arc<str>) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (store, id) = (self.store.clone(), Arc::clone(&id.0));
        let done = tokio::task::spawn_blocking(move || work(store, id)).await;
        done.map_err(|error| failed(&anyhow::Error::new(error)))
    }
}

/// What an editor is told of a message that was said earlier.
fn updates(message: &Message) -> Vec<SessionUpdate> {
    let of = |block: ContentBlock| {
        let chunk = ContentChunk::new(block);
        match message.role {
            Role::Assistant => SessionUpdate::AgentMessageChunk(chunk),
            _ => SessionUpdate::UserMessageChunk(chunk),
        }
    };
    match &message.content {
        Content::Text(text) => vec![of(text.clone().into())],
        Content::Parts(parts) => parts.iter().filter_map(block).map(of).collect(),
    }
}

/// A part of a message as a block: what travelled within it.
fn block(part: &Part) -> Option<ContentBlock> {
    match part {
        Part::Text { text, .. } => Some(text.clone().into()),
        Part::Image { url, .. } => {
            let (kind, data) = url.strip_prefix("data:")?.split_once(";base64,")?;
            Some(ContentBlock::Image(ImageContent::new(data, kind)))
        }
        _ => None,
    }
}

fn text(content: &Content) -> String {
    match content {
        Content::Text(text) => text.clone(),
        Content::Parts(parts) => parts
            .iter()
            .find_map(|part| match part {
                Part::Text { text, .. } => Some(text.clone()),
                _ => None,
            })
            .unwrap_or_else(|| "a picture".to_owned()),
    }
}
