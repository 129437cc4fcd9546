//! Health, metrics and a live page of a Bellrope server, over HTTP.
//!
//! A [`HealthServer`] answers probes, serves metrics for Prometheus, and shows a page to people. It has one thread of its
//! own and never touches the data path of the server that it reports on.
//!
//! | module | what it holds |
//! |---|---|
//! | [`http`] | a bounded HTTP/1.1 listener for any service |
//! | `server` | [`HealthServer`]: the listener with the routes below |
//! | `routes` | the answer to each path |
//! | `events` | the server-sent events of the live page |
//! | `exposition` | metrics in the Prometheus text format |
//! | `process` | what the kernel reports about this process |
#![forbid(unsafe_code)]

mod events;
mod exposition;
pub mod http;
mod process;
mod routes;
mod server;

pub use server::HealthServer;

/// The example of this crate's README, compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
