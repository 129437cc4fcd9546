//! tarpc: a typed method, as bincode with its length in front, over a Unix socket.

use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tarpc::{
    client::Config,
    context::{self, Context as CallContext},
    serde_transport::unix,
    server::{BaseChannel, Channel as _},
    tokio_serde::formats::Bincode,
};

use super::{clients::Clients, process};
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

pub(super) struct Client(Clients<EchoClient>);

impl Client {
    pub(super) fn connect(address: &str, task: &Task) -> anyhow::Result<Self> {
        Clients::connect(task, async || connect(address, task.depth.max(1)).await).map(Self)
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
        let Clients { runtime, clients } = &self.0;
        runtime.block_on(async {
            while let Some(payload) = meter.next() {
                let data = Bytes::copy_from_slice(payload);
                meter.answered(&clients[0].echo(context::current(), data).await?)?;
            }
            Ok(())
        })
    }

    fn keep_busy(&mut self, meter: &mut Answers, depth: usize) -> anyhow::Result<()> {
        self.0.keep_busy(meter, depth, &async |client, data| Ok(client.echo(context::current(), data).await?))
    }
}
