//! Which fleet is asked.

use std::path::PathBuf;

use bellrope_fleet::FleetSettings;

use crate::settings::{FleetArgs, Settings, SettingsArgs};

/// The fleet of the settings, or the one at these servers.
pub(super) fn settings(fleet: Option<String>, config: Option<PathBuf>) -> anyhow::Result<FleetSettings> {
    let fleet = Box::new(FleetArgs::at(fleet));
    let settings = Settings::load(&SettingsArgs { config, fleet, ..SettingsArgs::default() })?;
    anyhow::ensure!(settings.fleet.is_wanted(), "no NATS server is named; give --fleet, or set fleet.servers");
    Ok(settings.fleet)
}
