//! What is answered to which request, and the turn of a prompt.
//!
//! The library hands over one message at a time and waits meanwhile, so whatever takes time is a task of its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent_client_protocol as sdk;
use bellrope::AsyncClient;
use bellrope_gateway::{ChatRequest, Chunk, ModelList, StopReason as Stop};
use sdk::v1::{
    ConnectionTo, Responder,
    schema::{
        AgentCapabilities, CancelNotification, CloseSessionRequest, CloseSessionResponse, ContentChunk,
        Error as WireError, Implementation, InitializeRequest, InitializeResponse, NewSessionRequest,
        NewSessionResponse, PromptCapabilities, PromptRequest, PromptResponse, SessionCapabilities,
        SessionCloseCapabilities, SessionConfigOptionValue, SessionId, SessionNotification, SessionUpdate,
        SetSessionConfigOptionRequest, SetSessionConfigOptionResponse, StopReason,
    },
};

use super::{
    models, prompt,
    sessions::{Sessions, Unready},
    wire::Flow,
};
use crate::{commands::chat::Conversation, socket, socket::SocketArg};

/// The target of its log lines, which filters name: it stays when the file moves.
const TARGET: &str = "bellrope::acp::agent";

/// How long the models may take to be listed; without them a session has no choice of them.
const MODELS_TIMEOUT: Duration = Duration::from_secs(3);

/// The agent of one editor.
#[derive(Debug)]
pub(super) struct Agent {
    server: SocketArg,
    /// How questions are asked where a session does not say otherwise.
    request: ChatRequest,
    flow: Arc<Flow>,
    sessions: Mutex<Sessions>,
    /// Connected with the first need of it; then it connects anew by itself.
    client: tokio::sync::Mutex<Option<AsyncClient>>,
}

/// Answers an editor until it is gone.
pub(super) async fn serve(
    agent: Arc<Agent>,
    transport: impl sdk::ConnectTo<sdk::Agent> + 'static,
) -> Result<(), sdk::Error> {
    let with = || Arc::clone(&agent);
    let (opening, asked, cancelled, closing, setting) = (with(), with(), with(), with(), with());
    sdk::Agent
        .v1()
        .name("bellrope")
        .on_receive_request(
            async move |_: InitializeRequest, responder: Responder<InitializeResponse>, _| {
                responder.respond(introduction())
            },
            sdk::on_receive_request!(),
        )
        .on_receive_request(
            async move |_: NewSessionRequest, responder: Responder<NewSessionResponse>, editor: ConnectionTo<_>| {
                let (agent, brief) = (Arc::clone(&opening), opening.flow.brief());
                editor.spawn(async move {
                    let answered = responder.respond_with_result(agent.open().await);
                    drop(brief);
                    answered
                })
            },
            sdk::on_receive_request!(),
        )
        .on_receive_request(
            async move |prompt: PromptRequest, responder: Responder<PromptResponse>, editor: ConnectionTo<_>| {
                Arc::clone(&asked).prompt(prompt, responder, &editor)
            },
            sdk::on_receive_request!(),
        )
        .on_receive_request(
            async move |request: CloseSessionRequest, responder: Responder<CloseSessionResponse>, _| {
                let known = closing.sessions().close(&request.session_id.0);
                let outcome = known.then(CloseSessionResponse::new);
                responder.respond_with_result(outcome.ok_or_else(|| unready(Unready::Unknown, &request.session_id)))
            },
            sdk::on_receive_request!(),
        )
        .on_receive_request(
            async move |request: SetSessionConfigOptionRequest,
                        responder: Responder<SetSessionConfigOptionResponse>,
                        editor: ConnectionTo<_>| {
                let (agent, brief) = (Arc::clone(&setting), setting.flow.brief());
                editor.spawn(async move {
                    let answered = responder.respond_with_result(agent.set(request).await);
                    drop(brief);
                    answered
                })
            },
            sdk::on_receive_request!(),
        )
        .on_receive_notification(
            async move |notice: CancelNotification, _| {
                cancelled.sessions().cancel(&notice.session_id.0);
                Ok(())
            },
            sdk::on_receive_notification!(),
        )
        .connect_with(transport, async move |editor: ConnectionTo<_>| {
            editor.incoming_closed().await;
            agent.flow.settled().await;
            Ok(())
        })
        .await
}

