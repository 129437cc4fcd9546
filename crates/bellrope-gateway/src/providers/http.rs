//! The provider behind HTTP: connecting, time-outs, retries, and errors in the provider's own words.
//!
//! There is no time-out for a whole request: an answer may take as long as it keeps coming.

mod asked;
mod client;
mod endpoint;
mod events;
mod explain;
mod headers;
mod provider;
mod proxy;
mod retry;
mod timeouts;
mod trust;

pub use provider::HttpProvider;
pub(crate) use trust::check as check_trust;
