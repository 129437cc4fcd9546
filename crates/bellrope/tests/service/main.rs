//! Typed services: traits in every style, both clients, both codecs. cases/types.md has what went wrong elsewhere.

mod below;
mod codecs;
mod compatibility;
#[path = "../../examples/typed/files.rs"]
mod files;
mod schemas;
mod styles;
mod transcode;
