//! The server as a member of a fleet.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use bellrope::Server;
use bellrope_books::Bookkeeper;
use bellrope_fleet::{Fleet, FleetSettings};
use bellrope_gateway::{AnswerSettings, Gateway, KeptAnswers, ServedProvider};

/// Joins the fleet of the settings, if there is one. `answers`: those that are kept here, which others may ask for.
pub(super) fn join(
    settings: FleetSettings,
    server: &Arc<Server>,
    socket: &Path,
    answers: &KeptAnswers,
) -> anyhow::Result<Option<Fleet>> {
    if !settings.is_wanted() {
        return Ok(None);
    }
    let is_offering = !settings.offer.is_empty();
    let fleet = Fleet::join(settings, server, socket.to_owned()).context("the fleet cannot be joined")?;
    fleet.watch(&server.metrics());
    if is_offering {
        answers.are_at(fleet.place());
    }
    Ok(Some(fleet))
}

/// The gateway that tools at the API port ask. `None`: that of this server's own providers. Where the server leaves `ai.*` to a
/// fleet, they ask as programs at its socket do, so they are answered by whoever answers those.
pub(super) fn gateway_of_port(
    settings: &FleetSettings,
    socket: &Path,
    books: &Bookkeeper,
    answers: &AnswerSettings,
) -> Option<Gateway> {
    if !settings.leaves_to_fleet("ai.chat_stream") {
        return None;
    }
    let gateway = Gateway::new(Arc::new(ServedProvider::new("fleet", socket)));
    Some(gateway.with_answers(answers.clone()).with_books(Arc::new(books.clone())))
}

/// What the line says that the server is ready with.
pub(super) fn in_words(fleet: Option<&Fleet>) -> String {
    match fleet {
        None => String::new(),
        Some(fleet) if fleet.is_linked() => ", in a fleet".to_owned(),
        Some(_) => ", in a fleet once its NATS server answers".to_owned(),
    }
}
