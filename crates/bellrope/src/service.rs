//! Typed services: a trait is all that an author writes.
//!
//! `#[bellrope::service]` on a trait makes of it what answers its calls and clients that make them, async and blocking, with
//! the same methods:
//!
//! ```
//! use bellrope::{AsyncClient, Server};
//!
//! #[bellrope::service]
//! pub trait Greeter {
//!     /// A greeting in capitals.
//!     fn greet(&self, name: &str) -> Result<String, Shy>;
//! }
//!
//! #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
//! pub struct Shy;
//! # impl std::fmt::Display for Shy {
//! #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("shy") }
//! # }
//! # impl std::error::Error for Shy {}
//!
//! struct Host;
//!
//! #[bellrope::service]
//! impl Greeter for Host {
//!     fn greet(&self, name: &str) -> Result<String, Shy> {
//!         if name.is_empty() { Err(Shy) } else { Ok(format!("HELLO {}", name.to_uppercase())) }
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("private").join("greeter.sock");
//! let server = Server::builder().service(Host).bind(&path)?;
//! let greeter = GreeterClient::connect(&path).await?; // GreeterBlockingClient does without tokio
//! assert_eq!(greeter.greet("ding").await?, "HELLO DING");
//! assert_eq!(greeter.greet("").await.unwrap_err().application(), Some(Shy));
//! # Ok(())
//! # }
//! ```
//!
//! | a method | runs | its client's method returns, in a `Result<_, ServiceError<E>>` |
//! |---|---|---|
//! | `fn size(&self, path: &str) -> Result<u64, E>` | on the worker; must not block | `u64` |
//! | `#[blocking] fn index(&self, root: String) -> Result<Index, E>` | on a bounded pool of threads | `Index` |
//! | `async fn read(&self, path: String) -> Result<Vec<u8>, E>` | on tokio | `Vec<u8>` |
//! | `fn lines(&self, path: String) -> impl Stream<Item = Result<String, E>>` | on tokio | [`AsyncItems`], [`Items`] |
//! | `async fn upload(&self, parts: Incoming<Part>) -> Result<Summary, E>` | on tokio | [`AsyncUpload`], [`Upload`] |
//! | `fn edit(&self, said: Incoming<Edit>) -> impl Stream<Item = Edited>` | on tokio | both halves |
//!
//! Arguments may be borrowed: `&str`, `&[u8]` (which travels as [`Bytes`]), `Cow<'_, str>`, and `&T` of anything, `&Path` too. The error of a
//! `Result` is a value of the application's: it travels whole, and no circuit breaker counts it. A method that answers with
//! `Result<T, HandlerError>` speaks for the service instead: see [`HandlerError`](crate::HandlerError). A method that
//! answers with something else cannot fail by itself; its `E` is [`Infallible`](std::convert::Infallible).
//!
//! A `GreeterBlockingClient` may also stand on a pool, or on a connection of its own: see [`ByteClient`].
//!
//! Each method of a client has a form `method_with` that takes [`CallOptions`](crate::client::CallOptions) last.
//!
//! `#[bellrope::service(codec = "postcard")]` on the trait chooses the [`Codec`], JSON without it. `Greeter.greet` is
//! what the method is called on the wire; `#[bellrope::service(name = "hello")]` and `#[name = "say"]` on the method make
//! `hello.say` of it. Arguments travel as an object with their names as keys (JSON) or one after the other (postcard); a
//! `Result` as `{"Ok": …}` or `{"Err": …}`.

mod bytes;
mod client;
mod codec;
mod error;
mod handing_out;
mod incoming;
mod json;
mod known_schemas;
mod lent;
mod memory;
mod method;
mod postcard;
mod producer;
mod refusals;
mod schema;
#[doc(hidden)]
pub mod server;
mod shown;
mod transcode;

pub use client::{AsyncItems, AsyncOutgoing, AsyncUpload, ByteClient, Items, Outgoing, Upload};
#[doc(hidden)]
pub use client::{EncodedRequest, ServiceCaller};
pub use codec::{Codec, CodecError};
/// The trait of streams, that of the crate futures.
pub use futures_core::Stream;
pub use incoming::{DetachedIncoming, Incoming, StreamCut};
pub use producer::{DetachedSender, Sender, StreamLeft, produce};

pub use self::{
    bytes::Bytes,
    error::ServiceError,
    json::Json,
    known_schemas::SchemaSource,
    postcard::Postcard,
    schema::{Form, SCHEMA, Schema, Shape, Type},
    server::Service,
};
#[doc(hidden)]
pub use self::{
    lent::{Lend, Lent},
    method::{Answered, Method, OtherAnswer, Output, Plain, Travels, travels},
};

pub(crate) use self::known_schemas::KnownSchemas;

/// What the code that the macro writes needs of others.
#[doc(hidden)]
pub use serde;
