//! The order in which providers are asked.

use std::sync::Arc;

use futures_util::StreamExt;
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tracing::warn;

use super::upstream::{Ask, MAX_NOTICES, Notices, Running, TARGET, Upstream, silent};
use crate::account::{Account, Books};
use crate::error::{Blame, Excerpt, ProviderError};
use crate::input_tokens::InputTokens;
use crate::log_limit;
use crate::message::{COMPACTION, ChatRequest, ChatResponse, Chunk, Content, Part};
use crate::provider::ProviderStream;

/// The providers that a request may go to, in order. At least one.
pub(super) struct Route {
    pub(super) upstreams: Vec<Arc<Upstream>>,
    /// Who keeps the books, if anybody does, and the request in them as the first of these is asked.
    pub(super) accounts: Option<Accounts>,
}

/// The books of a route.
pub(super) struct Accounts {
    pub(super) books: Arc<dyn Books>,
    pub(super) first: Account,
    /// How many tokens the request may have.
    pub(super) input_tokens: InputTokens,
}

/// An answer that has begun, or failed to.
pub(super) struct Begun {
    pub(super) first: Chunk,
    pub(super) rest: ProviderStream,
    /// What is to be told of fields that this provider did not get.
    pub(super) unsaid: Vec<String>,
    pub(super) running: Running,
}

impl Route {
    /// Begins an answer: of the first provider that has a first piece. That piece settles whether the provider is well;
    /// after it nobody else is asked.
    pub(super) async fn begin(self, request: ChatRequest, notices: &Notices) -> Result<Begun, ProviderError> {
        self.ask(request, notices, |upstream, mut request, notices, account| {
            Box::pin(async move {
                let unsaid = upstream.unsaid(&request);
                request.meter = account.as_ref().map(Account::meter).unwrap_or_default();
                let answered_by = upstream.answering(&request);
                let mut rest = upstream.provider.chat_stream(request);
                let mut running = Running::new(upstream, account).answered_by(answered_by);
                loop {
                    match rest.next().await.unwrap_or_else(|| Err(silent())) {
                        // It settles nothing yet.
                        Ok(Chunk::Notice { text }) => drop(notices.try_send(text)),
                        Ok(mut first) => {
                            running.sign(first.usage_mut());
                            running.take_in(&first);
                            return Ok(Begun { first, rest, unsaid, running });
                        }
                        Err(error) => return Err(running.fail(error)),
                    }
                }
            })
        })
        .await
    }

    /// A whole answer, and the name of its provider: of the first that has one.
    pub(super) async fn whole(self, request: ChatRequest) -> Result<(ChatResponse, String), ProviderError> {
        // They are read when it is whole.
        let (notices, mut heard) = mpsc::channel(MAX_NOTICES);
        let asked = self.ask(request, &notices, |upstream, mut request, _, account| {
            Box::pin(async move {
                request.meter = account.as_ref().map(Account::meter).unwrap_or_default();
                let provider = Arc::clone(&upstream.provider);
                let mut unsaid = upstream.unsaid(&request);
                let answered_by = upstream.answering(&request);
                let mut running = Running::new(upstream, account).answered_by(answered_by);
                match provider.chat(request).await {
                    Ok(mut response) => {
                        running.sign(response.usage.as_mut());
                        unsaid.append(&mut response.notes);
                        response.notes = unsaid;
                        running.said(&response);
                        if let Some(usage) = &response.usage {
                            running.take_in(&Chunk::Usage(usage.clone()));
                        }
                        running.take_in(&Chunk::Done { stop_reason: response.stop_reason });
                        Ok((response, provider.name().to_owned()))
                    }
                    Err(error) => Err(running.fail(error)),
                }
            })
        });
        let (mut response, provider) = asked.await?;
        while let Ok(notice) = heard.try_recv() {
            response.notes.push(notice);
        }
        Ok((response, provider))
    }

    async fn ask<T>(self, mut request: ChatRequest, notices: &Notices, ask: Ask<T>) -> Result<T, ProviderError> {
        let (books, first) = match self.accounts {
            Some(Accounts { books, first, input_tokens }) => (Some((books, input_tokens)), Some(first)),
            None => (None, None),
        };
        let mut account = first;
        let mut is_fallback = request.from_tool.tried > 0;
        // The last one that could be asked, and why it failed. Whether its key is right, a tool learns of the provider that it asked.
        let mut failed: Option<(Arc<Upstream>, ProviderError)> = None;
        // Why the one failed that was meant.
        let mut meant = None;
        let mut upstreams = self.upstreams.into_iter();
        let mut next = upstreams.next();
        while let Some(upstream) = next {
            if let (Some((books, input)), None) = (&books, &account) {
                account = Some(upstream.account(books, &mut request, *input, notices)?);
            }
            let (account, is_last) = (account.take(), upstreams.as_slice().is_empty());
            let names_model = request.model.is_some();
            let is_signed = has_signatures(&request);
            let place = if is_signed { place_of_copy(&request) } else { None };
            let may_ask_again = is_signed && (place.is_some() || !is_last);
            let asked = if is_last && !may_ask_again { std::mem::take(&mut request) } else { request.clone() };
            let from_tool = asked.from_tool.clone();
            let error = match (upstream.ask(asked, notices, account, ask).await, failed.take()) {
                // Whose signature it is may have been forgotten, as with a restart of the server, and is refused for ever.
                (Err(error), before) if may_ask_again && is_of_signatures(&error) => {
                    leave_out(&mut request, is_signature);
                    drop(notices.try_send(UNSIGNED.to_owned()));
                    (failed, next) = (before, Some(upstream));
                    continue;
                }
                // That another one does not take the request, or its format has no place for it, says nothing of the provider
                // that was meant.
                (Err(error), Some((_, before))) if is_last && is_of_request(&error) => {
                    warn_of_skipped(&upstream, &error);
                    return Err(meant.unwrap_or(before));
                }
                (Err(error), before) if is_fallback && !is_last && is_of_request(&error) => {
                    let note = warn_of_skipped(&upstream, &error);
                    drop(notices.try_send(note));
                    failed = before;
                    error
                }
                (outcome, _) if is_last => return outcome,
                (Err(error), _) if error.may_pass_on(names_model) || is_fallback && error.is_of_tools_key() => {
                    meant.get_or_insert_with(|| error.clone());
                    failed = Some((Arc::clone(&upstream), error.clone()));
                    error
                }
                (outcome, _) => return outcome,
            };
            is_fallback = true;
            next = upstreams.by_ref().find(|next| {
                let note = next.passed_over(from_tool.key.as_ref(), from_tool.format);
                note.map(|note| drop(notices.try_send(note))).is_none()
            });
            let (upstream, error) = failed.clone().unwrap_or((upstream, error));
            let Some(next) = &next else { return Err(error) };
            let (from, to) = (upstream.provider.name(), next.provider.name());
            if log_limit::OF_PROVIDERS.may_come() {
                warn!(target: TARGET, %error, from, to, "a request goes to the fallback");
            }
            upstream.count_passed_on();
            let _ = notices.try_send(passed_on(from, to, &error));
            forget(&mut request);
        }
        Err(silent())
    }
}

