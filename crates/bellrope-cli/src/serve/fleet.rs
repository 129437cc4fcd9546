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

/// Says that tools at the API port reach the providers of this server, where callers of its socket reach the fleet.
pub(super) fn warn_of_port(settings: &FleetSettings, port: Option<u16>) {
    if port.is_some() && settings.leaves_to_fleet("ai.chat_stream") {
        tracing::warn!(
            target: "bellrope::fleet",
            "the API port asks this server's own providers and not the fleet, to which the socket leaves ai.chat_stream; tools are \
             to use the port of an instance"
        );
    }
}

/// What the line says that the server is ready with.
pub(super) fn in_words(fleet: Option<&Fleet>) -> String {
    match fleet {
        None => String::new(),
        Some(fleet) if fleet.is_linked() => ", in a fleet".to_owned(),
        Some(_) => ", in a fleet once its NATS server answers".to_owned(),
    }
}
