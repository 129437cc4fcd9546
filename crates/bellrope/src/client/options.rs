//! What a caller may ask for, call by call.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{mailboxes::Ticket, shared::SharedClient};

/// How one call is made. What is not said comes from the [`ClientConfig`](crate::client::ClientConfig).
///
/// ```
/// use std::time::Duration;
/// use bellrope::client::{CallOptions, Retry};
///
/// let options = CallOptions::new().timeout(Duration::from_millis(200)).retry(Retry::NotExecuted);
/// ```
#[derive(Debug, Clone, Default)]
pub struct CallOptions {
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry: Retry,
    pub(crate) cancel: Option<CancelToken>,
}

/// Which calls a client sends again by itself, to the server that it finds after one went away. All of it happens within
/// the call's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Retry {
    /// None.
    #[default]
    Never,
    /// Those of which it is proven that they have not run.
    NotExecuted,
    /// Also those that may have run: for calls that do no harm when they run twice.
    Idempotent,
}

impl CallOptions {
    /// The defaults: the client's time-out, no retry, no token.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Most time the call may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Which failures are tried again.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// A token that cancels the call from anywhere.
    #[must_use]
    pub fn cancel(mut self, token: &CancelToken) -> Self {
        self.cancel = Some(token.clone());
        self
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.as_ref().is_some_and(CancelToken::is_cancelled)
    }
}

/// Cancels calls from another thread. Clones are the same token; it may be given to any number of calls.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("echo.sock");
/// # let server = bellrope::Server::builder()
/// #     .unary_async("never", |_| std::future::pending()).bind(&path)?;
/// use bellrope::{client::{CallOptions, CancelToken}, CallError, Client};
///
/// let client = Client::connect(&path)?;
/// let token = CancelToken::new();
/// let canceller = std::thread::spawn({
///     let token = token.clone();
///     move || token.cancel()
/// });
/// let ended = client.call_with("never", b"", &CallOptions::new().cancel(&token));
/// assert!(matches!(ended, Err(CallError::Cancelled)));
/// # canceller.join().unwrap();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    cancelled: AtomicBool,
    calls: Mutex<Calls>,
}

/// The calls that a token cancels, under numbers of their own.
#[derive(Debug, Default)]
struct Calls {
    last: u64,
    by_number: HashMap<u64, (Weak<SharedClient>, Ticket)>,
}

/// A call that a token cancels, as long as this lives.
#[derive(Debug)]
pub(crate) struct Registration {
    token: CancelToken,
    number: u64,
}

impl CancelToken {
    /// A token that has not been cancelled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels every call that was given this token, and every one that will be.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        let calls = std::mem::take(&mut self.calls().by_number);
        for (shared, ticket) in calls.into_values() {
            if let Some(shared) = shared.upgrade() {
                shared.cancel(ticket);
            }
        }
    }

    /// Whether it was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// Has a call cancelled with the token, at once if that has happened.
    pub(crate) fn register(&self, shared: &Arc<SharedClient>, ticket: Ticket) -> Registration {
        let number = {
            let mut calls = self.calls();
            calls.last += 1;
            let number = calls.last;
            calls.by_number.insert(number, (Arc::downgrade(shared), ticket));
            number
        };
        // Either `cancel` finds the call in the map, or we find the flag set.
        if self.is_cancelled() {
            shared.cancel(ticket);
        }
        Registration { token: self.clone(), number }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.token.calls().by_number.remove(&self.number);
    }
}
