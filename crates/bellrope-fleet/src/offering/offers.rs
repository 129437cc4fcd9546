//! Which message types of the local server are offered, and where calls of them arrive.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bellrope::client::Offer;

use crate::{
    link::Link,
    message_type::{FleetType, number_of},
    names,
    services::Offered,
};

/// Most types that are offered.
const MOST_TYPES: usize = 1024;

/// The types that are offered now.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    patterns: Vec<String>,
    /// How the names begin of what is never offered: what steers the server.
    never: &'static str,
    types: Mutex<HashMap<String, Arc<Offered>>>,
}

impl Offers {
    pub(crate) fn new(patterns: Vec<String>, never: &'static str) -> Self {
        Self { patterns, never, types: Mutex::default() }
    }

    /// Whether anything is to be offered.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.patterns.is_empty()
    }

    fn types(&self) -> MutexGuard<'_, HashMap<String, Arc<Offered>>> {
        self.types.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn find(&self, name: &str) -> Option<Arc<Offered>> {
        self.types().get(name).cloned()
    }

    /// All of them, by name.
    pub(crate) fn all(&self) -> Vec<Arc<Offered>> {
        let mut all: Vec<_> = self.types().values().cloned().collect();
        all.sort_by(|one, other| one.imported.name.cmp(&other.imported.name));
        all
    }

    /// The local server serves these. Answers which are offered from now on, and the names of those that no longer are.
    /// `foreign` says which are somebody else's: an instance that offered them would make circles.
    pub(crate) fn update(
        &self,
        link: &Link,
        served: Vec<Offer>,
        foreign: impl Fn(&str) -> bool,
    ) -> (Vec<Arc<Offered>>, Vec<String>) {
        let is_offered = |offer: &Offer| {
            names::any_matches(&self.patterns, &offer.name)
                && !offer.name.starts_with(self.never)
                && !foreign(&offer.name)
        };
        let served = served.into_iter().filter(is_offered).take(MOST_TYPES).map(|offer| {
            let Offer { name, style, codec, schema, .. } = offer;
            FleetType { name, style: number_of(style), codec, schema }
        });
        let served: Vec<_> = served.collect();
        let mut types = self.types();
        let there: HashSet<&FleetType> = served.iter().collect();
        let gone: Vec<_> =
            types.extract_if(|_, offered| !there.contains(&offered.imported)).map(|(name, _)| name).collect();
        let mut new = Vec::new();
        for imported in served {
            types.entry(imported.name.clone()).or_insert_with(|| {
                let subject = link.calls(&imported.name);
                let offered = Arc::new(Offered::new(imported, subject));
                new.push(Arc::clone(&offered));
                offered
            });
        }
        (new, gone)
    }

    /// Nothing is offered any more: the link is lost.
    pub(crate) fn clear(&self) {
        self.types().clear();
    }
}
