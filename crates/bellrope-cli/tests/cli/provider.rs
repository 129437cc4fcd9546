//! A provider on the loopback address that speaks just enough of OpenAI's chat completions, and notes what it is asked.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use crate::support::{Home, PATIENCE, Running};

/// The provider. Its threads end with the process of the test, or with their connections.
pub(crate) struct Provider {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Value>>>,
}

/// What a provider writes after the head of its response, and whether it closes then.
type Script = Arc<dyn Fn(&Value, &mut TcpStream) + Send + Sync>;

impl Provider {
    /// A provider that answers every chat with these events.
    pub(crate) fn of_events(events: &[Value]) -> Self {
        let events = events.to_vec();
        Self::start(Arc::new(move |_, stream| {
            for event in &events {
                say(stream, &event.to_string());
            }
            say(stream, "[DONE]");
        }))
    }

    /// A provider that answers with `text`, and says what it took.
    pub(crate) fn of_text(text: &str) -> Self {
        Self::of_events(&[
            json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]}),
            json!({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}),
        ])
    }

    pub(crate) fn start(answer: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<Value>>>::default();
        let noted = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (noted, answer) = (Arc::clone(&noted), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &noted, &answer));
            }
        });
        Self { address, asked }
    }

    /// Starts a server that asks this provider.
    pub(crate) fn serve(&self, home: &Home, arguments: &[&str]) -> Running {
        let url = self.url();
        let arguments = ["--provider", "openai"].iter().chain(arguments);
        home.serve_with(arguments, &[("OPENAI_BASE_URL", &*url), ("OPENAI_MODEL", "usual")])
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The bodies of all chats so far.
    pub(crate) fn asked(&self) -> Vec<Value> {
        self.asked.lock().unwrap().clone()
    }
}

/// Writes one event. That nobody reads any more is no fault of a test.
pub(crate) fn say(stream: &mut TcpStream, data: &str) {
    let _ = write!(stream, "data: {data}\n\n");
}

fn serve(mut stream: TcpStream, asked: &Mutex<Vec<Value>>, answer: &Script) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut first, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if first.is_empty() {
            first.clone_from(&line);
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    if first.starts_with("GET /v1/models ") {
        return whole(
            &mut stream,
            &json!({"object": "list", "data": [{"id": "usual", "owned_by": "us"}, {"id": "other"}]}),
        );
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    asked.lock().unwrap().push(body.clone());
    if first.starts_with("POST /v1/embeddings ") {
        let texts = body["input"].as_array().map_or(1, Vec::len);
        let row = |index| json!({"object": "embedding", "index": index, "embedding": [0.5, -1.0]});
        let usage = json!({"prompt_tokens": 3, "total_tokens": 3});
        let rows: Vec<_> = (0..texts).map(row).collect();
        return whole(&mut stream, &json!({"object": "list", "data": rows, "model": "vectors", "usage": usage}));
    }
    let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n");
    answer(&body, &mut stream);
}

fn whole(stream: &mut TcpStream, body: &Value) {
    let body = body.to_string();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
    let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
}
