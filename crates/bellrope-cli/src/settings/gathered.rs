//! All that is wrong with settings at once: what is wrong is taken out of them, and the rest is looked at again.

use std::{collections::BTreeSet, fmt};

use toml::Table;

use super::{
    layers::{Origins, Place},
    schema::{Key, remove},
};

/// Everything that is wrong with the settings, each with its place and its fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) struct Faults(pub(crate) Vec<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// Something that is wrong with the settings.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) key: Key,
    /// In words, with its place and its fix.
    pub(super) words: String,
    /// What the rest can be looked at without. Nothing for what stands in nobody's way.
    pub(super) without: Key,
    /// The provider that it names, for which there may be a fault already.
    pub(super) provider: Option<String>,
}

impl Fault {
    /// A fault of the value of a key, without which the rest can be looked at.
    pub(super) fn of(key: Key, words: String) -> Self {
        Self { without: key.clone(), key, words, provider: None }
    }
}

/// Looks at `values` until nothing more is found. `known`: what is known to be wrong already, and where.
///
/// # Errors
/// All that is wrong, in the order of the file.
pub(super) fn gather<T>(
    mut values: Table,
    origins: &Origins,
    known: Vec<(Place, String)>,
    look: impl Fn(&Table) -> Result<T, Vec<Fault>>,
) -> Result<T, Faults> {
    let mut found = known;
    let (mut keys, mut providers) = (BTreeSet::new(), BTreeSet::new());
    // Every turn but the last takes something out.
    loop {
        let wrong = match look(&values) {
            Ok(whole) if found.is_empty() => return Ok(whole),
            Ok(_) => break,
            Err(wrong) => wrong,
        };
        let earlier = keys.clone();
        let mut is_less = false;
        for Fault { key, words, without, provider } in wrong {
            // What is missing now may only be so because it was taken out.
            if !earlier.contains(&key) && provider.is_none_or(|name| !providers.contains(&name)) {
                found.push((origins.place(&key), words));
            }
            is_less |= take_out(&mut values, &without, &mut providers);
            keys.insert(key);
        }
        if !is_less {
            break;
        }
    }
    found.sort_by_key(|(place, _)| *place);
    Err(Faults(found.into_iter().map(|(_, words)| words).collect()))
}

/// Takes the value of a key out; if it is out already, the section of the provider that it belongs to. Whether that was there.
fn take_out(values: &mut Table, key: &[String], providers: &mut BTreeSet<String>) -> bool {
    let section = match key {
        [gateway, table, name, ..] if gateway == "gateway" && table == "providers" => Some((&key[..3], name)),
        [gateway, name, ..] if gateway == "gateway" && name == "openai" => Some((&key[..2], name)),
        _ => None,
    };
    if let Some((_, name)) = section {
        providers.insert(name.clone());
    }
    remove(values, key) || section.is_some_and(|(section, _)| remove(values, section))
}
