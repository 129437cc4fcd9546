//! What a caller may ask for, call by call.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

use bellrope_proto::metadata::Metadata;

use super::{
    deadline::from_now,
    mailboxes::Ticket,
    shared::SharedClient,
    types::{MessageType, Target},
};
use crate::error::CallError;

/// How one call is made. What is not said comes from the [`ClientConfig`](crate::client::ClientConfig).
///
/// Every form of call takes options, and keeps to them or fails at once as [`CallError::UnusableOption`], which says why:
///
/// | form | [`timeout`](Self::timeout) is for | [`retry`](Self::retry) | [`cancel`](Self::cancel) |
/// |---|---|---|---|
/// | `call_with`, `call_into_with` | the call and its retries | yes | yes |
/// | `stream_with` | the whole stream | before the first chunk | yes |
/// | `client_stream_with`, `duplex_with` | the whole call: sending and its end | no: chunks are sent once | yes |
/// | `finish_with` of an upload | waiting for the answer | no | yes |
/// | `call_with` of a `Connection` | the call | no: it does not reconnect | yes |
/// | `submit_with`, `queue_with` of a `Connection` | the call, once it is sent | no | no: `Connection::cancel` does it |
///
/// [`metadata`](Self::metadata) go with every call, retries too; an upload's `finish_with` takes none, as its call was sent.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("echo.sock");
/// # let server = bellrope::Server::builder()
/// #     .unary_async("never", |_| std::future::pending()).client_stream("sum", |_, _| std::future::pending()).bind(&path)?;
/// use std::time::Duration;
/// use bellrope::client::{CallOptions, Retry};
/// use bellrope::{CallError, Client};
///
/// let client = Client::connect(&path)?;
/// let hasty = CallOptions::new().timeout(Duration::from_millis(20)).retry(Retry::NotExecuted);
/// assert!(matches!(client.call_with("never", b"", &hasty), Err(CallError::DeadlineExceeded)));
///
/// let refused = client.client_stream_with("sum", b"", &hasty).unwrap_err();
/// assert!(refused.to_string().starts_with("the option retry cannot be used with client_stream"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct CallOptions {
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry: Retry,
    pub(crate) cancel: Option<CancelToken>,
    metadata: Option<Arc<Metadata>>,
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
    /// The defaults: the client's time-out, no retry, no token. [Example](Self).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Most time the call may take. `Duration::MAX` is for ever. [Example](Self).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Which failures are tried again. [Example](Self).
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// A token that cancels the call from anywhere. [Example](CancelToken).
    #[must_use]
    pub fn cancel(mut self, token: &CancelToken) -> Self {
        self.cancel = Some(token.clone());
        self
    }

    /// What the server is told of the call beyond its request: whose trace it belongs to, whose session, who asks. A server of
    /// version 1.0 is told nothing of it.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("echo.sock");
    /// use bellrope::{Client, Server, client::{CallOptions, Metadata}};
    ///
    /// let server = Server::builder()
    ///     .unary("whose", |call, reply| {
    ///         let session = call.metadata().and_then(|metadata| metadata.session_text());
    ///         reply.put(session.unwrap_or("nobody's").as_bytes());
    ///         Ok(())
    ///     })
    ///     .bind(&path)?;
    /// let client = Client::connect(&path)?;
    /// let metadata = Metadata::new()
    ///     .trace("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse()?)?
    ///     .session("window 3")?;
    /// assert_eq!(client.call_with("whose", b"", &CallOptions::new().metadata(metadata))?, b"window 3");
    /// assert_eq!(client.call("whose", b"")?, b"nobody's");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = Some(Arc::new(metadata));
        self
    }

    pub(crate) fn said(&self) -> Option<&Metadata> {
        self.metadata.as_deref()
    }

    /// Refuses metadata.
    pub(crate) fn without_metadata(&self, form: &'static str, reason: &'static str) -> Result<(), CallError> {
        if self.metadata.is_none() {
            return Ok(());
        }
        Err(CallError::UnusableOption { option: "metadata", form, reason })
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.as_ref().is_some_and(CancelToken::is_cancelled)
    }

    /// When a call has to be over that began now. `None`: it may take any time.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.timeout.map(from_now)
    }

    /// Refuses a retry.
    pub(crate) fn without_retry(&self, form: &'static str, reason: &'static str) -> Result<(), CallError> {
        if self.retry == Retry::Never {
            return Ok(());
        }
        Err(CallError::UnusableOption { option: "retry", form, reason })
    }

    /// Refuses a token.
    pub(crate) fn without_token(&self, form: &'static str, reason: &'static str) -> Result<(), CallError> {
        if self.cancel.is_none() {
            return Ok(());
        }
        Err(CallError::UnusableOption { option: "cancel", form, reason })
    }
}

/// Why metadata come too late at the end of an upload.
pub(super) const SAID_ALREADY: &str = "the call was sent already; give them to client_stream_with";

/// Why a call with chunks from the client is never sent again.
pub(super) const SENT_ONCE: &str =
    "chunks that were sent are not kept, so they could not be sent again; make the call anew instead";

impl Retry {
    /// Whether a call that ended with this error is sent again.
    pub(super) fn allows(self, error: &CallError) -> bool {
        match error {
            CallError::NotExecuted | CallError::ClosedByServer { may_have_run: false, .. } => self != Self::Never,
            CallError::Unknown | CallError::ClosedByServer { may_have_run: true, .. } => self == Self::Idempotent,
            _ => false,
        }
    }
}

/// A stream that is called again if its server is lost before the first chunk.
#[derive(Debug)]
pub(super) struct Again {
    target: OwnedTarget,
    payload: Vec<u8>,
    pub(super) options: CallOptions,
    /// When the whole stream has to be over.
    pub(super) deadline: Option<Instant>,
    /// Until when it is called again.
    until: Instant,
}

