//! The providers by name, and the promises that hold for all of them.
//!
//! | file | what it holds |
//! |---|---|
//! | `core.rs` | [`Gateway`]: which provider a request goes to |
//! | `answers.rs` | [`KeptAnswers`]: those that are kept for a while, for readers that were lost |
//! | `answer_stream.rs` | [`AnswerStream`]: the pieces of an answer, numbered, with one end |
//! | `origins.rs` | which provider signed which reasoning |
//! | `thoughts.rs` | what models thought before they called tools, and what came with the calls |
//! | `pass.rs` | requests that go through as they came |
//! | `upstream.rs` | one provider with its breaker, its rate limit and its counters |
//! | `vectors.rs` | vectors, looked at before they count as an answer |
//! | `stats.rs` | the counters |
//! | `settings.rs` | [`GatewaySettings`], and the gateway they make |
//! | `live.rs` | [`LiveGateway`]: a gateway that is exchanged while it is used |

mod answer_stream;
mod answers;
mod core;
mod leave;
mod live;
mod notices;
mod origins;
mod pass;
mod route;
mod settings;
mod stats;
mod thoughts;
mod upstream;
mod vectors;

pub use self::core::Gateway;
pub use answer_stream::AnswerStream;
pub use answers::{AnswerReader, AnswerSettings, AnswersFull, Beside, KeptAnswer, KeptAnswers, Owner};
pub use live::LiveGateway;
pub use pass::{PassedAnswer, PassedStream, Told, Way};
pub use settings::GatewaySettings;
pub use stats::{FIRST_PIECE_BOUNDS, FirstPiece, GatewaySnapshot, ProviderSnapshot};
