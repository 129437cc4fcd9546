//! Which message types the fleet offers, and a handler here for each that is wanted.

use std::{
    collections::{HashMap, HashSet},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Instant,
};

use bellrope::{
    Server,
    client::Style,
    server::{Behind, BindError, ChunkReceiver, ChunkSender, HandlerError, OwnedCall, ServerBuilder},
    service::SchemaSource,
};

use super::{
    choice::{FORGET, Learnt},
    importer::Importer,
};
use crate::{
    message_type::{FleetType, number_of, style_of},
    names,
    services::Info,
};

/// Most types that are taken in.
const MOST_TYPES: usize = 1024;

/// Where handlers are added.
pub(crate) type Types = Weak<Server>;

/// What is taken in, and what was.
#[derive(Debug)]
pub(crate) struct Imports {
    patterns: Vec<String>,
    types: Types,
    importer: Arc<Importer>,
    names: Mutex<Names>,
}

#[derive(Debug, Default)]
struct Names {
    imported: HashMap<String, Arc<FleetType>>,
    /// Those that this server has itself.
    own: HashSet<String>,
    /// The hashes of schemas that some instance hands out, by the name of their type.
    schemas: HashMap<String, u64>,
    /// What instances mean by a name that was taken in as something else.
    otherwise: HashMap<String, Otherwise>,
    /// When an instance last meant by a name what it was taken in as. For where nobody remembers which instance offers what.
    said: HashMap<String, Instant>,
}

#[derive(Debug, Clone)]
struct Otherwise {
    new: FleetType,
    /// Whether who said it hands out its schema.
    has_schema: bool,
    said: Instant,
}

impl Names {
    /// An instance offers this. Answers whether the name is taken in.
    fn note(&mut self, offered: &FleetType, has_schema: bool, now: Instant) -> bool {
        let Some(kept) = self.imported.get(&offered.name) else { return false };
        let name = || offered.name.clone();
        if **kept != *offered {
            self.otherwise.insert(name(), Otherwise { new: offered.clone(), has_schema, said: now });
            return true;
        }
        self.said.insert(name(), now);
        if has_schema {
            self.schemas.insert(name(), offered.schema);
        }
        true
    }
}

impl Imports {
    pub(crate) fn new(patterns: Vec<String>, types: Types, importer: Arc<Importer>) -> Self {
        Self { patterns, types, importer, names: Mutex::default() }
    }

    /// Whether anything is wanted.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.patterns.is_empty()
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this type is somebody else's.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names().imported.contains_key(name)
    }

    /// An instance says what it offers. Types that were seen once stay: while nobody offers them, their calls end as
    /// `NotExecuted`. They [follow](Self::follow) what all instances mean by them.
    pub(crate) fn learn(&self, info: &Info) {
        // First, so that whoever finds the type finds the instance.
        if let Some(instance) = info.chosen_as() {
            let types = info.types().filter(|offered| names::any_matches(&self.patterns, &offered.name));
            let learnt = Learnt { instance, member: info.member().unwrap_or(instance), server: info.server() };
            self.importer.choices.learn(learnt, types, Instant::now());
            self.importer.has_learnt();
        }
        self.take_in(info);
        self.follow(Instant::now());
    }

    fn take_in(&self, info: &Info) {
        let (has_schemas, now) = (info.hands_out_schemas(), Instant::now());
        for imported in info.types() {
            let mut names = self.names();
            let is_meant = names::any_matches(&self.patterns, &imported.name);
            if names.note(&imported, has_schemas, now) || names.own.contains(&imported.name) {
                continue;
            }
            if !is_meant || names.imported.len() >= MOST_TYPES {
                continue;
            }
            let Some(server) = self.types.upgrade() else { return };
            let (name, kept) = (imported.name.clone(), Arc::new(imported.clone()));
            match self.add(&server, imported) {
                Ok(()) => {
                    tracing::debug!(target: "bellrope::fleet", message_type = name, "message type of the fleet");
                    names.imported.insert(name, Arc::clone(&kept));
                    names.note(&kept, has_schemas, now);
                }
                Err(error) => {
                    tracing::info!(target: "bellrope::fleet", "not taken from the fleet: {error}");
                    if names.own.len() < MOST_TYPES {
                        names.own.insert(name);
                    }
                }
            }
        }
    }

    /// Adds a type whose calls are forwarded in the thread of the fleet, where their link is: it lives as long as the importer
    /// does.
    fn add(&self, server: &Server, imported: FleetType) -> Result<(), BindError> {
        let fleet = tokio::runtime::Handle::current();
        let asked = Asked::Fleet(Arc::clone(&self.importer));
        server.add_types(|builder| register(builder.runtime(fleet), imported, asked))
    }

    /// Whether somebody offers just this, as far as is known, or may come back with it in a moment. `said`: when somebody did
    /// last, for where nobody remembers who offers what.
    fn is_offered(&self, kept: &FleetType, said: Option<Instant>, now: Instant) -> bool {
        let choices = &self.importer.choices;
        match choices.hears_loads() {
            true => choices.is_offered(kept, now),
            false => said.is_some_and(|said| now.saturating_duration_since(said) <= FORGET),
        }
    }

    /// Follows names by which all instances mean something else than before: another version of a method.
    pub(crate) fn follow(&self, now: Instant) {
        let mut names = self.names();
        if names.otherwise.is_empty() {
            return;
        }
        let is_left = |new: &Otherwise| {
            let (name, kept) = names.imported.get_key_value(&new.new.name)?;
            let is_left = !self.is_offered(kept, names.said.get(name).copied(), now)
                && self.is_offered(&new.new, Some(new.said), now);
            is_left.then(|| (new.clone(), Arc::clone(kept)))
        };
        let left: Vec<_> = names.otherwise.values().filter_map(is_left).collect();
        for (Otherwise { new, has_schema, .. }, kept) in left {
            names.otherwise.remove(&new.name);
            let Some(server) = self.types.upgrade() else { return };
            // What this server has behind the fleet stays what it is.
            if !server.remove_type(&new.name) {
                continue;
            }
            let followed = self.add(&server, new.clone());
            match followed {
                Ok(()) => {
                    tracing::info!(target: "bellrope::fleet", message_type = new.name, "all instances have another version now");
                    names.schemas.remove(&new.name);
                    names.imported.insert(new.name.clone(), Arc::new(new.clone()));
                    names.note(&new, has_schema, now);
                }
                Err(error) => {
                    tracing::warn!(
                        target: "bellrope::fleet", message_type = new.name,
                        "all instances have another version now, which cannot be taken in: {error}"
                    );
                    // It had its number before, so there is one.
                    if let Err(error) = self.add(&server, FleetType::clone(&kept)) {
                        tracing::error!(target: "bellrope::fleet", message_type = new.name, "a type is gone: {error}");
                    }
                }
            }
        }
    }

    /// Has the fleet asked first for what this server has behind it.
    pub(crate) fn put_in_front(&self) {
        let Some(server) = self.types.upgrade() else { return };
        for own in server.behind() {
            let importer: Arc<Importer> = Arc::clone(&self.importer);
            if own.put_in_front(importer) {
                self.names().imported.insert(own.name().to_owned(), Arc::new(of_own(&own)));
            } else {
                tracing::error!(target: "bellrope::fleet", message_type = own.name(), "another fleet is asked first");
            }
        }
    }
}

