//! What is wrong with the settings, each with the place to change.

use bellrope::{breaker::BreakerSetting, server::BindError};
use bellrope_books::{Budget, SettingFault, TokenRow};
use bellrope_gateway::{Gateway, MAX_CHUNK};

use super::{
    document::Document,
    given::address,
    layers::{Origins, row},
    schema::{Key, parts},
};
use crate::logging;

/// The rings have to hold the gateway's chunks, which have at most a quarter of one.
const MIN_RING_BYTES: usize = 4 * MAX_CHUNK;
/// More threads than this serve the API port no faster on any machine.
const MAX_API_THREADS: u32 = 64;

/// Faults on their way to be sorted by their place in the file.
struct Found<'a> {
    origins: &'a Origins,
    faults: Vec<((usize, usize), String)>,
}

impl Found<'_> {
    /// `fault` follows the name of the key.
    fn add(&mut self, key: &str, fault: impl std::fmt::Display) {
        let key = parts(key);
        self.faults.push((self.origins.place(&key), format!("{} {fault}", self.origins.naming(&key))));
    }

    /// The same for a row of a table, which is called by what it says of itself.
    fn add_row(&mut self, table: &str, at: usize, field: Option<&str>, fault: impl std::fmt::Display) {
        let key: Key = [table.to_owned(), row(at)].into_iter().chain(field.map(str::to_owned)).collect();
        let words = format!("{}: {table} {fault}", self.origins.of(&key));
        self.faults.push((self.origins.place(&key), words));
    }

    fn finish(mut self) -> Vec<String> {
        self.faults.sort_by_key(|(place, _)| *place);
        self.faults.into_iter().map(|(_, fault)| fault).collect()
    }
}

/// Which settings cannot be used, as far as that is known without the machine.
pub(super) fn document(document: &Document, origins: &Origins) -> Vec<String> {
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
    server(document, &mut found);
    let books = document.books();
    if books.path.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
        found.add("books.path", "is empty; name a file, or give \"off\" for no ledger");
    }
    if let Err(SettingFault { key, row, fault }) = books.check() {
        match row {
            Some(row) => found.add_row(&key, row, None, fault),
            None => found.add(&key, fault),
        }
    }
    if document.api_threads > MAX_API_THREADS {
        let threads = document.api_threads;
        found.add("api_threads", format_args!("is {threads}; it can be at most {MAX_API_THREADS}"));
    }
    found.finish()
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
        Err(error) => found.faults.push(((0, 0), error.to_string())),
        Ok(()) if (ring_bytes as usize) < MIN_RING_BYTES => {
            let fault = format_args!("is {ring_bytes}; the AI gateway needs at least {MIN_RING_BYTES}");
            found.add("server.ring_bytes", fault);
        }
        Ok(()) => {}
    }
}

/// Which budgets are for a token that there is not, or go over to a model of a provider that is not set up. Tokens come and go
/// while a server runs, so it starts all the same.
pub(super) fn budgets(budgets: &[Budget], tokens: &[TokenRow], gateway: &Gateway, origins: &Origins) -> Vec<String> {
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
        if let Some(provider) = provider.filter(|provider| providers.iter().all(|known| known != provider)) {
            let known = providers.join(", ");
            let fault = format!("`{name}`: model is of the provider {provider:?}, which is not set up; known: {known}");
            found.add_row("budgets", at, Some("model"), fault);
        }
    }
    found.finish()
}
