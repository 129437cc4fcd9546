//! Bellrope with types: a method of a service whose argument and answer are bytes, as postcard. One call at a time on each
//! connection, by the blocking client; calls that are under way together are those of the async one.

use std::{cell::RefCell, path::Path};

use anyhow::Context;
use bellrope::{
    AsyncClient, Server,
    client::{ClientConfig, SpinPolicy},
    server::ServerConfig,
    service::Bytes,
};
use futures_util::future::try_join_all;
use tokio::runtime::Runtime;

use super::process;
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
    runtime: Runtime,
    clients: Vec<EchoClient>,
}

impl Client {
    pub(super) fn connect(address: &str, task: &Task, spin: SpinPolicy) -> anyhow::Result<Self> {
        let mut config = ClientConfig::new(address);
        config.spin = spin;
        let blocking = bellrope::Client::with(config.clone()).context("connecting")?.into();
        let runtime = process::runtime()?;
        let connect = |_| -> anyhow::Result<EchoClient> {
            Ok(runtime.block_on(AsyncClient::with(config.clone())).context("connecting")?.into())
        };
        let clients = (0..task.connections).map(connect).collect::<anyhow::Result<_>>()?;
        Ok(Self { blocking, runtime, clients })
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
        let meter = RefCell::new(meter);
        let callers = self.clients.iter().flat_map(|client| (0..depth).map(|_| busy(client, &meter)));
        self.runtime.block_on(try_join_all(callers))?;
        Ok(())
    }
}

/// One call after the other; as many of these run at once as calls are under way.
async fn busy(client: &EchoClient, meter: &RefCell<&mut Answers>) -> anyhow::Result<()> {
    loop {
        let Some(data) = meter.borrow_mut().next().map(<[u8]>::to_vec) else { return Ok(()) };
        let reply = client.echo(&data).await?;
        meter.borrow_mut().answered(&reply)?;
    }
}
