//! Requests that go through as they came: which provider has them, and what is counted of their answers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use tracing::warn;

use super::answer_stream::log;
use super::core::Gateway;
use super::leave::somebody;
use super::notices::Notices;
use super::route::{is_of_request, passed_on};
use super::upstream::{Running, Upstream, silent};
use crate::account::Account;
use crate::error::ProviderError;
use crate::log_limit;
use crate::message::{Chunk, StopReason};
use crate::pass::{
    HeaderPairs, Mark, PassEnd, PassError, PassFormat, PassPiece, PassRequest, PassStream, Passed, PassedBody, Refusal,
    Seen,
};

/// The target of its log lines, which filters name: it stays when the file moves.
const TARGET: &str = "bellrope_gateway::gateway";

/// What became of a request that may go through.
#[derive(Debug)]
pub enum Way {
    /// The answer, as the provider sent it.
    Passed(PassedAnswer),
    /// The provider's refusal, as it sent it.
    Refused(Refusal),
    /// No provider has answered.
    Failed(ProviderError),
    /// The provider whose turn it is does not take it as it came: it is to be translated. So many were asked before, in
    /// vain: see [`FromTool::tried`](crate::FromTool::tried).
    Translated {
        /// How many.
        tried: usize,
        /// What is to be said of that beside the answer.
        notes: Vec<String>,
        /// Why the first of these failed: what is told if the request cannot be translated, which says nothing of it.
        failed: Option<ProviderError>,
    },
}

/// An answer that goes through.
#[derive(Debug)]
pub struct PassedAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The headers that go back with it.
    pub headers: HeaderPairs,
    /// All of it, or its beginning and the rest as it comes.
    pub body: Result<Bytes, PassedStream>,
    /// What is to be said of it beside it, such as what a budget warns of.
    pub notes: Vec<String>,
}

/// A stream of events that goes through. It pulls, and dropping it closes the provider's connection: then the answer
/// counts as cancelled, unless it was whole.
pub struct PassedStream {
    pieces: PassStream,
    running: Running,
    is_over: bool,
}

/// A piece of an answer on its way to the tool.
#[derive(Debug)]
pub enum Told {
    /// Bytes to hand on.
    Bytes(Bytes),
    /// The answer broke off, which is to be told to the tool. Nothing follows.
    Cut(ProviderError, Mark),
}

/// A request's account, and what is to be said of it.
type Noted = (Option<Account>, Vec<String>);

impl Gateway {
    /// Whether any provider takes requests of this format as they come.
    pub fn passes(&self, format: PassFormat) -> bool {
        self.upstreams.values().any(|upstream| upstream.provider.passes(format))
    }

    /// Sends a request as it came to the provider that it asks for, or to the fallbacks after it, until one answers.
    pub async fn pass(&self, mut request: PassRequest) -> Way {
        let route = match self.providers_for(request.provider.as_deref()) {
            Ok(route) => route,
            Err(error) => {
                log(&error);
                return Way::Failed(error);
            }
        };
        let mut upstreams = route.into_iter();
        let note = self.model_name_notice(request.provider.as_deref(), request.model.as_deref());
        let (mut tried, mut said, mut failed) = (0, Vec::from_iter(note), None);
        Notices::new(said.clone()).log();
        let mut next = upstreams.next();
        while let Some(upstream) = next {
            if !upstream.provider.passes(request.format) {
                return Way::Translated { tried, notes: said, failed };
            }
            let (account, notes) = match self.account_of(&upstream, &mut request) {
                Ok(Some(account)) => account,
                // What its budget has to say is said of the request that is made of it.
                Ok(None) => return Way::Translated { tried, notes: said, failed },
                Err(error) => {
                    log(&error);
                    return Way::Failed(error);
                }
            };
            let (names_model, format) = (request.model.is_some(), request.format);
            // It is needed again only where another provider may be asked.
            let kept = (!upstreams.as_slice().is_empty()).then(|| request.clone());
            let PassError { error, refusal } = match upstream.pass(request, account).await {
                Ok(answer) => {
                    said.extend(notes);
                    return Way::Passed(PassedAnswer { notes: said, ..answer });
                }
                Err(refused) => refused,
            };
            // Whether its key is right, the tool learns of the provider that it asked.
            let is_of_fallback = tried > 0 && (error.is_of_tools_key() || is_of_request(&error));
            let may_pass_on = error.may_pass_on(names_model) || is_of_fallback;
            let key = kept.as_ref().and_then(|kept| kept.key.as_ref());
            next = upstreams.by_ref().filter(|_| may_pass_on).find(|next| {
                tried += 1;
                let note = next.passed_over(key, Some(format));
                note.map(|note| said.push(note)).is_none()
            });
            match (&next, kept) {
                (Some(next), Some(kept)) => {
                    let (from, to) = (upstream.provider.name(), next.provider.name());
                    if log_limit::OF_PROVIDERS.may_come() {
                        warn!(target: TARGET, %error, from, to, "a request goes to the fallback");
                    }
                    upstream.count_passed_on();
                    said.push(passed_on(from, to, &error));
                    failed.get_or_insert(error);
                    request = kept;
                    request.forget();
                }
                _ => {
                    log(&error);
                    // That a fallback does not take the request says nothing of the provider that was meant.
                    if is_of_request(&error)
                        && let Some(meant) = failed
                    {
                        return Way::Failed(meant);
                    }
                    return refusal.map_or(Way::Failed(error), |refusal| Way::Refused(*refusal));
                }
            }
        }
        Way::Failed(silent())
    }

