//! A call as an async handler sees it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use super::context::CallContext;

/// A call as an async handler sees it.
#[derive(Debug)]
pub struct OwnedCall {
    pub(crate) payload: Vec<u8>,
    pub(crate) context: CallContext,
    pub(crate) cancelled: Cancelled,
}

impl OwnedCall {
    /// What the caller sent.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// What the caller sent, to keep.
    #[must_use]
    pub fn into_payload(self) -> Vec<u8> {
        self.payload
    }

    /// The server's number for the caller's connection.
    #[must_use]
    pub fn connection(&self) -> u64 {
        self.context.connection
    }

    /// Time that is left for the answer, if its caller set a deadline. The handler is dropped when it is over.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        self.context.time_left()
    }

    /// Tells whether the answer is still wanted. The handler's own future is dropped when it is not; this is for what
    /// the handler has started elsewhere, a thread for instance.
    ///
    /// ```
    /// # use bellrope::{HandlerError, Server};
    /// let server = Server::builder().unary_async("count", |call| async move {
    ///     let cancelled = call.cancelled();
    ///     let counting = tokio::task::spawn_blocking(move || {
    ///         (0..1_000_u32).take_while(|_| !cancelled.is_cancelled()).count()
    ///     });
    ///     let counted = counting.await.map_err(|error| HandlerError::new(error.to_string()))?;
    ///     Ok(counted.to_string().into_bytes())
    /// });
    /// ```
    #[must_use]
    pub fn cancelled(&self) -> Cancelled {
        self.cancelled.clone()
    }
}

/// Whether somebody still wants the answer to a call. Clones tell of the same call, also after it has ended.
#[derive(Debug, Clone, Default)]
pub struct Cancelled(Arc<Cancellation>);

#[derive(Debug, Default)]
struct Cancellation {
    happened: AtomicBool,
    notify: Notify,
}

impl Cancelled {
    /// Whether the caller cancelled, went away, or set a deadline that has passed.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.happened.load(Ordering::Acquire)
    }

    /// Waits until [`Self::is_cancelled`]: for ever, if the call is answered first.
    pub async fn wait(&self) {
        loop {
            let notified = self.0.notify.notified();
            if self.is_cancelled() {
                return;
            }
            notified.await;
        }
    }

    pub(crate) fn set(&self) {
        self.0.happened.store(true, Ordering::Release);
        self.0.notify.notify_waiters();
    }
}