fn introduction() -> InitializeResponse {
    let prompts = PromptCapabilities::new().image(true).embedded_context(true);
    let sessions = SessionCapabilities::new().close(SessionCloseCapabilities::new());
    let version = env!("CARGO_PKG_VERSION");
    InitializeResponse::new(sdk::schema::ProtocolVersion::V1)
        .agent_capabilities(AgentCapabilities::new().prompt_capabilities(prompts).session_capabilities(sessions))
        .agent_info(Implementation::new("bellrope", version).title("Bellrope".to_owned()))
}

impl Agent {
    pub(super) fn new(server: SocketArg, request: ChatRequest, flow: Arc<Flow>) -> Self {
        Self { server, request, flow, sessions: Mutex::default(), client: tokio::sync::Mutex::new(None) }
    }

    /// The connection to the server.
    pub(super) async fn client(&self) -> anyhow::Result<AsyncClient> {
        let mut client = self.client.lock().await;
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        Ok(client.insert(socket::connect_async(self.server.config()).await?).clone())
    }

    /// Opens a session, if there is a server to ask.
    async fn open(&self) -> Result<NewSessionResponse, sdk::Error> {
        let models = self.models().await.map_err(|error| failed(&error))?;
        let id = self.sessions().open(self.request.clone()).map_err(|fault| unready(fault, &SessionId::new("")))?;
        let option = models::option(&models.models, &models::chosen(&self.request));
        Ok(NewSessionResponse::new(id).config_options(option.map(|option| vec![option])))
    }

    /// Changes the model of a session.
    async fn set(&self, request: SetSessionConfigOptionRequest) -> Result<SetSessionConfigOptionResponse, sdk::Error> {
        let SetSessionConfigOptionRequest { session_id, config_id, value, .. } = request;
        let choice = match value {
            SessionConfigOptionValue::ValueId { value } if *config_id.0 == *models::OPTION => value.0,
            _ => return Err(invalid(format!("there is no option {config_id}; known: {}", models::OPTION))),
        };
        let models = self.models().await.map_err(|error| failed(&error))?;
        let mut chosen = Ok(());
        let change = |conversation: &mut Conversation| {
            chosen = conversation.change(|request| models::choose(request, &choice, &self.request));
        };
        self.sessions().change(&session_id.0, change).map_err(|fault| unready(fault, &session_id))?;
        chosen.map_err(invalid)?;
        let option = models::option(&models.models, &choice);
        Ok(SetSessionConfigOptionResponse::new(option.into_iter().collect()))
    }

    /// The models to choose from. None, if they take too long to be listed: a session works without.
    async fn models(&self) -> anyhow::Result<ModelList> {
        let client = self.client().await?;
        match client.call_within("ai.models", b"", MODELS_TIMEOUT).await {
            Ok(list) => Ok(serde_json::from_slice(&list)?),
            Err(error @ bellrope::CallError::Connect(_)) => Err(socket::explain_call(error)),
            Err(error) => {
                tracing::warn!(target: TARGET, %error, "the models cannot be listed");
                Ok(ModelList { version: 1, models: Vec::new(), faults: Vec::new() })
            }
        }
    }

