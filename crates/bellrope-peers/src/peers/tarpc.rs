//! tarpc: a typed method, as bincode with its length in front, over a Unix socket.

use std::{cell::RefCell, path::Path};

use anyhow::Context;
use bytes::Bytes;
use futures_util::{StreamExt as _, future::try_join_all};
use tarpc::{
    client::Config,
    context::{self, Context as CallContext},
    serde_transport::unix,
    server::{BaseChannel, Channel as _},
    tokio_serde::formats::Bincode,
};
use tokio::runtime::Runtime;

use super::process;
use crate::{
    meter::{Answers, Caller, RoundTrips},
    plan::Task,
};

/// Bytes of a frame: those of the largest message and what is around it.
const MAX_FRAME: usize = 16 * 1024 * 1024;

#[tarpc::service]
trait Echo {
    async fn echo(data: Bytes) -> Bytes;
}

#[derive(Clone)]
struct Same;

impl Echo for Same {
    async fn echo(self, _: CallContext, data: Bytes) -> Bytes {
        data
    }
}

pub(super) fn serve(home: &Path) -> anyhow::Result<()> {
    process::end_with_parent();
    process::runtime()?.block_on(async {
        let path = home.join("tarpc.sock");
        let mut listener = unix::listen(&path, Bincode::default).await?;
        listener.config_mut().max_frame_length(MAX_FRAME);
        process::ready(path.display())?;
        while let Some(transport) = listener.next().await {
            let answers = BaseChannel::with_defaults(transport?).execute(Same.serve());
            tokio::spawn(answers.for_each(|answer| async {
                tokio::spawn(answer);
            }));
        }
        Ok(())
    })
}

pub(super) struct Client {
    runtime: Runtime,
    clients: Vec<EchoClient>,
}

impl Client {
    pub(super) fn connect(address: &str, task: &Task) -> anyhow::Result<Self> {
        let runtime = process::runtime()?;
        let most = task.depth.max(1);
        let connect = |_| runtime.block_on(connect(address, most));
        let clients = (0..task.connections).map(connect).collect::<anyhow::Result<_>>()?;
        Ok(Self { runtime, clients })
    }
}

async fn connect(address: &str, most: usize) -> anyhow::Result<EchoClient> {
    let mut connecting = unix::connect(address, Bincode::default);
    connecting.config_mut().max_frame_length(MAX_FRAME);
    let mut config = Config::default();
    config.max_in_flight_requests = config.max_in_flight_requests.max(most);
    Ok(EchoClient::new(config, connecting.await.context("connecting")?).spawn())
}

impl Caller for Client {
    fn round_trips(&mut self, meter: &mut RoundTrips) -> anyhow::Result<()> {
        let client = &self.clients[0];
        self.runtime.block_on(async {
            while let Some(payload) = meter.next() {
                let data = Bytes::copy_from_slice(payload);
                meter.answered(&client.echo(context::current(), data).await?)?;
            }
            Ok(())
        })
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
        let Some(data) = meter.borrow_mut().next().map(Bytes::copy_from_slice) else { return Ok(()) };
        let reply = client.echo(context::current(), data).await?;
        meter.borrow_mut().answered(&reply)?;
    }
}
