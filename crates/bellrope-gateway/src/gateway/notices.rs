//! What is told with an answer: the notes of whoever read the request, and those of the provider.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::message::Chunk;
use crate::notes::Notes;

/// The target of its log lines, which filters name: it stays when the file moves.
const TARGET: &str = "bellrope_gateway::gateway";

/// How often the log says so at most. The callers hear of it each time.
const PERIOD: Duration = Duration::from_secs(60);

/// The notes of one answer, each told once.
#[derive(Debug, Default)]
pub(super) struct Notices {
    all: Notes,
    /// How many of them were handed out.
    told: usize,
}

impl Notices {
    /// The notes of the request, still to be told.
    pub(super) fn new(notes: Vec<String>) -> Self {
        let mut notices = Self::default();
        notices.extend(notes);
        notices
    }

    pub(super) fn extend(&mut self, notes: Vec<String>) {
        for note in notes {
            self.all.add(&note);
        }
    }

    /// A piece of the answer that tells the next of them.
    pub(super) fn next(&mut self) -> Option<Chunk> {
        let text = self.all.as_slice().get(self.told)?.clone();
        self.told += 1;
        Some(Chunk::Notice { text })
    }

    /// All notes, in the end of an answer, which the log hears of now and then.
    pub(super) fn into_vec(self) -> Vec<String> {
        self.log();
        self.all.into_vec()
    }

    /// Tells the log.
    pub(super) fn log(&self) {
        static LAST: Mutex<Option<Instant>> = Mutex::new(None);

        if self.all.as_slice().is_empty() {
            return;
        }
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= PERIOD) {
            *last = Some(Instant::now());
            let notes = self.all.as_slice().join("; ");
            warn!(target: TARGET, notes, "a request was not sent as it came; this is said once a minute at most");
        }
    }
}
