//! What an operator reads of a server, as JSON. The server writes it and programs read it by these declarations alone.
//!
//! Fields that are missing are zero or empty, and unknown ones are passed over: the server may be older or newer than
//! whoever reads.

use std::{borrow::Cow, fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{panel::Panel, times};
use crate::{
    breaker::{BreakerSnapshot, BreakerState, CallerSnapshot},
    settings::millis,
};

/// The health of a server: status, uptime, calls, connections, memory, limits, breakers and message types.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Health {
    /// One word: `healthy`, `starting`, `stopping`, `full`, `exhausted` or `wedged`.
    pub status: String,
    /// Why new connections should go elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long ago the server started. As JSON in whole seconds, as `uptime_seconds`.
    #[serde(rename = "uptime_seconds", with = "times::seconds")]
    pub uptime: Duration,
    /// When the server ends because nobody uses it, if nobody comes (`exit_when_idle_ms`): in whole seconds from now, as
    /// `ends_in_seconds`.
    #[serde(rename = "ends_in_seconds", with = "times::optional_seconds", skip_serializing_if = "Option::is_none")]
    pub ends_in: Option<Duration>,
    /// Calls that have ended.
    pub total_requests: u64,
    /// Connections that are open.
    pub active_connections: u64,
    /// How many of those use which transport.
    pub transports: Transports,
    /// Connections that may be open.
    pub max_connections: u64,
    /// Requests that the workers found waiting in their last round over their connections.
    pub queued_requests: u64,
    /// Connections whose clients do not read what waits for them.
    pub unread_connections: u64,
    /// Connections that were closed because their clients left something unread or half done.
    pub stalled_connections: u64,
    /// The version of `bellrope` in the server.
    pub version: String,
    /// The memory of its process.
    pub memory: MemoryUse,
    /// What connections hold outside their rings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffers: Option<Buffers>,
    /// The settings. A reader gets `None` for a server of a version that has others.
    #[cfg(feature = "server")]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "if_known")]
    pub limits: Option<crate::server::ServerConfig>,
    /// How often the settings were read again.
    pub config_reloads: Reloads,
    /// The circuit breakers.
    pub breakers: Vec<BreakerRow>,
    /// The message types.
    pub types: Vec<TypeRow>,
}

/// A server at one moment: its [`Health`], and the numbers from which rates and quantiles are computed.
///
/// ```
/// use bellrope::status::Status;
///
/// # fn main() -> Result<(), serde_json::Error> {
/// let status: Status = serde_json::from_str(r#"{ "health": { "status": "full" } }"#)?;
/// assert_eq!((status.health.status.as_str(), status.health.total_requests), ("full", 0));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Status {
    /// How long after the start of the server this was. As JSON in whole milliseconds, as `at_ms`.
    #[serde(rename = "at_ms", with = "times::millis")]
    pub at: Duration,
    /// Upper bounds of the buckets; one more bucket is beyond them all. As JSON in microseconds, as `bounds_us`.
    #[serde(rename = "bounds_us", with = "times::micros")]
    pub bounds: Vec<Duration>,
    /// One row a message type, in the order of `types`: calls a bucket.
    pub buckets: Vec<Vec<u64>>,
    /// What went wrong, by kind.
    pub errors: Counts,
    /// The health.
    pub health: Health,
    /// What things around the server show.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub panels: Vec<Panel>,
}

/// Open connections by their transport.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Transports {
    /// Over shared memory.
    pub shm: u64,
    /// Over the socket alone.
    pub stream: u64,
}

/// What connections hold outside their rings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Buffers {
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes that may be.
    pub limit_bytes: u64,
    /// Connections whose next request waits for room.
    pub waiting: u64,
}

/// One circuit breaker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BreakerRow {
    /// The message type, or whatever else it is for.
    pub name: String,
    /// What it does with calls.
    pub state: BreakerState,
    /// Whether it was put into this state by hand and stays there.
    pub forced: bool,
    /// Times it has opened.
    pub opened: u64,
    /// Calls it did not admit.
    pub rejections: u64,
    /// Those of them that were refused to one caller, while others were admitted.
    pub caller_rejections: u64,
    /// For whom alone it is not closed. A bounded list.
    pub callers: Vec<CallerRow>,
}

/// A caller that is refused while others are admitted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CallerRow {
    /// As in `process 42`.
    pub caller: String,
    /// Open or half-open.
    pub state: BreakerState,
    /// How long its calls are still refused. In JSON `retry_after_ms`.
    #[serde(rename = "retry_after_ms", with = "millis")]
    pub retry_after: Duration,
}

/// One message type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TypeRow {
    /// Its name; `unknown` for all that no handler has.
    pub name: String,
    /// Calls that have ended.
    pub total: u64,
    /// Whether its handler runs on the worker.
    pub runs_on_worker: bool,
    /// Calls and streams that an async handler is working on.
    pub running: u64,
    /// Calls by outcome.
    pub outcomes: Counts,
}

/// How often the settings of a server were read again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reloads {
    /// Times that they were read and applied.
    pub ok: u64,
    /// Times that something was wrong with them, and all stayed as it was.
    pub failed: u64,
    /// When that was last, in seconds since 1970; `None` for never.
    pub last_at: Option<u64>,
    /// Whether it went well then.
    pub last_ok: Option<bool>,
}

