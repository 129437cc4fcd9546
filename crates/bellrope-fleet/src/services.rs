//! Instances as services of NATS: who asks `$SRV.PING`, `$SRV.INFO` or `$SRV.STATS` sees them.

use std::{
    collections::BTreeMap,
    sync::{
        Once,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bellrope::date::rfc_3339;
use serde::{Deserialize, Serialize};

use crate::{latencies::Latencies, message_type::FleetType, names};

/// The name of the service that every instance is one of.
pub(crate) const SERVICE: &str = "bellrope";
/// The key under which an instance says that it listens to a subject of its own.
const AT_ITS_OWN: &str = "at_its_own";
/// The key under which an instance says that it takes no further calls.
const DRAINING: &str = "draining";
/// The key under which it says that it hands out the schemas of what it offers.
const SCHEMAS: &str = "schemas";
/// The key under which it says the number that it keeps.
const MEMBER: &str = "member";
/// Most endpoints that are read out of what somebody says of itself.
const MOST_ENDPOINTS: usize = 4096;

/// What an instance says of itself, as the services interface has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Info {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) version: String,
    #[serde(default)]
    pub(crate) description: String,
    #[serde(default)]
    pub(crate) metadata: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) endpoints: Vec<Endpoint>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) name: String,
    pub(crate) subject: String,
    #[serde(default)]
    pub(crate) queue_group: String,
    #[serde(default)]
    pub(crate) metadata: BTreeMap<String, String>,
}

const STYLES: [&str; 4] = ["unary", "server_stream", "client_stream", "duplex"];

impl Info {
    /// Reads what somebody says of itself, if it is an instance of this fleet.
    pub(crate) fn read(payload: &[u8], prefix: &str) -> Option<Self> {
        let info: Self = serde_json::from_slice(payload).ok()?;
        let ours = info.name == SERVICE && info.metadata.get("prefix").is_some_and(|theirs| theirs == prefix);
        ours.then_some(info)
    }

    /// Its number, if it takes calls that are sent to it alone and says what it has to do. One that drains takes none.
    pub(crate) fn chosen_as(&self) -> Option<u64> {
        let said = |key| self.metadata.contains_key(key);
        (said(AT_ITS_OWN) && !said(DRAINING)).then(|| u64::from_str_radix(&self.id, 16).ok()).flatten()
    }

    /// Whether it hands out the schemas of what it offers. Older versions do not.
    pub(crate) fn hands_out_schemas(&self) -> bool {
        self.metadata.contains_key(SCHEMAS)
    }

    /// The name of its server, or nothing.
    pub(crate) fn server(&self) -> &str {
        self.metadata.get("server").map_or("", String::as_str)
    }

    /// The number that it keeps when it has another link. Older versions have none.
    pub(crate) fn member(&self) -> Option<u64> {
        u64::from_str_radix(self.metadata.get(MEMBER)?, 16).ok()
    }

    /// The message types that it offers.
    pub(crate) fn types(&self) -> impl Iterator<Item = FleetType> + '_ {
        self.endpoints.iter().take(MOST_ENDPOINTS).filter_map(|endpoint| {
            let said = |key: &str| endpoint.metadata.get(key).map(String::as_str);
            let style = STYLES.iter().position(|style| Some(*style) == said("style"))?;
            Some(FleetType {
                name: said("message_type")?.to_owned(),
                style: style as u8,
                codec: said("codec").and_then(|codec| codec.parse().ok()).unwrap_or(0),
                schema: said("schema").and_then(|hash| u64::from_str_radix(hash, 16).ok()).unwrap_or(0),
            })
        })
    }
}

/// A type that is offered here, and what was counted of it.
#[derive(Debug)]
pub(crate) struct Offered {
    pub(crate) imported: FleetType,
    pub(crate) subject: String,
    pub(crate) requests: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) took_ns: AtomicU64,
    pub(crate) latencies: Latencies,
}

impl Offered {
    pub(crate) fn new(imported: FleetType, subject: String) -> Self {
        let [requests, errors, took_ns] = [(); 3].map(|()| AtomicU64::new(0));
        Self { imported, subject, requests, errors, took_ns, latencies: Latencies::default() }
    }

    /// A call has ended.
    pub(crate) fn ended(&self, took: Duration, failed: bool) {
        self.requests.fetch_add(1, Relaxed);
        self.errors.fetch_add(failed.into(), Relaxed);
        self.latencies.add(took);
        self.took_ns.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }
}

/// Who an instance is, and what it offers.
#[derive(Debug)]
pub(crate) struct Identity<'a> {
    pub(crate) id: u64,
    /// The number that it keeps when it has another link.
    pub(crate) member: u64,
    pub(crate) prefix: &'a str,
    pub(crate) server: &'a str,
    /// When it joined, as RFC 3339 writes it.
    pub(crate) started: &'a str,
    /// Calls from the fleet that run now.
    pub(crate) running: usize,
    /// Whether it takes no further ones.
    pub(crate) is_draining: bool,
    /// The name of its NATS server, and how many connections it has made so far.
    pub(crate) nats: &'a str,
    pub(crate) links: u64,
}

