//! Who is in a fleet.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use async_nats::Subscriber;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::{
    runtime::Runtime,
    time::{Instant, timeout_at},
};

use crate::{
    frame::start_of,
    latencies::quantile,
    link::{FleetError, Link, Lost},
    services::SERVICE,
    settings::FleetSettings,
};

/// Most instances that are listed, and most types of all of them.
const MOST: usize = 10_000;
const MOST_TYPES: usize = 1 << 17;
/// Most types of one.
const MOST_OF_ONE: usize = 1024;
/// Most bytes of what an instance calls itself or a type; what is longer is cut.
const MOST_TEXT: usize = 256;
const MOST_NAME: usize = 64;
/// Most counts of latencies.
const MOST_COUNTS: usize = 64;

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
    /// Whether it takes no further ones: it is about to end.
    pub draining: bool,
    /// The NATS server that it is connected to, by name, and how many connections it has made since its start.
    pub nats: String,
    /// See `nats`.
    pub links: u64,
    /// How long its answer took, by way of both NATS servers. As JSON in whole microseconds, as `answered_us`.
    #[serde(rename = "answered_us", with = "micros")]
    pub answered_within: Duration,
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
    /// How long calls took on average; streams to their end. As JSON in nanoseconds, as `average_ns`.
    #[serde(rename = "average_ns", with = "nanos")]
    pub average: Duration,
    /// How long half of them took at most, to a power of two microseconds; nothing of none. As JSON in microseconds, as `p50_us`.
    #[serde(rename = "p50_us", with = "optional_micros", default)]
    pub p50: Option<Duration>,
    /// The same of 99 in 100, as `p99_us`.
    #[serde(rename = "p99_us", with = "optional_micros", default)]
    pub p99: Option<Duration>,
    /// How many took less than 1, 2, 4, … microseconds, and not less than half of that. Not told to others.
    #[serde(skip)]
    pub(crate) latencies: Vec<u64>,
}

impl Listed {
    /// What was called since an earlier look at the same instance: the types with their counts and quantiles of the time
    /// between. Where there is no earlier one, since its start.
    #[must_use]
    pub fn since(&self, before: Option<&Self>) -> Vec<ListedType> {
        let earlier = |name: &str| before?.types.iter().find(|row| row.name == name);
        self.types.iter().map(|row| row.since(earlier(&row.name))).collect()
    }

    /// What all types of `types` together were called: their counts and quantiles.
    #[must_use]
    pub fn together(types: &[ListedType]) -> ListedType {
        let mut all = ListedType::of("all".to_owned(), 0, 0, Duration::ZERO, Vec::new());
        for row in types {
            all.requests = all.requests.saturating_add(row.requests);
            all.errors = all.errors.saturating_add(row.errors);
            all.latencies.resize(all.latencies.len().max(row.latencies.len()), 0);
            for (sum, count) in all.latencies.iter_mut().zip(&row.latencies) {
                *sum = sum.saturating_add(*count);
            }
        }
        let took = types.iter().map(ListedType::took).fold(0, u128::saturating_add);
        let average = average(took, all.requests);
        ListedType::of(all.name, all.requests, all.errors, average, all.latencies)
    }
}

impl ListedType {
    fn of(name: String, requests: u64, errors: u64, average: Duration, latencies: Vec<u64>) -> Self {
        let [p50, p99] = [0.5, 0.99].map(|share| quantile(&latencies, share).map(Duration::from_micros));
        Self { name, requests, errors, average, p50, p99, latencies }
    }

    /// How many nanoseconds all calls took together.
    fn took(&self) -> u128 {
        self.average.as_nanos().saturating_mul(self.requests.into())
    }

    fn since(&self, before: Option<&Self>) -> Self {
        let Some(before) = before else { return self.clone() };
        let requests = self.requests.saturating_sub(before.requests);
        let earlier = before.latencies.iter().copied().chain(std::iter::repeat(0));
        let latencies = self.latencies.iter().zip(earlier).map(|(now, then)| now.saturating_sub(then));
        Self::of(
            self.name.clone(),
            requests,
            self.errors.saturating_sub(before.errors),
            average(self.took().saturating_sub(before.took()), requests),
            latencies.collect(),
        )
    }
}

/// What each of `requests` took, of nanoseconds that all took together.
fn average(took: u128, requests: u64) -> Duration {
    Duration::from_nanos(u64::try_from(took / u128::from(requests.max(1))).unwrap_or(u64::MAX))
}

mod nanos {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_nanos)
    }
}

mod micros {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn of(time: Duration) -> u64 {
        u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
    }

    pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(of(*time))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_micros)
    }
}

mod optional_micros {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        time.map(super::micros::of).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::deserialize(deserializer)?.map(Duration::from_micros))
    }
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
    // What older versions do not say.
    #[serde(default)]
    draining: String,
    #[serde(default)]
    nats: String,
    #[serde(default)]
    links: String,
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
    #[serde(default)]
    latencies: Vec<u64>,
}

/// Asks a fleet again and again who is there, over one connection to NATS for as long as that lives.
#[derive(Debug)]
pub struct Onlooker {
    settings: FleetSettings,
    /// Taken out when this is dropped.
    runtime: Option<Runtime>,
    link: Option<(Link, Subscriber)>,
    /// Of the last question.
    asked: u64,
}

