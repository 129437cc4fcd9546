//! What the tests of several crates share. A dev-dependency: nothing that ships uses it.
//!
//! Without the feature `runtime` it depends on no other crate of Bellrope, so that the tests of `bellrope-proto` build
//! without the crates above it.

#[cfg(feature = "runtime")]
pub mod alone;
#[cfg(feature = "runtime")]
pub mod cluster;
pub mod http;
pub mod ledger;
#[cfg(feature = "runtime")]
pub mod local_server;
#[cfg(feature = "runtime")]
pub mod log;
#[cfg(feature = "runtime")]
pub mod nats;
pub mod payload;
#[cfg(feature = "runtime")]
pub mod program;
#[cfg(feature = "runtime")]
pub mod raw;
#[cfg(feature = "runtime")]
pub mod raw_stream;
pub mod role;
mod skip;
#[cfg(feature = "runtime")]
pub mod support;
#[cfg(feature = "runtime")]
pub mod version_1_0;

pub use skip::skipped;

/// The examples of the repository's README and documents, compiled and run with the documentation tests. They stand here
/// because a crate that is packaged has no files outside of its own folder.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../../../README.md")]
    struct Readme;
    #[doc = include_str!("../../../docs/plugins.md")]
    struct Plugins;
    #[doc = include_str!("../../../docs/services.md")]
    struct Services;
}
