//! The provider behind HTTP: connecting, time-outs, retries, and errors in the provider's own words.
//!
//! There is no time-out for a whole request: an answer may take as long as it keeps coming.

mod client;
mod endpoint;
mod events;
mod provider;
mod retry;
mod timeouts;

pub use provider::HttpProvider;
