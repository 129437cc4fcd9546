//! A client that speaks just enough HTTP, and may speak it badly.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use bellrope_health::HealthServer;
use serde_json::Value;

use super::support::{PATIENCE, TestServer};

/// Those that are answered whole.
pub(crate) const PATHS: [&str; 10] =
    ["/", "/page.css", "/page.js", "/health", "/healthz", "/metrics", "/ready", "/readyz", "/live", "/livez"];

/// A health server on a free port of loopback.
pub(crate) fn watch(server: &TestServer) -> HealthServer {
    HealthServer::start(([127, 0, 0, 1], 0).into(), server.server.metrics()).unwrap()
}

/// An answer, taken apart.
#[derive(Debug)]
pub(crate) struct HttpAnswer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl HttpAnswer {
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json");
        serde_json::from_str(&self.body).unwrap()
    }
}

pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(addr).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends these bytes and reads until the server closes. `None`: it closed without an answer.
pub(crate) fn send(addr: SocketAddr, bytes: &[u8]) -> Option<HttpAnswer> {
    let mut socket = connect(addr);
    // The server may close, with a reset too, before it has read everything.
    let _ = socket.write_all(bytes);
    let mut text = Vec::new();
    match socket.read_to_end(&mut text) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("the server neither answers nor closes"),
        _ => {}
    }
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
    let headers = lines.map(|line| line.split_once(": ").unwrap());
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    Some(HttpAnswer { status, headers, body: body.to_owned() })
}

pub(crate) fn request(addr: SocketAddr, method: &str, path: &str) -> HttpAnswer {
    send(addr, format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap()
}

pub(crate) fn get(addr: SocketAddr, path: &str) -> HttpAnswer {
    request(addr, "GET", path)
}
