//! Which handler answers which message type.

#[cfg(feature = "tokio")]
use std::{any::Any, future::Future, pin::Pin, sync::OnceLock};
use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

use bellrope_proto::{
    connection::{Failure, Reply},
    frame::ErrorCode,
    handshake::{MAX_TYPES, SchemaMark, Style, TypeEntry},
};

use super::{
    added::AddedTypes,
    call::{Call, CallInPlace},
};
#[cfg(feature = "tokio")]
use super::{
    owned_call::OwnedCall,
    streams::{ChunkReceiver, ChunkSender},
};
use crate::{
    server::error::{BindError, HandlerError},
    status::UNKNOWN,
};

pub(crate) type UnaryHandler = dyn Fn(&Call<'_>, &mut Reply<'_>) -> Result<(), HandlerError> + Send + Sync;

pub(crate) type InPlaceHandler = dyn Fn(&mut CallInPlace<'_>) -> Result<(), HandlerError> + Send + Sync;

#[cfg(feature = "tokio")]
pub(crate) type Answering<T> = Pin<Box<dyn Future<Output = Result<T, HandlerError>> + Send>>;

/// How a message type is answered.
pub(crate) enum Handler {
    Unary(Box<UnaryHandler>),
    InPlace(Box<InPlaceHandler>),
    #[cfg(feature = "tokio")]
    UnaryAsync(Box<dyn Fn(OwnedCall) -> Answering<Vec<u8>> + Send + Sync>),
    #[cfg(feature = "tokio")]
    ServerStream(Box<dyn Fn(OwnedCall, ChunkSender) -> Answering<()> + Send + Sync>),
    #[cfg(feature = "tokio")]
    ClientStream(Box<dyn Fn(OwnedCall, ChunkReceiver) -> Answering<Vec<u8>> + Send + Sync>),
    #[cfg(feature = "tokio")]
    Duplex(Box<dyn Fn(OwnedCall, ChunkReceiver, ChunkSender) -> Answering<()> + Send + Sync>),
    /// An async handler on a runtime that is not the server's. In a box: a handle beside it would hide which handler it is in
    /// the handle's own words, and every call would have to find that out.
    #[cfg(feature = "tokio")]
    Elsewhere(Box<(tokio::runtime::Handle, Arc<Handler>)>),
}

impl Handler {
    /// Whether it runs on the worker that owns the connection.
    #[inline]
    pub(crate) fn runs_on_worker(&self) -> bool {
        matches!(self, Self::Unary(_) | Self::InPlace(_))
    }

    pub(crate) fn style(&self) -> Style {
        match self {
            Self::Unary(_) | Self::InPlace(_) => Style::Unary,
            #[cfg(feature = "tokio")]
            Self::UnaryAsync(_) => Style::Unary,
            #[cfg(feature = "tokio")]
            Self::ServerStream(_) => Style::ServerStream,
            #[cfg(feature = "tokio")]
            Self::ClientStream(_) => Style::ClientStream,
            #[cfg(feature = "tokio")]
            Self::Duplex(_) => Style::Duplex,
            #[cfg(feature = "tokio")]
            Self::Elsewhere(elsewhere) => elsewhere.1.style(),
        }
    }
}

/// The largest weight of a message type.
const MAX_WEIGHT: u32 = 16;

/// All message types of a server. The number of a type is its place, counted from 1; those that are added while it runs have
/// the numbers behind them.
#[derive(Default)]
pub(crate) struct Registry {
    pub(super) entries: Vec<(String, Arc<Handler>)>,
    /// What the payloads of types are, by name, where that is known.
    pub(super) schemas: HashMap<String, SchemaMark>,
    /// Why a type cannot be what its author says.
    fault: Option<(String, String)>,
    /// By name, of those that have one: how often a request counts in the buffer budget.
    weights: Vec<(String, u32)>,
    /// How many numbers are kept for types that are added later.
    room: usize,
    /// What answered types that were left to somebody else.
    #[cfg(feature = "tokio")]
    pub(super) behind: Vec<TakenOut>,
    /// Those that were.
    pub(super) added: RwLock<Added>,
}

/// A type that was taken out, with what answered it.
#[cfg(feature = "tokio")]
#[derive(Clone)]
pub(super) struct TakenOut {
    pub(super) name: String,
    pub(super) handler: Arc<Handler>,
    pub(super) schema: SchemaMark,
    pub(super) weight: u32,
    pub(super) front: Arc<OnceLock<Arc<dyn Any + Send + Sync>>>,
}

/// The types that were added, and the handlers of those that are there.
#[derive(Default)]
pub(super) struct Added {
    pub(super) types: Arc<AddedTypes>,
    pub(super) handlers: Vec<Option<Arc<Handler>>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|(name, _)| name)).finish()
    }
}

