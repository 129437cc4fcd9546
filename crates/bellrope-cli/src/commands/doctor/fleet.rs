//! Whether the fleet of the settings can be reached, and who is there.

use std::time::Duration;

use bellrope_fleet::{FleetError, FleetSettings, Listed, WhoAsks, instances};

use super::finding::Finding;

const CHECK: &str = "fleet";
/// How long answers of instances are collected.
const WAIT: Duration = Duration::from_millis(500);
/// An instance that takes longer to answer is so far away that its calls may not begin in time.
const FAR: Duration = Duration::from_millis(300);

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
    if let Some(far) = listed.iter().max_by_key(|one| one.answered_within).filter(|far| far.answered_within > FAR) {
        let found = format!(
            "instance {} answers after {} ms: the way there and back is long, or busy",
            far.id,
            far.answered_within.as_millis()
        );
        return Finding::warn(
            CHECK,
            found,
            "over 350 ms its calls may end as NotExecuted: bring NATS nearer; see docs/fleet.md",
        );
    }
    let running: u64 = listed.iter().map(|one| one.running).sum();
    let draining = match listed.iter().filter(|one| one.draining).count() {
        0 => String::new(),
        draining => format!(", of which {draining} drain"),
    };
    let asks = who_asks(settings);
    Finding::ok(CHECK, format!("NATS answers; instances: {many}{draining}, calls that run there: {running}{asks}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_that_is_too_far_away_for_calls_is_said_to_be() {
        let listed = |answered_us: u64| {
            let listed = serde_json::json!({
                "id": "00ff", "server": "", "version": "1", "started": "then", "running": 0, "draining": false,
                "nats": "", "links": 1, "answered_us": answered_us, "types": [],
            });
            serde_json::from_value::<Listed>(listed).unwrap()
        };
        let said = |answered_us| format!("{:?}", there(&FleetSettings::default(), &[listed(900), listed(answered_us)]));
        assert!(said(400_000).contains("00ff answers after 400 ms"), "{}", said(400_000));
        assert!(said(40_000).contains("instances: 2"), "{}", said(40_000));
    }
}
