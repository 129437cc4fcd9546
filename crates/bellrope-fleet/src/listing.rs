//! Who is in a fleet.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use crate::{
    link::{FleetError, Link, Lost},
    services::SERVICE,
    settings::FleetSettings,
};

/// Most instances that are listed.
const MOST: usize = 10_000;

/// An instance, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Listed {
    /// Its number, 16 hexadecimal digits, new with each connection to NATS.
    pub id: String,
    /// The name in its settings.
    pub server: String,
    /// Its version of Bellrope.
    pub version: String,
    /// Since when it is connected, as RFC 3339 writes it.
    pub started: String,
    /// Calls of the fleet that run there now.
    pub running: u64,
    /// What it offers.
    pub types: Vec<ListedType>,
}

/// A message type of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ListedType {
    /// Its name.
    pub name: String,
    /// How often it was called there.
    pub requests: u64,
    /// How often it failed.
    pub errors: u64,
    /// How long calls took on average, in nanoseconds; streams to their end.
    pub average_ns: u64,
}

/// What an instance answers to `$SRV.STATS`, as far as it is read.
#[derive(Debug, Deserialize)]
struct Stats {
    id: String,
    version: String,
    started: String,
    metadata: Metadata,
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    prefix: String,
    server: String,
    running: String,
}

#[derive(Debug, Deserialize)]
struct Endpoint {
    num_requests: u64,
    num_errors: u64,
    average_processing_time: u64,
    data: Data,
}

#[derive(Debug, Deserialize)]
struct Data {
    message_type: String,
}

/// Asks the fleet of these settings who is there, and collects the answers for so long. In the order of their names.
///
/// # Errors
/// [`FleetError`]: no NATS server answers, or it does not let us in.
pub fn instances(settings: &FleetSettings, wait: Duration) -> Result<Vec<Listed>, FleetError> {
    settings.check()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| FleetError::Local {
        what: "no runtime can be made for the fleet",
        reason: error.to_string(),
    })?;
    let listed = runtime.block_on(ask(settings, wait));
    runtime.shutdown_background();
    listed
}

async fn ask(settings: &FleetSettings, wait: Duration) -> Result<Vec<Listed>, FleetError> {
    let (link, mut inbox) = Link::open(settings, &Arc::<AtomicU64>::default()).await?;
    let reply = link.inbox(link.id, "stats");
    let asked = link.publish(format!("$SRV.STATS.{SERVICE}"), Some(reply), Vec::new()).await;
    asked.map_err(|Lost| FleetError::NoServer {
        servers: settings.shown_servers(),
        reason: "the connection was lost at once".to_owned(),
    })?;
    let until = Instant::now() + wait;
    let mut listed = Vec::new();
    while let Ok(Some(message)) = timeout_at(until, inbox.next()).await {
        // Nobody is there.
        if message.status.is_some() {
            break;
        }
        let said = serde_json::from_slice::<Stats>(&message.payload).ok();
        listed.extend(said.filter(|said| said.metadata.prefix == settings.prefix).map(Listed::from));
        if listed.len() >= MOST {
            break;
        }
    }
    listed.sort_by(|one, other| (&one.server, &one.id).cmp(&(&other.server, &other.id)));
    Ok(listed)
}

impl From<Stats> for Listed {
    fn from(said: Stats) -> Self {
        let types = said.endpoints.into_iter().map(|endpoint| ListedType {
            name: endpoint.data.message_type,
            requests: endpoint.num_requests,
            errors: endpoint.num_errors,
            average_ns: endpoint.average_processing_time,
        });
        Self {
            types: types.collect(),
            id: said.id,
            server: said.metadata.server,
            version: said.version,
            started: said.started,
            running: said.metadata.running.parse().unwrap_or(0),
        }
    }
}