    /// Answers a prompt, in a task of its own.
    fn prompt(
        self: Arc<Self>,
        request: PromptRequest,
        responder: Responder<PromptResponse>,
        editor: &ConnectionTo<sdk::Client>,
    ) -> Result<(), sdk::Error> {
        let PromptRequest { session_id: id, prompt, .. } = request;
        let content = match prompt::content(prompt) {
            Ok(content) => content,
            Err(fault) => return responder.respond_with_error(invalid(fault)),
        };
        let begun = self.sessions().begin(&id.0);
        let (mut conversation, cancelled) = match begun {
            Ok(begun) => begun,
            Err(fault) => return responder.respond_with_error(unready(fault, &id)),
        };
        conversation.ask_in_parts(content);
        let (withdrawn, to) = (responder.cancellation(), editor.clone());
        editor.spawn(async move {
            let outcome = tokio::select! {
                biased;
                // The stream is dropped, and so cancelled at the server.
                _ = cancelled => Ok(StopReason::Cancelled),
                () = withdrawn.cancelled() => Ok(StopReason::Cancelled),
                outcome = self.turn(&id, &mut conversation, &to) => outcome,
            };
            match outcome {
                // The protocol says of a refusal that its prompt is not part of the next.
                Err(_) | Ok(StopReason::Refusal) => conversation.take_back(),
                Ok(_) => conversation.settle(),
            }
            self.sessions().end(&id.0, conversation);
            responder.respond_with_result(outcome.map(PromptResponse::new).map_err(|error| failed(&error)))
        })
    }

    /// Passes an answer on, piece by piece, at the pace at which the editor reads.
    async fn turn(
        &self,
        id: &SessionId,
        conversation: &mut Conversation,
        editor: &ConnectionTo<sdk::Client>,
    ) -> anyhow::Result<StopReason> {
        let client = self.client().await?;
        let mut answer = conversation.begin(&client).await?;
        if let Some(note) = conversation.forgotten() {
            tracing::warn!(target: TARGET, session = %id, "{note}");
        }
        loop {
            let update = match answer.next().await?.chunk {
                Chunk::Text { text } => {
                    conversation.hear(&text);
                    SessionUpdate::AgentMessageChunk(ContentChunk::new(text.into()))
                }
                Chunk::Reasoning { text } => SessionUpdate::AgentThoughtChunk(ContentChunk::new(text.into())),
                Chunk::Done { stop_reason } => {
                    answer.part().await;
                    return Ok(stopped(stop_reason));
                }
                Chunk::Error(info) => anyhow::bail!("{}: {}", info.code, info.message),
                // No tools are offered; what an answer took has no place in the protocol yet.
                _ => continue,
            };
            self.flow.room().await;
            editor
                .send_notification(SessionNotification::new(id.clone(), update))
                .map_err(|error| anyhow::anyhow!(worded(&error)))?;
        }
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stopped(reason: Stop) -> StopReason {
    match reason {
        Stop::MaxTokens => StopReason::MaxTokens,
        Stop::Refusal | Stop::ContentFilter => StopReason::Refusal,
        _ => StopReason::EndTurn,
    }
}

/// An error in the words that an editor shows.
fn failed(error: &anyhow::Error) -> sdk::Error {
    sdk::Error::new(sdk::ErrorCode::INTERNAL_ERROR, bellrope_terminal::in_words(error))
}

fn invalid(fault: String) -> sdk::Error {
    sdk::Error::new(sdk::ErrorCode::INVALID_PARAMS, fault)
}

fn unready(fault: Unready, id: &SessionId) -> sdk::Error {
    match fault {
        Unready::Unknown => WireError::session_not_found(id.clone()).into(),
        Unready::Busy => invalid("this session waits for an answer; cancel it first".to_owned()),
        Unready::Full => invalid("too many sessions wait for answers; close some".to_owned()),
    }
}

/// An error of the protocol library as one line of text.
pub(super) fn worded(error: &sdk::Error) -> String {
    match &error.data {
        Some(data) => format!("{} ({data})", error.message),
        None => error.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_protocol_is_a_line_with_what_there_is_to_know_of_it() {
        let error = sdk::Error::new(-32603, "it broke");
        assert_eq!(worded(&error), "it broke");
        assert_eq!(worded(&error.data("no space left")), r#"it broke ("no space left")"#);
    }
}