/// Registers the types that are behind a fleet, which is asked for them first from when the server has joined it.
pub(crate) fn in_front(builder: ServerBuilder) -> ServerBuilder {
    builder.taken_behind().into_iter().fold(builder, |builder, own| {
        let imported = of_own(&own);
        // They run where the server's own handlers do, as one of those may answer.
        let weight = own.weight();
        let name = imported.name.clone();
        register(builder, imported, Asked::First(Arc::new(own))).weight(&name, weight)
    })
}

fn of_own(own: &Behind) -> FleetType {
    let (codec, schema) = own.payload_mark();
    FleetType { name: own.name().to_owned(), style: number_of(own.style()), codec, schema }
}

impl SchemaSource for Imports {
    fn schema<'a>(
        &'a self,
        method: &'a str,
        call: OwnedCall,
    ) -> Pin<Box<dyn Future<Output = Result<Option<Vec<u8>>, HandlerError>> + Send + 'a>> {
        Box::pin(async move {
            let (imported, is_handed_out) = {
                let names = self.names();
                let Some(imported) = names.imported.get(method).filter(|imported| imported.schema != 0) else {
                    return Ok(None);
                };
                (Arc::clone(imported), names.schemas.get(method) == Some(&imported.schema))
            };
            if !is_handed_out {
                let text = format!("the method {method} has no schema: no instance of the fleet hands it out");
                return Err(HandlerError::invalid_request(text));
            }
            self.importer.schema(&imported, &call).await.map(Some)
        })
    }
}

/// Who is asked for a type.
#[derive(Debug, Clone)]
enum Asked {
    /// The fleet alone.
    Fleet(Arc<Importer>),
    /// The fleet that is in front of what this server has, if there is one, and then that.
    First(Arc<Behind>),
}

impl Asked {
    async fn answer(
        self,
        imported: Arc<FleetType>,
        call: OwnedCall,
        incoming: Option<ChunkReceiver>,
        outgoing: Option<ChunkSender>,
    ) -> Result<Vec<u8>, HandlerError> {
        match self {
            Self::Fleet(importer) => importer.forward(imported, None, call, incoming, outgoing).await,
            Self::First(own) => match own.front().and_then(|front| front.downcast::<Importer>().ok()) {
                Some(importer) => importer.forward(imported, Some(own), call, incoming, outgoing).await,
                None => own.answer(call, incoming, outgoing).await,
            },
        }
    }
}

fn register(builder: ServerBuilder, imported: FleetType, asked: Asked) -> ServerBuilder {
    let Some(style) = style_of(imported.style) else { return builder };
    let (name, codec, schema, imported) = (imported.name.clone(), imported.codec, imported.schema, Arc::new(imported));
    let shared = move || (asked.clone(), Arc::clone(&imported));
    let builder = match style {
        Style::Unary => builder.unary_async(&name, move |call: OwnedCall| {
            let (asked, imported) = shared();
            asked.answer(imported, call, None, None)
        }),
        Style::ServerStream => builder.server_stream(&name, move |call, outgoing| {
            let (asked, imported) = shared();
            async move { asked.answer(imported, call, None, Some(outgoing)).await.map(drop) }
        }),
        Style::ClientStream => builder.client_stream(&name, move |call, incoming| {
            let (asked, imported) = shared();
            asked.answer(imported, call, Some(incoming), None)
        }),
        Style::Duplex => builder.duplex(&name, move |call, incoming, outgoing| {
            let (asked, imported) = shared();
            async move { asked.answer(imported, call, Some(incoming), Some(outgoing)).await.map(drop) }
        }),
    };
    match codec {
        0 => builder,
        codec => builder.payload_mark(&name, codec, schema),
    }
}
