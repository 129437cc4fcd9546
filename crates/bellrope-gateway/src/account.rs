//! The one place where requests are accounted for: before one is sent, while its answer comes, and however it ends.
//!
//! The gateway keeps no books itself. Whoever does implements [`Books`] and is told of every request to a provider twice:
//! when it is to be sent, and when it is over. The `Account` in between goes with the request; dropped before an end it
//! says that the answer was cancelled, so no way out of the code leaves anything reserved.

mod meter;

use std::fmt;
use std::sync::Arc;

use crate::asker::Asker;
use crate::error::ProviderError;
use crate::message::{Chunk, Usage};

pub use meter::Meter;

/// Somebody who keeps the books. Called from many tasks at once; must not wait.
pub trait Books: fmt::Debug + Send + Sync + 'static {
    /// Whether a request may be sent. If so it is [settled](Books::settle) exactly once.
    ///
    /// # Errors
    /// It may not: [`ProviderError::Budget`].
    fn admit(&self, intent: &Intent<'_>) -> Result<Verdict, ProviderError>;

    /// How a request ended that was admitted under this number.
    fn settle(&self, entry: u64, outcome: Outcome, spent: &Spent);

    /// A request that was admitted under this number is asked for anew in another form: it leaves no trace.
    fn withdraw(&self, entry: u64);
}

/// A request that is about to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Intent<'a> {
    /// Who asks.
    pub asker: &'a Asker,
    /// The provider's name.
    pub provider: &'a str,
    /// The model's name, as far as it is known.
    pub model: Option<&'a str>,
    /// About how many tokens the request has: an estimate.
    pub input_tokens: u64,
    /// The most that it may have: an estimate, too, but hardly ever passed. Lists of tokens are counted exactly.
    pub most_input_tokens: u64,
    /// The most tokens of the answer, where the request says so.
    pub max_tokens: Option<u32>,
    /// Whether there is an answer of tokens at all: vectors have none.
    pub has_answer: bool,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may be sent.
    Send(Admission),
    /// It goes to this model, as in `gpt-5-mini` of the same provider or `ollama/llama3.2`; it is asked for anew.
    Instead {
        /// The model, after the name of another provider if it is of one.
        model: String,
        /// Why, for whoever asked.
        notice: String,
    },
}

/// Leave to send a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Admission {
    /// Its number.
    pub entry: u64,
    /// The most tokens that its answer may have, if that is less than it asks for.
    pub max_tokens: Option<u32>,
    /// Whether a budget limits how much it may take: then that has to be known, and be no more. One that only warns does not.
    pub is_bounded: bool,
    /// What whoever asked should know.
    pub notices: Vec<String>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The answer came whole.
    Done,
    /// Nobody waited for it any longer. The provider's stream was dropped at that moment and not read to its end.
    Cancelled,
    /// It broke off.
    Cut,
    /// It was not sent: a budget, a rate limit or a breaker was against it.
    Refused,
    /// There was no answer.
    Failed,
}

/// What a request took, as far as it is known.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Spent {
    /// What the provider said. `None`: it said nothing, which is not zero.
    pub usage: Option<Usage>,
    /// Whether that was its last word: said with the end of the answer, or with why there is none. What it says before is what
    /// an answer begins with, or has come to so far.
    pub is_final: bool,
    /// Bytes of text, reasoning and arguments that came.
    pub said_bytes: u64,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [Self::Done, Self::Cancelled, Self::Cut, Self::Refused, Self::Failed];

    /// The outcome in one word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Cut => "cut",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// What was asked of the books, and their answer.
#[derive(Debug)]
pub(crate) enum Opened {
    Here { account: Account, max_tokens: Option<u32>, is_bounded: bool, notices: Vec<String> },
    Elsewhere { model: String, notice: String },
}

/// A request in the books, from its admission to its end. Dropped before that it counts as cancelled.
#[derive(Debug)]
pub(crate) struct Account {
    books: Arc<dyn Books>,
    entry: u64,
    spent: Spent,
    /// What is known before the end.
    meter: Meter,
    /// Whether there is an answer to be counted, which vectors are not.
    has_answer: bool,
    has_piece: bool,
    settled: bool,
}

impl Account {
    /// Asks the books whether a request may be sent.
    ///
    /// # Errors
    /// It may not.
    pub(crate) fn open(books: &Arc<dyn Books>, intent: &Intent<'_>) -> Result<Opened, ProviderError> {
        Ok(match books.admit(intent)? {
            Verdict::Send(Admission { entry, max_tokens, is_bounded, notices }) => {
                let books = Arc::clone(books);
                let meter = Meter::read_by_books();
                let spent = Spent::default();
                let has_answer = intent.has_answer;
                let account = Self { books, entry, spent, meter, has_answer, has_piece: false, settled: false };
                Opened::Here { account, max_tokens, is_bounded, notices }
            }
            Verdict::Instead { model, notice } => Opened::Elsewhere { model, notice },
        })
    }

    /// Where it is noted what is known before the end.
    pub(crate) fn meter(&self) -> Meter {
        self.meter.clone()
    }

    /// Takes a piece of the answer in, the last one among them.
    pub(crate) fn take_in(&mut self, chunk: &Chunk) {
        match chunk {
            Chunk::Text { text } | Chunk::Reasoning { text } => self.said(text.len()),
            Chunk::ToolCall(delta) => self.said(delta.arguments.len()),
            Chunk::Usage(usage) => self.used(usage.clone(), false),
            Chunk::Done { .. } => self.done(),
            Chunk::Error(_) => self.end(Outcome::Cut),
            _ => {}
        }
    }

    /// So many bytes of text came.
    pub(crate) fn said(&mut self, bytes: usize) {
        self.has_piece = true;
        self.spent.said_bytes += bytes as u64;
    }

    /// What the provider says that the answer took. The last word of it counts.
    pub(crate) fn used(&mut self, usage: Usage, is_final: bool) {
        (self.spent.usage, self.spent.is_final) = (Some(usage), is_final);
    }

    /// The answer came whole.
    pub(crate) fn done(&mut self) {
        self.end(Outcome::Done);
    }

    /// There is no more, and this is why.
    pub(crate) fn fail(&mut self, error: &ProviderError) {
        // Of a whole answer the pieces are counted where they are read.
        let has_piece = self.has_piece || self.meter.has_text();
        if let ProviderError::TooLarge { limit, .. } = error
            && !has_piece
            && self.has_answer
        {
            // It came, and is paid for.
            self.spent.said_bytes = *limit as u64;
        }
        self.end(match error {
            _ if has_piece => Outcome::Cut,
            ProviderError::Truncated { .. } | ProviderError::TooLarge { .. } => Outcome::Cut,
            error if error.was_not_sent() => Outcome::Refused,
            _ => Outcome::Failed,
        });
    }

    /// It is asked for anew in another form.
    pub(crate) fn withdraw(mut self) {
        if !std::mem::replace(&mut self.settled, true) {
            self.books.withdraw(self.entry);
        }
    }

    fn end(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.settled, true) {
            let (usage, is_final, unshown_bytes) = self.meter.take();
            // What came with the answer was said last, but for a last word.
            if is_final || self.spent.usage.is_none() {
                (self.spent.usage, self.spent.is_final) = (usage, is_final);
            }
            self.spent.said_bytes += unshown_bytes as u64;
            self.books.settle(self.entry, outcome, &self.spent);
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.end(Outcome::Cancelled);
    }
}
