//! Answers that are kept for a while, so that they can be gone on with when their reader was lost.
//!
//! Such an answer is pulled from its provider by a task of its own, into a log that is bounded in bytes and in time, and
//! is read from there. It has one reader at a time: who comes last has it. All other answers end with their reader.

mod kept;
mod settings;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bellrope::status::Activity;
use bytes::Bytes;
use futures_core::Stream;
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::error::{Excerpt, ProviderError};
use crate::message::{Chunk, ErrorInfo, SequencedChunk};
use kept::{ANSWER, Entry, Kept, MAX_KEPT, MAX_UNDER_WAY, PIECE, Push};
pub use kept::{Beside, Owner};
pub use settings::AnswerSettings;

/// Why an answer cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the answer cannot be kept: {0}")]
pub struct AnswersFull(&'static str);

impl From<AnswersFull> for Chunk {
    fn from(full: AnswersFull) -> Self {
        Self::Error(ErrorInfo {
            code: "overloaded".to_owned(),
            message: full.to_string(),
            retryable: true,
            ..ErrorInfo::default()
        })
    }
}

/// The answers that are kept. Clones are the same.
#[derive(Debug, Clone)]
pub struct KeptAnswers(Arc<Inner>);

/// An answer that is kept. Clones are the same.
#[derive(Debug, Clone)]
pub struct KeptAnswer {
    answers: KeptAnswers,
    id: u128,
    changed: Arc<Notify>,
}

/// Reads an answer from one of its pieces on.
#[derive(Debug)]
pub struct AnswerReader {
    answer: KeptAnswer,
    serial: u64,
    next: u64,
}

#[derive(Debug)]
struct Inner {
    kept: Mutex<Kept>,
    /// Told when there may be room.
    room: Notify,
    awake: OnceLock<Activity>,
    /// Where they are kept, as their ids say.
    place: OnceLock<String>,
}

/// When an answer is forgotten.
enum Due {
    At(Instant),
    /// Not as long as it is read, or goes on.
    Unknown,
    Gone,
}

impl KeptAnswers {
    /// Keeps none yet.
    #[must_use]
    pub fn new(settings: AnswerSettings) -> Self {
        let kept = Kept { settings, answers: HashMap::new(), bytes: 0 };
        Self(Arc::new(Inner {
            kept: Mutex::new(kept),
            room: Notify::new(),
            awake: OnceLock::new(),
            place: OnceLock::new(),
        }))
    }

    /// Goes by other settings from now on.
    pub fn change(&self, settings: AnswerSettings) {
        self.kept().settings = settings;
        self.0.room.notify_waiters();
    }

    /// Answers that are kept count as work of this server from now on, which else may end when nobody is connected.
    pub fn keep_awake(&self, activity: Activity) {
        let _ = self.0.awake.set(activity);
    }

    /// Ids of answers say from now on that they are kept at this place: whoever has one can tell it to what finds the way there.
    pub fn are_at(&self, place: String) {
        let _ = self.0.place.set(place);
    }

    /// An id for an answer: 128 random bits.
    ///
    /// # Errors
    /// The system gives no random bits.
    pub fn new_id() -> Result<u128, AnswersFull> {
        let mut bits = [0; 16];
        getrandom::getrandom(&mut bits).map_err(|_| AnswersFull("the system gives no random bits for its id"))?;
        Ok(u128::from_ne_bytes(bits))
    }

    /// Begins to keep an answer. `held`: what is kept beside its pieces, in bytes. `goes_on_unread`: whether it goes on to
    /// its end though nobody reads; its first pieces are forgotten then if there are too many.
    ///
    /// # Errors
    /// There is no room.
    pub fn begin(
        &self,
        id: u128,
        owner: Owner,
        goes_on_unread: bool,
        beside: Option<Beside>,
        held: u64,
    ) -> Result<KeptAnswer, AnswersFull> {
        let mut kept = self.kept();
        let limit = kept.settings.keep_bytes;
        if limit == 0 {
            return Err(AnswersFull("none is kept here, as gateway.answers.keep_bytes is 0"));
        }
        if held > limit / 2 {
            return Err(AnswersFull("its request is too large for that (gateway.answers.keep_bytes)"));
        }
        if kept.under_way(owner) >= MAX_UNDER_WAY {
            return Err(AnswersFull(
                "its caller has as many under way as one may have, 128; try again when some are over",
            ));
        }
        if kept.takes_too_many(owner) {
            return Err(AnswersFull(
                "its caller has as many under way as others leave for one; try again when some are over",
            ));
        }
        while kept.answers.len() >= MAX_KEPT || kept.bytes + held + ANSWER > limit {
            if !kept.forget_one(id) {
                return Err(AnswersFull("too many are under way; try again, or raise gateway.answers.keep_bytes"));
            }
        }
        kept.bytes += held + ANSWER;
        let changed = Arc::new(Notify::new());
        let entry = Entry {
            owner,
            beside,
            goes_on_unread,
            pieces: Default::default(),
            first: 0,
            bytes: ANSWER,
            held,
            is_over: false,
            is_cancelled: false,
            reader: None,
            readers: 0,
            unread_since: Instant::now(),
            changed: Arc::clone(&changed),
        };
        kept.answers.insert(id, entry);
        Ok(KeptAnswer { answers: self.clone(), id, changed })
    }

    /// The answer of this id, wherever that says it is, if it is kept and belongs to `owner`.
    ///
    /// # Errors
    /// [`ProviderError::UnknownAnswer`]; nothing tells whether it is another's.
    pub fn find(&self, id: &str, owner: &Owner) -> Result<KeptAnswer, ProviderError> {
        let id = id.split_once('@').map_or(id, |(id, _place)| id);
        let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'));
        let id = is_id.then(|| u128::from_str_radix(id, 16).ok()).flatten().ok_or(ProviderError::UnknownAnswer)?;
        let kept = self.kept();
        let entry = kept.answers.get(&id).filter(|entry| entry.owner == *owner);
        let changed = Arc::clone(&entry.ok_or(ProviderError::UnknownAnswer)?.changed);
        Ok(KeptAnswer { answers: self.clone(), id, changed })
    }

    /// How many are kept, and their bytes.
    #[must_use]
    pub fn size(&self) -> (usize, u64) {
        let kept = self.kept();
        (kept.answers.len(), kept.bytes)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeptAnswer {
    /// What the answer is asked for by: 32 hexadecimal digits, and `@` with the place where it is kept, if that has a name.
    #[must_use]
    pub fn id(&self) -> String {
        match self.answers.0.place.get() {
            Some(place) => format!("{:032x}@{place}", self.id),
            None => format!("{:032x}", self.id),
        }
    }

    /// Pulls the answer from its provider in a task of its own, and keeps it until it is forgotten. Nothing is pulled
    /// while there is no room. When the answer is cancelled, or forgotten, the provider's stream is dropped at once.
    pub fn pull(self, pieces: impl Stream<Item = Chunk> + Send + 'static) {
        let working = self.answers.0.awake.get().map(Activity::begin);
        tokio::spawn(async move {
            let _working = working;
            let failed = {
                let (cancelled, forgotten) = (pin!(self.cancelled()), pin!(self.forgotten()));
                let (stopped, whole) = (select(cancelled, forgotten), pin!(self.take_in(pieces)));
                match select(stopped, whole).await {
                    Either::Left((Either::Left(_), _)) => Some(ProviderError::Cancelled),
                    Either::Left((Either::Right(_), _)) => None,
                    Either::Right((failed, _)) => failed,
                }
            };
            // The provider's stream is gone by now.
            if let Some(error) = failed {
                self.end(Some(error.into()));
            }
            self.forgotten().await;
        });
    }

    /// Keeps an answer that is whole already until it is forgotten.
    pub fn keep(self) {
        self.end(None);
        self.pull(futures_util::stream::empty());
    }

    /// Begins to read with this piece. Whoever reads the answer until now reads it no longer.
    ///
    /// # Errors
    /// The answer is not kept any more, or not from there on.
    pub fn read(&self, from: u64) -> Result<AnswerReader, ProviderError> {
        let mut kept = self.answers.kept();
        let entry = kept.answers.get_mut(&self.id).ok_or(ProviderError::UnknownAnswer)?;
        let (first, end) = (entry.first, entry.end());
        let refuse = |reason: String| Err(ProviderError::NotResumable { reason: Excerpt::new(&reason) });
        if from < first {
            let last = first - 1;
            return refuse(format!(
                "the pieces up to number {last} are no longer kept, as the answer is long; go on after a later one"
            ));
        }
        if entry.is_over && from >= end {
            return refuse(format!("the answer is over; number {} was its last piece", end.saturating_sub(1)));
        }
        if from > end {
            return refuse(format!("no piece with the number {} has come yet", from - 1));
        }
        entry.readers += 1;
        let serial = entry.readers;
        entry.reader = Some((serial, from));
        entry.changed.notify_waiters();
        Ok(AnswerReader { answer: self.clone(), serial, next: from })
    }

    /// Cancels the answer, if it is under way; whether it was. What came of it stays for a while.
    pub fn cancel(&self) -> bool {
        let mut kept = self.answers.kept();
        let Some(entry) = kept.answers.get_mut(&self.id).filter(|entry| !entry.is_over && !entry.is_cancelled) else {
            return false;
        };
        entry.is_cancelled = true;
        entry.changed.notify_waiters();
        true
    }

    /// Forgets the answer at once, and cancels it if it is under way. Whether it was kept.
    pub fn remove(&self) -> bool {
        let removed = self.answers.kept().remove(self.id);
        self.answers.0.room.notify_waiters();
        removed
    }

    /// What is kept beside the pieces, if it is a `T`.
    #[must_use]
    pub fn beside<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let beside = self.answers.kept().answers.get(&self.id)?.beside.clone()?;
        beside.downcast().ok()
    }

    /// Whether nothing more comes of it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.answers.kept().answers.get(&self.id).is_none_or(|entry| entry.is_over || entry.is_cancelled)
    }

    /// Holds so many bytes more beside the pieces, or fewer. More only if there is room; whether it does.
    pub fn hold(&self, held: u64) -> bool {
        let mut kept = self.answers.kept();
        let limit = kept.settings.keep_bytes;
        loop {
            let Some(entry) = kept.answers.get(&self.id) else { return false };
            let before = entry.held;
            if held <= before || (held <= limit / 2 && kept.bytes - before + held <= limit) {
                kept.bytes = kept.bytes - before + held;
                kept.answers.entry(self.id).and_modify(|entry| entry.held = held);
                break;
            }
            if held > limit / 2 || !kept.forget_one(self.id) {
                return false;
            }
        }
        drop(kept);
        self.answers.0.room.notify_waiters();
        true
    }

    /// Takes the pieces in until the last one. Why they failed, if they did.
    async fn take_in(&self, pieces: impl Stream<Item = Chunk>) -> Option<ProviderError> {
        let mut pieces = pin!(pieces);
        while let Some(chunk) = pieces.next().await {
            if chunk.is_terminal() {
                self.end(Some(chunk));
                return None;
            }
            let piece = self.numbered(chunk)?;
            let mut room = pin!(self.answers.0.room.notified());
            loop {
                room.as_mut().enable();
                match self.answers.kept().push(self.id, &piece) {
                    Push::Done => break,
                    Push::Full => {}
                    Push::TooLarge(limit) => {
                        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                        return Some(ProviderError::TooLarge { what: "a piece of the answer", limit });
                    }
                    Push::Gone => return None,
                }
                room.as_mut().await;
                room.set(self.answers.0.room.notified());
            }
            self.changed.notify_waiters();
        }
        (!self.is_over()).then(|| ProviderError::Truncated { reason: "the stream ended without a word".into() })
    }

    /// Takes the last piece in, for which there is always room.
    fn end(&self, last: Option<Chunk>) {
        let piece = last.and_then(|last| self.numbered(last));
        let mut kept = self.answers.kept();
        let Some(entry) = kept.answers.get_mut(&self.id).filter(|entry| !entry.is_over) else { return };
        entry.is_over = true;
        entry.unread_since = Instant::now();
        let cost = piece.as_ref().map_or(0, |piece| piece.len() as u64 + PIECE);
        entry.pieces.extend(piece);
        entry.bytes += cost;
        kept.bytes += cost;
        drop(kept);
        self.changed.notify_waiters();
    }

    /// A piece with the number that comes next. Only one task ever adds pieces.
    fn numbered(&self, chunk: Chunk) -> Option<Bytes> {
        let seq = self.answers.kept().answers.get(&self.id)?.end();
        // Plain structs with text keys: writing them cannot fail.
        serde_json::to_vec(&SequencedChunk { seq, chunk }).ok().map(Bytes::from)
    }

    /// Waits until the answer is cancelled or forgotten.
    async fn cancelled(&self) {
        self.until(|entry| entry.is_none_or(|entry| entry.is_cancelled && !entry.is_over)).await;
    }

    /// Waits until the answer is kept no longer: because nobody has read it for long enough, or somebody removed it.
    async fn forgotten(&self) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            match self.forget_if_due() {
                Due::Gone => return,
                // Whether it changed or the time has come: what is due is looked at again.
                Due::At(due) => drop(timeout_at(due, changed).await),
                Due::Unknown => changed.await,
            }
        }
    }

    /// Forgets the answer, if it is time. In one step, so that no reader comes in between.
    fn forget_if_due(&self) -> Due {
        let mut kept = self.answers.kept();
        let keep = kept.settings.keep;
        let Some(entry) = kept.answers.get(&self.id) else { return Due::Gone };
        if entry.reader.is_some() || (entry.goes_on_unread && !entry.is_over) {
            return Due::Unknown;
        }
        let due = entry.unread_since + keep;
        if due > Instant::now() {
            return Due::At(due);
        }
        kept.remove(self.id);
        drop(kept);
        self.answers.0.room.notify_waiters();
        Due::Gone
    }

    async fn until(&self, holds: impl Fn(Option<&Entry>) -> bool) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if holds(self.answers.kept().answers.get(&self.id)) {
                return;
            }
            changed.await;
        }
    }
}

