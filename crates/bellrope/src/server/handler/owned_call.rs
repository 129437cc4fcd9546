//! A call as an async handler sees it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bellrope_proto::{Holder, Reservation, metadata::Metadata};
use tokio::sync::Notify;

use super::context::CallContext;
use crate::{
    breaker::Caller,
    server::{
        calls::{
            caller_id::{CallerId, is_own},
            claims::Claims,
            heap,
        },
        error::HandlerError,
    },
};

/// A call as an async handler sees it.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("who.sock");
/// use bellrope::{Client, Server};
///
/// let server = Server::builder()
///     .unary_async("who", |call| async move {
///         // A token proves who calls, the kernel vouches for the user and the process, and a name of a process proves nothing.
///         let who = call.token().unwrap_or_else(|| format!("user {}", call.user()));
///         println!("{who}, process {:?} ({:?})", call.process(), call.process_name());
///         println!("connection {}, for breakers {}", call.connection(), call.caller());
///         println!("on another machine: {:?}", call.vouched());
///         let session = call.metadata().and_then(|metadata| metadata.session_text());
///         println!("session {session:?}, time left {:?}, {} bytes", call.time_left(), call.payload().len());
///         Ok(call.into_payload())
///     })
///     .bind(&path)?;
/// assert_eq!(Client::connect(&path)?.call("who", b"ding")?, b"ding");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct OwnedCall {
    pub(crate) payload: Vec<u8>,
    pub(crate) context: CallContext,
    pub(crate) metadata: Option<Box<Metadata>>,
    pub(crate) cancelled: Cancelled,
    /// The process at the other end; 0 for an unknown one.
    pub(crate) pid: i32,
    /// For whom that process calls, if it is this one and calls for somebody on another machine.
    pub(crate) remote: Option<Caller>,
    /// What knows the names of tokens, if there is one and the call shows a token.
    pub(crate) token_names: Option<TokenNames>,
    /// What it holds of the buffer budget: as long as its payload is there, wherever that is.
    pub(crate) _room: Arc<Reservation>,
    /// Who is at the other end of its connection.
    pub(crate) user: u32,
    /// Of the buffer budget.
    pub(crate) holder: Arc<Holder>,
    /// How long it waits for room there.
    pub(crate) patience: Duration,
    /// How long a thread waits for what its caller sends, if others wait for the thread.
    pub(crate) stall_timeout: Duration,
    /// Those that wait.
    pub(crate) claims: Arc<Claims>,
}

/// Who asks on another machine, as a part of this process says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vouched<'a> {
    /// Somebody with the token of this name.
    Token(&'a str),
    /// Somebody of this name.
    Named(&'a str),
}

/// What knows the name of a token that is shown.
#[derive(Clone)]
pub(crate) struct TokenNames(pub(crate) Arc<LookUp>);

/// Finds the name of a token.
type LookUp = dyn Fn(&str) -> Option<String> + Send + Sync;

impl fmt::Debug for TokenNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenNames").finish_non_exhaustive()
    }
}

/// Claims room in the server's buffer budget for one call: see [`OwnedCall::room_claims`].
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("collect.sock");
/// let server = bellrope::Server::builder()
///     .unary_async("collect", |call| async move {
///         let claims = call.room_claims();
///         let (mut answer, mut rooms) = (Vec::new(), Vec::new());
///         for part in 0..3_u8 {
///             rooms.push(claims.claim_now(1024)?); // given back when the handler has ended
///             answer.extend([part; 1024]);
///         }
///         Ok(answer)
///     })
///     .bind(&path)?;
/// assert_eq!(bellrope::Client::connect(&path)?.call("collect", b"")?.len(), 3 * 1024);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct RoomClaims {
    holder: Arc<Holder>,
}

/// Room in the server's buffer budget that a handler [claimed](OwnedCall::claim). Dropping it gives it back.
#[derive(Debug)]
pub struct ClaimedRoom {
    _reservation: Reservation,
}

impl OwnedCall {
    /// What the caller sent.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// What the caller sent, to keep. Its room in the server's buffer budget is then that of the call, and free when this has
    /// ended: work that goes on although its call was cancelled should keep the `OwnedCall` instead.
    #[must_use]
    pub fn into_payload(self) -> Vec<u8> {
        self.payload
    }

    /// Claims `bytes` of the server's buffer budget for what the handler makes of the request, beside what the call holds
    /// for the request itself and its [weight](crate::server::ServerBuilder::weight). Waits for `budget_wait` where there is
    /// no room: the call keeps what it has meanwhile, so claim once, and early.
    ///
    /// # Errors
    /// There is no such room, in words for the caller, who sees it as [`CallError::Exhausted`](crate::CallError::Exhausted).
    ///
    /// ```
    /// # use bellrope::Server;
    /// let server = Server::builder().unary_async("index", |call| async move {
    ///     let _room = call.claim(8 * call.payload().len() as u64).await?;
    ///     let words: Vec<_> = call.payload().split(|byte| *byte == b' ').collect();
    ///     Ok(words.len().to_string().into_bytes())
    /// });
    /// ```
    pub async fn claim(&self, bytes: u64) -> Result<ClaimedRoom, HandlerError> {
        let claims = self.room_claims();
        let mut claimed = claims.claim_now(bytes);
        if claimed.is_err() && bytes <= self.holder.budget().limit() {
            claimed = tokio::time::timeout(self.patience, self.room(bytes)).await.unwrap_or(claimed);
        }
        claimed
    }

