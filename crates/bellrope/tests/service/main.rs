//! Typed services: traits in every style, both clients, both codecs. docs/services.md has what went wrong elsewhere.

#[macro_use]
mod echo;

mod below;
mod codec_bounds;
mod codecs;
mod compatibility;
#[path = "../../examples/typed/files.rs"]
mod files;
mod incoming;
mod json_reading;
mod large_schemas;
mod producing;
mod refused_when_served;
mod same_types;
mod schemas;
mod styles;
mod traced;
mod traced_whole;
mod transcode;
mod twins;
mod written;
