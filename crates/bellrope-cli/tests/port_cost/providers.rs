//! The providers that the port asks: one that says what it is told, and one that allocates nothing.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex,
        mpsc::{Sender, channel},
    },
};

pub(crate) const WHOLE: &str = r#"{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"bell"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6}}"#;
pub(crate) const CHUNK: &str =
    "data: {\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"bell\"},\"finish_reason\":null}]}\n\n";
const END: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A provider that answers whole requests at once. Of a stream each chunk comes when it is told.
pub(crate) fn provider() -> (SocketAddr, Sender<()>) {
    let (chunks, told) = channel::<()>();
    // Whoever begins the stream has it.
    let told = Arc::new(Mutex::new(Some(told)));
    let address = listen(move |connection| {
        let mut reader = BufReader::new(connection);
        while let Some(body) = request(&mut reader) {
            let writer = reader.get_mut();
            if !body.contains("\"stream\":true") {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
                write!(writer, "{head}Content-Length: {}\r\n\r\n{WHOLE}", WHOLE.len()).unwrap();
                continue;
            }
            writer.write_all(STREAM_HEAD.as_bytes()).unwrap();
            let told = told.lock().unwrap().take();
            for () in told.into_iter().flatten() {
                writer.write_all(chunk_of(CHUNK).as_bytes()).unwrap();
            }
            write!(writer, "{}0\r\n\r\n", chunk_of(END)).unwrap();
        }
    });
    (address, chunks)
}

/// Serves each connection on a thread of its own.
fn listen(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            connection.set_nodelay(true).unwrap();
            let serve = serve.clone();
            std::thread::spawn(move || serve(connection));
        }
    });
    address
}

fn chunk_of(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// A provider that allocates nothing for a request. A stream's chunks come as bytes come through `told`.
pub(crate) fn frugal_provider(told: UnixStream) -> SocketAddr {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    let whole: Arc<str> = format!("{head}Content-Length: {}\r\n\r\n{WHOLE}", WHOLE.len()).into();
    let (chunk, told): (Arc<str>, _) = (chunk_of(CHUNK).into(), Arc::new(told));
    listen(move |mut connection| {
        let (mut buffer, mut held) = ([0; 8 * 1024], 0);
        loop {
            match connection.read(&mut buffer[held..]) {
                Ok(count) if count > 0 => held += count,
                _ => return,
            }
            // The body is the only JSON of a request.
            if buffer[..held].last() != Some(&b'}') {
                continue;
            }
            let is_stream = buffer[..held].windows(14).any(|window| window.starts_with(b"\"stream\":true"));
            held = 0;
            if !is_stream {
                connection.write_all(whole.as_bytes()).unwrap();
                continue;
            }
            connection.write_all(STREAM_HEAD.as_bytes()).unwrap();
            while (&*told).read_exact(&mut [0]).is_ok() {
                if connection.write_all(chunk.as_bytes()).is_err() {
                    return;
                }
            }
        }
    })
}

/// The body of the next request of a connection.
fn request(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    String::from_utf8(body).ok()
}
