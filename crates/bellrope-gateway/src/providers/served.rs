//! The providers of whoever answers `ai.*` at a server's socket: with a fleet behind it, those of other machines.

mod connections;
mod errors;
mod names;
mod vectors;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bellrope::client::{CallOptions, Metadata};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::asker::{Asker, AskerKind};
use crate::client::{AsyncChatClient, AsyncChatStream, ChatError};
use crate::error::{Excerpt, ProviderError};
use crate::handlers::BOOKED;
use crate::message::{
    ChatRequest, Chunk, CompletionRequest, ModelInfo, ModelList, Prompt, ProviderHealth, SequencedChunk,
};
use crate::provider::{BoxFuture, Capabilities, EmbeddingRequest, Provider, ProviderLimits, ProviderStream};

use connections::Connections;
use errors::{forwarded, in_words};
use names::Names;

/// The name of the model that requests go to which name none: that of whoever answers.
const OWN_MODEL: &str = "default";
/// How long vectors may take. A stream may take any time.
const VECTORS: Duration = Duration::from_secs(600);
/// How long a list of models may take, for which all their providers are asked.
const LIST: Duration = Duration::from_secs(30);
/// What is said where a prompt has nothing behind it.
const ANSWERED: &str =
    "the prompt was answered, and not continued as it stands: that needs a `suffix` where a fleet answers";

/// Asks the `ai.*` of a server at its socket, as a program beside it does. For tools at the API port of a server that leaves
/// `ai.*` to a fleet.
///
/// Who asks goes with each request: the name of a token, which the server believes if it is of this very process, and else the
/// tool's own name. A conversation's `user` names its session, so its calls stay with one instance of a fleet. Dropping an
/// answer cancels the call. An answer that is lost is never asked for again.
#[derive(Debug, Clone)]
pub struct ServedProvider {
    name: Arc<str>,
    connections: Arc<Connections>,
    names: Arc<Names>,
}

impl ServedProvider {
    /// A provider of this name that asks the server at `socket`. It connects when it is first asked.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("ai.sock");
    /// use bellrope_gateway::{ChatRequest, Gateway, GatewaySettings, Provider, ServedProvider};
    ///
    /// let theirs = Arc::new(Gateway::from_settings_and_vars(GatewaySettings::default(), |_| None)?);
    /// let server = bellrope_gateway::register(bellrope::Server::builder(), theirs).bind(&path)?;
    /// let gateway = Gateway::new(Arc::new(ServedProvider::new("fleet", &path)));
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// let answer = gateway.chat(ChatRequest::user("Who is there?")).await?;
    /// assert!(answer.text.ends_with("Who is there?"));
    /// # Ok::<(), bellrope_gateway::ProviderError>(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn new(name: &str, socket: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), connections: Arc::new(Connections::to(socket.into())), names: Arc::default() }
    }

    async fn client(&self, options: CallOptions) -> Result<AsyncChatClient, ProviderError> {
        Ok(AsyncChatClient::over(self.connections.get().await?).with_options(options))
    }

    /// Tells a provider's name before a model's from a part of that.
    async fn route(&self, provider: &mut Option<String>, model: &mut Option<String>) {
        // Which of theirs answers, is theirs to say.
        *provider = None;
        if model.as_deref() == Some(OWN_MODEL) {
            *model = None;
        }
        let Some((head, rest)) = model.as_deref().and_then(|model| model.split_once('/')) else { return };
        if self.names.has(head, self.list()).await {
            (*provider, *model) = (Some(head.to_owned()), Some(rest.to_owned()));
        }
    }

    async fn list(&self) -> Result<ModelList, ProviderError> {
        let client = self.client(CallOptions::new().timeout(LIST)).await?;
        let list = client.models().await.map_err(|error| in_words(&error))?;
        self.names.learn(&list);
        Ok(list)
    }

    async fn begin(&self, mut request: ChatRequest) -> Result<(Vec<String>, AsyncChatStream), ProviderError> {
        self.route(&mut request.provider, &mut request.model).await;
        let session = request.user.as_deref().or_else(|| request.metadata.get("user_id")?.as_str());
        let client = self.client(CallOptions::new().metadata(said(&request.asker, session)?)).await?;
        // What is kept for a reader that was lost is kept here, where the tool asks for it.
        request.resumable = false;
        let mut notes = Vec::new();
        let begun = match request.prompt.take() {
            Some(Prompt { text, suffix: Some(suffix) }) => {
                client.complete_stream(&completion(&request, text, suffix, &mut notes)).await
            }
            prompt => {
                notes.extend(prompt.map(|_| ANSWERED.to_owned()));
                client.chat_stream(&request).await
            }
        };
        Ok((notes, begun.map_err(|error| in_words(&error))?))
    }
}

