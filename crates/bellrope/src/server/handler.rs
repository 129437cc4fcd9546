//! Handlers: what they are given, what they answer with, and which one answers which message type.

pub(crate) mod added;
mod adding;
#[cfg(feature = "tokio")]
pub(crate) mod behind;
pub(crate) mod call;
pub(crate) mod context;
#[cfg(feature = "tokio")]
pub(crate) mod owned_call;
#[cfg(feature = "tokio")]
pub(crate) mod parts;
#[cfg(feature = "tokio")]
pub(crate) mod port;
pub(crate) mod registry;
#[cfg(feature = "tokio")]
pub(crate) mod streams;
