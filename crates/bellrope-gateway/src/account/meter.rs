//! What is known of an answer before its end.

use std::sync::{Arc, Mutex, PoisonError};

use crate::message::Usage;

/// What a provider has said so far of what an answer takes. It is filled where the events are read, and read by the books
/// if the answer is cancelled or breaks off, as the pieces of an answer tell it at their end alone. It is no part of what
/// is asked, so all are equal.
///
/// ```
/// use bellrope_gateway::account::Meter;
///
/// // One that nobody reads keeps nothing.
/// assert_eq!(Meter::default(), Meter::read_by_books());
/// ```
#[derive(Debug, Clone, Default)]
pub struct Meter(Option<Arc<Mutex<Read>>>);

#[derive(Debug, Default)]
struct Read {
    usage: Option<Usage>,
    is_final: bool,
    unshown: usize,
}

impl Meter {
    /// One that keeps what is noted.
    #[must_use]
    pub fn read_by_books() -> Self {
        Self(Some(Arc::default()))
    }

    /// Takes in what the answer has taken so far, where that was said, and so many bytes of text that came and are not shown.
    /// `is_final`: whether that is the provider's last word.
    pub fn note(&self, usage: Option<Usage>, is_final: bool, unshown_bytes: usize) {
        let Some(read) = self.0.as_ref().filter(|_| usage.is_some() || unshown_bytes > 0) else { return };
        let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
        if usage.is_some() {
            (read.usage, read.is_final) = (usage, is_final);
        }
        read.unshown = read.unshown.saturating_add(unshown_bytes);
    }

    /// Whether any text came.
    pub(crate) fn has_text(&self) -> bool {
        let read = self.0.as_ref().map(|read| read.lock().unwrap_or_else(PoisonError::into_inner));
        read.is_some_and(|read| read.unshown > 0)
    }

    /// What was noted, whether that is the last word, and the bytes that are not shown; nothing from then on.
    pub(crate) fn take(&self) -> (Option<Usage>, bool, usize) {
        let Some(read) = &self.0 else { return (None, false, 0) };
        let Read { usage, is_final, unshown } =
            std::mem::take(&mut *read.lock().unwrap_or_else(PoisonError::into_inner));
        (usage, is_final, unshown)
    }
}

impl PartialEq for Meter {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