impl Provider for ServedProvider {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { default_model: Some(OWN_MODEL.to_owned()), tools: true, images: true, reasoning: true }
    }

    fn limits(&self) -> ProviderLimits {
        // Whoever answers has breakers, and so has the message type; they know more of who fails.
        ProviderLimits { breaker: None, ..ProviderLimits::default() }
    }

    fn asks_others(&self) -> bool {
        true
    }

    fn chat_stream(&self, request: ChatRequest) -> ProviderStream {
        let this = self.clone();
        let begun = stream::once(async move {
            let begun = this.begin(request).await;
            begun.map(|(notes, answer)| {
                let notes = stream::iter(notes.into_iter().map(|text| Ok(Chunk::Notice { text })));
                let pieces = stream::unfold(Some(answer), |answer| async {
                    let mut answer = answer?;
                    let piece = piece_of(answer.next().await?);
                    let is_last = piece.as_ref().map_or(true, Chunk::is_terminal);
                    Some((piece, (!is_last).then_some(answer)))
                });
                notes.chain(pieces)
            })
        });
        Box::pin(begun.try_flatten())
    }

    fn models(&self) -> BoxFuture<'_, Result<Vec<ModelInfo>, ProviderError>> {
        Box::pin(async {
            let list = self.list().await?;
            match list.faults.into_iter().next() {
                Some(fault) if list.models.is_empty() => Err(forwarded(&fault.error)),
                _ => Ok(list.models),
            }
        })
    }

    fn embed(&self, mut request: EmbeddingRequest) -> BoxFuture<'_, Result<Vec<u8>, ProviderError>> {
        Box::pin(async move {
            self.route(&mut request.provider, &mut request.model).await;
            let options = CallOptions::new().timeout(VECTORS).metadata(said(&request.asker, None)?);
            let client = self.client(options).await?;
            let asked = vectors::asked(&request)?;
            let answer = client.embed(&asked).await.map_err(|error| in_words(&error))?;
            vectors::answered(answer, request.room).await
        })
    }

    fn health(&self) -> BoxFuture<'_, ProviderHealth> {
        Box::pin(async {
            let began = tokio::time::Instant::now();
            let asked = async {
                let client = self.client(CallOptions::new().timeout(LIST)).await?;
                let report = client.health().await.map_err(|error| in_words(&error))?;
                let own = report.providers.into_iter().find(|health| health.provider == report.default_provider);
                own.and_then(|own| own.error).map_or(Ok(()), |error| Err(forwarded(&error)))
            };
            let error = asked.await.err().map(|error: ProviderError| error.info());
            let latency = began.elapsed();
            ProviderHealth { provider: self.name.to_string(), healthy: error.is_none(), latency, error }
        })
    }
}

/// What goes with a call of this asker.
///
/// # Errors
/// A token's name does not fit: without it nobody's budget would have the request.
fn said(asker: &Asker, session: Option<&str>) -> Result<Metadata, ProviderError> {
    // The gateway that asks keeps the books, where this process keeps any.
    let booked = || Metadata::new().own(BOOKED, b"");
    let said = match asker.kind {
        AskerKind::Token => booked().and_then(|said| said.vouched(&format!("token {}", asker.name()))),
        AskerKind::Process | AskerKind::Program => {
            booked().and_then(|said| said.caller(asker.name())).or_else(|_| booked())
        }
        AskerKind::Unknown => booked(),
    };
    let said = said.map_err(|error| ProviderError::InvalidRequest { reason: Excerpt::new(&error.to_string()) })?;
    // One that is too long, or is no text, keeps nothing together.
    Ok(session.and_then(|session| said.clone().session(session).ok()).unwrap_or(said))
}

/// A text with a place to fill, of which the wire knows fewer fields.
fn completion(request: &ChatRequest, prompt: String, suffix: String, notes: &mut Vec<String>) -> CompletionRequest {
    // Each by its name: one that is new is left out here only if somebody has thought of it.
    let ChatRequest {
        version: _,
        provider,
        model,
        system,
        messages: _,
        tools,
        tool_choice,
        temperature,
        max_tokens,
        stop,
        top_p,
        top_k,
        seed,
        presence_penalty,
        frequency_penalty,
        logit_bias,
        logprobs,
        top_logprobs,
        user,
        metadata,
        reasoning_effort,
        thinking,
        parallel_tool_calls,
        response_format,
        service_tier,
        n: _,
        resumable: _,
        prompt: _,
        notes: _,
        asker: _,
        caller: _,
        from_tool: _,
        meter: _,
        room: _,
    } = request;
    for (name, is_there) in [
        ("tools", !tools.is_empty()),
        ("tool_choice", tool_choice.is_some()),
        ("top_p", top_p.is_some()),
        ("top_k", top_k.is_some()),
        ("seed", seed.is_some()),
        ("presence_penalty", presence_penalty.is_some()),
        ("frequency_penalty", frequency_penalty.is_some()),
        ("logit_bias", !logit_bias.is_empty()),
        ("logprobs", *logprobs || top_logprobs.is_some()),
        ("user", user.is_some()),
        ("metadata", !metadata.is_empty()),
        ("reasoning_effort", reasoning_effort.is_some()),
        ("thinking", thinking.is_some()),
        ("parallel_tool_calls", parallel_tool_calls.is_some()),
        ("response_format", response_format.is_some()),
        ("service_tier", service_tier.is_some()),
    ] {
        if is_there {
            notes.push(format!("`{name}` was left out: a text with a `suffix` goes to a fleet without it"));
        }
    }
    CompletionRequest {
        provider: provider.clone(),
        model: model.clone(),
        system: system.clone(),
        suffix: Some(suffix),
        temperature: *temperature,
        max_tokens: *max_tokens,
        stop: stop.clone(),
        ..CompletionRequest::new(prompt)
    }
}

fn piece_of(came: Result<SequencedChunk, ChatError>) -> Result<Chunk, ProviderError> {
    match came {
        Ok(piece) => match piece.chunk {
            Chunk::Error(info) => Err(forwarded(&info)),
            chunk => Ok(chunk),
        },
        Err(error) => Err(in_words(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_text_with_a_suffix_goes_without_is_said() {
        let (mut request, mut notes) = (ChatRequest { top_p: Some(0.5), ..ChatRequest::user("a") }, Vec::new());
        (request.top_k, request.user) = (Some(3), Some("u".to_owned()));
        let asked = completion(&request, "a".to_owned(), "b".to_owned(), &mut notes);
        assert_eq!((asked.prompt.as_str(), asked.suffix.as_deref()), ("a", Some("b")));
        let names: Vec<_> = notes.iter().filter_map(|note| note.split('`').nth(1)).collect();
        assert_eq!(names, ["top_p", "top_k", "user"]);
    }
}