    /// The account of a request in the books, if they are kept, and what is to be said of it. `None`: for its budget it
    /// would have to be changed.
    fn account_of(&self, upstream: &Upstream, request: &mut PassRequest) -> Result<Option<Noted>, ProviderError> {
        let Some(books) = self.books.as_ref().filter(|_| request.format != PassFormat::CountTokens) else {
            return Ok(Some((None, Vec::new())));
        };
        let opened = upstream.open_passed(books, request)?;
        Ok(opened.map(|(account, notes)| (Some(account), notes)))
    }
}

impl Upstream {
    /// Asks the provider, if its guards allow it, and tells the breaker how it went.
    async fn pass(
        self: &Arc<Self>,
        mut request: PassRequest,
        mut account: Option<Account>,
    ) -> Result<PassedAnswer, PassError> {
        if request.format == PassFormat::CountTokens {
            // A side matter: that it fails is held against nobody.
            return self.provider.pass(request).await.and_then(|Passed { status, headers, body }| match body {
                PassedBody::Whole(bytes, _) => Ok(PassedAnswer { status, headers, body: Ok(bytes), notes: Vec::new() }),
                PassedBody::Stream(_) => Err(silent().into()),
            });
        }
        let leave = self.admit_to(somebody(&request.asker), &mut account)?;
        request.meter = account.as_ref().map(Account::meter).unwrap_or_default();
        let mut running = Running::new(Arc::clone(self), account);
        let outcome = self.provider.pass(request).await;
        leave.settle(outcome.as_ref().err().map(|failed| &failed.error));
        let Passed { status, headers, body } = match outcome {
            Ok(passed) => passed,
            Err(PassError { error, refusal }) => return Err(PassError { error: running.fail(error), refusal }),
        };
        let body = match body {
            PassedBody::Whole(bytes, seen) => {
                running.take_seen(&seen);
                if let Some(stop_reason) = seen.stop {
                    running.is_whole(stop_reason);
                }
                Ok(bytes)
            }
            PassedBody::Stream(pieces) => {
                running.begins();
                Err(PassedStream { pieces, running, is_over: false })
            }
        };
        Ok(PassedAnswer { status, headers, body, notes: Vec::new() })
    }
}

impl Running {
    /// Counts that an answer that goes through is whole.
    fn is_whole(&mut self, stop_reason: StopReason) {
        self.count_used();
        self.take_in(&Chunk::Done { stop_reason });
    }

    /// Counts what was seen of an answer that goes through.
    fn take_seen(&mut self, Seen { pieces, said_bytes, usage, is_final, .. }: &Seen) {
        self.count_pieces(*pieces, *said_bytes);
        if let Some(usage) = usage {
            self.used_so_far(usage, *is_final);
        }
    }
}

impl Stream for PassedStream {
    type Item = Told;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Told>> {
        loop {
            if self.is_over {
                return Poll::Ready(None);
            }
            let Some(PassPiece { bytes, seen, end }) = ready!(self.pieces.as_mut().poll_next(cx)) else {
                self.is_over = true;
                continue;
            };
            self.running.take_seen(&seen);
            match end {
                None => {}
                Some(PassEnd::Done(stop_reason)) => self.running.is_whole(stop_reason),
                Some(PassEnd::Failed(error)) => log(&self.running.fail(error)),
                Some(PassEnd::Cut(error, mark)) => {
                    let error = self.running.fail(error);
                    log(&error);
                    self.is_over = true;
                    return Poll::Ready(Some(Told::Cut(error, mark)));
                }
            }
            if !bytes.is_empty() {
                return Poll::Ready(Some(Told::Bytes(bytes)));
            }
        }
    }
}

impl std::fmt::Debug for PassedStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PassedStream").field("is_over", &self.is_over).finish_non_exhaustive()
    }
}