/// This moment, as RFC 3339 writes it, to the second.
pub(crate) fn now_in_words() -> String {
    rfc_3339(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

/// It is said once that more is offered than fits into a message: a program that may publish may ask as often as it likes.
static TOO_MANY: Once = Once::new();

impl Identity<'_> {
    fn base(&self, kind: &str) -> Info {
        let metadata = [("prefix", self.prefix.to_owned()), ("server", self.server.to_owned())];
        let running = [("running", self.running.to_string()), (AT_ITS_OWN, "1".to_owned()), (SCHEMAS, "1".to_owned())];
        let link = [("nats", self.nats.to_owned()), ("links", self.links.to_string())];
        let draining = self.is_draining.then(|| (DRAINING, "1".to_owned()));
        let member = [(MEMBER, format!("{:016x}", self.member))];
        Info {
            kind: format!("io.nats.micro.v1.{kind}"),
            name: SERVICE.to_owned(),
            id: format!("{:016x}", self.id),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            description: "message types of a Bellrope server".to_owned(),
            metadata: metadata
                .into_iter()
                .chain(running)
                .chain(link)
                .chain(draining)
                .chain(member)
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
            endpoints: Vec::new(),
        }
    }

    /// The answer to one of the three questions. Of more endpoints than fit into `most` bytes the last are left out.
    pub(crate) fn answer<'a>(
        &self,
        question: Question,
        group: &str,
        offered: impl Iterator<Item = &'a Offered>,
        most: usize,
    ) -> Vec<u8> {
        // Plain structs with text keys: writing them cannot fail.
        let json = |info: Info| serde_json::to_value(info).unwrap_or_default();
        let mut answer = match question {
            Question::Ping => json(self.base("ping_response")),
            Question::Info => json(self.base("info_response")),
            Question::Stats => json(self.base("stats_response")),
        };
        if question == Question::Ping {
            if let Some(answer) = answer.as_object_mut() {
                answer.remove("endpoints");
            }
            return answer.to_string().into_bytes();
        }
        if question == Question::Stats {
            answer["started"] = self.started.into();
        }
        let mut left = most.saturating_sub(answer.to_string().len());
        let mut endpoints = Vec::new();
        for offered in offered {
            let endpoint = match question {
                Question::Stats => statistics(offered, group),
                _ => serde_json::to_value(described(offered, group)).unwrap_or_default(),
            };
            let size = endpoint.to_string().len() + 1;
            if size > left {
                TOO_MANY.call_once(|| {
                    tracing::warn!(
                        target: "bellrope::fleet",
                        message_type = offered.imported.name,
                        "more is offered than one message of NATS can say ({most} bytes, its max_payload): nobody learns \
                         of some types"
                    );
                });
                break;
            }
            left -= size;
            endpoints.push(endpoint);
        }
        answer["endpoints"] = endpoints.into();
        answer.to_string().into_bytes()
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    Ping,
    Info,
    Stats,
}

impl Question {
    /// The subjects on which it is asked: of all services, of this one, of this instance.
    pub(crate) fn subjects(self, id: u64) -> [String; 3] {
        let verb = match self {
            Self::Ping => "PING",
            Self::Info => "INFO",
            Self::Stats => "STATS",
        };
        [format!("$SRV.{verb}"), format!("$SRV.{verb}.{SERVICE}"), format!("$SRV.{verb}.{SERVICE}.{id:016x}")]
    }
}

fn described(offered: &Offered, group: &str) -> Endpoint {
    let FleetType { name, style, codec, schema } = &offered.imported;
    let mut metadata = BTreeMap::from([
        ("message_type".to_owned(), name.clone()),
        ("style".to_owned(), STYLES[usize::from(*style).min(3)].to_owned()),
    ]);
    if *codec != 0 {
        metadata.insert("codec".to_owned(), codec.to_string());
        metadata.insert("schema".to_owned(), format!("{schema:016x}"));
    }
    Endpoint { name: names::endpoint(name), subject: offered.subject.clone(), queue_group: group.to_owned(), metadata }
}

fn statistics(offered: &Offered, group: &str) -> serde_json::Value {
    let [requests, errors, took] =
        [&offered.requests, &offered.errors, &offered.took_ns].map(|counter| counter.load(Relaxed));
    serde_json::json!({
        "name": names::endpoint(&offered.imported.name),
        "subject": offered.subject,
        "queue_group": group,
        "num_requests": requests,
        "num_errors": errors,
        "last_error": "",
        "processing_time": took,
        "average_processing_time": took / requests.max(1),
        "data": { "message_type": offered.imported.name, "latencies": offered.latencies.counts() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_instance_says_of_itself_is_read_by_others() {
        let imported = FleetType { name: "Files.read".into(), style: 3, codec: 2, schema: 77 };
        let offered = Offered::new(imported.clone(), "bellrope.call.Files.read".into());
        let mut identity = Identity {
            id: 5,
            member: 6,
            prefix: "p",
            server: "",
            started: "",
            running: 0,
            is_draining: false,
            nats: "",
            links: 1,
        };
        let answer = identity.answer(Question::Info, "bellrope", [&offered].into_iter(), 8192);
        let info = Info::read(&answer, "p").unwrap();
        assert_eq!(info.types().collect::<Vec<_>>(), [imported]);
        assert_eq!((info.chosen_as(), info.member()), (Some(5), Some(6)));
        assert!(Info::read(&answer, "q").is_none(), "another fleet");
        let short = identity.answer(Question::Info, "bellrope", [&offered].into_iter(), 340);
        assert_eq!(Info::read(&short, "p").unwrap().endpoints, []);
        identity.is_draining = true;
        let going = identity.answer(Question::Info, "bellrope", [&offered].into_iter(), 8192);
        assert_eq!(Info::read(&going, "p").unwrap().chosen_as(), None, "it takes no further calls");
    }
}