impl Onlooker {
    /// Connects to the fleet of these settings.
    ///
    /// # Errors
    /// [`FleetError`]: no NATS server answers, or it does not let us in.
    pub fn connect(settings: &FleetSettings) -> Result<Self, FleetError> {
        settings.check()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| FleetError::Local {
            what: "no runtime can be made for the fleet",
            reason: error.to_string(),
        })?;
        let mut onlooker = Self { settings: settings.clone(), runtime: Some(runtime), link: None, asked: 0 };
        let Self { runtime: Some(runtime), link, .. } = &mut onlooker else { return Ok(onlooker) };
        *link = Some(runtime.block_on(Link::open(settings, &Arc::<AtomicU64>::default()))?);
        Ok(onlooker)
    }

    /// Asks who is there, and collects the answers for so long. In the order of their names. A connection that was lost is made
    /// anew.
    ///
    /// # Errors
    /// [`FleetError`]: no NATS server answers, or it does not let us in.
    pub fn look(&mut self, wait: Duration) -> Result<Vec<Listed>, FleetError> {
        let Self { settings, runtime: Some(runtime), link, asked } = self else { return Ok(Vec::new()) };
        *asked += 1;
        runtime.block_on(async {
            if link.as_ref().is_some_and(|(link, _)| link.is_lost()) {
                *link = None;
            }
            let open = match link {
                Some(open) => open,
                None => link.insert(Link::open(settings, &Arc::<AtomicU64>::default()).await?),
            };
            ask(settings, open, *asked, wait).await
        })
    }
}

impl Drop for Onlooker {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        // A subscription that goes says so to its link, in a task.
        let entered = runtime.enter();
        self.link = None;
        drop(entered);
        runtime.shutdown_background();
    }
}

/// Asks the fleet of these settings once who is there, and collects the answers for so long. In the order of their names.
///
/// # Errors
/// [`FleetError`]: no NATS server answers, or it does not let us in.
pub fn instances(settings: &FleetSettings, wait: Duration) -> Result<Vec<Listed>, FleetError> {
    Onlooker::connect(settings)?.look(wait)
}

async fn ask(
    settings: &FleetSettings,
    (link, inbox): &mut (Link, Subscriber),
    number: u64,
    wait: Duration,
) -> Result<Vec<Listed>, FleetError> {
    let reply = link.inbox(link.id, &format!("stats.{number}"));
    let asked = Instant::now();
    let published = link.publish(format!("$SRV.STATS.{SERVICE}"), Some(reply.clone()), Vec::new()).await;
    published.map_err(|Lost| FleetError::NoServer {
        servers: settings.shown_servers(),
        reason: "the connection was lost".to_owned(),
    })?;
    let until = asked + wait;
    let (mut listed, mut types) = (Vec::<Listed>::new(), 0);
    while let Ok(Some(message)) = timeout_at(until, inbox.next()).await {
        // An answer to the question before.
        if message.subject.as_str() != reply {
            continue;
        }
        // Nobody is there.
        if message.status.is_some() {
            break;
        }
        let said = serde_json::from_slice::<Stats>(&message.payload).ok();
        let took = asked.elapsed();
        let said = said.filter(|said| said.metadata.prefix == settings.prefix).map(|said| said.listed(took));
        types += said.as_ref().map_or(0, |said| said.types.len());
        listed.extend(said);
        if listed.len() >= MOST || types >= MOST_TYPES {
            break;
        }
    }
    listed.sort_by(|one, other| (&one.server, &one.id).cmp(&(&other.server, &other.id)));
    Ok(listed)
}

/// A text, as far as it is kept.
fn cut(mut text: String, most: usize) -> String {
    text.truncate(start_of(&text, most).len());
    text.shrink_to_fit();
    text
}

impl Stats {
    fn listed(self, took: Duration) -> Listed {
        let types = self.endpoints.into_iter().take(MOST_OF_ONE).map(|endpoint| {
            let Data { message_type, mut latencies } = endpoint.data;
            latencies.truncate(MOST_COUNTS);
            let message_type = cut(message_type, MOST_TEXT);
            let average = Duration::from_nanos(endpoint.average_processing_time);
            ListedType::of(message_type, endpoint.num_requests, endpoint.num_errors, average, latencies)
        });
        Listed {
            types: types.collect(),
            id: cut(self.id, MOST_NAME),
            server: cut(self.metadata.server, MOST_NAME),
            version: cut(self.version, MOST_NAME),
            started: cut(self.started, MOST_NAME),
            running: self.metadata.running.parse().unwrap_or(0),
            draining: !self.metadata.draining.is_empty(),
            nats: cut(self.metadata.nats, MOST_TEXT),
            links: self.metadata.links.parse().unwrap_or(1),
            answered_within: took,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_calls_itself_is_listed_as_far_as_a_name_goes() {
        let endpoint = serde_json::json!({
            "num_requests": 1, "num_errors": 0, "average_processing_time": 5,
            "data": { "message_type": "t".repeat(100_000), "latencies": vec![1; 10_000] },
        });
        let said = serde_json::json!({
            "id": "i".repeat(100_000), "version": "v".repeat(100_000), "started": "s".repeat(100_000),
            "metadata": { "prefix": "p", "server": "ü".repeat(100_000), "running": "1", "nats": "n".repeat(100_000) },
            "endpoints": vec![endpoint; 2 * MOST_OF_ONE],
        });
        let listed = serde_json::from_value::<Stats>(said).unwrap().listed(Duration::ZERO);
        let names = [&listed.id, &listed.server, &listed.version, &listed.started];
        assert!(names.iter().all(|name| name.len() == MOST_NAME), "{names:?}");
        assert_eq!((listed.nats.len(), listed.types.len()), (MOST_TEXT, MOST_OF_ONE));
        assert!(listed.types.iter().all(|row| row.name.len() == MOST_TEXT && row.latencies.len() == MOST_COUNTS));
    }
}
