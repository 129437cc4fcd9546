//! The importing side's memory of strangers, for a fuzzer.

use std::time::{Duration, Instant};

use super::choice::{Choices, Learnt};
use crate::{
    frame::{Down, DownKind},
    services::Info,
    settings::Choice,
};

/// Takes what comes, and claims that no stranger makes it remember more than it may.
#[derive(Debug)]
pub(crate) struct ImportingSide {
    choices: Choices,
    now: Instant,
}

impl Default for ImportingSide {
    fn default() -> Self {
        Self { choices: Choices::new(Choice::Sticky), now: Instant::now() }
    }
}

impl ImportingSide {
    /// What an instance says to everybody, or of a call.
    pub(crate) fn take(&mut self, down: &Down<'_>) {
        self.now += Duration::from_millis(1);
        match down.what {
            DownKind::Load { running } => self.choices.loaded(down.from, running),
            DownKind::Leaving => self.choices.left(down.from),
            DownKind::Refused { .. } => self.choices.avoid(down.from, self.now),
            DownKind::Failed { .. } => self.choices.lost(down.from, self.now),
            DownKind::Taken => self.choices.settle("session", down.from, self.now),
            _ => {}
        }
    }

    /// What may be what an instance says of itself.
    pub(crate) fn hear(&mut self, message: &[u8]) {
        let Some(info) = Info::read(message, "bellrope") else { return };
        let types: Vec<_> = info.types().collect();
        assert!(types.len() <= info.endpoints.len());
        let Some(instance) = info.chosen_as() else { return };
        let learnt = Learnt { instance, member: info.member().unwrap_or(instance), server: info.server() };
        self.choices.learn(learnt, types.iter().cloned(), self.now);
        for wanted in &types {
            let chosen = self.choices.choose(wanted, "session", &[], self.now);
            drop(chosen);
        }
        self.choices.sweep(self.now);
    }
}
