//! The names of the providers of whoever answers, which may stand before a model's name.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Mutex as Turn;

use crate::error::ProviderError;
use crate::message::ModelList;

/// How long they are believed, and how long an older list is enough where a newer one could not be had.
const HOLDS: Duration = Duration::from_secs(60);
/// How long nobody asks again who has none at all.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a request waits for them. Without them its model's name is taken as it stands.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most that are kept.
const MOST: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Names {
    known: Mutex<Known>,
    asking: Turn<()>,
}

#[derive(Debug, Default)]
struct Known {
    names: BTreeSet<String>,
    learnt: Option<Instant>,
    failed: Option<Instant>,
}

impl Names {
    /// Takes in what a list of models says.
    pub(super) fn learn(&self, list: &ModelList) {
        let models = list.models.iter().map(|model| &model.provider);
        let names = models.chain(list.faults.iter().map(|fault| &fault.provider)).cloned();
        let names = names.collect::<BTreeSet<_>>().into_iter().take(MOST).collect();
        *self.known() = Known { names, learnt: Some(Instant::now()), failed: None };
    }

    /// Whether this is one of them. If it is not known yet, `ask` asks for them, and whoever comes meanwhile waits for that.
    pub(super) async fn has(&self, name: &str, ask: impl Future<Output = Result<ModelList, ProviderError>>) -> bool {
        if self.known().is_due() {
            let asked = tokio::time::timeout(PATIENCE, self.ask(ask)).await;
            if asked.is_err() {
                self.known().failed = Some(Instant::now());
            }
        }
        self.known().names.contains(name)
    }

    async fn ask(&self, ask: impl Future<Output = Result<ModelList, ProviderError>>) {
        let turn = match self.known().learnt {
            None => None,
            // An older list is better than to wait for one who asks for a newer.
            Some(_) => match self.asking.try_lock() {
                Ok(turn) => Some(turn),
                Err(_) => return,
            },
        };
        let _turn = match turn {
            Some(turn) => turn,
            None => self.asking.lock().await,
        };
        // Who had the turn before may have gone away in the middle, so nothing is noted of that.
        if !self.known().is_due() {
            return;
        }
        match ask.await {
            Ok(list) => self.learn(&list),
            Err(_) => self.known().failed = Some(Instant::now()),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Whether they are to be asked for.
    fn is_due(&self) -> bool {
        let is_over = |since: Option<Instant>, pause| since.is_none_or(|since| since.elapsed() >= pause);
        let pause = if self.learnt.is_some() { HOLDS } else { AGAIN };
        is_over(self.learnt, HOLDS) && is_over(self.failed, pause)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::sync::oneshot;

    use super::*;
    use crate::message::{ModelInfo, WIRE_VERSION};

    fn list() -> ModelList {
        let model = ModelInfo { id: "m".into(), provider: "openai".into(), owner: None };
        ModelList { version: WIRE_VERSION, models: vec![model], faults: Vec::new() }
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn one_who_goes_away_while_the_list_is_asked_for_leaves_it_to_the_next() {
        run(async {
            let names = Names::default();
            let gone = tokio::time::timeout(Duration::from_millis(10), names.has("openai", pending()));
            assert!(gone.await.is_err());
            assert!(names.has("openai", ready(Ok(list()))).await);
        });
    }

    #[test]
    fn whoever_comes_while_the_list_is_asked_for_waits_for_it() {
        run(async {
            let names = Names::default();
            let (came, comes) = oneshot::channel();
            let first = names.has("openai", async { Ok(comes.await.unwrap()) });
            let second = names.has("openai", async { panic!("it is asked for once") });
            let third = async { came.send(list()).unwrap() };
            assert_eq!(tokio::join!(first, second, third), (true, true, ()));
        });
    }

    #[test]
    fn a_list_that_could_not_be_had_is_asked_for_again_soon_and_not_at_once() {
        run(async {
            let names = Names::default();
            assert!(!names.has("openai", ready(Err(ProviderError::UnknownAnswer))).await);
            assert!(!names.known().is_due());
            names.known().failed = Instant::now().checked_sub(AGAIN);
            assert!(names.has("openai", ready(Ok(list()))).await);
            assert!(names.has("openai", async { panic!("it is known") }).await);
        });
    }
}
