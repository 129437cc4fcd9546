//! The processes of the measurement.

use std::time::{Duration, Instant};

use anyhow::ensure;
use bellrope::Client;
use bellrope_fleet::FleetSettings;
use bellrope_terminal::Outcome;

use super::served::ECHO;
use crate::{nats_process::NatsProcess, server_process::ServerProcess};

/// How long anything may take that takes no time.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// The parties, each a process.
pub(super) struct Stage {
    pub(super) nats: NatsProcess,
    pub(super) instances: Vec<ServerProcess>,
    pub(super) importing: ServerProcess,
    pub(super) client: Client,
}

impl Stage {
    pub(super) fn set(instances: usize) -> anyhow::Result<Self> {
        let nats = NatsProcess::start()?;
        let settings =
            |name: &str| FleetSettings { servers: vec![nats.url()], name: name.to_owned(), ..Default::default() };
        let offering = |number: usize| {
            ServerProcess::start_in_fleet(FleetSettings {
                offer: vec!["bench.*".into()],
                ..settings(&format!("{number}"))
            })
        };
        let instances = (0..instances).map(offering).collect::<anyhow::Result<Vec<_>>>()?;
        let importing =
            ServerProcess::start_in_fleet(FleetSettings { import: vec!["bench.*".into()], ..settings("importing") })?;
        let client = Client::connect(importing.socket())?;
        let stage = Self { nats, instances, importing, client };
        stage.wait_for_instances()?;
        Ok(stage)
    }

    /// Waits until the importing server knows all instances, and that its client can call them.
    pub(super) fn wait_for_instances(&self) -> Outcome {
        let until = Instant::now() + PATIENCE;
        let all = format!("\nipc_fleet_instances {}\n", self.instances.len());
        while !(self.importing.metrics()?.contains(&all) && self.client.message_type(ECHO).is_ok()) {
            ensure!(Instant::now() < until, "the importing server did not get to know the instances");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}
