//! What a server allows at this moment, and how often that was changed.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use super::report::Reloads;
use crate::server::ServerConfig;

/// The settings of a running server. Whoever changes them holds the lock meanwhile; nothing on the data path takes it.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// `None` until they are known.
    now: Mutex<Option<ServerConfig>>,
    reloads: Mutex<Reloads>,
}

impl Settings {
    pub(crate) fn now(&self) -> Option<ServerConfig> {
        self.lock().clone()
    }

    pub(crate) fn set(&self, config: &ServerConfig) {
        *self.lock() = Some(config.clone());
    }

    /// Lets one at a time change them, and what depends on them.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Option<ServerConfig>) -> T) -> T {
        change(&mut self.lock())
    }

    pub(crate) fn note_reload(&self, ok: bool) {
        let mut reloads = self.reloads.lock().unwrap_or_else(PoisonError::into_inner);
        *(if ok { &mut reloads.ok } else { &mut reloads.failed }) += 1;
        reloads.last_at = SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs());
        reloads.last_ok = Some(ok);
    }

    pub(crate) fn reloads(&self) -> Reloads {
        *self.reloads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Option<ServerConfig>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
