//! A provider's server that does whatever a test wants, however wrong. Hand-written, since it must misbehave.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellrope_gateway::{ChatRequest, Chunk, HttpProvider, Provider, ProviderConfig, ProviderError, Secret};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::script::Format;

/// The key of all tests. It must turn up in the request's header and nowhere else.
pub(crate) const KEY: &str = "sk-test-0123456789";

/// A server on loopback. Dropping it closes its socket.
pub(crate) struct Fake {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    accepting: JoinHandle<()>,
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) body: String,
}

/// One connection whose first request has been read.
pub(crate) struct Peer {
    stream: TcpStream,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Fake {
    /// Serves every connection with `serve`, which gets its number, from 0.
    pub(crate) async fn start<F, S>(serve: F) -> Self
    where
        F: Fn(usize, Peer) -> S + Send + Sync + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (serve, shared) = (Arc::new(serve), Arc::clone(&seen));
        let accepting = tokio::spawn(async move {
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let mut peer = Peer { stream, seen: Arc::clone(&shared) };
                let serve = Arc::clone(&serve);
                tokio::spawn(async move {
                    if peer.next_request().await {
                        serve(number, peer).await;
                    }
                });
            }
        });
        Self { address, seen, accepting }
    }

    /// Answers every request with one complete HTTP response.
    pub(crate) async fn replying(status: &str, headers: &str, body: &str) -> Self {
        let (status, headers, body) = (status.to_owned(), headers.to_owned(), body.to_owned());
        Self::start(move |_, mut peer| {
            let (status, headers, body) = (status.clone(), headers.clone(), body.clone());
            async move { peer.reply(&status, &headers, &body).await }
        })
        .await
    }

    /// Answers every request with a whole event stream of these bytes, sent in these pieces.
    pub(crate) async fn streaming<const N: usize>(pieces: [&str; N]) -> Self {
        let pieces = pieces.map(|piece| piece.as_bytes().to_vec());
        Self::start(move |_, mut peer| {
            let pieces = pieces.clone();
            async move {
                peer.begin_events().await;
                for piece in &pieces {
                    peer.chunk(piece).await;
                }
                peer.end().await;
            }
        })
        .await
    }

    /// The base URL to configure.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// How to reach this server, with time-outs that no test runs into by accident and quick retries.
    pub(crate) fn config(&self, format: Format) -> ProviderConfig {
        ProviderConfig {
            kind: Some(format.kind()),
            base_url: self.url(),
            api_key: Some(Secret::new(KEY)),
            model: Some("fake-model".to_owned()),
            retry_delay: Duration::from_millis(1),
            ..ProviderConfig::default()
        }
    }

    /// A client of this server.
    pub(crate) fn provider(&self, format: Format) -> HttpProvider {
        HttpProvider::new(self.config(format)).unwrap()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Peer {
    /// Reads a request and records it; false if the connection ends first.
    pub(crate) async fn next_request(&mut self) -> bool {
        let mut bytes = Vec::new();
        let end_of_head = loop {
            if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if self.stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return false;
            }
        };
        let head = String::from_utf8(bytes[..end_of_head].to_vec()).unwrap();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let whole = end_of_head + length.map_or(0, |length| length.parse::<usize>().unwrap());
        while bytes.len() < whole {
            if self.stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return false;
            }
        }
        let body = String::from_utf8(bytes[end_of_head..].to_vec()).unwrap();
        self.seen.lock().unwrap().push(Request { head, body });
        true
    }

    /// The head of the last request of all connections.
    pub(crate) fn last_request(&self) -> String {
        self.seen.lock().unwrap().last().map(|request| request.head.clone()).unwrap_or_default()
    }

    /// The body of the last request of all connections.
    pub(crate) fn last_body(&self) -> String {
        self.seen.lock().unwrap().last().map(|request| request.body.clone()).unwrap_or_default()
    }

    /// Sends bytes as they are. Errors are the client's way to hang up, and no concern of the server.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// A whole response. `headers` are lines that end in CRLF.
    pub(crate) async fn reply(&mut self, status: &str, headers: &str, body: &str) {
        let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n", body.len());
        self.send(head + body).await;
    }

    /// The head of an event stream in chunked coding.
    pub(crate) async fn begin_events(&mut self) {
        self.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await;
    }

    /// One chunk of the coding.
    pub(crate) async fn chunk(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.send(chunk).await;
    }

    /// The end of the coding.
    pub(crate) async fn end(&mut self) {
        self.send("0\r\n\r\n").await;
    }

    /// Resets the connection.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }

    /// Waits until the client has closed or reset the connection.
    pub(crate) async fn closed(&mut self) {
        let mut bytes = [0; 1024];
        while self.stream.read(&mut bytes).await.unwrap_or(0) > 0 {}
    }

    /// Sends bytes as fast as the client takes them, and tells `progress` how many it has taken so far.
    pub(crate) async fn send_counting(&mut self, bytes: &[u8], mut progress: impl FnMut(usize)) {
        let mut sent = 0;
        while sent < bytes.len() {
            let Ok(taken) = self.stream.write(&bytes[sent..]).await else { return };
            sent += taken;
            progress(sent);
        }
    }
}

/// All that comes of a request.
pub(crate) async fn items(provider: &HttpProvider) -> Vec<Result<Chunk, ProviderError>> {
    soon(provider.chat_stream(ChatRequest::user("Hello")).collect()).await
}

/// The pieces of an answer that comes whole.
pub(crate) async fn pieces(provider: &HttpProvider) -> Vec<Chunk> {
    items(provider).await.into_iter().map(|item| item.unwrap()).collect()
}

/// The text of a whole answer.
pub(crate) async fn ask(provider: &HttpProvider) -> Result<String, ProviderError> {
    soon(provider.chat(ChatRequest::user("Hello"))).await.map(|response| response.text)
}

/// The error that an answer ends with, after these texts.
#[track_caller]
pub(crate) fn error_after(texts: &[&str], mut items: Vec<Result<Chunk, ProviderError>>) -> ProviderError {
    let error = items.pop().expect("an item").expect_err("an error at the end");
    let expected: Vec<_> = texts.iter().map(|&text| Ok(Chunk::text(text))).collect();
    assert_eq!(items, expected);
    error
}

/// Waits for what must happen soon.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), future).await.expect("it took over a minute")
}
