//! The barest client of the port: requests over a socket, whole answers, and how long they took.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Barrier,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use bellrope_shm::clock;

use super::super::samples::Samples;

/// Nothing takes longer unless something is broken.
const PATIENCE: Duration = Duration::from_secs(30);
/// Answers of a connection that are not counted.
const WARM_UP: usize = 50;

/// Whom to ask, and what.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    address: SocketAddr,
    request: Vec<u8>,
}

impl Asked {
    pub(super) fn new(address: SocketAddr, path: &str, body: &str) -> Self {
        let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json");
        Self { address, request: format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes() }
    }

    /// How long each answer takes on one connection, one request after the other.
    pub(super) fn sequential(&self, time: Duration) -> anyhow::Result<Samples> {
        let mut connection = Connection::open(self.address)?;
        let mut samples = Samples::with_capacity(1 << 14);
        let start = Instant::now();
        let mut number = 0;
        while start.elapsed() < time || number <= WARM_UP {
            let began = clock::ticks();
            connection.ask(&self.request)?;
            if number >= WARM_UP {
                samples.add(clock::ticks().saturating_sub(began));
            }
            number += 1;
        }
        Ok(samples)
    }

    /// How long each answer takes with a connection for it alone, from connecting on.
    pub(super) fn fresh(&self, time: Duration) -> anyhow::Result<Samples> {
        let mut samples = Samples::with_capacity(1 << 12);
        let start = Instant::now();
        while start.elapsed() < time || samples.len() == 0 {
            let began = clock::ticks();
            Connection::open(self.address)?.ask(&self.request)?;
            samples.add(clock::ticks().saturating_sub(began));
        }
        Ok(samples)
    }

    /// Answers a second over so many connections, each with one request under way.
    pub(super) fn rate(&self, connections: usize, time: Duration) -> anyhow::Result<f64> {
        let ready = Barrier::new(connections);
        let one = || -> anyhow::Result<(u64, Duration)> {
            let opened = Connection::open(self.address).and_then(|mut connection| {
                connection.ask(&self.request)?;
                Ok(connection)
            });
            // Whoever could not connect waits all the same: the others would wait for ever.
            ready.wait();
            let mut connection = opened?;
            let start = Instant::now();
            let mut answers = 0;
            while start.elapsed() < time {
                connection.ask(&self.request)?;
                answers += 1;
            }
            Ok((answers, start.elapsed()))
        };
        let rates = std::thread::scope(|scope| {
            let started: Vec<_> = (0..connections)
                .map(|_| std::thread::Builder::new().stack_size(128 * 1024).spawn_scoped(scope, one))
                .collect();
            let joined = started.into_iter().map(|thread| match thread.context("starting a thread")?.join() {
                Ok(rate) => rate,
                Err(_) => bail!("a thread of the measurement panicked"),
            });
            joined.collect::<anyhow::Result<Vec<_>>>()
        })?;
        Ok(rates.iter().map(|(answers, time)| *answers as f64 / time.as_secs_f64()).sum())
    }
}

/// A connection over which whole answers are read.
#[derive(Debug)]
struct Connection {
    reader: BufReader<TcpStream>,
    line: Vec<u8>,
}

impl Connection {
    fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).context("connecting")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { reader: BufReader::new(stream), line: Vec::new() })
    }

    /// Sends a request and reads its answer to the end.
    fn ask(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.reader.get_mut().write_all(request)?;
        let status = self.line()?.to_vec();
        ensure!(status.starts_with(b"HTTP/1.1 200"), "the answer is {}", String::from_utf8_lossy(&status).trim());
        let mut length = None;
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line == b"\r\n" {
                break;
            }
            if let Some(value) = line.strip_prefix(b"content-length:") {
                length = Some(std::str::from_utf8(value)?.trim().parse::<u64>()?);
            }
        }
        if let Some(length) = length {
            return self.skip(length);
        }
        loop {
            let line = self.line()?;
            let size = u64::from_str_radix(std::str::from_utf8(line)?.trim(), 16).context("reading a chunk's size")?;
            // Behind each chunk, the last too, is an empty line.
            self.skip(size + 2)?;
            if size == 0 {
                return Ok(());
            }
        }
    }

    fn line(&mut self) -> anyhow::Result<&[u8]> {
        self.line.clear();
        self.reader.by_ref().take(8 * 1024).read_until(b'\n', &mut self.line)?;
        ensure!(self.line.ends_with(b"\n"), "the answer broke off");
        Ok(&self.line)
    }

    fn skip(&mut self, count: u64) -> anyhow::Result<()> {
        let skipped = io::copy(&mut self.reader.by_ref().take(count), &mut io::sink())?;
        ensure!(skipped == count, "the answer broke off");
        Ok(())
    }
}
