//! The server as a member of a fleet.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use bellrope::Server;
use bellrope_fleet::{Fleet, FleetSettings};

/// Joins the fleet of the settings, if there is one.
pub(super) fn join(settings: FleetSettings, server: &Arc<Server>, socket: &Path) -> anyhow::Result<Option<Fleet>> {
    if !settings.is_wanted() {
        return Ok(None);
    }
    let fleet = Fleet::join(settings, server, socket.to_owned()).context("the fleet cannot be joined")?;
    fleet.watch(&server.metrics());
    Ok(Some(fleet))
}

/// What the line says that the server is ready with.
pub(super) fn in_words(fleet: Option<&Fleet>) -> String {
    match fleet {
        None => String::new(),
        Some(fleet) if fleet.is_linked() => ", in a fleet".to_owned(),
        Some(_) => ", in a fleet once its NATS server answers".to_owned(),
    }
}
