//! The providers that come with the gateway, and the wire formats of those behind HTTP.
//!
//! | module | what it holds |
//! |---|---|
//! | [`embedded`] | the default provider: scripted, without a network |
//! | [`fill`] | filling in the middle: the templates of the usual local models |
//! | [`http`] | the provider behind HTTP, whichever format it speaks |
//! | [`formats`] | the wire formats: one folder each, and one row of a table |
//! | [`served`] | whoever answers `ai.*` at a server's socket |
//! | `names` | names of tools that a provider does not take |
//! | `shape` | thoughts told apart, and ends found, in the text of local models |

pub mod embedded;
pub mod fill;
pub mod formats;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "http")]
mod names;
pub mod served;
#[cfg(feature = "http")]
mod shape;
