//! Who else takes part: a provider, a relay that only moves bytes, and `bellrope serve` itself.

use std::{
    io::{self, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use bellrope_terminal::signals;

use super::super::gateway::provider::read_head;
use super::work::Work;

/// A whole answer of the provider.
const WHOLE: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"bell"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6}}"#;
/// The same as a stream.
const STREAM: &str = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"bell\"},\"finish_reason\":\"stop\"}]}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":1,\"total_tokens\":6}}\n\ndata: [DONE]\n\n";
/// How long `bellrope serve` may take to begin.
const START: Duration = Duration::from_secs(30);

/// Serves every connection on a thread of its own. The threads end with this process, or with their connections.
fn listen(serve: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let builder = || std::thread::Builder::new().name("bench-peer".to_owned()).stack_size(128 * 1024);
    builder().spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            // That the other end goes away is its own affair.
            if let Err(error) = builder().spawn(move || drop(serve(stream))) {
                tracing::error!(%error, "a thread cannot be started");
            }
        }
    })?;
    Ok(address)
}

/// A provider that answers every request after some work, as a stream where that is asked for, and keeps its connections.
pub(super) fn provider(work: Arc<Work>) -> io::Result<SocketAddr> {
    let whole =
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{WHOLE}", WHOLE.len());
    let stream = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{STREAM}\r\n0\r\n\r\n",
        STREAM.len()
    );
    listen(move |connection| {
        connection.set_nodelay(true)?;
        let (mut reader, mut writer) = (BufReader::new(connection.try_clone()?), connection);
        let mut body = Vec::new();
        while let Some(length) = read_head(&mut reader)? {
            body.clear();
            reader.by_ref().take(length).read_to_end(&mut body)?;
            let is_stream = body.windows(14).any(|window| window.starts_with(b"\"stream\":true"));
            work.perform();
            writer.write_all(if is_stream { stream.as_bytes() } else { whole.as_bytes() })?;
        }
        Ok(())
    })
}

/// A relay to this address: the least that anything in between can do.
pub(super) fn relay(to: SocketAddr) -> io::Result<SocketAddr> {
    listen(move |near| {
        let far = TcpStream::connect(to)?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let (back_from, back_to) = (far.try_clone()?, near.try_clone()?);
        std::thread::Builder::new().stack_size(128 * 1024).spawn(move || pump(back_from, back_to))?;
        pump(near, far)
    })
}

/// Moves bytes until one end closes, and tells the other.
fn pump(mut from: TcpStream, mut to: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        match from.read(&mut buffer)? {
            0 => return to.shutdown(Shutdown::Write),
            count => to.write_all(&buffer[..count])?,
        }
    }
}

/// `bellrope serve` with an API port, in a private place. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Served {
    child: Child,
    /// Removed with all that is in it.
    home: tempfile::TempDir,
    /// Its API port.
    pub(super) port: SocketAddr,
}

impl Served {
    /// Starts it with two providers of chat completions, to which requests of that format pass through as they are: `whole` at
    /// one address, `paced` at the other.
    pub(super) fn start(threads: u32, whole: SocketAddr, paced: &str) -> anyhow::Result<Self> {
        let home = tempfile::Builder::new().prefix("bellrope-").tempdir().context("making a temporary directory")?;
        signals::remove_when_ended(home.path().to_owned()).context("waiting for signals")?;
        let provider = |name: &str, url: &str| {
            format!(
                "[gateway.providers.{name}]\nkind = \"openai\"\nbase_url = \"{url}\"\nmodel = \"m\"\npass_through = \"exact\"\n"
            )
        };
        let config = format!(
            "api_threads = {threads}\n[gateway]\nprovider = \"whole\"\n{}{}[books]\npath = {:?}\n",
            provider("whole", &format!("http://{whole}")),
            provider("paced", paced),
            home.path().join("books.db")
        );
        let (file, log) = (home.path().join("bellrope.toml"), home.path().join("log"));
        std::fs::write(&file, config).context("writing the settings of the server")?;
        let program = std::env::current_exe().context("finding the path of this program")?;
        let mut command = Command::new(program);
        command.args(["serve", "--api-port", "0", "--log", "info", "--config"]).arg(&file);
        command.arg("--socket").arg(socket_in(home.path())).env("XDG_STATE_HOME", home.path());
        // Whatever else runs on this machine is nothing to a measurement.
        command.env("BELLROPE_LOCAL_MODELS", "").stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(std::fs::File::create(&log).context("making the log of the server")?);
        let mut child = command.spawn().context("starting a server")?;
        match port_of(&mut child, &log) {
            Ok(port) => Ok(Self { child, home, port }),
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }

    pub(super) fn socket(&self) -> PathBuf {
        socket_in(self.home.path())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    // It may have ended.
    let _ = child.kill();
    let _ = child.wait();
}

fn socket_in(home: &Path) -> PathBuf {
    home.join("run").join("bench.sock")
}

/// Waits for the line that says where the port is, and that the server serves.
fn port_of(child: &mut Child, log: &Path) -> anyhow::Result<SocketAddr> {
    let deadline = Instant::now() + START;
    loop {
        let said = std::fs::read_to_string(log).context("reading the log of the server")?;
        let port = said.lines().find_map(|line| line.split_once("API port on http://"));
        if let Some((_, port)) = port.filter(|_| said.contains("bellrope serves ")) {
            let port = port.split_whitespace().next().unwrap_or_default();
            return port.parse().with_context(|| format!("the server said that its port is at {port:?}"));
        }
        if child.try_wait().context("looking after the server")?.is_some() || Instant::now() > deadline {
            bail!("the server did not start: {}", said.lines().last().unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_moves_what_comes_either_way_and_the_provider_answers_as_it_is_asked() {
        let relay = relay(provider(Arc::default()).unwrap()).unwrap();
        let mut stream = TcpStream::connect(relay).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        for (body, end) in [("{}", "\"total_tokens\":6}}"), ("{\"stream\":true}", "data: [DONE]\n\n\r\n0\r\n\r\n")] {
            write!(stream, "POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
            let mut said = String::new();
            let mut buffer = [0; 4096];
            while !said.ends_with(end) {
                let count = stream.read(&mut buffer).unwrap();
                assert!(count > 0, "{said}");
                said.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
            }
        }
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    }
}
