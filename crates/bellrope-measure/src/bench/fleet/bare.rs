//! NATS without Bellrope: what answers and sends chunks as plainly as its client can, and who asks it.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use async_nats::{Client, ConnectOptions, Message};
use bellrope_shm::clock;
use bellrope_terminal::Outcome;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::{runtime::Runtime, time::timeout};

use super::served::CHUNK;
use crate::bench::samples::Samples;

const ECHO: &str = "bare.echo";
const CHUNKS: &str = "bare.chunks";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("making a runtime")
}

/// Answers at this NATS server from a thread of its own, until the process ends. Says when it is ready.
pub(crate) fn answer(url: &str, ready: impl FnOnce()) -> Outcome {
    let (runtime, url) = (runtime()?, url.to_owned());
    let (client, echoes, streams) = runtime.block_on(async {
        let client = ConnectOptions::new().connect(&url).await.context("connecting to NATS")?;
        let (echoes, streams) = (client.subscribe(ECHO).await?, client.subscribe(CHUNKS).await?);
        client.flush().await?;
        anyhow::Ok((client, echoes, streams))
    })?;
    let (mut echoes, mut streams) = (echoes, streams);
    let answering = move || {
        runtime.block_on(async {
            loop {
                let answered = tokio::select! {
                    Some(message) = echoes.next() => echo(&client, message).await,
                    Some(message) = streams.next() => chunks(&client, message).await,
                    else => return,
                };
                if answered.is_err() {
                    return;
                }
            }
        });
    };
    std::thread::Builder::new().name("bellrope-bare".to_owned()).spawn(answering).context("starting a thread")?;
    ready();
    Ok(())
}

async fn echo(client: &Client, Message { reply, payload, .. }: Message) -> Outcome {
    Ok(client.publish(reply.context("a request without a subject for its answer")?, payload).await?)
}

async fn chunks(client: &Client, Message { reply, payload, .. }: Message) -> Outcome {
    let reply = reply.context("a request without a subject for its answer")?;
    let count: u64 = std::str::from_utf8(&payload)?.parse()?;
    let chunk = Bytes::from(vec![7; CHUNK]);
    for _ in 0..count {
        client.publish(reply.clone(), chunk.clone()).await?;
    }
    Ok(client.flush().await?)
}

/// Who asks it.
pub(super) struct Bare {
    runtime: Runtime,
    client: Client,
}

impl Bare {
    pub(super) fn connect(url: &str) -> anyhow::Result<Self> {
        let runtime = runtime()?;
        // Of a stream nothing is lost, however late it is read: it has no credit.
        let connecting = ConnectOptions::new().subscription_capacity(1 << 20).connect(url);
        let client = runtime.block_on(connecting).context("connecting to NATS")?;
        Ok(Self { runtime, client })
    }

    /// Round trips of a request, for so long.
    pub(super) fn requests(&self, payload: &[u8], time: Duration, samples: &mut Samples) -> Outcome {
        let (payload, until) = (Bytes::copy_from_slice(payload), Instant::now() + time);
        self.runtime.block_on(async {
            while Instant::now() < until {
                let began = clock::ticks();
                let answer = self.client.request(ECHO, payload.clone()).await?;
                samples.add(clock::ticks() - began);
                ensure!(answer.payload == payload, "the echo differs from what was sent");
            }
            Ok(())
        })
    }

    /// Chunks a second of a stream of so many.
    pub(super) fn chunks_per_s(&self, count: u64) -> anyhow::Result<f64> {
        self.runtime.block_on(async {
            let inbox = self.client.new_inbox();
            let mut chunks = self.client.subscribe(inbox.clone()).await?;
            self.client.publish_with_reply(CHUNKS, inbox, count.to_string().into()).await?;
            let mut first = None;
            for _ in 0..count {
                let Some(chunk) = timeout(PATIENCE, chunks.next()).await.context("chunks are missing")? else {
                    bail!("the connection to NATS was lost");
                };
                ensure!(chunk.payload.len() == CHUNK, "a chunk has {} bytes", chunk.payload.len());
                first.get_or_insert_with(Instant::now);
            }
            let time = first.map_or(Duration::ZERO, |first| first.elapsed());
            Ok((count - 1) as f64 / time.as_secs_f64())
        })
    }
}
