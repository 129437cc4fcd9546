//! A `nats-server` for a measurement: a child process on the loopback address, with what it counts.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bellrope::status::MemoryUse;
use bellrope_terminal::signals;

/// How long it may take to listen, and to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A NATS server with nobody else's messages. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct NatsProcess {
    child: Child,
    /// Ports on the loopback address: for clients, and for what it counts.
    port: u16,
    monitoring: u16,
    _home: tempfile::TempDir,
}

impl NatsProcess {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let home = tempfile::Builder::new().prefix("bellrope-").tempdir().context("making a temporary directory")?;
        signals::remove_when_ended(home.path().to_owned()).context("waiting for signals")?;
        let mut command = Command::new("nats-server");
        command.args(["-a", "127.0.0.1", "-p", "-1", "-m", "-1", "--ports_file_dir"]).arg(home.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.context("nats-server cannot be started; it is Debian's package of that name")?;
        let mut nats = Self { child, port: 0, monitoring: 0, _home: home };
        let until = Instant::now() + PATIENCE;
        while nats.port == 0 {
            ensure!(Instant::now() < until, "the NATS server does not say within {PATIENCE:?} where it listens");
            ensure!(nats.child.try_wait()?.is_none(), "the NATS server ended at once");
            std::thread::sleep(Duration::from_millis(5));
            if let Some((port, monitoring)) = ports(nats._home.path()) {
                (nats.port, nats.monitoring) = (port, monitoring);
            }
        }
        Ok(nats)
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Messages that were published so far, by all.
    pub(crate) fn messages(&self) -> anyhow::Result<u64> {
        let said = self.ask("/varz").context("asking the NATS server what it counted")?;
        said["in_msgs"].as_u64().context("the NATS server does not say how many messages it got")
    }

    pub(crate) fn memory(&self) -> anyhow::Result<MemoryUse> {
        MemoryUse::of(self.child.id()).context("reading the memory of the NATS server")
    }

    fn ask(&self, path: &str) -> anyhow::Result<serde_json::Value> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.monitoring))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok(serde_json::from_str(body)?)
    }
}

impl Drop for NatsProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The ports that it has written down, once it has.
fn ports(home: &Path) -> Option<(u16, u16)> {
    let mut files = std::fs::read_dir(home).ok()?.flatten().map(|file| file.path());
    let file = files.find(|path| path.extension().is_some_and(|end| end == "ports"))?;
    let said: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()?;
    let port = |purpose: &str| said[purpose][0].as_str()?.rsplit(':').next()?.parse().ok();
    Some((port("nats")?, port("monitoring")?))
}
