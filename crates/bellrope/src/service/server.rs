//! What the server's side of a service is made of.

use std::{any::TypeId, future::poll_fn, pin::pin};

use bellrope_proto::{connection::Reply, handshake::Style};
use futures_core::Stream;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use super::incoming::StreamRefusal;
use super::{
    codec::{Codec, CodecError},
    handing_out::hand_out_also,
    incoming::Incoming,
    json::Json,
    method::{Method, Plain},
    postcard::Postcard,
    refusals::{unreadable, unsendable, unwritable},
    schema::{Form, KnownTypes, Schema, Shape, schema_of},
};
use crate::server::{ChunkReceiver, ChunkSender, HandlerError, ServerBuilder};
use crate::status::{BREAKER, BreakerRequest, Breakers, STATS, Status};

/// What answers the calls of a service. `#[bellrope::service]` makes it: for the trait `Greeter` it is `GreeterServer`, and
/// whatever has the same attribute on its `impl Greeter`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no service",
    label = "nothing here answers calls",
    note = "put `#[bellrope::service]` on `impl TheTrait for ...` too, or give what it makes of the trait: \
            `.service(TheTraitServer::new(host))`"
)]
pub trait Service {
    /// Registers all methods.
    fn register(self, builder: ServerBuilder) -> ServerBuilder;
}

impl ServerBuilder {
    /// Registers the methods of a [service](mod@crate::service), each under its name.
    #[must_use]
    pub fn service(self, service: impl Service) -> Self {
        service.register(self)
    }
}

impl ServerBuilder {
    /// Says what the payloads of a message type are that is no method of a service, so that `bellrope list --schema`, `call` and
    /// `generate` know it. The server does not hold its handler to that, and clients of bytes call it as before.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("count.sock");
    /// use bellrope::service::{SCHEMA, Schema, Shape};
    ///
    /// let schema = Schema {
    ///     codec: "json".to_owned(),
    ///     request: Shape::List(Some(Box::new(Shape::Any))),
    ///     answer: Shape::Integer { signed: false, bits: 64 },
    ///     sent: Shape::Unit,
    ///     types: Vec::new(),
    /// };
    /// let server = bellrope::Server::builder()
    ///     .unary("count", |call, reply| {
    ///         let list: Vec<serde_json::Value> = serde_json::from_slice(call.payload())
    ///             .map_err(|error| bellrope::HandlerError::invalid_request(error.to_string()))?;
    ///         reply.put(list.len().to_string().as_bytes());
    ///         Ok(())
    ///     })
    ///     .schema("count", schema.clone())
    ///     .bind(&path)?;
    /// let said = bellrope::Client::connect(&path)?.call(SCHEMA, br#"{"method":"count"}"#)?;
    /// assert_eq!(Schema::from_json(&said)?, schema);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn schema(mut self, name: &str, schema: Schema) -> Self {
        let codec = match schema.codec.as_str() {
            Json::NAME => Ok(Json::NUMBER),
            Postcard::NAME => Ok(Postcard::NUMBER),
            other => Err(CodecError::new(format_args!("the codec {other:?} is neither json nor postcard"))),
        };
        match codec.and_then(|codec| schema.check_size().map(|()| codec)) {
            Ok(codec) => hand_out_also(self, name, codec, Ok(schema)),
            Err(error) => {
                self.registry.refuse(name, error.to_string());
                self
            }
        }
    }
}

/// Notes what the payloads of a method are, which clients compare with what they have.
pub fn describe<M: Method>(mut builder: ServerBuilder) -> ServerBuilder {
    let style = builder.registry.style(M::NAME);
    let described = check_codec::<M::Codec>().and_then(|()| schema_of::<M>()).and_then(|known| {
        let items = known.schema.as_ref().map_or(Ok(()), |schema| check_items::<M::Codec>(schema, style));
        items.map(|()| known)
    });
    match described {
        Ok(KnownTypes { schema, doubts }) => {
            let doubts = doubts.join("; ");
            warn::<M>(schema.is_some(), &doubts);
            hand_out_also(builder, M::NAME, M::Codec::NUMBER, schema.ok_or(doubts))
        }
        Err(error) => {
            builder.registry.refuse(M::NAME, error.to_string());
            builder
        }
    }
}

/// Whether a codec has a number of its own, by which clients tell it from others.
fn check_codec<C: Codec>() -> Result<(), CodecError> {
    let own = TypeId::of::<C>();
    if own == TypeId::of::<Json>() || own == TypeId::of::<Postcard>() || C::NUMBER >= LEAST_OWN {
        return Ok(());
    }
    Err(CodecError::new(format_args!(
        "the codec {} has the number {}; a codec of one's own has one of {LEAST_OWN} to 255, so that clients tell it from others",
        C::NAME,
        C::NUMBER
    )))
}

/// Whether every item of its streams takes a byte: a chunk without any is none.
fn check_items<C: Codec>(schema: &Schema, style: Option<Style>) -> Result<(), CodecError> {
    if TypeId::of::<C>() != TypeId::of::<Postcard>() {
        return Ok(());
    }
    let (sent, answered) = match style {
        Some(Style::ServerStream) => (None, Some(&schema.answer)),
        Some(Style::ClientStream) => (Some(&schema.sent), None),
        Some(Style::Duplex) => (Some(&schema.sent), Some(&schema.answer)),
        Some(Style::Unary) | None => (None, None),
    };
    let is_empty = |items: Option<&Shape>| items.is_some_and(|items| takes_no_bytes(schema, items, 0));
    let which = match (is_empty(sent), is_empty(answered)) {
        (false, false) => return Ok(()),
        (true, _) => "from the caller",
        (_, true) => "that it answers with",
    };
    Err(CodecError::new(format_args!(
        "the items of the stream {which} take no bytes as postcard, so that none could be sent"
    )))
}

