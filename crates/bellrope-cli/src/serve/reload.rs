//! Reading the settings again while the server runs, all or nothing: what is wrong anywhere changes nothing at all.
//!
//! What is part of what was bound or set up at the start, or of what connections were told in their handshake, holds from
//! the next start on; that it changed is said.

use bellrope::Server;
use bellrope_books::Bookkeeper;
use bellrope_gateway::LiveGateway;

use super::providers;
use crate::{
    local_models::{self, Found},
    logging,
    settings::{Entry, Faults, Settings, SettingsArgs},
};

/// The target of its log lines, which filters name: it stays when the file moves.
const TARGET: &str = "bellrope::reload";

/// How much is logged.
const LOG: &str = "log";
/// Everything below is applied to a running gateway.
const GATEWAY: &str = "gateway.";
/// What the books are told is applied, but for the place of the ledger.
const BOOKS: &str = "books.";
const LEDGER: &str = "books.path";
const PRICES: &str = "prices";
const BUDGETS: &str = "budgets";
/// Which of the settings below can be applied is the server's matter.
const SERVER: &str = "server.";

/// What has been applied so far.
#[derive(Debug)]
pub(crate) struct Reload {
    args: SettingsArgs,
    applied: Vec<Entry>,
    gateway: LiveGateway,
    /// What the API port asks.
    of_port: Option<LiveGateway>,
    books: Bookkeeper,
    /// Servers of models that were found at the start.
    found: Vec<Found>,
}

/// What came of reading the settings again.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    applied: Vec<String>,
    waiting: Vec<String>,
    /// Names of the providers that are new, gone or set up otherwise.
    providers: Vec<String>,
}

impl Reload {
    pub(crate) fn new(
        args: SettingsArgs,
        settings: &Settings,
        gateway: LiveGateway,
        books: Bookkeeper,
        found: Vec<Found>,
    ) -> Self {
        Self { args, applied: settings.entries(), gateway, of_port: None, books, found }
    }

    /// Says what the API port asks.
    pub(crate) fn ask_at_port(&mut self, gateway: LiveGateway) {
        self.of_port = Some(gateway);
    }

    /// Reads the settings again, applies what can be, and logs what was and what was not.
    pub(crate) fn run(&mut self, server: &Server) {
        let outcome = self.apply(server);
        server.metrics().note_reload(outcome.is_ok());
        match outcome {
            Ok(changes) => changes.log(),
            Err(faults) => {
                tracing::error!(target: TARGET, "the settings stay as they were, the new ones are wrong: {faults}");
            }
        }
    }

    fn apply(&mut self, server: &Server) -> Result<Changes, Faults> {
        // What can fail comes first, and changes nothing; the server's settings are the last that can, and were checked
        // with the others.
        let mut settings = Settings::load(&self.args)?;
        local_models::add(&mut settings.gateway, &self.found);
        let gateway = settings.gateway()?;
        let server_waits = server.reload(&settings.server).map_err(|error| Faults(vec![error.to_string()]))?;
        let providers = self.gateway.replace(gateway);
        self.of_port.iter().for_each(|port| port.answers().change(settings.gateway.answers.clone()));
        self.books.replace(settings.books());
        providers::watch(&server.metrics(), &self.gateway.current());
        if let Err(fault) = logging::change(&settings.log) {
            tracing::error!(target: TARGET, "how much is logged cannot be changed: {fault}");
        }
        let is_live = |key: &str| match key.strip_prefix(SERVER) {
            Some(key) => !server_waits.iter().any(|waiting| waiting == key),
            None => {
                [LOG, PRICES, BUDGETS].contains(&key)
                    || key.starts_with(GATEWAY)
                    || key.starts_with(BOOKS) && key != LEDGER
            }
        };
        let entries = settings.entries();
        let changed = changed(&self.applied, &entries);
        let (applied, waiting): (Vec<_>, Vec<_>) = changed.into_iter().partition(|key| is_live(key));
        // What waits is compared with what holds until then.
        let old = std::mem::take(&mut self.applied).into_iter().filter(|entry| waiting.contains(&entry.key));
        self.applied = entries.into_iter().filter(|entry| !waiting.contains(&entry.key)).chain(old).collect();
        Ok(Changes { applied, waiting, providers })
    }
}

impl Changes {
    fn log(&self) {
        if !self.applied.is_empty() {
            tracing::warn!(target: TARGET, "reloaded, and applied: {}", self.applied.join(", "));
        }
        if !self.providers.is_empty() {
            let names = self.providers.join(", ");
            tracing::warn!(target: TARGET, "providers set up anew: {names}; answers under way keep the old ones to their end");
        }
        if !self.waiting.is_empty() {
            tracing::warn!(target: TARGET, "not applied until the next start: {}", self.waiting.join(", "));
        }
        if *self == Self::default() {
            tracing::info!(target: TARGET, "reloaded: no setting has changed");
        }
    }
}

/// The keys whose values differ, or that only one side has.
fn changed(old: &[Entry], new: &[Entry]) -> Vec<String> {
    let value = |entries: &[Entry], key: &str| {
        entries.iter().find(|entry| entry.key == key).map(|entry| entry.value.clone()).unwrap_or_default()
    };
    let mut keys: Vec<_> = old.iter().chain(new).map(|entry| entry.key.clone()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.retain(|key| value(old, key) != value(new, key));
    keys
}