impl AnswerReader {
    /// The next piece: a [`SequencedChunk`] as JSON. `None` after the last one. Safe to be dropped while it waits.
    ///
    /// # Errors
    /// There is another reader, or the answer is not kept any more.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ProviderError> {
        let changed = Arc::clone(&self.answer.changed);
        loop {
            let mut changed = pin!(changed.notified());
            changed.as_mut().enable();
            if let Some(outcome) = self.look() {
                return outcome;
            }
            changed.await;
        }
    }

    /// The number of the piece that comes next.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Cancels the answer, unless somebody else reads it by now.
    pub fn cancel(&self) {
        let is_reader = {
            let kept = self.answer.answers.kept();
            kept.answers.get(&self.answer.id).is_some_and(|entry| entry.is_read_by(self.serial))
        };
        if is_reader {
            self.answer.cancel();
        }
    }

    fn look(&mut self) -> Option<Result<Option<Bytes>, ProviderError>> {
        let mut kept = self.answer.answers.kept();
        let Some(entry) = kept.answers.get_mut(&self.answer.id) else {
            return Some(Err(ProviderError::UnknownAnswer));
        };
        if !entry.is_read_by(self.serial) {
            return Some(Err(ProviderError::Superseded));
        }
        // What it has not taken is only forgotten where the answer goes on unread.
        let Some(at) = self.next.checked_sub(entry.first) else {
            let reason = format!("the pieces from number {} on are no longer kept, as they were not read", self.next);
            return Some(Err(ProviderError::NotResumable { reason: Excerpt::new(&reason) }));
        };
        let piece = usize::try_from(at).ok().and_then(|at| entry.pieces.get(at)).cloned();
        match piece {
            Some(piece) => {
                self.next += 1;
                entry.reader = Some((self.serial, self.next));
                drop(kept);
                self.answer.answers.0.room.notify_waiters();
                Some(Ok(Some(piece)))
            }
            None => entry.is_over.then_some(Ok(None)),
        }
    }
}

impl Drop for AnswerReader {
    fn drop(&mut self) {
        let mut kept = self.answer.answers.kept();
        if let Some(entry) = kept.answers.get_mut(&self.answer.id).filter(|entry| entry.is_read_by(self.serial)) {
            entry.reader = None;
            entry.unread_since = Instant::now();
            entry.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
