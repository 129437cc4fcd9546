//! What all requests to one provider share: where it is, whose key it gets, and what is posted there.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use super::endpoint::{Endpoint, Sent};
use super::events::EventStream;
use super::pass::{Post, pass, with_tools_headers};
use crate::apart::{LARGE, LONG, apart, no_thread};
use crate::config::{Credentials, PassThrough};
use crate::error::{Excerpt, ProviderError};
use crate::message::{ChatRequest, FromTool, ModelInfo};
use crate::notes::Notes;
use crate::pass::{PassError, PassFormat, PassRequest, Passed, ToolKey};
use crate::provider::{EmbeddingRequest, MAX_ANSWER, ProviderLimits, TakesKey};
use crate::providers::fill::Fill;
use crate::providers::formats::{self, ProviderKind, ProviderServer, Translate};
use crate::secret::Secret;

/// Where every format has its list of models, below the base address.
const MODELS: &str = "models";

/// The largest count of tokens, in bytes: a number in an object.
const MAX_COUNT: usize = 64 * 1024;

/// The largest list of models, in bytes.
const MAX_MODEL_LIST: usize = 8 * 1024 * 1024;

/// The provider as all its answers share it.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) name: String,
    /// The name as it stands in sentences.
    pub(super) title: String,
    pub(super) kind: ProviderKind,
    pub(super) endpoint: Endpoint,
    pub(super) model: Option<String>,
    /// Whether it answers no request without a model.
    pub(super) needs_model: bool,
    pub(super) server: ProviderServer,
    /// Whether it refuses calls of earlier turns without what led to them.
    pub(super) wants_thoughts: bool,
    /// Whether no model there has a slash in its name.
    pub(super) has_plain_names: bool,
    /// The setting that holds the key, while there has to be one and is none.
    pub(super) missing_key: Option<String>,
    pub(super) pass_through: PassThrough,
    pub(super) credentials: Credentials,
    pub(super) model_setting: String,
    pub(super) max_tokens: Option<u32>,
    pub(super) think_tags: bool,
    pub(super) fill: Fill,
    pub(super) limits: ProviderLimits,
}

impl Remote {
    /// Sends a request; gets the events of its answer. Notes what was not sent as it came. A large one is written apart.
    pub(super) async fn ask(
        self: &Arc<Self>,
        request: &mut Box<ChatRequest>,
        notes: &mut Notes,
    ) -> Result<EventStream, ProviderError> {
        let sent = self.sent(&request.from_tool)?;
        // What was changed before it came here. It is said again if the request is sent again.
        let before = request.notes.clone();
        let (path, body) = if request.is_large(LARGE) {
            let (remote, taken) = (Arc::clone(self), mem::take(request));
            let write = move || {
                let mut notes = Notes::default();
                (remote.write(&taken, &mut notes), notes, taken)
            };
            let (written, noted, given_back) = apart(write).await.map_err(no_thread)?;
            (*notes, *request) = (noted, given_back);
            written?
        } else {
            self.write(request, notes)?
        };
        for note in &before {
            notes.add(note);
        }
        let model = self.model_of(request.model.as_deref())?;
        self.endpoint.post_for_events(path.iter().map(|segment| segment.of(model)), body, &sent).await
    }

    /// What is sent, and where.
    fn write(&self, request: &ChatRequest, notes: &mut Notes) -> Result<formats::Post, ProviderError> {
        let model = self.model_of(request.model.as_deref())?;
        let format = self.kind.format();
        let (path, body) = match &request.prompt {
            Some(prompt) => format.completion(request, prompt, model, self.server, notes)?,
            None => (format.path(), format.body(request, model, self.server, notes)?),
        };
        let carried = request.from_tool.carried.as_ref().filter(|carried| self.carries(carried.format()));
        Ok(match carried {
            Some(carried) => (path, carried.put_into(body)),
            None => (path, body),
        })
    }

    /// Whether it takes what is not known here of requests of this format.
    pub(super) fn carries(&self, format: PassFormat) -> bool {
        self.pass_through == PassThrough::Repaired && self.kind.format().passes(format).is_some()
    }

    /// Whose key it is sent with a request of a tool that speaks this format.
    pub(super) fn takes_key(&self, format: Option<PassFormat>) -> TakesKey {
        match self.credentials {
            Credentials::Server => TakesKey::OfServer,
            Credentials::Client => TakesKey::OfTool { is_its_format: self.speaks(format) },
        }
    }

    fn speaks(&self, format: Option<PassFormat>) -> bool {
        format.is_some_and(|format| self.kind.format().passes(format).is_some())
    }

