//! Reading the settings again while the server runs.
//!
//! How much is logged is applied. Everything else is part of what was bound or set up at the start; that it changed is
//! said, and holds from the next start on.

use crate::{
    logging,
    settings::{Entry, Settings, SettingsArgs},
};

/// The settings that can be applied to a running server.
const LIVE: &str = "log";

/// What has been applied so far.
#[derive(Debug)]
pub(crate) struct Reload {
    args: SettingsArgs,
    applied: Vec<Entry>,
}

impl Reload {
    pub(crate) fn new(args: SettingsArgs, settings: &Settings) -> Self {
        Self { args, applied: settings.entries() }
    }

    /// Reads the settings again, applies what can be, and logs what was and what was not.
    pub(crate) fn run(&mut self) {
        let settings = match Settings::load(&self.args) {
            Ok(settings) => settings,
            Err(faults) => return tracing::error!("the settings stay as they were, the new ones are wrong: {faults}"),
        };
        let changed = changed(&self.applied, &settings.entries());
        let waiting: Vec<_> = changed.iter().filter(|key| *key != LIVE).cloned().collect();
        if changed.len() > waiting.len() {
            match logging::change(&settings.log) {
                Ok(()) => {
                    if let Some(entry) = self.applied.iter_mut().find(|entry| entry.key == LIVE) {
                        entry.value = settings.log.clone().into();
                    }
                    tracing::warn!(log = settings.log, "reloaded: so much is logged from now on");
                }
                Err(fault) => tracing::error!("how much is logged cannot be changed: {fault}"),
            }
        }
        if !waiting.is_empty() {
            tracing::warn!("not applied until the next start: {}", waiting.join(", "));
        } else if changed.is_empty() {
            tracing::info!("reloaded: no setting has changed");
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
