//! A provider on the loopback address: server-sent events in HTTP chunks, as fast or as slowly as it is told; and the
//! barest client that reads them.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bellrope_shm::clock;

/// What stands around the text of a chunk.
const BEFORE: &str = r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":""#;
const AFTER: &str = "\"},\"finish_reason\":null}]}\n\n";
/// The same up to the end of its line.
const AFTER_LINE: &str = AFTER.split_at(AFTER.len() - 1).0;
const END: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

/// Chunks that are written in one go when there are no pauses.
const BATCH: usize = 100;
/// Nothing takes longer unless something is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// How an answer is given.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// One chunk at a time, each with the clock's reading of when it was written.
    Single { pause: Duration },
    /// As many as the reader takes.
    Full,
}

/// The provider. Its threads end with this process, or with their connections.
#[derive(Debug)]
pub(super) struct Provider {
    address: SocketAddr,
    /// How the next answer is given, and for how long.
    plan: Arc<Mutex<(Pace, Duration)>>,
}

impl Provider {
    pub(super) fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let plan = Arc::new(Mutex::new((Pace::Full, Duration::ZERO)));
        let planned = Arc::clone(&plan);
        let accept = move || {
            for stream in listener.incoming().flatten() {
                let planned = Arc::clone(&planned);
                let answer = move || {
                    let plan = || *planned.lock().unwrap_or_else(PoisonError::into_inner);
                    // That a reader goes away is its own affair.
                    let _ = answer(stream, plan);
                };
                if let Err(error) = std::thread::Builder::new().name("bench-provider".to_owned()).spawn(answer) {
                    tracing::error!(%error, "a thread cannot be started");
                }
            }
        };
        std::thread::Builder::new().name("bench-provider".to_owned()).spawn(accept)?;
        Ok(Self { address, plan })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Says how the next answer is to be given, and for how long.
    pub(super) fn prepare(&self, pace: Pace, time: Duration) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = (pace, time);
    }

    /// Asks with no more than a socket.
    pub(super) fn ask(&self) -> io::Result<DirectAnswer> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let head = format!("POST /v1/chat/completions HTTP/1.1\r\nHost: {}\r\nContent-Length: 2", self.address);
        write!(stream, "{head}\r\n\r\n{{}}")?;
        Ok(DirectAnswer { lines: BufReader::with_capacity(64 * 1024, stream), line: Vec::new() })
    }
}

/// An answer read by the line.
#[derive(Debug)]
pub(super) struct DirectAnswer {
    lines: BufReader<TcpStream>,
    line: Vec<u8>,
}

impl Iterator for DirectAnswer {
    type Item = anyhow::Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.line.clear();
            match self.lines.read_until(b'\n', &mut self.line) {
                Ok(0) => return Some(Err(anyhow::anyhow!("the provider's answer broke off"))),
                Ok(_) => {}
                Err(error) => return Some(Err(error.into())),
            }
            if self.line.starts_with(b"data: [DONE]") {
                return None;
            }
            // Lines of the chunked coding and the last event hold no text.
            if let Some(rest) = self.line.strip_prefix(BEFORE.as_bytes())
                && let Some(text) = rest.strip_suffix(AFTER_LINE.as_bytes())
            {
                return Some(Ok(String::from_utf8_lossy(text).into_owned()));
            }
        }
    }
}

/// Reads one request and gives the answer that is planned.
fn answer(mut stream: TcpStream, plan: impl Fn() -> (Pace, Duration)) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    read_request(&mut stream)?;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close";
    write!(stream, "{head}\r\n\r\n")?;
    let (pace, time) = plan();
    let start = Instant::now();
    let mut out = Vec::new();
    match pace {
        Pace::Single { pause } => {
            while start.elapsed() < time {
                std::thread::sleep(pause);
                out.clear();
                push(&mut out, &format!("{BEFORE}{}{AFTER}", clock::ticks()));
                stream.write_all(&out)?;
            }
        }
        Pace::Full => {
            let event = format!("{BEFORE} bell{AFTER}");
            (0..BATCH).for_each(|_| push(&mut out, &event));
            while start.elapsed() < time {
                stream.write_all(&out)?;
            }
        }
    }
    out.clear();
    push(&mut out, END);
    out.extend_from_slice(b"0\r\n\r\n");
    stream.write_all(&out)
}

/// Adds one chunk of the chunked coding.
fn push(out: &mut Vec<u8>, data: &str) {
    out.extend_from_slice(format!("{:x}\r\n{data}\r\n", data.len()).as_bytes());
}

fn read_request(stream: &mut TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        if line == "\r\n" {
            return io::copy(&mut reader.take(length), &mut io::sink()).map(drop);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_client_reads_what_the_provider_writes() {
        let provider = Provider::start().unwrap();
        provider.prepare(Pace::Single { pause: Duration::from_micros(100) }, Duration::from_millis(20));
        let before = clock::ticks();
        let stamps: Vec<u64> = provider.ask().unwrap().map(|text| text.unwrap().parse().unwrap()).collect();
        assert!(!stamps.is_empty() && stamps.is_sorted() && stamps[0] >= before, "{stamps:?}");
        provider.prepare(Pace::Full, Duration::from_millis(5));
        let texts: Vec<String> = provider.ask().unwrap().map(Result::unwrap).collect();
        assert!(texts.len() >= BATCH && texts.len().is_multiple_of(BATCH), "{}", texts.len());
        assert!(texts.iter().all(|text| text == " bell"));
    }

    /// Both ends of a connection.
    fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn an_answer_that_ends_before_it_is_whole_or_does_not_go_on_is_an_error() {
        let (near, mut far) = connected();
        let mut answer = DirectAnswer { lines: BufReader::new(near), line: Vec::new() };
        write!(far, "HTTP/1.1 200 OK\r\n\r\n{BEFORE}bell{AFTER}").unwrap();
        assert_eq!(answer.next().unwrap().unwrap(), "bell");
        // Only a wait has this limit, and nothing will come.
        answer.lines.get_ref().set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let error = answer.next().unwrap().unwrap_err().downcast::<io::Error>().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        answer.lines.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        drop(far);
        assert_eq!(answer.next().unwrap().unwrap_err().to_string(), "the provider's answer broke off");
    }

    #[test]
    fn a_request_that_is_cut_gets_no_answer() {
        let (mut near, far) = connected();
        write!(near, "POST /v1/chat/completions HTTP/1.1\r\n").unwrap();
        near.shutdown(std::net::Shutdown::Write).unwrap();
        let error = answer(far, || unreachable!("nothing was asked for")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let mut said = Vec::new();
        near.read_to_end(&mut said).unwrap();
        assert!(said.is_empty(), "{said:?}");
    }
}