    /// Sends a request as it came.
    pub(super) async fn pass(&self, request: &PassRequest) -> Result<Passed, PassError> {
        let Some(path) = self.kind.format().passes(request.format) else {
            let reason = format!("{} speaks another format", self.title);
            return Err(ProviderError::InvalidRequest { reason: Excerpt::new(&reason) }.into());
        };
        let from_tool = FromTool { format: Some(request.format), key: request.key.clone(), ..FromTool::default() };
        let sent = self.sent(&from_tool)?;
        let model = self.model_of(request.model.as_deref())?;
        let (knows_options, is_inventors) = (self.server.stream_options, self.server.at_inventor);
        let (body, hides_usage) = if request.body().len() > LONG {
            let (request, model) = (request.clone(), model.map(str::to_owned));
            let edit = move || request.body_for(model.as_deref(), knows_options, is_inventors);
            apart(edit).await.map_err(no_thread)?
        } else {
            request.body_for(model, knows_options, is_inventors)
        };
        let is_watched = request.format != PassFormat::CountTokens;
        let translator = is_watched.then(|| {
            let mut translator = self.kind.format().translator(sent.secret().cloned());
            translator.may_be_empty();
            translator
        });
        let post = Post {
            url: self.endpoint.url(path.iter().map(|segment| segment.of(model))),
            sent: sent.with(|headers| with_tools_headers(headers, &request.headers)),
            body,
            streams: request.streams(),
            hides_usage,
            format: request.format,
            choices: request.choices(),
            meter: request.meter.clone(),
            room: request.room.clone(),
            end: request.end.clone(),
        };
        pass(&self.endpoint, post, translator).await
    }

    /// What goes with a request beside its body: the key that is set, or the tool's own.
    fn sent(&self, from_tool: &FromTool) -> Result<Sent, ProviderError> {
        if self.credentials == Credentials::Server {
            self.check_key()?;
            return Ok(self.endpoint.own());
        }
        let none = || ProviderError::NoCredentials { provider: self.name.clone() };
        let key = from_tool.key.as_ref().ok_or_else(none)?;
        let is_same = self.speaks(from_tool.format);
        let goes = sent_key(self.kind, key).filter(|_| !is_same && self.server.at_inventor);
        if goes.is_some_and(|secret| !self.kind.format().may_be_own(secret)) {
            return Err(none());
        }
        let keys = keys(self.kind, key, is_same).ok_or_else(none)?;
        Ok(Sent::of_tool(self.endpoint.own().headers().clone(), keys, key.secrets().cloned().collect()))
    }

    /// The model to ask.
    pub(super) fn model_of<'a>(&'a self, asked: Option<&'a str>) -> Result<Option<&'a str>, ProviderError> {
        let model = asked.or(self.model.as_deref());
        if model.is_none() && self.needs_model {
            return Err(ProviderError::NotConfigured {
                missing: format!("{} needs the name of a model", self.title).into(),
                fix: format!("name a model in the request, or set {}", self.model_setting).into(),
            });
        }
        Ok(model)
    }

    pub(super) async fn embed(&self, request: &EmbeddingRequest) -> Result<Vec<u8>, ProviderError> {
        let sent = self.sent(&FromTool { key: request.key.clone(), ..FromTool::default() })?;
        let Some(path) = self.kind.format().embeddings() else {
            let reason = format!("{} has no embeddings; they need a provider that speaks OpenAI's format", self.title);
            return Err(ProviderError::InvalidRequest { reason: Excerpt::new(&reason) });
        };
        let model = self.model_of(request.model.as_deref())?;
        let body = with_model(&request.fields, model);
        let path = path.iter().map(|segment| segment.of(model));
        let answer = self.endpoint.post_json(path, body, MAX_ANSWER, (&sent, &request.room)).await?;
        match formats::reported(&answer, sent.secret().cloned()) {
            Some(error) => Err(error),
            None => Ok(answer),
        }
    }

    pub(super) async fn count_tokens(self: &Arc<Self>, request: ChatRequest) -> Result<Option<u64>, ProviderError> {
        #[derive(Deserialize)]
        struct Counted {
            input_tokens: u64,
        }

        let sent = self.sent(&request.from_tool)?;
        let (room, model) = (request.room.clone(), request.model.clone());
        let model = self.model_of(model.as_deref())?;
        let post = if request.is_large(LARGE) {
            let remote = Arc::clone(self);
            let write = move || remote.kind.format().count(&request, remote.model_of(request.model.as_deref())?);
            apart(write).await.map_err(no_thread)??
        } else {
            self.kind.format().count(&request, model)?
        };
        let Some((path, body)) = post else { return Ok(None) };
        let path = path.iter().map(|segment| segment.of(model));
        let answer = self.endpoint.post_json(path, body, MAX_COUNT, (&sent, &room)).await?;
        // What is no count is none.
        Ok(serde_json::from_slice::<Counted>(&answer).ok().map(|counted| counted.input_tokens))
    }

    pub(super) fn translator(&self, from_tool: &FromTool) -> Box<dyn Translate> {
        let key = match (self.credentials, &from_tool.key) {
            (Credentials::Client, Some(key)) => key.secrets().next(),
            _ => self.endpoint.secret(),
        };
        self.kind.format().translator(key.cloned())
    }

