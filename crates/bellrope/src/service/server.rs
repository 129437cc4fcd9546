//! What the server's side of a service is made of.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, PoisonError},
};

use bellrope_proto::{connection::Reply, handshake::SchemaMark};
use futures_core::Stream;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use super::incoming::Refusal;
use super::{
    codec::Codec,
    incoming::Incoming,
    json::Json,
    method::Method,
    refusals::{unreadable, unsendable, unwritable},
    schema::{Question, SCHEMA, Schemas, schema_of},
};
use crate::server::{ChunkReceiver, ChunkSender, HandlerError, ServerBuilder};

/// What answers the calls of a service. `#[bellrope::service]` makes it: for the trait `Greeter` it is `GreeterServer`, and
/// whatever has the same attribute on its `impl Greeter`.
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

/// Notes what the payloads of a method are, which clients compare with what they have.
pub fn describe<M: Method>(mut builder: ServerBuilder) -> ServerBuilder {
    let mut mark = SchemaMark { codec: M::Codec::NUMBER, hash: 0 };
    match schema_of::<M>() {
        Ok(None) => {}
        Ok(Some(schema)) => {
            mark.hash = schema.hash();
            if builder.schemas.is_none() {
                let schemas = Arc::<Schemas>::default();
                builder.schemas = Some(Arc::clone(&schemas));
                builder = builder.unary(SCHEMA, move |call, reply| hand_out(&schemas, call.payload(), reply));
            }
            if let Some(schemas) = &builder.schemas {
                schemas.lock().unwrap_or_else(PoisonError::into_inner).insert(M::NAME.to_owned(), schema);
            }
        }
        Err(error) => builder.registry.refuse(M::NAME, error.to_string()),
    }
    builder.registry.mark(M::NAME, mark);
    builder
}

/// Answers whoever asks for a schema.
fn hand_out(schemas: &Schemas, question: &[u8], answer: &mut Reply<'_>) -> Result<(), HandlerError> {
    let Question { method } = request::<Json, _>(SCHEMA, question)?;
    let schemas = schemas.lock().unwrap_or_else(PoisonError::into_inner);
    let schema =
        schemas.get(&method).ok_or_else(|| HandlerError::new("no schema is known of a method of that name"))?;
    reply::<Json, _>(SCHEMA, schema, answer)
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
pub fn incoming<C: Codec, T: DeserializeOwned>(method: &'static str, chunks: ChunkReceiver) -> (Incoming<T>, Refusal) {
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
