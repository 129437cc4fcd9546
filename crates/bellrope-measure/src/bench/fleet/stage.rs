//! The processes of the measurement.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
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
    /// The file with the key that instances trust.
    seed: tempfile::NamedTempFile,
}

/// Another importing server, which signs who asks.
pub(super) struct Signing {
    _importing: ServerProcess,
    pub(super) client: Client,
}

/// A key that signs nothing else.
const SEED: &str = "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y\n";

impl Stage {
    pub(super) fn set(instances: usize) -> anyhow::Result<Self> {
        let nats = NatsProcess::start()?;
        let mut seed = tempfile::NamedTempFile::new().context("making a temporary file")?;
        seed.write_all(SEED.as_bytes()).context("writing a temporary file")?;
        let settings =
            |name: &str| FleetSettings { servers: vec![nats.url()], name: name.to_owned(), ..Default::default() };
        let offering = |number: usize| {
            ServerProcess::start_in_fleet(FleetSettings {
                offer: vec!["bench.*".into()],
                signing_seed_file: Some(seed.path().to_owned()),
                ..settings(&format!("{number}"))
            })
        };
        let instances = (0..instances).map(offering).collect::<anyhow::Result<Vec<_>>>()?;
        let importing =
            ServerProcess::start_in_fleet(FleetSettings { import: vec!["bench.*".into()], ..settings("importing") })?;
        let client = Client::connect(importing.socket())?;
        let stage = Self { nats, instances, importing, client, seed };
        stage.wait_for_instances()?;
        Ok(stage)
    }

    /// An importing server that signs, of the same fleet.
    pub(super) fn signing(&self) -> anyhow::Result<Signing> {
        let importing = ServerProcess::start_in_fleet(FleetSettings {
            servers: vec![self.nats.url()],
            name: "signing".to_owned(),
            import: vec!["bench.*".into()],
            signing_seed_file: Some(self.seed.path().to_owned()),
            ..Default::default()
        })?;
        let client = Client::connect(importing.socket())?;
        self.wait_until_known(&importing, &client)?;
        Ok(Signing { _importing: importing, client })
    }

    /// Waits until the importing server knows all instances, and that its client can call them.
    pub(super) fn wait_for_instances(&self) -> Outcome {
        self.wait_until_known(&self.importing, &self.client)
    }

    fn wait_until_known(&self, importing: &ServerProcess, client: &Client) -> Outcome {
        let until = Instant::now() + PATIENCE;
        let all = format!("\nipc_fleet_instances {}\n", self.instances.len());
        while !(importing.metrics()?.contains(&all) && client.message_type(ECHO).is_ok()) {
            ensure!(Instant::now() < until, "the importing server did not get to know the instances");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}
