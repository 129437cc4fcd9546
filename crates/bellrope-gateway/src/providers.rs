//! The providers that come with the gateway, and the wire formats of those behind HTTP.
//!
//! | module | what it holds |
//! |---|---|
//! | [`embedded`] | the default provider: scripted, without a network |
//! | [`http`] | the provider behind HTTP, whichever format it speaks |
//! | [`formats`] | the wire formats: one folder each, and one row of a table |

pub mod embedded;
pub mod formats;
#[cfg(feature = "http")]
pub mod http;
