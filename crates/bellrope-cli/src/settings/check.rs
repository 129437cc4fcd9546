//! A configuration file, looked at as a whole.

use std::path::Path;

use bellrope::default_socket_path;
use toml::Table;

use super::{Faults, Settings, checks, gathered::gather, layers::Layers};

/// Looks at a configuration file alone, as if nothing else said anything. Returns what works and does not do what was probably
/// meant.
///
/// # Errors
/// All that is wrong with it.
pub(crate) fn check(path: &Path) -> Result<Vec<String>, Faults> {
    let mut layers = Layers::new();
    layers.file(path);
    let Layers { values, origins, faults, .. } = layers;
    let look = |values: &Table| {
        let document = checks::read(values, &origins)?;
        let mut faults = checks::document(&document, &origins);
        // Those of rows stand in nobody's way.
        if faults.iter().all(|fault| fault.without.is_empty()) {
            let settings = Settings::of(document, default_socket_path(), origins.clone());
            match settings.built() {
                Err(fault) => faults.push(fault),
                Ok(gateway) => {
                    faults.extend(settings.key_faults(&gateway));
                    faults.extend(settings.budget_faults(&gateway));
                    if faults.is_empty() {
                        return Ok(settings.unpriced(&gateway));
                    }
                }
            }
        }
        Err(faults)
    };
    gather(values, &origins, faults, look)
}