/// Whether a provider, or its format, does not take the request as it is. What its own limits refuse, as a shorter context, another
/// provider may take.
pub(super) fn is_of_request(error: &ProviderError) -> bool {
    let is_told = matches!(error, ProviderError::Refused { .. } | ProviderError::Forwarded { .. });
    matches!(error, ProviderError::InvalidRequest { .. })
        || is_told && error.blame() == Blame::Caller && !error.is_of_tools_key()
}

/// What the copies of signed requests take together, which are kept in case that their provider refuses the signatures, in KiB. A
/// request for which there is no place is sent once.
static COPIES: Semaphore = Semaphore::const_new(COPIES_KIB);
const COPIES_KIB: usize = 4 * 1024;

/// The place for a copy of a request. `None`: there is none.
fn place_of_copy(request: &ChatRequest) -> Option<SemaphorePermit<'static>> {
    let kib = request.size(COPIES_KIB * 1024).div_ceil(1024);
    COPIES.try_acquire_many(u32::try_from(kib).ok()?).ok()
}

/// Says that a fallback does not answer, as it does not take the request.
fn warn_of_skipped(upstream: &Upstream, error: &ProviderError) -> String {
    let name = upstream.provider.name();
    if log_limit::OF_CALLERS.may_come() {
        warn!(target: TARGET, %error, provider = name, "a fallback is skipped: it does not take the request");
    }
    format!("the fallback `{name}` was skipped: {error}")
}

/// What is said of an answer that is another provider's, with a model of its own.
pub(super) fn passed_on(from: &str, to: &str, error: &ProviderError) -> String {
    format!("`{to}` was asked with its own model, as `{from}` could not answer ({})", error.code())
}

/// Takes out what means nothing to another provider: the name of the model, and what came with the reasoning of the one
/// before, which it may refuse.
pub(super) fn forget(request: &mut ChatRequest) {
    request.model = None;
    leave_out(request, |_| true);
}

/// What is said of signatures that a provider refuses.
const UNSIGNED: &str = "the signatures of earlier reasoning were left out: the provider refuses them";

/// Whether there is something in a request by which a provider knows its own reasoning.
fn has_signatures(request: &ChatRequest) -> bool {
    let has = |part: &Part| matches!(part, Part::Reasoning { details: Some(details), .. } if is_signature(details));
    request.messages.iter().any(|message| matches!(&message.content, Content::Parts(parts) if parts.iter().any(has)))
}

/// A compaction is the conversation so far: without it the answer would be to another one.
fn is_signature(details: &Value) -> bool {
    details["type"] != COMPACTION
}

/// Whether a provider refuses what came with earlier reasoning: it is somebody else's, or too old.
fn is_of_signatures(error: &ProviderError) -> bool {
    let ProviderError::Refused { status: 400 | 422, code, message, .. } = error else { return false };
    let words = [code.as_ref().map(Excerpt::as_str), Some(message.as_str())];
    words.into_iter().flatten().any(|said| said.contains("signature") || said.contains("encrypted"))
}

/// Takes out what came with earlier reasoning, as far as it is `meant`.
fn leave_out(request: &mut ChatRequest, meant: impl Fn(&Value) -> bool) {
    for message in &mut request.messages {
        let Content::Parts(parts) = &mut message.content else { continue };
        for part in parts {
            if let Part::Reasoning { details, .. } = part {
                details.take_if(|details| meant(details));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Message, Role};

    #[test]
    fn copies_of_signed_requests_take_bounded_memory() {
        let signed = |bytes: usize| {
            let details = Some(serde_json::json!({ "signature": "x".repeat(bytes / 2) }));
            let thought = Part::Reasoning { text: "x".repeat(bytes / 2), details };
            let message = Message { role: Role::Assistant, content: Content::Parts(vec![thought]) };
            ChatRequest { messages: vec![message], ..ChatRequest::default() }
        };
        // Other tests hold a little at the most.
        let large = signed(5 << 19);
        let place = place_of_copy(&large);
        assert!(place.is_some() && place_of_copy(&large).is_none());
        drop(place);
        assert!(place_of_copy(&large).is_some() && place_of_copy(&signed(5 << 20)).is_none());
    }
}
