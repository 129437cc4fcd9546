//! Beginning a stream anew whose server was lost before the first chunk.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::{super::options::Again, pending::Pending};
use crate::error::CallError;

type Beginning = Pin<Box<dyn Future<Output = Result<Pending, CallError>> + Send + Sync>>;

/// What it takes to begin a stream anew, and how far that is.
pub(super) struct Restart {
    again: Arc<Again>,
    begin: Box<dyn Fn(Arc<Again>) -> Beginning + Send + Sync>,
    under_way: Option<Beginning>,
}

impl Restart {
    pub(super) fn new(again: Again, begin: impl Fn(Arc<Again>) -> Beginning + Send + Sync + 'static) -> Self {
        Self { again: Arc::new(again), begin: Box::new(begin), under_way: None }
    }

    /// Begins the stream anew after this error. Answers whether that is allowed.
    pub(super) fn begin(&mut self, error: &CallError) -> bool {
        if !self.again.is_due(error) {
            return false;
        }
        self.under_way = Some((self.begin)(Arc::clone(&self.again)));
        true
    }

    /// The new call, once it is sent. `Ready(None)`: none was begun.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Pending, CallError>>> {
        let Some(under_way) = &mut self.under_way else { return Poll::Ready(None) };
        let begun = under_way.as_mut().poll(context);
        if begun.is_ready() {
            self.under_way = None;
        }
        begun.map(Some)
    }
}

impl fmt::Debug for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let under_way = self.under_way.is_some();
        f.debug_struct("Restart").field("again", &self.again).field("under_way", &under_way).finish_non_exhaustive()
    }
}