    async fn room(&self, bytes: u64) -> Result<ClaimedRoom, HandlerError> {
        let reservation = self.claims.room((self.user, self.caller()), &self.holder, bytes).await;
        heap::granted(bytes, self.holder.budget());
        Ok(ClaimedRoom { _reservation: reservation })
    }

    /// What claims room for this call when the call itself has been given away: for an answer that grows.
    /// [Example](RoomClaims).
    #[must_use]
    pub fn room_claims(&self) -> RoomClaims {
        RoomClaims { holder: Arc::clone(&self.holder) }
    }

    /// What its caller says of the call beyond the request, if that is anything.
    #[must_use]
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_deref()
    }

    /// The server's number for the caller's connection.
    #[must_use]
    pub fn connection(&self) -> u64 {
        self.context.connection
    }

    /// The user at the other end of the connection, as the kernel said when it was made.
    #[must_use]
    pub fn user(&self) -> u32 {
        self.user
    }

    /// The caller's process, where the kernel knows it: not of another PID namespace.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        u32::try_from(self.pid).ok().filter(|pid| *pid > 0)
    }

    /// The name of the caller's process, cut to 15 bytes, as the kernel has it at this moment. It asks the system each time,
    /// and proves nothing: a process chooses its name.
    #[must_use]
    pub fn process_name(&self) -> Option<String> {
        bellrope_shm::proc::name_of(self.process()?)
    }

    /// Who calls, as breakers tell callers apart: for a breaker of the handler's own.
    #[must_use]
    pub fn caller(&self) -> Caller {
        self.remote.unwrap_or_else(|| CallerId::default().of(self.pid, self.context.connection))
    }

    /// Who asks, if a part of this server's own process says so of a call that it makes for somebody on another machine
    /// ([`Metadata::vouched`]). Of no other process that is believed.
    #[must_use]
    pub fn vouched(&self) -> Option<Vouched<'_>> {
        let text = self.metadata()?.vouched_text().filter(|_| is_own(self.pid))?;
        Some(match text.split_once(' ') {
            Some(("token", name)) => Vouched::Token(name),
            _ => Vouched::Named(text),
        })
    }

    /// The name of the token that the caller has: one that it shows ([`Metadata::token`]) and
    /// [`ServerBuilder::token_names`](crate::server::ServerBuilder::token_names) knows, or one that another server of a fleet
    /// says it has. It is looked up each time.
    #[must_use]
    pub fn token(&self) -> Option<String> {
        match self.vouched() {
            Some(Vouched::Token(name)) => Some(name.to_owned()),
            Some(Vouched::Named(_)) => None,
            None => (self.token_names.as_ref()?.0)(self.metadata()?.token_text()?),
        }
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

impl RoomClaims {
    /// As [`OwnedCall::claim`], but without waiting: whoever claims again and again, and keeps what it has, would wait for others
    /// that do the same.
    ///
    /// # Errors
    /// As there.
    pub fn claim_now(&self, bytes: u64) -> Result<ClaimedRoom, HandlerError> {
        let budget = self.holder.budget();
        let Some(reservation) = self.holder.reserve_more(bytes) else {
            return Err(HandlerError::exhausted(format!(
                "the call takes {bytes} bytes more, which found no room in the buffer budget of {} bytes \
                 (buffer_budget_bytes)",
                budget.limit()
            )));
        };
        heap::granted(bytes, budget);
        Ok(ClaimedRoom { _reservation: reservation })
    }
}

/// Whether somebody still wants the answer to a call. Clones tell of the same call, also after it has ended.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("never.sock");
/// use std::{sync::mpsc, time::Duration};
///
/// use bellrope::{Client, Server};
///
/// let (telling, told) = mpsc::channel();
/// let server = Server::builder()
///     .unary_async("never", move |call| {
///         let (cancelled, telling) = (call.cancelled(), telling.clone());
///         async move {
///             tokio::spawn(async move {
///                 cancelled.wait().await;
///                 println!("its caller does not want it any more: {}", cancelled.is_withdrawn());
///                 let _ = telling.send(cancelled.is_cancelled());
///             });
///             std::future::pending().await
///         }
///     })
///     .bind(&path)?;
/// let client = Client::connect(&path)?;
/// // On a busy machine the time may be over before the handler begins.
/// let is_cancelled = loop {
///     assert!(client.call_within("never", b"", Duration::from_millis(20)).is_err());
///     if let Ok(is_cancelled) = told.recv_timeout(Duration::from_secs(1)) {
///         break is_cancelled;
///     }
/// };
/// assert!(is_cancelled);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Cancelled(Arc<Cancellation>);

#[derive(Debug, Default)]
struct Cancellation {
    happened: AtomicBool,
    withdrawn: AtomicBool,
    notify: Notify,
}

impl Cancelled {
    /// Whether the caller cancelled, went away, or set a deadline that has passed.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.happened.load(Ordering::Acquire)
    }

    /// Whether the caller said that it does not want the answer any more. `false` if it just went away, died or let its
    /// deadline pass: it may come back for what a handler keeps for it. Known before the handler's future is dropped.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        self.0.withdrawn.load(Ordering::Acquire)
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

    pub(crate) fn withdraw(&self) {
        self.0.withdrawn.store(true, Ordering::Release);
        self.set();
    }

    pub(crate) fn set(&self) {
        self.0.happened.store(true, Ordering::Release);
        self.0.notify.notify_waiters();
    }
}