impl Registry {
    pub(crate) fn add(&mut self, name: &str, handler: Handler) {
        self.entries.push((name.to_owned(), Arc::new(handler)));
    }

    /// Takes out what was registered so far under such names.
    pub(crate) fn remove(&mut self, unwanted: impl Fn(&str) -> bool) {
        self.entries.retain(|(name, _)| !unwanted(name));
        self.weights.retain(|(name, _)| !unwanted(name));
        self.schemas.retain(|name, _| !unwanted(name));
    }

    /// Notes what the payloads of a type are.
    #[cfg(feature = "service")]
    pub(crate) fn mark(&mut self, name: &str, schema: SchemaMark) {
        self.schemas.insert(name.to_owned(), schema);
    }

    /// How the type of a name is called, if it was registered.
    #[cfg(feature = "service")]
    pub(crate) fn style(&self, name: &str) -> Option<Style> {
        self.entries.iter().rev().find(|(known, _)| known == name).map(|(_, handler)| handler.style())
    }

    /// Notes why a type cannot be what its author says, to be told before the server starts.
    #[cfg(feature = "service")]
    pub(crate) fn refuse(&mut self, name: &str, fault: String) {
        self.fault.get_or_insert((name.to_owned(), fault));
    }

    /// Has the async handlers that are registered run on this runtime.
    #[cfg(feature = "tokio")]
    pub(crate) fn run_on(&mut self, runtime: &tokio::runtime::Handle) {
        for (_, handler) in self.entries.iter_mut().filter(|(_, handler)| !handler.runs_on_worker()) {
            *handler = Arc::new(Handler::Elsewhere(Box::new((runtime.clone(), Arc::clone(handler)))));
        }
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn weigh(&mut self, name: &str, weight: u32) {
        self.weights.push((name.to_owned(), weight));
    }

    /// How often a request of this type counts in the buffer budget.
    #[cfg(feature = "tokio")]
    pub(crate) fn weight(&self, message_type: u16) -> u64 {
        match self.entries.get(usize::from(message_type).wrapping_sub(1)) {
            Some((name, _)) => self.weight_of(name).into(),
            None => self.added_types().of(self.entries.len(), message_type).map_or(1, |added| added.weight.into()),
        }
    }

    pub(super) fn weight_of(&self, name: &str) -> u32 {
        self.weights.iter().rev().find(|(weighed, _)| weighed == name).map_or(1, |(_, weight)| *weight)
    }

    /// The largest weight of any type, for a request whose type is not known yet.
    pub(crate) fn largest_weight(&self) -> u64 {
        let fixed = self.weights.iter().map(|(_, weight)| *weight).max().unwrap_or(1);
        fixed.max(self.added_types().largest_weight()).into()
    }

    /// Keeps so many numbers for types that are added later.
    pub(crate) fn keep_room(&mut self, types: usize) {
        self.room = types;
    }

    pub(crate) fn room(&self) -> usize {
        self.room
    }

    /// How many numbers there are for types, whether they are given out or not.
    pub(crate) fn numbers(&self) -> usize {
        self.entries.len() + self.room
    }

    /// Checks the names, once, before the server starts.
    pub(crate) fn check(&self) -> Result<(), BindError> {
        let refuse = |name: &str, fault| Err(BindError::Registry { name: name.to_owned(), fault });
        if let Some((name, fault)) = &self.fault {
            return Err(BindError::Service { name: name.clone(), fault: fault.clone() });
        }
        let mut names = HashSet::new();
        for (index, (name, _)) in self.entries.iter().enumerate() {
            if name.is_empty() || name.len() > 255 || name.contains(char::is_control) {
                return refuse(name, "a name has 1 to 255 bytes and no control characters");
            }
            if name == UNKNOWN {
                return refuse(name, "the name stands for all unknown types in the metrics");
            }
            if !names.insert(name) {
                return refuse(name, "the name is taken");
            }
            if index >= MAX_TYPES {
                debug_assert_eq!(MAX_TYPES, 4096);
                return refuse(name, "a server has at most 4096 message types");
            }
        }
        if self.numbers() > MAX_TYPES {
            return Err(BindError::Setting {
                key: "room_for_types",
                value: self.room as u64,
                expected: "and must leave at most 4096 message types, together with those that are there at the start",
            });
        }
        let mut of_nothing: Vec<_> = self.schemas.keys().filter(|name| !names.contains(name)).collect();
        of_nothing.sort_unstable();
        if let Some(name) = of_nothing.first() {
            return refuse(name, "its payloads are described, and it has no handler");
        }
        for (name, weight) in &self.weights {
            let handler = self.entries.iter().find(|(known, _)| known == name).map(|(_, handler)| handler);
            if handler.is_none_or(|handler| handler.runs_on_worker()) {
                return refuse(name, "it has a weight, and no async handler");
            }
            if !(1..=MAX_WEIGHT).contains(weight) {
                return refuse(name, "its weight is not 1 to 16");
            }
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn find(&self, message_type: u16) -> Option<&Handler> {
        self.entries.get(usize::from(message_type).wrapping_sub(1)).map(|(_, handler)| &**handler)
    }

    /// The handlers of the types that are there from the start, in the order of their numbers, from 1.
    pub(crate) fn handlers(&self) -> impl Iterator<Item = &Arc<Handler>> {
        self.entries.iter().map(|(_, handler)| handler)
    }

    /// The types that were added, as they are now.
    pub(crate) fn added_types(&self) -> Arc<AddedTypes> {
        Arc::clone(&self.added.read().unwrap_or_else(PoisonError::into_inner).types)
    }

    /// The name of a type; `unknown` for all that never had a handler.
    pub(crate) fn name(&self, message_type: u16) -> Cow<'_, str> {
        match self.entries.get(usize::from(message_type).wrapping_sub(1)) {
            Some((name, _)) => Cow::Borrowed(name),
            None => match self.added_types().of(self.entries.len(), message_type) {
                Some(added) => Cow::Owned(added.name.to_string()),
                None => Cow::Borrowed(UNKNOWN),
            },
        }
    }

    pub(crate) fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.entries.iter().map(|(name, _)| name.as_str())
    }

    /// For each type, whether its handler runs on the worker.
    pub(crate) fn run_on_worker(&self) -> Vec<bool> {
        self.entries.iter().map(|(_, handler)| handler.runs_on_worker()).collect()
    }

    /// Whether any handler needs an async runtime.
    #[cfg(feature = "tokio")]
    pub(crate) fn needs_runtime(&self) -> bool {
        self.room > 0 || self.entries.iter().any(|(_, handler)| !handler.runs_on_worker())
    }

    /// The table that clients get in the handshake: of the types that are there from the start, and then of those added.
    pub(crate) fn table(&self, added: &AddedTypes) -> Vec<TypeEntry> {
        let entry = |(index, (name, handler)): (usize, &(String, Arc<Handler>))| TypeEntry {
            message_type: index as u16 + 1,
            style: handler.style(),
            name: name.clone(),
            schema: self.schemas.get(name).copied().unwrap_or_default(),
        };
        self.entries.iter().enumerate().map(entry).chain(added.entries(self.entries.len())).collect()
    }

    /// The answer to a number that no handler has.
    pub(crate) fn unknown(&self, message_type: u16) -> Failure {
        let near = usize::from(message_type).saturating_sub(1).min(self.entries.len());
        let nearest: Vec<_> = self.entries[near.saturating_sub(2)..].iter().take(4).map(|(name, _)| &**name).collect();
        let text = if nearest.is_empty() {
            format!("no message type has the number {message_type}; this server has none")
        } else {
            format!("no message type has the number {message_type}; nearest known: {}", nearest.join(", "))
        };
        Failure::new(ErrorCode::UnknownMessageType, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(names: &[&str]) -> Registry {
        let mut registry = Registry::default();
        for name in names {
            registry.add(name, Handler::Unary(Box::new(|_, _| Ok(()))));
        }
        registry
    }

    #[test]
    fn names_are_checked_before_the_server_starts() {
        assert!(registry(&["a", "b"]).check().is_ok());
        for names in [&["a", "a"][..], &[""], &["unknown"], &["line\nbreak"], &[&"x".repeat(256)]] {
            assert!(matches!(registry(names).check(), Err(BindError::Registry { .. })), "{names:?}");
        }
    }

    #[test]
    fn more_types_than_a_table_has_are_refused_in_words() {
        let names: Vec<_> = (0..=MAX_TYPES).map(|number| format!("{number:0>255}")).collect();
        let mut names: Vec<_> = names.iter().map(String::as_str).collect();
        let error = registry(&names).check().unwrap_err().to_string();
        let last = names.pop().unwrap();
        let expected = format!("message type {last:?} cannot be registered: a server has at most 4096 message types");
        assert_eq!(error, expected);
        let mut full = registry(&names);
        assert!(full.check().is_ok(), "one less fits");
        full.keep_room(1);
        let error = full.check().unwrap_err().to_string();
        assert!(error.starts_with("the setting room_for_types is 1, and must leave at most 4096"), "{error}");
    }

    #[test]
    fn an_unknown_number_is_answered_with_known_names() {
        let failure = registry(&["echo", "ai.chat", "ai.models"]).unknown(9);
        assert_eq!(failure.text, "no message type has the number 9; nearest known: ai.chat, ai.models");
        assert_eq!(registry(&[]).unknown(0).code, ErrorCode::UnknownMessageType);
    }
}
