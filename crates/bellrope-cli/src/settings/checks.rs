//! What is wrong with the settings, each with the place to change.

use bellrope::{breaker::BreakerSetting, server::BindError};
use bellrope_books::{Budget, Price, SettingFault, TokenRow};
use bellrope_gateway::{Gateway, MAX_CHUNK};
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};
use toml::{Table, Value};

use super::{
    document::Document,
    gathered::Fault,
    given::address,
    layers::{Origins, row},
    schema::{Key, parts},
};
use crate::logging;

/// The rings have to hold the gateway's chunks, which have at most a quarter of one.
const MIN_RING_BYTES: usize = 4 * MAX_CHUNK;
/// More threads than this serve the API port no faster on any machine.
const MAX_API_THREADS: u32 = 64;
/// The longest that a server may take to end, in seconds.
const MAX_DRAIN_S: u32 = 24 * 60 * 60;

/// Faults that were found.
struct Found<'a> {
    origins: &'a Origins,
    faults: Vec<Fault>,
}

impl Found<'_> {
    /// `fault` follows the name of the key.
    fn add(&mut self, key: &str, fault: impl std::fmt::Display) {
        let key = parts(key);
        let words = format!("{} {fault}", self.origins.naming(&key));
        self.faults.push(Fault::of(key, words));
    }

    /// The same for a row of a table, which is called by what it says of itself.
    fn add_row(&mut self, table: &str, at: usize, field: Option<&str>, fault: impl std::fmt::Display) {
        let key: Key = [table.to_owned(), row(at)].into_iter().chain(field.map(str::to_owned)).collect();
        let words = format!("{}: {table} {fault}", self.origins.of(&key));
        self.faults.push(Fault { without: Key::new(), ..Fault::of(key, words) });
    }
}

/// The settings as they are typed.
///
/// # Errors
/// One that is not what it has to be; of the rows of a table every one.
pub(super) fn read(values: &Table, origins: &Origins) -> Result<Document, Vec<Fault>> {
    serde_path_to_error::deserialize(Value::Table(values.clone())).map_err(|error| {
        let key = key_of(error.path());
        let of_rows = match key.first().map(String::as_str) {
            Some(table @ "prices") => rows::<Price>(table, values, origins),
            Some(table @ "budgets") => rows::<Budget>(table, values, origins),
            _ => Vec::new(),
        };
        // A table that is no list of rows has a fault of its own.
        if of_rows.is_empty() { vec![mistyped(key, &error, origins)] } else { of_rows }
    })
}

/// The rows of a table that are not what they have to be.
fn rows<T: DeserializeOwned>(table: &str, values: &Table, origins: &Origins) -> Vec<Fault> {
    let rows = values.get(table).and_then(Value::as_array).into_iter().flatten().enumerate();
    let faults = rows.filter_map(|(at, value)| {
        let error = serde_path_to_error::deserialize::<_, T>(value.clone()).err()?;
        let key = [vec![table.to_owned(), row(at)], key_of(error.path())].concat();
        Some(Fault { without: vec![table.to_owned()], ..mistyped(key, &error, origins) })
    });
    faults.collect()
}

fn mistyped(key: Key, error: &serde_path_to_error::Error<toml::de::Error>, origins: &Origins) -> Fault {
    let words = format!("{}: {}", origins.naming(&key), error.inner().message());
    Fault::of(key, words)
}

fn key_of(path: &Path) -> Key {
    let part = |segment: &Segment| match segment {
        Segment::Seq { index } => Some(row(*index)),
        // The whole of it.
        Segment::Unknown => None,
        segment => Some(segment.to_string()),
    };
    path.iter().filter_map(part).collect()
}

