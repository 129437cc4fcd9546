//! Frames with their length in front, over a Unix socket and tokio. Both sides write all that is ready in one go.

use std::{
    cell::{Cell, RefCell},
    path::Path,
};

use anyhow::Context;
use futures_util::future::try_join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Runtime,
    sync::Notify,
};

use super::process;
use crate::{
    meter::{Answers, Caller, RoundTrips},
    plan::Task,
};

/// Bytes of a frame's length.
const HEAD: usize = 4;
/// Bytes that are gathered before they are written.
const BATCH: usize = 64 * 1024;

pub(super) fn serve(home: &Path) -> anyhow::Result<()> {
    process::end_with_parent();
    process::runtime()?.block_on(async {
        let path = home.join("frames.sock");
        let listener = UnixListener::bind(&path)?;
        process::ready(path.display())?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(echo(stream));
        }
    })
}

async fn echo(stream: UnixStream) -> anyhow::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut frames = Frames::new(reader);
    let mut out = Vec::with_capacity(BATCH);
    while frames.fill().await? {
        while let Some(payload) = frames.next() {
            frame(&mut out, payload);
            if out.len() >= BATCH {
                writer.write_all(&out).await?;
                out.clear();
            }
        }
        writer.write_all(&out).await?;
        out.clear();
    }
    Ok(())
}

pub(super) struct Client {
    runtime: Runtime,
    connections: Vec<(Frames, OwnedWriteHalf)>,
}

impl Client {
    pub(super) fn connect(address: &str, task: &Task) -> anyhow::Result<Self> {
        let runtime = process::runtime()?;
        let mut connections = Vec::new();
        for _ in 0..task.connections {
            let (reader, writer) = runtime.block_on(UnixStream::connect(address)).context("connecting")?.into_split();
            connections.push((Frames::new(reader), writer));
        }
        Ok(Self { runtime, connections })
    }
}

impl Caller for Client {
    fn round_trips(&mut self, meter: &mut RoundTrips) -> anyhow::Result<()> {
        let (frames, writer) = &mut self.connections[0];
        self.runtime.block_on(async {
            let mut out = Vec::new();
            while let Some(payload) = meter.next() {
                out.clear();
                frame(&mut out, payload);
                writer.write_all(&out).await?;
                loop {
                    anyhow::ensure!(frames.fill().await?, "the server hung up");
                    if let Some(reply) = frames.next() {
                        meter.answered(reply)?;
                        break;
                    }
                }
            }
            Ok(())
        })
    }

    fn keep_busy(&mut self, meter: &mut Answers, depth: usize) -> anyhow::Result<()> {
        let meter = RefCell::new(meter);
        let busy = self.connections.iter_mut().map(|(frames, writer)| busy(frames, writer, &meter, depth));
        self.runtime.block_on(try_join_all(busy))?;
        Ok(())
    }
}

/// Writes and reads one connection at once: each side may have to wait for the other.
async fn busy(
    frames: &mut Frames,
    writer: &mut OwnedWriteHalf,
    meter: &RefCell<&mut Answers>,
    depth: usize,
) -> anyhow::Result<()> {
    let (under_way, room, over) = (Cell::new(0_usize), Notify::new(), Notify::new());
    let write = async {
        let mut out = Vec::with_capacity(BATCH);
        loop {
            while under_way.get() < depth && out.len() < BATCH {
                let mut meter = meter.borrow_mut();
                let Some(payload) = meter.next() else { break };
                frame(&mut out, payload);
                under_way.set(under_way.get() + 1);
            }
            if !out.is_empty() {
                writer.write_all(&out).await?;
                out.clear();
            } else if meter.borrow().wants_more() {
                room.notified().await;
            } else {
                over.notify_one();
                return anyhow::Ok(());
            }
        }
    };
    let read = async {
        while meter.borrow().wants_more() || under_way.get() > 0 {
            tokio::select! {
                whole = frames.fill() => anyhow::ensure!(whole?, "the server hung up"),
                () = over.notified() => continue, // nothing more may come
            }
            while let Some(reply) = frames.next() {
                meter.borrow_mut().answered(reply)?;
                under_way.set(under_way.get() - 1);
            }
            room.notify_one();
        }
        anyhow::Ok(())
    };
    tokio::try_join!(write, read)?;
    Ok(())
}

fn frame(out: &mut Vec<u8>, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(payload);
}

/// Cuts what is read into frames.
struct Frames {
    reader: OwnedReadHalf,
    bytes: Vec<u8>,
    /// Where the next frame begins, and where what was read ends.
    at: usize,
    end: usize,
}

impl Frames {
    fn new(reader: OwnedReadHalf) -> Self {
        Self { reader, bytes: vec![0; 2 * BATCH], at: 0, end: 0 }
    }

    /// Reads once. `false`: the other side has ended.
    async fn fill(&mut self) -> std::io::Result<bool> {
        if self.at > 0 {
            self.bytes.copy_within(self.at..self.end, 0);
            (self.at, self.end) = (0, self.end - self.at);
        }
        if let Some(len) = self.len().filter(|len| HEAD + len > self.bytes.len()) {
            self.bytes.resize(HEAD + len, 0);
        }
        let count = self.reader.read(&mut self.bytes[self.end..]).await?;
        self.end += count;
        Ok(count > 0)
    }

    /// The next whole frame.
    fn next(&mut self) -> Option<&[u8]> {
        let start = self.at + HEAD;
        let end = start + self.len()?;
        if end > self.end {
            return None;
        }
        self.at = end;
        Some(&self.bytes[start..end])
    }

    /// Bytes of the frame that begins here, once its head was read.
    fn len(&self) -> Option<usize> {
        let head = self.bytes[self.at..self.end].first_chunk::<HEAD>()?;
        Some(u32::from_le_bytes(*head) as usize)
    }
}
