//! The settings that may change while the server runs. The macro `live!` is given the one list of them.
//!
//! All others are [fixed](super::config::FixedSettings): connections were told of them in their handshake, or something was
//! set up by them at the start. The settings of breakers live in the breakers.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use super::config::ServerConfig;
use crate::{rate::Rate, settings::millis};

/// Keeps every setting in a word of its own, times in milliseconds.
macro_rules! live {
    (counts: $($count:ident),+; times: $($time:ident),+;) => {
        /// The settings as threads of the server look them up. Each may change at any moment, and is right by itself.
        #[derive(Debug)]
        pub(crate) struct LiveSettings {
            $($count: AtomicU32,)+
            $($time: AtomicU32,)+
        }

        impl LiveSettings {
            pub(crate) fn new(config: &ServerConfig) -> Self {
                Self {
                    $($count: AtomicU32::new(config.$count),)+
                    $($time: AtomicU32::new(word(config.$time)),)+
                }
            }

            pub(crate) fn change(&self, config: &ServerConfig) {
                $(self.$count.store(config.$count, Relaxed);)+
                $(self.$time.store(word(config.$time), Relaxed);)+
            }
        }

        /// The settings of `config`, but those of `other` that may change while a server runs.
        pub(crate) fn changed_to(config: &ServerConfig, other: &ServerConfig) -> ServerConfig {
            ServerConfig {
                $($count: other.$count,)+
                $($time: other.$time,)+
                breaker: other.breaker.clone(),
                ..config.clone()
            }
        }
    };
}

live!(
    counts: max_connections,
        max_connections_per_uid,
        max_priority_connections,
        max_half_open,
        violation_allowance;
    times: handshake_timeout, budget_wait, budget_grace, stall_timeout, exit_when_idle, violation_pause;
);

/// A time that was checked, as it is kept.
fn word(time: Duration) -> u32 {
    u32::try_from(millis::of(time)).unwrap_or(u32::MAX)
}

impl LiveSettings {
    pub(crate) fn max_connections(&self) -> u32 {
        self.max_connections.load(Relaxed)
    }

    pub(crate) fn max_connections_per_uid(&self) -> u32 {
        self.max_connections_per_uid.load(Relaxed)
    }

    pub(crate) fn max_priority_connections(&self) -> u32 {
        self.max_priority_connections.load(Relaxed)
    }

    pub(crate) fn max_half_open(&self) -> u32 {
        self.max_half_open.load(Relaxed)
    }

    pub(crate) fn handshake_timeout(&self) -> Duration {
        milliseconds(&self.handshake_timeout)
    }

    pub(crate) fn budget_wait(&self) -> Duration {
        milliseconds(&self.budget_wait)
    }

    pub(crate) fn budget_grace(&self) -> Duration {
        milliseconds(&self.budget_grace)
    }

    pub(crate) fn stall_timeout(&self) -> Duration {
        milliseconds(&self.stall_timeout)
    }

    pub(crate) fn exit_when_idle(&self) -> Duration {
        milliseconds(&self.exit_when_idle)
    }

    /// How many breaks of the protocol are overlooked, and how soon each further one is forgiven.
    pub(crate) fn violations(&self) -> Rate {
        Rate { burst: self.violation_allowance.load(Relaxed), period: milliseconds(&self.violation_pause) }
    }
}

fn milliseconds(setting: &AtomicU32) -> Duration {
    Duration::from_millis(setting.load(Relaxed).into())
}

/// The names of the settings that are different in `other`.
pub(crate) fn differences(config: &ServerConfig, other: &ServerConfig) -> Vec<String> {
    // A plain struct of numbers is an object, always.
    let fields = |config: &ServerConfig| serde_json::to_value(config).unwrap_or_default();
    let (ours, theirs) = (fields(config), fields(other));
    let ours = ours.as_object().into_iter().flatten();
    ours.filter(|(key, value)| theirs.get(key) != Some(*value)).map(|(key, _)| key.clone()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{server::Server, server::error::BindError};

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
                "stream_transport" => false.into(),
                "worker_cpus" => bellrope_shm::process::usable_cpu_numbers()[0].to_string().into(),
                "breaker" => {
                    serde_json::to_value(crate::breaker::BreakerConfig { failure_threshold: 7, ..Default::default() })
                        .unwrap()
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
                "exit_when_idle_ms",
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
        assert_eq!(server.core.breakers[0].config(), crate::breaker::BreakerConfig::default());
    }
}
