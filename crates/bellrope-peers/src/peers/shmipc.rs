//! shmipc: streams of bytes through shared memory, woken by eventfd (its version 4, which it recommends for small
//! messages). Calls that are under way at once are streams of one session, which is its way to multiplex; many
//! connections are many streams, too. The memory's slices are cut for the size that is measured.

use std::{cell::RefCell, os::unix::net::SocketAddr, path::Path};

use anyhow::Context;
use futures_util::future::try_join_all;
use shmipc::{
    Error, Listener,
    buffer::BufferReader,
    config::{Config, SizePercentPair},
    consts::MemMapType,
    session::{SessionManager, SessionManagerConfig},
    stream::Stream,
    transport::{DefaultUnixConnect, DefaultUnixListen},
};
use tokio::runtime::Runtime;

use super::process;
use crate::{
    meter::{Answers, Caller, RoundTrips},
    plan::Task,
};

/// Bytes of a slice beyond the payload, as in its own benchmark.
const SLICE_OVERHEAD: u32 = 256;

fn config(home: &Path, task: &Task) -> Config {
    let size = (task.size as u32 + SLICE_OVERHEAD).next_multiple_of(8);
    let mut config = Config::default().with_v4_eventfd();
    config.mem_map_type = MemMapType::MemMapTypeMemFd;
    config.buffer_slice_sizes = vec![SizePercentPair { size, percent: 100 }];
    // Room for what is under way in both directions, twice.
    config.share_memory_buffer_cap = (size * (task.depth * task.connections).max(1) as u32 * 4).max(32 << 20);
    config.share_memory_path_prefix = home.join("shmipc").display().to_string();
    config
}

pub(super) fn serve(home: &Path, task: &Task) -> anyhow::Result<()> {
    process::end_with_parent();
    process::runtime()?.block_on(async {
        let path = home.join("shmipc.sock");
        let address = SocketAddr::from_pathname(&path)?;
        let mut listener = Listener::new(DefaultUnixListen, address, config(home, task)).await?;
        process::ready(path.display())?;
        loop {
            let stream = listener.accept().await?;
            tokio::spawn(echo(stream, task.size));
        }
    })
}

async fn echo(mut reader: Stream, size: usize) -> anyhow::Result<()> {
    let mut writer = reader.clone(); // the same stream: what was read is lent out while it is written
    loop {
        let request = reader.read_exact_bytes(size).await?;
        writer.write_bytes(&request)?;
        drop(request);
        reader.recv_buf().release_previous_read();
        flush(&mut writer).await?;
    }
}

/// Hands over what was written, and waits while the queue is full.
async fn flush(stream: &mut Stream) -> anyhow::Result<()> {
    loop {
        match stream.flush(false).await {
            Err(Error::QueueFull) => tokio::task::yield_now().await,
            other => return Ok(other?),
        }
    }
}

pub(super) struct Client {
    runtime: Runtime,
    streams: Vec<Stream>,
    size: usize,
    _session: SessionManager<DefaultUnixConnect>,
}

impl Client {
    pub(super) fn connect(home: &Path, address: &str, task: &Task) -> anyhow::Result<Self> {
        let runtime = process::runtime()?;
        let config = SessionManagerConfig::new().with_config(config(home, task)).with_session_num(1);
        let address = SocketAddr::from_pathname(address)?;
        let session =
            runtime.block_on(SessionManager::new(config, DefaultUnixConnect, address)).context("connecting")?;
        let streams = (0..task.connections * task.depth.max(1)).map(|_| session.get_stream());
        let streams = streams.collect::<Result<_, _>>().context("opening streams")?;
        Ok(Self { runtime, streams, size: task.size, _session: session })
    }
}

impl Caller for Client {
    fn round_trips(&mut self, meter: &mut RoundTrips) -> anyhow::Result<()> {
        let stream = &mut self.streams[0];
        self.runtime.block_on(async {
            while let Some(payload) = meter.next() {
                stream.write_bytes(payload)?;
                flush(stream).await?;
                meter.answered(&stream.read_exact_bytes(self.size).await?)?;
                stream.release_read_and_reuse();
            }
            Ok(())
        })
    }

    fn keep_busy(&mut self, meter: &mut Answers, _: usize) -> anyhow::Result<()> {
        let (meter, size) = (RefCell::new(meter), self.size);
        let callers = self.streams.iter_mut().map(|stream| busy(stream, &meter, size));
        self.runtime.block_on(try_join_all(callers))?;
        Ok(())
    }
}

async fn busy(stream: &mut Stream, meter: &RefCell<&mut Answers>, size: usize) -> anyhow::Result<()> {
    loop {
        {
            let mut meter = meter.borrow_mut();
            let Some(payload) = meter.next() else { return Ok(()) };
            stream.write_bytes(payload)?;
        }
        flush(stream).await?;
        let reply = stream.read_exact_bytes(size).await?;
        meter.borrow_mut().answered(&reply)?;
        drop(reply);
        stream.release_read_and_reuse();
    }
}
