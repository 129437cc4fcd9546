//! Calls: the memory that is held for them, how they begin and end where their handler is asynchronous or they are
//! large, and how their end is counted.

#[cfg(feature = "tokio")]
pub(crate) mod asynchronous;
#[cfg(feature = "tokio")]
pub(crate) mod blocking_pool;
pub(crate) mod body;
pub(crate) mod budget_claim;
pub(crate) mod buffers;
pub(crate) mod caller_id;
#[cfg(feature = "tokio")]
pub(crate) mod claims;
#[cfg(feature = "tokio")]
pub(crate) mod dispatch;
pub(crate) mod failures;
pub(crate) mod heap;
pub(crate) mod holders;
pub(crate) mod large;
pub(crate) mod outcome;
#[cfg(feature = "tokio")]
pub(crate) mod turns;
