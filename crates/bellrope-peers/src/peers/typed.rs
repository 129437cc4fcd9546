//! Bellrope with types: a method of a service whose argument and answer are bytes, as postcard. One call at a time on each
//! connection, by the blocking client; calls that are under way together are those of the async one.

use std::path::Path;

use anyhow::Context;
use bellrope::{
    AsyncClient, Server,
    client::{ClientConfig, SpinPolicy},
    server::ServerConfig,
    service::Bytes,
};

use super::{clients::Clients, process};
use crate::{
    meter::{Answers, Caller, RoundTrips},
    plan::Task,
};

#[bellrope::service(codec = "postcard", name = "peers.echo")]
trait Echo {
    fn echo(&self, data: &[u8]) -> Bytes<'static>;
}

struct Same;

#[bellrope::service]
impl Echo for Same {
    fn echo(&self, data: &[u8]) -> Bytes<'static> {
        Bytes::from(data.to_vec())
    }
}

pub(super) fn serve(home: &Path, spin: SpinPolicy) -> anyhow::Result<()> {
    let mut config = ServerConfig::default();
    config.spin = spin;
    let path = home.join("run").join("typed.sock");
    let server = Server::builder().config(config).service(Same).bind(&path)?;
    process::ready(path.display())?;
    process::wait_for_parent();
    server.shutdown();
    Ok(())
}

pub(super) struct Client {
    blocking: EchoBlockingClient,
    together: Clients<EchoClient>,
}

impl Client {
    pub(super) fn connect(address: &str, task: &Task, spin: SpinPolicy) -> anyhow::Result<Self> {
        let mut config = ClientConfig::new(address);
        config.spin = spin;
        let blocking = bellrope::Client::with(config.clone()).context("connecting")?.into();
        let together = Clients::connect(task, async || -> anyhow::Result<EchoClient> {
            Ok(AsyncClient::with(config.clone()).await.context("connecting")?.into())
        })?;
        Ok(Self { blocking, together })
    }
}

impl Caller for Client {
    fn round_trips(&mut self, meter: &mut RoundTrips) -> anyhow::Result<()> {
        while let Some(payload) = meter.next() {
            let reply = self.blocking.echo(payload)?;
            meter.answered(&reply)?;
        }
        Ok(())
    }

    fn keep_busy(&mut self, meter: &mut Answers, depth: usize) -> anyhow::Result<()> {
        self.together.keep_busy(meter, depth, &async |client, data| Ok(client.echo(&data).await?))
    }
}