fn takes_no_bytes(schema: &Schema, shape: &Shape, depth: usize) -> bool {
    let all = |shapes: &[Shape]| shapes.iter().all(|shape| takes_no_bytes(schema, shape, depth + 1));
    // What contains itself and nothing else has no values.
    depth < MOST_DEPTH
        && match shape {
            Shape::Unit => true,
            Shape::Tuple(shapes) => all(shapes),
            Shape::Type(at) => match schema.types.get(*at as usize).map(|ty| &ty.form) {
                Some(Form::Unit) => true,
                Some(Form::Newtype(inner)) => takes_no_bytes(schema, inner, depth + 1),
                Some(Form::Tuple(shapes)) => all(shapes),
                Some(Form::Struct(fields)) => fields.iter().all(|(_, shape)| takes_no_bytes(schema, shape, depth + 1)),
                _ => false,
            },
            _ => false,
        }
}

/// Says of a method what protects its callers less than others.
fn warn<M: Method>(is_known: bool, doubts: &str) {
    match (is_known, M::Codec::NAMED) {
        (false, false) => tracing::error!(
            method = M::NAME,
            "clients whose types have a schema are refused, and others are not compared: {} has no schema: {doubts}",
            M::NAME
        ),
        (false, true) => tracing::warn!(method = M::NAME, "the method has no schema: {doubts}"),
        (true, false) if !doubts.is_empty() => tracing::warn!(
            method = M::NAME,
            "it could not be tried whether its types are read as they are written: {doubts}; \
             `#[bellrope::service(samples(\"...\"))]` on the trait names one that is taken"
        ),
        (true, _) => {}
    }
}

/// Says what the operator's message types take and answer with. They are no methods of a service, because they may be called
/// with no payload at all.
pub(crate) fn describe_operator(builder: ServerBuilder) -> ServerBuilder {
    describe::<Breaker>(describe::<Stats>(builder))
}

/// The least number of a codec of one's own.
const LEAST_OWN: u8 = 128;

/// Most levels that are looked at for what takes no bytes.
const MOST_DEPTH: usize = 32;

enum Stats {}

#[derive(Serialize, Deserialize)]
struct Nothing {}

impl Method for Stats {
    const NAME: &'static str = STATS;
    const INDEX: usize = 0;
    type Codec = Json;
    type Output = Plain<Status>;
    type Sent = ();
    type Request<'call> = Nothing;
}

enum Breaker {}

impl Method for Breaker {
    const NAME: &'static str = BREAKER;
    const INDEX: usize = 1;
    type Codec = Json;
    type Output = Plain<Breakers>;
    type Sent = ();
    type Request<'call> = BreakerRequest;
}

/// Reads the arguments of a call.
pub fn request<'a, C: Codec, T: Deserialize<'a>>(method: &'static str, payload: &'a [u8]) -> Result<T, HandlerError> {
    C::decode(payload).map_err(|error| unreadable(method, "the arguments", &error))
}

/// Writes an answer straight into the ring.
pub fn reply<C: Codec, T: Serialize>(
    method: &'static str,
    answer: &T,
    reply: &mut Reply<'_>,
) -> Result<(), HandlerError> {
    C::encode(answer, reply).map_err(|error| unwritable(method, "the answer", &error))
}

/// Writes an answer, or an item of a stream.
pub fn answer<C: Codec, T: Serialize>(method: &'static str, answer: &T) -> Result<Vec<u8>, HandlerError> {
    let mut bytes = Vec::new();
    C::encode(answer, &mut bytes).map_err(|error| unwritable(method, "the answer", &error))?;
    Ok(bytes)
}

/// The stream of a caller, and what ends the call if that cannot be read.
pub fn incoming<C: Codec, T: DeserializeOwned>(
    method: &'static str,
    chunks: ChunkReceiver,
) -> (Incoming<T>, StreamRefusal) {
    Incoming::new::<C>(method, chunks)
}

/// Sends all items of a stream, each as a chunk, at the pace of their reader.
pub async fn send<C: Codec, T: Serialize>(
    method: &'static str,
    mut chunks: ChunkSender,
    items: impl Stream<Item = T>,
) -> Result<(), HandlerError> {
    let mut items = pin!(items);
    let mut bytes = Vec::new();
    let mut sent = 0_usize;
    while let Some(item) = poll_fn(|context| items.as_mut().poll_next(context)).await {
        bytes.clear();
        C::encode(&item, &mut bytes)
            .map_err(|error| unwritable(method, format_args!("item {sent} of the stream"), &error))?;
        // Nothing may be held over what follows that could not go to another thread.
        drop(item);
        if bytes.is_empty() {
            return Err(HandlerError::new(format!("{method}: item {sent} of the stream takes no bytes")));
        }
        chunks.send(&bytes).await.map_err(|error| unsendable(method, sent, error))?;
        sent += 1;
    }
    Ok(())
}

/// As [`send`], of items or failures of the service.
pub async fn send_or_fail<C: Codec, T: Serialize>(
    method: &'static str,
    chunks: ChunkSender,
    items: impl Stream<Item = Result<T, HandlerError>>,
) -> Result<(), HandlerError> {
    let mut failed = None;
    let mut items = pin!(items);
    let sound = super::producer::poll_items(|context| {
        items.as_mut().poll_next(context).map(|item| match item? {
            Ok(item) => Some(item),
            Err(error) => {
                failed = Some(error);
                None
            }
        })
    });
    send::<C, T>(method, chunks, sound).await?;
    failed.map_or(Ok(()), Err)
}