/// Resident memory of a process, from `/proc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryUse {
    /// All of it (VmRSS), in KiB.
    pub rss_kb: u64,
    /// The part that is anonymous memory: heap and stacks.
    pub anon_kb: u64,
    /// The part that is pages of files: mostly the program itself.
    pub file_kb: u64,
    /// The part that is shared memory: the rings.
    pub shmem_kb: u64,
}

impl MemoryUse {
    /// Memory of the process with this id.
    ///
    /// ```
    /// use bellrope::status::MemoryUse;
    ///
    /// assert!(MemoryUse::of(std::process::id()).unwrap().rss_kb > 0);
    /// ```
    ///
    /// # Errors
    /// If there is no such process, or `/proc` is not mounted.
    pub fn of(pid: u32) -> std::io::Result<Self> {
        let status = bellrope_shm::proc::ProcessStatus::of(pid)?;
        let field = |name: &str| status.kib(name).unwrap_or(0);
        Ok(Self {
            rss_kb: field("VmRSS"),
            anon_kb: field("RssAnon"),
            file_kb: field("RssFile"),
            shmem_kb: field("RssShmem"),
        })
    }
}

impl From<(String, BreakerSnapshot)> for BreakerRow {
    fn from((name, breaker): (String, BreakerSnapshot)) -> Self {
        let opened = breaker.transitions.iter().filter(|(_, to, _)| *to == BreakerState::Open);
        Self {
            name,
            state: breaker.state,
            forced: breaker.forced,
            opened: opened.map(|(.., count)| count).sum(),
            rejections: breaker.rejections,
            caller_rejections: breaker.caller_rejections,
            callers: breaker.callers.into_iter().map(CallerRow::from).collect(),
        }
    }
}

impl From<CallerSnapshot> for CallerRow {
    fn from(CallerSnapshot { caller, state, retry_after }: CallerSnapshot) -> Self {
        Self { caller: caller.to_string(), state, retry_after }
    }
}

/// Counts by name, in the server's order. In JSON a map.
///
/// ```
/// use bellrope::status::Counts;
///
/// let counts: Counts = [("ok", 3), ("cancelled", 1)].into_iter().collect();
/// assert_eq!((counts.of("ok"), counts.of("other"), counts.total()), (3, 0, 4));
/// assert_eq!(counts.iter().next(), Some(("ok", 3)));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts(Vec<(Cow<'static, str>, u64)>);

impl Counts {
    /// The count of this name, 0 if there is none.
    #[must_use]
    pub fn of(&self, name: &str) -> u64 {
        self.iter().find(|(known, _)| *known == name).map_or(0, |(_, count)| count)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, count)| (&**name, *count))
    }

    /// Their sum.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.iter().fold(0, |sum, (_, count)| sum.saturating_add(count))
    }
}

impl<N: Into<Cow<'static, str>>> FromIterator<(N, u64)> for Counts {
    fn from_iter<I: IntoIterator<Item = (N, u64)>>(counts: I) -> Self {
        Self(counts.into_iter().map(|(name, count)| (name.into(), count)).collect())
    }
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Counts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> de::Visitor<'de> for Reader {
            type Value = Counts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of counts")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Counts, A::Error> {
                let mut counts = Vec::new();
                while let Some((name, count)) = map.next_entry::<String, u64>()? {
                    counts.push((name.into(), count));
                }
                Ok(Counts(counts))
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

/// Settings of a version that has the same ones as this; nothing otherwise.
#[cfg(feature = "server")]
fn if_known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<crate::server::ServerConfig>, D::Error> {
    serde_json::Value::deserialize(deserializer).map(|value| serde_json::from_value(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_leaves_out_is_nothing_and_what_it_adds_is_passed_over() {
        let status: Status =
            serde_json::from_str(r#"{ "at_ms": 1, "moods": [], "health": { "types": [{ "name": "x" }], "tea": 1 } }"#)
                .unwrap();
        assert_eq!((status.at, status.health.types[0].name.as_str()), (Duration::from_millis(1), "x"));
        assert_eq!(status.health.types[0].outcomes.of("ok"), 0);
    }

    #[test]
    fn counts_keep_the_order_of_the_server() {
        let text = r#"{"ok":3,"cancelled":0,"a":2}"#;
        let counts: Counts = serde_json::from_str(text).unwrap();
        assert_eq!((counts.of("a"), counts.of("b"), counts.total()), (2, 0, 5));
        assert_eq!(serde_json::to_string(&counts).unwrap(), text);
    }

    #[cfg(feature = "server")]
    #[test]
    fn settings_of_another_version_do_not_hide_the_rest() {
        let known: Health = serde_json::from_str(r#"{ "limits": { "max_connections": 7 } }"#).unwrap();
        assert_eq!(known.limits.map(|limits| limits.max_connections), Some(7));
        let other: Health = serde_json::from_str(r#"{ "status": "full", "limits": { "moods": 7 } }"#).unwrap();
        assert_eq!((other.status.as_str(), other.limits), ("full", None));
    }
}
