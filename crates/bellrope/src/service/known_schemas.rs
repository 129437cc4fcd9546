//! The schemas that a server hands out: those of its own methods, and those of methods that it has of others.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bellrope_proto::connection::Reply;

use super::{
    codec::Codec as _,
    json::Json,
    refusals::{unreadable, unwritable},
    schema::{SCHEMA, Schema, SchemaQuestion},
};
use crate::server::{HandlerError, OwnedCall};

/// Most characters of a name that is said back to whoever asked for it.
const MOST_SAID: usize = 120;

/// Knows the schemas of methods that a server has of others: see [`ServerBuilder::schemas_elsewhere`](crate::server::ServerBuilder::schemas_elsewhere).
pub trait SchemaSource: Send + Sync {
    /// The schema of a method as JSON, for whoever asks for it by this call; `None` if there is no such method.
    fn schema<'a>(&'a self, method: &'a str, call: OwnedCall) -> SchemaAnswer<'a>;
}

/// What a [`SchemaSource`] answers.
type SchemaAnswer<'a> = Pin<Box<dyn Future<Output = Result<Option<Vec<u8>>, HandlerError>> + Send + 'a>>;

/// The schemas of a server's methods, by name; or why there is none.
type ByName = BTreeMap<String, Result<Schema, String>>;

/// What a server knows of schemas.
#[derive(Default)]
pub(crate) struct KnownSchemas {
    own: Mutex<ByName>,
    elsewhere: Mutex<Elsewhere>,
}

/// Who knows the schemas of other methods.
#[derive(Default)]
enum Elsewhere {
    #[default]
    Nobody,
    /// Nobody yet.
    Awaited,
    There(Arc<dyn SchemaSource>),
}

impl std::fmt::Debug for KnownSchemas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KnownSchemas").finish_non_exhaustive()
    }
}

impl KnownSchemas {
    /// Notes the schema of a method, or why it has none.
    pub(super) fn note(&self, method: &str, schema: Result<Schema, String>) {
        self.own().insert(method.to_owned(), schema);
    }

    /// Somebody who knows others will be given.
    pub(super) fn await_source(&self) {
        *self.elsewhere() = Elsewhere::Awaited;
    }

    /// This one knows others. Answers whether somebody was awaited.
    pub(super) fn give_source(&self, source: Arc<dyn SchemaSource>) -> bool {
        let mut elsewhere = self.elsewhere();
        let is_awaited = matches!(*elsewhere, Elsewhere::Awaited);
        if is_awaited {
            *elsewhere = Elsewhere::There(source);
        }
        is_awaited
    }

    fn own(&self) -> MutexGuard<'_, ByName> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn elsewhere(&self) -> MutexGuard<'_, Elsewhere> {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in those of types that were added.
    pub(crate) fn extend(&self, added: &Self) {
        self.own().append(&mut added.own());
    }

    /// These types are there no longer.
    pub(crate) fn forget(&self, unwanted: impl Fn(&str) -> bool) {
        self.own().retain(|name, _| !unwanted(name));
    }

    /// Answers whoever asks for a schema. A name that has none is the caller's mistake.
    pub(super) fn of_own(&self, question: &[u8], answer: &mut Reply<'_>) -> Result<(), HandlerError> {
        let method = asked_for(question)?;
        let schema = self.found(&method)?.ok_or_else(|| unknown(&method))?;
        answer.put(&schema);
        Ok(())
    }

    /// The same where others may know it.
    pub(super) async fn of_any(&self, call: OwnedCall) -> Result<Vec<u8>, HandlerError> {
        let method = asked_for(call.payload())?;
        if let Some(schema) = self.found(&method)? {
            return Ok(schema);
        }
        let source = match &*self.elsewhere() {
            Elsewhere::There(source) => Some(Arc::clone(source)),
            Elsewhere::Nobody | Elsewhere::Awaited => None,
        };
        let found = match source {
            Some(source) => source.schema(&method, call).await?,
            None => None,
        };
        found.ok_or_else(|| unknown(&method))
    }

    /// The schema of a method of this server, as JSON.
    fn found(&self, method: &str) -> Result<Option<Vec<u8>>, HandlerError> {
        match self.own().get(method) {
            Some(Ok(schema)) => {
                let mut json = Vec::new();
                Json::encode(schema, &mut json).map_err(|error| unwritable(SCHEMA, "the answer", &error))?;
                Ok(Some(json))
            }
            Some(Err(doubts)) => {
                Err(HandlerError::invalid_request(format!("the method {method} has no schema: {doubts}")))
            }
            None => Ok(None),
        }
    }
}

/// The method that somebody asks for.
fn asked_for(question: &[u8]) -> Result<String, HandlerError> {
    let SchemaQuestion { method } =
        Json::decode(question).map_err(|error| unreadable(SCHEMA, "the arguments", &error))?;
    Ok(method)
}

fn unknown(method: &str) -> HandlerError {
    let start: String = method.chars().take(MOST_SAID).collect();
    HandlerError::invalid_request(format!("no schema is known of a method called {start:?}"))
}