/// Which settings cannot be used, as far as that is known without the machine. Of some there may be more once these are set
/// right.
pub(super) fn document(document: &Document, origins: &Origins) -> Vec<Fault> {
    let mut found = Found { origins, faults: Vec::new() };
    if let Some(health) = &document.health
        && let Err(fault) = address(health)
    {
        found.add("health", format_args!("is {health:?}: {fault}"));
    }
    if let Err(fix) = logging::filter(&document.log) {
        found.add("log", format_args!("is {:?}; {fix}", document.log));
    }
    if let Some(endpoint) = &document.otlp_endpoint
        && let Err(fault) = logging::check_collector(endpoint)
    {
        found.add("otlp_endpoint", format_args!("is {endpoint:?}: {fault}"));
    }
    #[cfg(feature = "fleet")]
    if let Err(bellrope_fleet::SettingFault { key, fault }) = document.fleet.check() {
        found.add(&format!("fleet.{key}"), fault);
    }
    #[cfg(feature = "fleet")]
    for (key, path, error) in document.fleet.unreadable_files() {
        found.add(&format!("fleet.{key}"), format_args!("names {}, which cannot be read: {error}", path.display()));
    }
    server(document, &mut found);
    let books = document.books();
    if books.path.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
        found.add("books.path", "is empty; name a file, or give \"off\" for no ledger");
    }
    for SettingFault { key, row, fault } in books.faults() {
        match row {
            Some(row) => found.add_row(&key, row, None, fault),
            None => found.add(&key, fault),
        }
    }
    if document.api_threads > MAX_API_THREADS {
        let threads = document.api_threads;
        found.add("api_threads", format_args!("is {threads}; it can be at most {MAX_API_THREADS}"));
    }
    if document.drain_s > MAX_DRAIN_S {
        let seconds = document.drain_s;
        found.add("drain_s", format_args!("is {seconds}; it can be at most {MAX_DRAIN_S}"));
    }
    found.faults
}

fn server(document: &Document, found: &mut Found<'_>) {
    let ring_bytes = document.server.ring_bytes;
    if let Err(BreakerSetting { key, value, expected }) = document.server.breaker.check() {
        found.add(&format!("server.breaker.{key}"), format_args!("is {value}, {expected}"));
    }
    match document.server.check() {
        // Said already.
        Err(_) if !found.faults.is_empty() => {}
        Err(BindError::Setting { key, value, expected }) => {
            found.add(&format!("server.{key}"), format_args!("is {value}, {expected}"));
        }
        Err(error) => found.faults.push(Fault::of(Key::new(), error.to_string())),
        Ok(()) if (ring_bytes as usize) < MIN_RING_BYTES => {
            let fault = format_args!("is {ring_bytes}; the AI gateway needs at least {MIN_RING_BYTES}");
            found.add("server.ring_bytes", fault);
        }
        Ok(()) => {}
    }
}

/// Which budgets are for a token that there is not, or go over to a model of a provider that is not set up. Tokens come and go
/// while a server runs, so it starts all the same. `asks_others`: requests go to a fleet, whose providers have names of their own.
pub(super) fn budgets(
    budgets: &[Budget],
    tokens: &[TokenRow],
    gateway: &Gateway,
    asks_others: bool,
    origins: &Origins,
) -> Vec<Fault> {
    let mut found = Found { origins, faults: Vec::new() };
    let providers = gateway.names();
    for (at, budget) in budgets.iter().enumerate() {
        let Budget { name, token, model, .. } = budget;
        let unknown = |token: &&String| *token != "*" && tokens.iter().all(|row| row.name != **token);
        if let Some(token) = token.as_ref().filter(unknown) {
            let fault = format!("`{name}`: there is no token {token:?}; make it with `bellrope token add {token}`");
            found.add_row("budgets", at, Some("token"), fault);
        }
        let provider = model.as_deref().and_then(|model| model.split_once('/')).map(|(provider, _)| provider);
        // Those of a fleet are not known before it is asked.
        let provider = provider.filter(|_| !asks_others);
        if let Some(provider) = provider.filter(|provider| providers.iter().all(|known| known != provider)) {
            let known = providers.join(", ");
            let fault = format!(
                "`{name}`: model is of the provider {provider:?}, which is not set up (by a key or an address); known: {known}"
            );
            found.add_row("budgets", at, Some("model"), fault);
        }
    }
    found.faults
}
