//! The settings that may change while the server runs, and the change itself.
//!
//! All others are part of what connections were told in their handshake, or of what was set up at the start.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{Server, ServerConfig, pacing::Pace};
use crate::{BindError, Breaker, BreakerSetting};

/// Settings that threads of the server look up when they need them. The places for connections are with the
/// [seats](super::seats), those of the breakers with the breakers.
#[derive(Debug)]
pub(super) struct Limits {
    max_half_open: AtomicU32,
    handshake_timeout_ms: AtomicU32,
    budget_wait_ms: AtomicU32,
    budget_grace_ms: AtomicU32,
    stall_timeout_ms: AtomicU32,
    violation_allowance: AtomicU32,
    violation_pause_ms: AtomicU32,
}

impl Limits {
    pub(super) fn new(config: &ServerConfig) -> Self {
        Self {
            max_half_open: config.max_half_open.into(),
            handshake_timeout_ms: config.handshake_timeout_ms.into(),
            budget_wait_ms: config.budget_wait_ms.into(),
            budget_grace_ms: config.budget_grace_ms.into(),
            stall_timeout_ms: config.stall_timeout_ms.into(),
            violation_allowance: config.violation_allowance.into(),
            violation_pause_ms: config.violation_pause_ms.into(),
        }
    }

    pub(super) fn max_half_open(&self) -> u32 {
        self.max_half_open.load(Relaxed)
    }

    pub(super) fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.handshake_timeout_ms.load(Relaxed).into())
    }

    pub(super) fn budget_wait(&self) -> Duration {
        Duration::from_millis(self.budget_wait_ms.load(Relaxed).into())
    }

    pub(super) fn budget_grace(&self) -> Duration {
        Duration::from_millis(self.budget_grace_ms.load(Relaxed).into())
    }

    pub(super) fn stall_timeout(&self) -> Duration {
        Duration::from_millis(self.stall_timeout_ms.load(Relaxed).into())
    }

    pub(super) fn pace(&self) -> Pace {
        Pace {
            allowance: self.violation_allowance.load(Relaxed),
            pause: Duration::from_millis(self.violation_pause_ms.load(Relaxed).into()),
        }
    }

    /// Each is right by itself, so they may change one after another.
    fn change(&self, config: &ServerConfig) {
        self.max_half_open.store(config.max_half_open, Relaxed);
        self.handshake_timeout_ms.store(config.handshake_timeout_ms, Relaxed);
        self.budget_wait_ms.store(config.budget_wait_ms, Relaxed);
        self.budget_grace_ms.store(config.budget_grace_ms, Relaxed);
        self.stall_timeout_ms.store(config.stall_timeout_ms, Relaxed);
        self.violation_allowance.store(config.violation_allowance, Relaxed);
        self.violation_pause_ms.store(config.violation_pause_ms, Relaxed);
    }
}

impl ServerConfig {
    /// Makes a breaker for each of so many message types.
    pub(super) fn breakers(&self, types: usize) -> Result<Vec<Arc<Breaker>>, BindError> {
        self.breaker.check().map_err(setting)?;
        (0..types).map(|_| Breaker::new(self.breaker.clone()).map(Arc::new)).collect::<Result<_, _>>().map_err(setting)
    }

    /// These settings with those of `other` that may change while a server runs.
    fn changed_to(&self, other: &Self) -> Self {
        Self {
            max_connections: other.max_connections,
            max_connections_per_uid: other.max_connections_per_uid,
            max_priority_connections: other.max_priority_connections,
            max_half_open: other.max_half_open,
            handshake_timeout_ms: other.handshake_timeout_ms,
            budget_wait_ms: other.budget_wait_ms,
            budget_grace_ms: other.budget_grace_ms,
            stall_timeout_ms: other.stall_timeout_ms,
            violation_allowance: other.violation_allowance,
            violation_pause_ms: other.violation_pause_ms,
            breaker: other.breaker.clone(),
            ..self.clone()
        }
    }

