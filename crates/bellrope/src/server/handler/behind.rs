//! Types whose names were left to somebody else, who may ask what answered them before.

use std::{any::Any, sync::Arc};

use bellrope_proto::handshake::Style;

use super::{
    owned_call::OwnedCall,
    registry::{Handler, Registry, TakenOut},
    streams::{ChunkReceiver, ChunkSender},
};
use crate::server::error::HandlerError;

/// A message type that [`ServerBuilder::behind`](crate::server::ServerBuilder::behind) took out, with what answered it.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("echo.sock");
/// use std::sync::Arc;
///
/// use bellrope::{Server, client::Style};
///
/// let server = Server::builder()
///     .unary_async("echo", |call| async move { Ok(call.into_payload()) })
///     .behind(|name| name == "echo")
///     .bind(&path)?;
/// let echo = server.behind().remove(0);
/// assert_eq!((echo.name(), echo.style(), echo.weight(), echo.payload_mark()), ("echo", Style::Unary, 1, (0, 0)));
/// assert!(echo.front().is_none());
/// assert!(echo.put_in_front(Arc::new("whoever registers a type of its name")));
/// assert!(echo.front().is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Behind(TakenOut);

impl std::fmt::Debug for Behind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Behind").field("name", &self.0.name).finish_non_exhaustive()
    }
}

impl Behind {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// How it is called.
    #[must_use]
    pub fn style(&self) -> Style {
        self.0.handler.style()
    }

    /// What its payloads are, as the table of types says: the codec's number, 0 for one that is not known, and the hash of the
    /// schema.
    #[must_use]
    pub fn payload_mark(&self) -> (u8, u64) {
        (self.0.schema.codec, self.0.schema.hash)
    }

    /// How often a request counts in the buffer budget.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.0.weight
    }

    /// Keeps what is asked before it, for whoever registered a type of this name in its place. Answers whether there was
    /// nothing yet.
    pub fn put_in_front(&self, front: Arc<dyn Any + Send + Sync>) -> bool {
        self.0.front.set(front).is_ok()
    }

    /// What is asked before it, once that is [there](Self::put_in_front).
    #[must_use]
    pub fn front(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.0.front.get().cloned()
    }

    /// Has a call answered as it would have been, with the halves that its style has. The answer of one with chunks from the
    /// server is empty. [Example](crate::server::ServerBuilder::behind).
    ///
    /// # Errors
    /// The handler's; without the halves that its style has, that it has not run.
    pub async fn answer(
        &self,
        call: OwnedCall,
        incoming: Option<ChunkReceiver>,
        outgoing: Option<ChunkSender>,
    ) -> Result<Vec<u8>, HandlerError> {
        let handler = match &*self.0.handler {
            Handler::Elsewhere(elsewhere) => &elsewhere.1,
            handler => handler,
        };
        match (handler, incoming, outgoing) {
            (Handler::UnaryAsync(handler), None, None) => handler(call).await,
            (Handler::ServerStream(handler), None, Some(chunks)) => handler(call, chunks).await.map(|()| Vec::new()),
            (Handler::ClientStream(handler), Some(chunks), None) => handler(call, chunks).await,
            (Handler::Duplex(handler), Some(incoming), Some(outgoing)) => {
                handler(call, incoming, outgoing).await.map(|()| Vec::new())
            }
            _ => Err(HandlerError::not_executed("the call has not the halves of its style")),
        }
    }
}

impl Registry {
    /// Takes out what was registered so far under such names with async handlers, and keeps it.
    pub(crate) fn put_behind(&mut self, is_meant: impl Fn(&str) -> bool) {
        let meant = |name: &str, handler: &Handler| is_meant(name) && !handler.runs_on_worker();
        for (name, handler) in self.entries.iter().filter(|(name, handler)| meant(name, handler)) {
            let (schema, weight) = (self.schemas.get(name).copied().unwrap_or_default(), self.weight_of(name));
            self.behind.push(TakenOut {
                name: name.clone(),
                handler: Arc::clone(handler),
                schema,
                weight,
                front: Arc::default(),
            });
        }
        let behind: Vec<_> = self.behind.iter().map(|behind| behind.name.clone()).collect();
        self.remove(|name| behind.iter().any(|taken| taken == name));
    }

    /// What was kept so.
    pub(crate) fn behind(&self) -> Vec<Behind> {
        self.behind.iter().cloned().map(Behind).collect()
    }
}
