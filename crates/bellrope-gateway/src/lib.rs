//! AI providers for editors, behind one face.
//!
//! An editor asks a [`Gateway`]; the gateway asks one of its [`Provider`]s; the answer comes back in [`Chunk`]s, a few
//! words each. Everything pulls: the provider's socket is read as pieces are asked for, so a slow editor slows its
//! provider down, and nothing in between holds more than one read's worth of bytes.
//!
//! | module | what it holds |
//! |---|---|
//! | [`account`] | who keeps the books of what is asked |
//! | [`message`] | the JSON between editor and gateway |
//! | [`client`] | the other end: calls with the types of `message` |
//! | [`handlers`] | the gateway as message types of a server |
//! | [`inbound`] | the formats of tools that ask over HTTP |
//! | [`pass`] | requests and answers that go through as they are |
//! | [`gateway`] | the providers by name, and the promises that hold for all of them |
//! | [`provider`] | what every provider offers |
//! | [`providers`] | the providers themselves: embedded, and behind HTTP in each of the wire formats |
//! | [`config`] | where a provider is, what it speaks, how long to wait for it |
//! | [`json`] | JSON whose strings may hold anything, read without loss |
//! | [`sse`] | server-sent events, decoded as the bytes come in |
//! | [`error`] | what can go wrong, who is to blame, and what fixes it |
//! | [`secret`] | keys that cannot be shown |
//!
//! Providers behind HTTP come with the feature `http`, which is on by default.
//!
//! ```
//! use bellrope_gateway::{ChatRequest, Chunk, Gateway, GatewaySettings};
//! use futures_util::StreamExt;
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let gateway = Gateway::from_settings(GatewaySettings::default())?;
//! let mut answer = gateway.chat_stream(ChatRequest::user("Who is there?"));
//! while let Some(piece) = answer.next().await {
//!     match piece.chunk {
//!         Chunk::Text { text } => print!("{text}"),
//!         Chunk::Error(error) => eprintln!("{}", error.message),
//!         _ => {}
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(
    not(feature = "http"),
    expect(
        dead_code,
        reason = "settings and errors of providers behind HTTP stay, so that both builds read the same files"
    )
)]

pub mod account;
pub mod apart;
mod asker;
mod bucket;
pub mod client;
pub mod config;
pub mod error;
pub mod gateway;
pub mod handlers;
mod ids;
pub mod inbound;
mod input_tokens;
pub mod json;
mod log_limit;
pub mod message;
mod notes;
pub mod pass;
pub mod provider;
pub mod providers;
mod reasoning;
mod room;
pub mod secret;
mod server_stop;
pub mod sse;
#[cfg(test)]
mod testing;
pub mod text;
mod units;

pub use asker::{Asker, AskerKind};
pub use client::{AsyncChatClient, ChatClient, ChatError};
pub use config::{Credentials, PassThrough, ProviderConfig};
pub use error::{Blame, ConfigError, Excerpt, Phase, ProviderError};
pub use gateway::{
    AnswerReader, AnswerSettings, AnswerStream, AnswersFull, Gateway, GatewaySettings, GatewaySnapshot, KeptAnswer,
    KeptAnswers, LiveGateway, Owner, PassedAnswer, PassedStream, ProviderSnapshot, Told, Way,
};
pub use handlers::{MAX_CHUNK, MESSAGE_TYPES, register};
pub use message::{
    AnsweredBy, CancelReport, CancelRequest, ChatRequest, ChatResponse, Chunk, CompletionRequest, Content,
    EmbedRequest, EmbedResponse, ErrorInfo, FromTool, HealthReport, Message, ModelInfo, ModelList, Part, Prompt,
    ProviderFault, ProviderHealth, ResumeRequest, Role, SequencedChunk, StopReason, TokenLogprob, Tool, ToolCall,
    ToolCallDelta, ToolChoice, TopLogprob, Unsaid, Usage, WIRE_VERSION,
};
pub use notes::{MAX_NOTE, MAX_NOTES};
pub use provider::{BoxFuture, Capabilities, EmbeddingRequest, Provider, ProviderLimits, ProviderStream, TakesKey};
pub use providers::embedded::{EmbeddedProvider, EmbeddedSettings};
pub use providers::formats::{self, ProviderKind};
#[cfg(feature = "http")]
pub use providers::http::HttpProvider;
pub use providers::served::ServedProvider;
pub use room::AnswerRoom;
pub use secret::{KeyFault, Secret};
pub use server_stop::ServerStop;

/// The example of this crate's README, compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
