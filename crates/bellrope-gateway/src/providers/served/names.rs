//! The names of the providers of whoever answers, which may stand before a model's name.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::ProviderError;
use crate::message::ModelList;

/// How long they are believed, and how long a list that could not be had is not asked for again.
const HOLDS: Duration = Duration::from_secs(60);
/// How long a request waits for them. Without them its model's name is taken as it stands.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most that are kept.
const MOST: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Names(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    names: BTreeSet<String>,
    asked: Option<Instant>,
}

impl Names {
    /// Takes in what a list of models says.
    pub(super) fn learn(&self, list: &ModelList) {
        let models = list.models.iter().map(|model| &model.provider);
        let names = models.chain(list.faults.iter().map(|fault| &fault.provider)).cloned();
        let names = names.collect::<BTreeSet<_>>().into_iter().take(MOST).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Known { names, asked: Some(Instant::now()) };
    }

    /// Whether this is one of them. If it is not known yet, `ask` asks for them.
    pub(super) async fn has<A>(&self, name: &str, ask: impl FnOnce() -> A) -> bool
    where
        A: Future<Output = Result<ModelList, ProviderError>>,
    {
        let is_known = || self.0.lock().unwrap_or_else(PoisonError::into_inner).names.contains(name);
        if self.is_due() {
            // It is learnt where it comes.
            let _ = tokio::time::timeout(PATIENCE, ask()).await;
        }
        is_known()
    }

    /// Whether they are to be asked for; from then on they are not, for a while.
    fn is_due(&self) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = known.asked.is_none_or(|asked| asked.elapsed() >= HOLDS);
        if is_due {
            known.asked = Some(Instant::now());
        }
        is_due
    }
}