#[derive(Debug)]
enum OwnedTarget {
    Name(String),
    Type(MessageType),
}

impl Again {
    /// Keeps what is needed, if the options allow another try. `patience` is how long a stream without a time-out is tried.
    pub(super) fn allowed(
        target: Target<'_>,
        payload: &[u8],
        options: &CallOptions,
        deadline: Option<Instant>,
        patience: Duration,
    ) -> Option<Self> {
        if options.retry == Retry::Never {
            return None;
        }
        let target = match target {
            Target::Name(name) => OwnedTarget::Name(name.to_owned()),
            Target::Type(message_type) => OwnedTarget::Type(message_type),
        };
        let until = deadline.unwrap_or_else(|| from_now(patience));
        Some(Self { target, payload: payload.to_vec(), options: options.clone(), deadline, until })
    }

    /// Whether the stream, which has ended with this error, is called again.
    pub(super) fn is_due(&self, error: &CallError) -> bool {
        self.options.retry.allows(error) && Instant::now() < self.until
    }

    pub(super) fn target(&self) -> Target<'_> {
        match &self.target {
            OwnedTarget::Name(name) => Target::Name(name),
            OwnedTarget::Type(message_type) => Target::Type(*message_type),
        }
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.payload
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
/// use bellrope::client::{CallOptions, CancelToken};
/// use bellrope::{CallError, Client};
///
/// let client = Client::connect(&path)?;
/// let token = CancelToken::new();
/// assert!(!token.is_cancelled());
/// let canceller = std::thread::spawn({
///     let token = token.clone();
///     move || token.cancel()
/// });
/// let ended = client.call_with("never", b"", &CallOptions::new().cancel(&token));
/// assert!(matches!(ended, Err(CallError::Cancelled)));
/// # canceller.join().unwrap();
/// assert!(token.is_cancelled(), "and stays so, for later calls, too");
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

/// What a token cancels, under numbers of their own.
#[derive(Debug, Default)]
struct Calls {
    last: u64,
    by_number: HashMap<u64, Cancelled>,
}

/// What a token cancels.
#[derive(Debug)]
enum Cancelled {
    /// A call under way.
    Call(Weak<SharedClient>, Ticket),
    /// A task whose call is not under way yet. It is woken, and looks at the token.
    #[cfg_attr(not(feature = "tokio"), expect(dead_code, reason = "only async callers are tasks"))]
    Task(Waker),
}

/// What a token cancels, as long as this lives.
#[derive(Debug)]
pub(crate) struct Registration {
    token: CancelToken,
    number: u64,
}

impl CancelToken {
    /// A token that has not been cancelled. [Example](Self).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels every call that was given this token, and every one that will be. [Example](Self).
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        let calls = std::mem::take(&mut self.calls().by_number);
        for cancelled in calls.into_values() {
            match cancelled {
                Cancelled::Call(shared, ticket) => {
                    shared.upgrade().into_iter().for_each(|shared| shared.cancel(ticket));
                }
                Cancelled::Task(waker) => waker.wake(),
            }
        }
    }

    /// Whether it was cancelled. [Example](Self).
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// Has a call cancelled with the token, at once if that has happened.
    pub(crate) fn register(&self, shared: &Arc<SharedClient>, ticket: Ticket) -> Registration {
        let registration = self.insert(Cancelled::Call(Arc::downgrade(shared), ticket));
        // Either `cancel` finds the call in the map, or we find the flag set.
        if self.is_cancelled() {
            shared.cancel(ticket);
        }
        registration
    }

    /// Does what a task does for a call until that is under way, and ends it as cancelled with the token.
    #[cfg(feature = "tokio")]
    pub(super) async fn guard<T>(
        token: Option<&Self>,
        work: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let Some(token) = token else { return work.await };
        let mut work = std::pin::pin!(work);
        let mut _registration = None;
        std::future::poll_fn(|context| {
            use std::task::Poll;

            if let done @ Poll::Ready(_) = work.as_mut().poll(context) {
                return done;
            }
            // Either `cancel` finds the task in the map, or we find the flag set.
            _registration = Some(token.insert(Cancelled::Task(context.waker().clone())));
            if token.is_cancelled() { Poll::Ready(Err(CallError::Cancelled)) } else { Poll::Pending }
        })
        .await
    }

    fn insert(&self, cancelled: Cancelled) -> Registration {
        let mut calls = self.calls();
        calls.last += 1;
        let number = calls.last;
        calls.by_number.insert(number, cancelled);
        Registration { token: self.clone(), number }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // A waker is anybody's code, so it goes when the lock is free.
        let _gone = self.token.calls().by_number.remove(&self.number);
    }
}

#[cfg(all(test, feature = "tokio"))]
mod tests {
    use std::{sync::mpsc, task::Wake, time::Duration};

    use super::*;

    /// The last of a task that is dropped with its waker, and cancels its calls then.
    struct Task(CancelToken, mpsc::Sender<()>);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    impl Drop for Task {
        fn drop(&mut self) {
            self.0.cancel();
            let _ = self.1.send(());
        }
    }

    #[test]
    fn a_task_that_is_dropped_with_what_a_token_knows_of_it_may_use_the_token() {
        let (token, (done, heard)) = (CancelToken::new(), mpsc::channel());
        let waker = Waker::from(Arc::new(Task(token.clone(), done)));
        let registration = token.insert(Cancelled::Task(waker));
        std::thread::spawn(move || drop(registration));
        heard.recv_timeout(Duration::from_secs(60)).expect("the lock is free");
    }
}
