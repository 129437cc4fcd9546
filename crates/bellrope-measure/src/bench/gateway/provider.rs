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
pub(in super::super) enum Pace {
    /// One chunk at a time, each with the clock's reading of when it was written.
    Single { pause: Duration },
    /// As many as the reader takes.
    Full,
}

/// The provider. Its threads end with this process, or with their connections.
#[derive(Debug)]
pub(in super::super) struct Provider {
    address: SocketAddr,
    /// How the next answer is given, and for how long.
    plan: Arc<Mutex<(Pace, Duration)>>,
}

impl Provider {
    pub(in super::super) fn start() -> io::Result<Self> {
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

    pub(in super::super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Says how the next answer is to be given, and for how long.
    pub(in super::super) fn prepare(&self, pace: Pace, time: Duration) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = (pace, time);
    }

    pub(in super::super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks with no more than a socket.
    pub(in super::super) fn ask(&self) -> io::Result<DirectAnswer> {
        ask(self.address, "/v1/chat/completions", "{}")
    }
}

/// Asks for a stream with no more than a socket: the provider, or whatever stands before it.
pub(in super::super) fn ask(address: SocketAddr, path: &str, body: &str) -> io::Result<DirectAnswer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json");
    // In one piece, as a client writes it.
    stream.write_all(format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
    Ok(DirectAnswer { lines: BufReader::with_capacity(64 * 1024, stream), line: Vec::new() })
}

/// An answer read by the line.
#[derive(Debug)]
pub(in super::super) struct DirectAnswer {
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
            if self.line.starts_with(b"data: [DONE]") || self.line.starts_with(b"event: message_stop") {
                return None;
            }
            // Lines of the chunked coding and the last event hold no text.
            if let Some(text) = text_of(&self.line) {
                return Some(Ok(String::from_utf8_lossy(text).into_owned()));
            }
        }
    }
}

/// The text of a line, as it came or in Anthropic's form.
fn text_of(line: &[u8]) -> Option<&[u8]> {
    if let Some(rest) = line.strip_prefix(BEFORE.as_bytes()) {
        return rest.strip_suffix(AFTER_LINE.as_bytes());
    }
    let before = b"\"text_delta\",\"text\":\"";
    let at = line.windows(before.len()).position(|window| window == before)?;
    let rest = &line[at + before.len()..];
    rest.iter().position(|byte| *byte == b'"').map(|end| &rest[..end])
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
    let length = read_head(&mut reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    io::copy(&mut reader.take(length), &mut io::sink()).map(drop)
}

/// Reads the head of a request; how long its body is. `None`: none came any more.
pub(in super::super) fn read_head(reader: &mut impl BufRead) -> io::Result<Option<u64>> {
    let (mut line, mut length, mut is_first) = (String::new(), 0, true);
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return if is_first { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        is_first = false;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        if line == "\r\n" {
            return Ok(Some(length));
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
