//! The provider behind HTTP: connecting, time-outs, retries, and errors in the provider's own words.
//!
//! There is no time-out for a whole request: an answer may take as long as it keeps coming.

mod answer;
mod client;
mod endpoint;
mod events;
mod explain;
mod headers;
mod pass;
mod provider;
mod proxy;
mod remote;
mod retry;
mod retry_after;
mod timeouts;
mod trust;
mod watch;

pub use provider::HttpProvider;
pub(crate) use trust::check as check_trust;
