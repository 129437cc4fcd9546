//! Whether the fleet of the settings can be reached, and who is there.

use std::time::Duration;

use bellrope_fleet::{FleetError, FleetSettings, Listed, WhoAsks, instances};

use super::finding::Finding;

const CHECK: &str = "fleet";
/// How long answers of instances are collected.
const WAIT: Duration = Duration::from_millis(500);

/// Nothing, where no fleet is to be joined.
pub(super) fn reached(settings: &FleetSettings) -> Option<Finding> {
    settings.is_wanted().then(|| match instances(settings, WAIT) {
        Ok(listed) => there(settings, &listed),
        Err(error) => {
            let fix = match &error {
                FleetError::NoServer { .. } => "start a NATS server there, or name another one in fleet.servers",
                FleetError::Credentials { .. } => {
                    "give what it asks for: fleet.credentials, nkey_seed_file, user or token_file"
                }
                FleetError::Denied { .. } => {
                    "let this user publish and subscribe to PREFIX.> and $SRV.>; see docs/fleet.md"
                }
                FleetError::TooOld { .. } | FleetError::SmallPayload { .. } => "upgrade or configure that NATS server",
                _ => "correct what is named; see docs/fleet.md",
            };
            Finding::fail(CHECK, error.to_string(), fix)
        }
    })
}

fn there(settings: &FleetSettings, listed: &[Listed]) -> Finding {
    let many = listed.len();
    if many == 0 && !settings.import.is_empty() {
        let found = format!("NATS answers, and no instance of the prefix {:?}", settings.prefix);
        return Finding::warn(CHECK, found, "start a server with --offer there, or correct fleet.prefix");
    }
    let running: u64 = listed.iter().map(|one| one.running).sum();
    let asks = who_asks(settings);
    Finding::ok(CHECK, format!("NATS answers; instances: {many}, calls that run there: {running}{asks}"))
}

/// Whether it is believed who asks.
fn who_asks(settings: &FleetSettings) -> String {
    // What cannot be read kept it from connecting.
    let Ok(asks) = WhoAsks::of(settings) else { return String::new() };
    let mut words = String::new();
    if !settings.import.is_empty() {
        words.push_str(&match &asks.signs_as {
            Some(key) => format!("; who asks here is signed by {key}"),
            None => "; who asks here is not signed (fleet.signing_seed_file), and not believed there".to_owned(),
        });
    }
    if !settings.offer.is_empty() {
        words.push_str(&match asks.trusted {
            0 => "; no key is trusted (fleet.trust), so all that others ask here counts as one caller's".to_owned(),
            many => format!("; keys that are trusted: {many}"),
        });
    }
    words
}
