//! Responses that are kept for a while: to be asked for later, to be gone on with, and to run without a reader.
//!
//! What is kept is the conversation, the response as far as it has come and, of one that runs in the background, its
//! chunks. A reader's events are written from the chunks anew: the same chunks make the same events.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use serde_json::{Value, json};
use tracing::warn;

use super::answer::Script;
use super::input_items::{self, ItemsPage};
use crate::error::ProviderError;
use crate::gateway::{AnswerStream, AnswersFull, KeptAnswer, KeptAnswers, Owner};
use crate::inbound::fault::Fault;
use crate::inbound::writer::AnswerWriter;
use crate::log_limit;
use crate::message::{ChatRequest, ChatResponse, Chunk, Content, Message, Role, SequencedChunk};

/// The target of its log lines, which filters name: it stays when the file moves.
const TARGET: &str = "bellrope_gateway::answers";

/// What stands before the id of an answer.
const ID: &str = "resp_";
/// Room for what the model says is taken in steps of so many bytes.
const STEP: u64 = 16 * 1024;

/// A request for a response that is to be kept, or that goes on from one that is.
pub struct StoredRequest {
    script: Script,
}

/// A response that is kept.
pub struct StoredResponse {
    /// Writes the events for a reader.
    script: Script,
    /// What was asked, without what the model said.
    asked: Vec<Message>,
    /// Of what was asked, in bytes.
    size: u64,
    state: Mutex<Script>,
}

/// Writes the events of a response from its chunks.
pub struct Replay {
    script: Script,
}

impl StoredRequest {
    /// What is to be kept of the answer that a script writes, if it is.
    pub(super) fn of(script: &Script) -> Option<Self> {
        (script.echo.store || script.echo.previous.is_some()).then(|| Self { script: script.clone() })
    }

    /// Is told about how many tokens the request has.
    pub(in crate::inbound) fn expect(&mut self, input_tokens: u64) {
        self.script.expect(input_tokens);
    }

    /// Whether the response is to be kept.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        self.script.echo.store
    }

    /// Whether it runs without a reader.
    #[must_use]
    pub fn is_background(&self) -> bool {
        self.script.echo.background
    }

    /// Puts the conversation of the response that this request goes on from before its own.
    ///
    /// # Errors
    /// There is no such response, or not yet.
    pub fn go_on(&self, answers: &KeptAnswers, owner: &Owner, chat: &mut ChatRequest) -> Result<(), Fault> {
        let Some(previous) = self.script.echo.previous.as_deref() else { return Ok(()) };
        let Ok((_, stored)) = StoredResponse::find(answers, owner, previous) else {
            let id: String = previous.chars().filter(char::is_ascii_graphic).take(64).collect();
            let words = format!("Previous response with id '{id}' not found.");
            return Err(Fault::missing("previous_response_not_found", Some("previous_response_id"), words));
        };
        let mut messages = stored.conversation()?;
        messages.append(&mut chat.messages);
        (chat.messages, chat.from_tool.tokens) = (messages, None);
        Ok(())
    }

    /// Begins a response that runs without a reader.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn begin(
        mut self,
        answers: &KeptAnswers,
        owner: Owner,
        asked: Vec<Message>,
    ) -> Result<(KeptAnswer, Arc<StoredResponse>), Fault> {
        let full = |full: AnswersFull| Fault::busy(full.to_string());
        let id = KeptAnswers::new_id().map_err(full)?;
        self.script.id = format!("{ID}{id:032x}");
        let stored = StoredResponse::new(self.script.clone(), self.script, asked);
        let answer = answers.begin(id, owner, true, Some(Arc::clone(&stored) as _), stored.size).map_err(full)?;
        Ok((answer, stored))
    }

    /// What writes the answer, and keeps it when it is whole.
    ///
    /// # Errors
    /// The system gives no random bits for its id.
    pub fn writer(
        mut self,
        answers: &KeptAnswers,
        owner: Owner,
        asked: Vec<Message>,
    ) -> Result<Box<dyn AnswerWriter>, Fault> {
        let id = KeptAnswers::new_id().map_err(|full| Fault::busy(full.to_string()))?;
        self.script.id = format!("{ID}{id:032x}");
        let keep = Some(Keep { answers: answers.clone(), owner, id, asked, script: self.script.clone() });
        Ok(Box::new(Keeping { script: self.script, keep }))
    }
}

impl StoredResponse {
    fn new(script: Script, state: Script, asked: Vec<Message>) -> Arc<Self> {
        let size = serde_json::to_vec(&asked).map_or(0, |json| json.len()) as u64 + state.held() as u64;
        Arc::new(Self { script, asked, size, state: Mutex::new(state) })
    }

    /// The response of this id, if it is kept and belongs to `owner`.
    ///
    /// # Errors
    /// There is none: OpenAI's own words.
    pub fn find(answers: &KeptAnswers, owner: &Owner, id: &str) -> Result<(KeptAnswer, Arc<Self>), Fault> {
        let answer = id.strip_prefix(ID).and_then(|id| answers.find(id, owner).ok());
        let found = answer.and_then(|answer| answer.beside::<Self>().map(|stored| (answer, stored)));
        found.ok_or_else(|| Fault::no_response(id))
    }