    /// The names of the settings that are different in `other`.
    fn differences(&self, other: &Self) -> Vec<String> {
        // A plain struct of numbers is an object, always.
        let fields = |config: &Self| serde_json::to_value(config).unwrap_or_default();
        let (ours, theirs) = (fields(self), fields(other));
        let ours = ours.as_object().into_iter().flatten();
        ours.filter(|(key, value)| theirs.get(key) != Some(*value)).map(|(key, _)| key.clone()).collect()
    }
}

impl Server {
    /// Changes the settings of the running server, and names those that hold from its next start on.
    ///
    /// What changes at once: `breaker`, of every message type; `max_connections`, `max_connections_per_uid` and
    /// `max_priority_connections`, by which nobody is closed who is connected; `max_half_open` and
    /// `handshake_timeout_ms`, for handshakes that begin from now on; `violation_allowance` and `violation_pause_ms`, with
    /// which 0 forgives all; `budget_wait_ms`, `budget_grace_ms` and `stall_timeout_ms`. Everything else stays as it is.
    ///
    /// # Errors
    /// [`BindError::Setting`] of the first one that is out of its range; then nothing has changed.
    pub fn reload(&self, config: &ServerConfig) -> Result<Vec<String>, BindError> {
        config.check()?;
        let shared = &self.shared;
        shared.metrics.settings.change(|settings| {
            let Some(now) = settings else { return Ok(Vec::new()) };
            let next = now.changed_to(config);
            for breaker in &shared.breakers {
                breaker.reconfigure(&next.breaker).map_err(setting)?;
            }
            shared.seats.change(&next);
            shared.limits.change(&next);
            shared.metrics.max_connections.store(next.max_connections.into(), Relaxed);
            let waiting = next.differences(config);
            *settings = Some(next);
            Ok(waiting)
        })
    }
}

fn setting(BreakerSetting { key, value, expected }: BreakerSetting) -> BindError {
    BindError::Setting { key, value: value.into(), expected }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_setting_either_changes_or_is_named_as_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::builder().unary("echo", |_, _| Ok(())).bind(directory.path().join("own/bell")).unwrap();
        let of = |config: &ServerConfig| match serde_json::to_value(config).unwrap() {
            Value::Object(fields) => fields,
            other => panic!("{other}"),
        };
        let mut applied = Vec::new();
        for (key, value) in of(&ServerConfig::default()) {
            let other: Value = match key.as_str() {
                "spin" => "never".into(),
                "ring_bytes" => 4_096.into(),
                "breaker" => {
                    serde_json::to_value(crate::BreakerConfig { failure_threshold: 7, ..Default::default() }).unwrap()
                }
                _ => (value.as_u64().unwrap() + 1).into(),
            };
            let mut fields = of(&ServerConfig::default());
            fields.insert(key.clone(), other.clone());
            let config: ServerConfig = serde_json::from_value(fields.into()).unwrap();
            let waiting = server.reload(&config).unwrap();
            let now = of(&server.metrics().settings.now().unwrap());
            if waiting.is_empty() {
                assert_eq!(now[&key], other, "{key}");
                applied.push(key);
            } else {
                assert_eq!((waiting, &now[&key]), (vec![key], &value));
            }
        }
        applied.sort_unstable();
        assert_eq!(
            applied,
            [
                "breaker",
                "budget_grace_ms",
                "budget_wait_ms",
                "handshake_timeout_ms",
                "max_connections",
                "max_connections_per_uid",
                "max_half_open",
                "max_priority_connections",
                "stall_timeout_ms",
                "violation_allowance",
                "violation_pause_ms",
            ]
        );
    }

    #[test]
    fn settings_that_cannot_be_change_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::builder().unary("echo", |_, _| Ok(())).bind(directory.path().join("own/bell")).unwrap();
        let before = server.metrics().settings.now();
        let mut faulty = ServerConfig { max_connections: 5, ..ServerConfig::default() };
        faulty.breaker.failure_threshold = 0;
        assert!(matches!(server.reload(&faulty), Err(BindError::Setting { key: "failure_threshold", .. })));
        assert_eq!(server.metrics().settings.now(), before);
        assert_eq!(server.shared.breakers[0].config(), crate::BreakerConfig::default());
    }
}
