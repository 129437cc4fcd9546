//! tonic: a unary method over HTTP/2 on a Unix socket, with windows that hold all calls under way.

use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint, Server, Uri},
};

use super::{clients::Clients, process};
use crate::{
    meter::{Answers, Caller, RoundTrips},
    plan::Task,
};

mod stubs {
    #![expect(
        unused_qualifications,
        unreachable_pub,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        reason = "written by tonic-build"
    )]
    tonic::include_proto!("bench.Echo");
}

use stubs::{echo_client::EchoClient, echo_server};

const MAX_MESSAGE: usize = 16 * 1024 * 1024;
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 128 * 1024 * 1024;

/// The one message, in both directions.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Body {
    #[prost(bytes = "bytes", tag = "1")]
    data: Bytes,
}

struct Echo;

#[tonic::async_trait]
impl echo_server::Echo for Echo {
    async fn call(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        Ok(Response::new(request.into_inner()))
    }
}

pub(super) fn serve(home: &Path) -> anyhow::Result<()> {
    process::end_with_parent();
    process::runtime()?.block_on(async {
        let path = home.join("grpc.sock");
        let listener = UnixListener::bind(&path)?;
        process::ready(path.display())?;
        let echo = echo_server::EchoServer::new(Echo)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        Server::builder()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .add_service(echo)
            .serve_with_incoming(UnixListenerStream::new(listener))
            .await?;
        Ok(())
    })
}

pub(super) struct Client(Clients<EchoClient<Channel>>);

impl Client {
    pub(super) fn connect(address: &str, task: &Task) -> anyhow::Result<Self> {
        Clients::connect(task, async || connect(address).await).map(Self)
    }
}

async fn connect(address: &str) -> anyhow::Result<EchoClient<Channel>> {
    let path = address.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // The address is never looked at: the connector knows where to go.
    let channel = Endpoint::from_static("http://[::]:0")
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .connect_with_connector(connector)
        .await
        .context("connecting")?;
    Ok(EchoClient::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
}

impl Caller for Client {
    fn round_trips(&mut self, meter: &mut RoundTrips) -> anyhow::Result<()> {
        let Clients { runtime, clients } = &mut self.0;
        runtime.block_on(async {
            while let Some(payload) = meter.next() {
                let body = Body { data: Bytes::copy_from_slice(payload) };
                meter.answered(&clients[0].call(body).await?.into_inner().data)?;
            }
            Ok(())
        })
    }

    fn keep_busy(&mut self, meter: &mut Answers, depth: usize) -> anyhow::Result<()> {
        self.0.keep_busy(meter, depth, &async |client, data| Ok(client.call(Body { data }).await?.into_inner().data))
    }
}
