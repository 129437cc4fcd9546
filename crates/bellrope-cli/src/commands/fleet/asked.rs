//! Which fleet is asked.

use std::path::PathBuf;

use bellrope_fleet::FleetSettings;
use bellrope_terminal::WrongSettings;

use crate::settings::{FleetArgs, Settings, SettingsArgs};

/// The fleet of the settings, or the one at these servers.
pub(super) fn settings(fleet: Option<String>, config: Option<PathBuf>) -> anyhow::Result<FleetSettings> {
    let fleet = Box::new(FleetArgs::at(fleet));
    let settings = Settings::load(&SettingsArgs { config, fleet, ..SettingsArgs::default() })?;
    match settings.fleet.is_wanted() {
        true => Ok(settings.fleet),
        false => {
            Err(WrongSettings(Some("no NATS server is named; give --fleet, or set fleet.servers".to_owned())).into())
        }
    }
}