    /// Pulls the response from its provider, whoever reads it.
    pub fn run(self: Arc<Self>, answer: KeptAnswer, pieces: AnswerStream) {
        let held = answer.clone();
        let mut room = 0;
        answer.pull(pieces.map(move |piece| {
            let mut state = self.state();
            state.chunk(piece.chunk.clone(), &mut Vec::new());
            let said = (state.held() as u64).next_multiple_of(STEP);
            if said > room && !held.hold(self.size + said) {
                let limit = usize::try_from(self.size + room).unwrap_or(usize::MAX);
                let error = Chunk::from(ProviderError::TooLarge { what: "what is kept of the answer", limit });
                state.chunk(error.clone(), &mut Vec::new());
                return error;
            }
            room = room.max(said);
            piece.chunk
        }));
    }

    /// The response as it is now, as JSON.
    #[must_use]
    pub fn json(&self) -> Vec<u8> {
        // A tree with text keys: writing it cannot fail.
        serde_json::to_vec(&self.state().now()).unwrap_or_default()
    }

    /// What was asked, as the JSON of a list of items.
    ///
    /// # Errors
    /// There is no such page.
    pub fn input_items(&self, page: &ItemsPage) -> Result<Vec<u8>, Fault> {
        input_items::list(&self.asked, &self.script, page)
    }

    /// Cancels the response, if it is under way.
    ///
    /// # Errors
    /// It was not made to run without a reader.
    pub fn cancel(&self, answer: &KeptAnswer) -> Result<(), Fault> {
        if !self.script.echo.background {
            let words = "only a response with `background` can be cancelled; this one ends with its reader";
            return Err(Fault::invalid(None, words));
        }
        if answer.cancel() {
            self.state().chunk(ProviderError::Cancelled.into(), &mut Vec::new());
        }
        Ok(())
    }

    /// What writes its events, those after the number `after` alone.
    ///
    /// # Errors
    /// Its chunks are not kept.
    pub fn replay(&self, after: Option<u64>) -> Result<Replay, Fault> {
        if !self.script.echo.background {
            let words = "only a response with `background` can be streamed again; ask without `stream`";
            return Err(Fault::invalid(Some("stream"), words));
        }
        let mut script = self.script.clone();
        script.from = after.map_or(0, |after| after.saturating_add(1));
        Ok(Replay { script })
    }

    /// What was asked, and what the model said to it.
    fn conversation(&self) -> Result<Vec<Message>, Fault> {
        let state = self.state();
        if !state.is_over() {
            let words = "the response is under way; wait for its end";
            return Err(Fault::invalid(Some("previous_response_id"), words));
        }
        let mut messages = self.asked.clone();
        let said = state.said();
        if !said.is_empty() {
            messages.push(Message { role: Role::Assistant, content: Content::Parts(said) });
        }
        Ok(messages)
    }

    fn state(&self) -> MutexGuard<'_, Script> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Replay {
    /// Appends the events that come before the first chunk.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        self.script.begin(out);
    }

    /// Appends the events of a chunk, as a log has it.
    pub fn piece(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        // It was written here.
        if let Ok(piece) = SequencedChunk::read(piece) {
            self.script.chunk(piece.chunk, out);
        }
    }

    /// Appends an event that says why nothing more comes.
    pub fn break_off(&mut self, error: &ProviderError, out: &mut Vec<u8>) {
        let event = json!({"code": error.code(), "message": error.to_string(), "param": null});
        self.script.event("error", event, out);
    }

    /// Appends what keeps a silent connection alive.
    pub fn ping(&mut self, out: &mut Vec<u8>) {
        self.script.ping(out);
    }
}

/// Writes an answer, and keeps it when it is whole.
struct Keeping {
    script: Script,
    keep: Option<Keep>,
}

struct Keep {
    answers: KeptAnswers,
    owner: Owner,
    id: u128,
    asked: Vec<Message>,
    script: Script,
}

impl Keeping {
    fn keep_whole(&mut self) {
        let Some(Keep { answers, owner, id, asked, script }) = self.keep.take_if(|_| self.script.is_whole()) else {
            return;
        };
        let stored = StoredResponse::new(script, self.script.clone(), asked);
        let size = stored.size;
        match answers.begin(id, owner, false, Some(stored), size) {
            Ok(answer) => answer.keep(),
            Err(error) if log_limit::OF_CALLERS.may_come() => {
                warn!(target: TARGET, %error, "a response is not kept, though `store` asks for that");
            }
            Err(_) => {}
        }
    }
}

impl AnswerWriter for Keeping {
    fn items(&self, keep: &mut dyn FnMut(&Value)) {
        self.script.items(keep);
    }

    fn held(&self) -> usize {
        self.script.held()
    }

    fn whole(&mut self, response: ChatResponse) -> serde_json::Result<Vec<u8>> {
        let whole = self.script.whole(response);
        self.keep_whole();
        whole
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        self.script.begin(out);
    }

    fn chunk(&mut self, chunk: Chunk, out: &mut Vec<u8>) {
        self.script.chunk(chunk, out);
        self.keep_whole();
    }

    fn tells_in_stream(&self, fault: &Fault) -> bool {
        self.script.tells_in_stream(fault)
    }
}

#[cfg(test)]
mod tests;
