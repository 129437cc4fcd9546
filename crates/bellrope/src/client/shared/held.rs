//! The lock of what callers share. Whoever has it runs nobody else's code: whoever is to be woken, and those who watch the state of
//! the connection, are told when it is free again.

use std::{
    ops::{Deref, DerefMut},
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use super::{SharedClient, State};
#[cfg(feature = "tokio")]
use crate::client::waiters::{DueWakers, Waiters};

/// The state, locked.
pub(crate) struct HeldState<'a> {
    shared: &'a SharedClient,
    /// There until this is dropped.
    state: Option<MutexGuard<'a, State>>,
}

const THERE: &str = "the state is there until this is dropped";

impl SharedClient {
    pub(crate) fn lock(&self) -> HeldState<'_> {
        HeldState { shared: self, state: Some(self.state.lock().unwrap_or_else(PoisonError::into_inner)) }
    }
}

impl HeldState<'_> {
    /// Waits until the connection changes, at most so long.
    pub(crate) fn wait(mut self, most: Duration) -> Self {
        let shared = self.shared;
        if let Some(state) = self.state.take_if(|state| !state.is_to_tell()) {
            let waited = shared.changed.wait_timeout(state, most);
            self.state = Some(waited.unwrap_or_else(PoisonError::into_inner).0);
            return self;
        }
        // Others come first. Whoever waits looks again.
        drop(self);
        shared.lock()
    }
}

impl Deref for HeldState<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        self.state.as_ref().expect(THERE)
    }
}

impl DerefMut for HeldState<'_> {
    fn deref_mut(&mut self) -> &mut State {
        self.state.as_mut().expect(THERE)
    }
}

impl Drop for HeldState<'_> {
    fn drop(&mut self) {
        let Some(mut state) = self.state.take() else { return };
        let mut told = state.mailboxes.told.take();
        #[cfg(feature = "tokio")]
        let has_changed = std::mem::take(&mut state.has_changed);
        drop(state);
        told.tell();
        if told.has_memory() {
            if let Ok(mut state) = self.shared.state.try_lock() {
                state.mailboxes.told.reuse(told);
            }
        }
        // Whoever reads it may come for our lock meanwhile. It is what it is then, whoever comes first.
        #[cfg(feature = "tokio")]
        if has_changed {
            let state = || self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).connection_state();
            self.shared.watch.send_modify(|seen| *seen = state());
        }
    }
}

impl State {
    /// Whether somebody is to be told when the lock is free.
    fn is_to_tell(&self) -> bool {
        #[cfg(feature = "tokio")]
        let has_changed = self.has_changed;
        #[cfg(not(feature = "tokio"))]
        let has_changed = false;
        has_changed || !self.mailboxes.told.is_empty()
    }
}

#[cfg(feature = "tokio")]
impl State {
    /// Those that wait for room, and those that are told.
    pub(crate) fn waiting_for_room(&mut self) -> (&mut Waiters, &mut DueWakers) {
        (&mut self.room_waiters, &mut self.mailboxes.told)
    }

    /// Those that wait for a link, and those that are told.
    pub(crate) fn waiting_for_link(&mut self) -> (&mut Waiters, &mut DueWakers) {
        (&mut self.link_waiters, &mut self.mailboxes.told)
    }

    /// Has those woken that wait for room.
    pub(crate) fn wake_for_room(&mut self) {
        self.room_waiters.wake(&mut self.mailboxes.told);
    }
}