    pub(super) async fn models(&self) -> Result<Vec<ModelInfo>, ProviderError> {
        self.check_key()?;
        let body = self.endpoint.get_json(MODELS, MAX_MODEL_LIST).await?;
        let is_large = body.len() > LARGE;
        let (name, key) = (self.name.clone(), self.endpoint.secret().cloned());
        let read = move || formats::models_in(&body, &name, key);
        if is_large { apart(read).await.map_err(no_thread)? } else { read() }
    }

    pub(super) async fn probe(&self) -> Result<(), ProviderError> {
        self.check_key()?;
        match self.endpoint.probe(MODELS).await {
            // It has no key to show, and answers.
            Err(ProviderError::Refused { status: 401 | 403, .. }) if self.credentials == Credentials::Client => Ok(()),
            probed => probed,
        }
    }

    /// Tells the caller why nothing comes for a while.
    pub(super) fn waits(&self, pause: Duration, error: &ProviderError) -> String {
        let why = match error.code() {
            "rate_limited" => "it has had too many requests",
            "overloaded" => "it is overloaded",
            _ => "it cannot answer now",
        };
        let seconds = pause.as_secs_f64().ceil().max(1.0);
        format!("{} asks to wait {seconds} s, as {why}; it is asked again then", self.title)
    }

    pub(super) fn check_key(&self) -> Result<(), ProviderError> {
        let Some(setting) = &self.missing_key else { return Ok(()) };
        let missing = format!("{} needs a key", self.title).into();
        Err(ProviderError::NotConfigured { missing, fix: format!("set {setting}").into() })
    }
}

/// The JSON text of an object with the name of a model in it. What it holds beside it, it does not have.
fn with_model(fields: &str, model: Option<&str>) -> Vec<u8> {
    let Some(model) = model else { return fields.as_bytes().to_vec() };
    let rest = fields.trim().strip_prefix('{').unwrap_or("}");
    let separator = if rest.trim_start().starts_with('}') { "" } else { "," };
    format!("{{\"model\":{}{separator}{rest}", serde_json::Value::from(model)).into_bytes()
}

/// Which of a tool's keys goes to a provider whose format is another one.
fn sent_key(kind: ProviderKind, key: &ToolKey) -> Option<&Secret> {
    match kind.format().key_header().0 != AUTHORIZATION {
        true => key.key().or(key.bearer()),
        false => key.bearer().or(key.key()),
    }
}

/// The headers that carry a tool's own key. `is_same`: the tool speaks the provider's format, and so knows where its key
/// stands. `None` if it cannot stand in any.
fn keys(kind: ProviderKind, key: &ToolKey, is_same: bool) -> Option<HeaderMap> {
    let (own, before) = kind.format().key_header();
    let has_own = own != AUTHORIZATION;
    let mut headers = HeaderMap::new();
    let mut add = |name: &HeaderName, before: &str, secret: &Secret| {
        let mut value = HeaderValue::from_str(&format!("{before}{}", secret.expose())).ok()?;
        value.set_sensitive(true);
        headers.insert(name.clone(), value);
        Some(())
    };
    if has_own && is_same {
        key.key().map(|key| add(&own, before, key));
        key.bearer().map(|bearer| add(&AUTHORIZATION, "Bearer ", bearer));
    } else {
        add(&own, before, sent_key(kind, key)?)?;
    }
    (!headers.is_empty()).then_some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HttpProvider, Provider, ProviderConfig};

    // Row 61: a client's token is sent to the wrong vendor.
    #[test]
    fn a_key_is_told_from_one_that_another_inventor_gives_out() {
        for (kind, key, expected) in [
            (ProviderKind::Anthropic, "sk-proj-0123", false),
            (ProviderKind::Anthropic, "sk-ant-api03-0123", true),
            (ProviderKind::Anthropic, "sk-ant-oat01-0123", true),
            (ProviderKind::OpenAi, "sk-ant-api03-0123", false),
            (ProviderKind::OpenAi, "sk-proj-0123", true),
            (ProviderKind::Azure, "sk-ant-api03-0123", false),
            (ProviderKind::OpenAiResponses, "sk-ant-oat01-0123", false),
        ] {
            assert_eq!(kind.format().may_be_own(&Secret::new(key)), expected, "{kind:?} {key}");
        }
    }

    #[tokio::test]
    async fn a_tool_of_another_format_keeps_a_key_that_is_not_the_providers() {
        let config = ProviderConfig {
            kind: Some(ProviderKind::Anthropic),
            model: Some("m".to_owned()),
            credentials: Credentials::Client,
            ..ProviderConfig::default()
        };
        let provider = HttpProvider::named("anthropic", config).unwrap();
        for format in [PassFormat::ChatCompletions, PassFormat::Responses] {
            let key = ToolKey::new(Some("Bearer sk-proj-0123"), None);
            let from_tool = FromTool { format: Some(format), key, ..FromTool::default() };
            // Nobody is asked: that would take a connection.
            let error = provider.chat(ChatRequest { from_tool, ..ChatRequest::user("Hello") }).await.unwrap_err();
            assert!(matches!(error, ProviderError::NoCredentials { .. }), "{error}");
        }
    }
}
