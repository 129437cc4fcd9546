//! Leave to ask a provider, and what its breaker is told of how that went.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::LazyLock;
use std::time::Instant;

use bellrope::breaker::{Breaker, Caller, Permit};

use crate::asker::{Asker, AskerKind};
use crate::error::{Failing, ProviderError};

/// Leave to ask a provider once.
pub(super) struct Leave<'a> {
    pub(super) permit: Option<Permit<&'a Breaker>>,
    pub(super) caller: Caller,
    /// Whether the breaker is not closed: then it is to be seen whether the provider is well for everybody.
    pub(super) is_probe: bool,
}

impl Leave<'_> {
    /// Tells the breaker how it went.
    pub(super) fn settle(self, failed: Option<&ProviderError>) {
        let Self { permit: Some(permit), caller, is_probe } = self else { return };
        match failed.map(ProviderError::failing) {
            None if is_probe => permit.succeed(now()),
            None => permit.succeed_for(|| caller, now()),
            Some(Some(Failing::ForAll)) => permit.fail(now()),
            Some(Some(Failing::ForCaller)) if !is_probe => permit.fail_for(caller, now()),
            // It says nothing of the others' requests.
            Some(_) => drop(permit),
        }
    }
}

/// Whoever asks by the API port: the holder of a token, of which nobody else has that name, or this process for all others.
pub(super) fn somebody(asker: &Asker) -> Caller {
    // To ask for it is a system call. A child that were forked would have none of the threads that ask providers.
    static OWN: LazyLock<i32> = LazyLock::new(|| std::process::id().try_into().unwrap_or_default());
    static NAMES: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let started = if asker.kind == AskerKind::Token { NAMES.hash_one(asker.name()).max(1) } else { 0 };
    Caller::Process { pid: *OWN, started }
}

/// The runtime's time, which tests may stop.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
