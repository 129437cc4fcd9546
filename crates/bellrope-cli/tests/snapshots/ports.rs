//! What the two ports answer over HTTP: health and metrics, and OpenAI's chat completions.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use bellrope_testkit::http;
use serde_json::{Value, json};

use crate::{
    shape::{Look, shape},
    stage::{PATIENCE, Running, Stage},
    text::{freeze, mask},
};

/// A response as it came.
struct Response {
    head: String,
    body: String,
}

impl Response {
    /// Status line and headers, sorted, without those that tell when it was and how long it is.
    fn head(&self) -> String {
        let mut lines = self.head.lines();
        let status = lines.next().unwrap_or_default();
        let mut headers: Vec<_> = lines.filter(|line| !line.starts_with("date: ")).collect();
        headers.sort_unstable();
        let digit = |character: char| character.is_ascii_digit();
        let headers = headers.iter().map(|line| mask(line, "content-length: ", digit, "BYTES") + "\n");
        format!("{status}\n{}", headers.collect::<String>())
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Where a server said that it serves something, as HOST:PORT.
#[track_caller]
fn address(server: &Running, what: &str) -> String {
    let line = server.said("bellrope serves ");
    let rest = line.split(&format!("{what} on http://")).nth(1).unwrap_or_else(|| panic!("no {what}: {line}"));
    rest.split([',', '/']).next().unwrap().trim().to_owned()
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a request, and reads to the end of the connection.
fn exchange(address: &str, method: &str, path: &str, headers: &str, body: &str) -> Response {
    let mut stream = connect(address);
    let host = if headers.contains("Host:") { String::new() } else { format!("Host: {address}\r\n") };
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    // One that is refused may not be read to its end.
    let request = format!("{method} {path} HTTP/1.1\r\n{host}Connection: close\r\n{headers}{length}\r\n{body}");
    let _ = stream.write_all(request.as_bytes());
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let (_, head, body) = http::response(&text);
    Response { head: head.replace("\r\n", "\n"), body }
}

/// The names of the metrics with their help, type and labels, without values.
fn metrics(text: &str) -> String {
    let name = |line: &str| match line.starts_with('#') {
        true => line.to_owned(),
        false => line.rsplit_once(' ').map_or(line, |(name, _)| name).to_owned(),
    };
    text.lines().map(|line| name(line) + "\n").collect()
}

#[test]
fn the_health_port_answers_what_it_did() {
    let stage = Stage::new();
    let server = stage.serve(&["--health", "127.0.0.1:0", "--workers", "1"]);
    let address = address(&server, "health");
    stage.run(&["call", "echo", "x"]);
    let mut shown = String::new();
    for (method, path) in [
        ("GET", "/live"),
        ("GET", "/livez"),
        ("GET", "/ready"),
        ("GET", "/readyz"),
        ("GET", "/nowhere"),
        ("POST", "/health"),
    ] {
        let response = exchange(&address, method, path, "", "");
        shown.push_str(&format!("$ {method} {path}\n{}\n{}\n\n", response.head(), response.body.trim_end()));
    }
    for path in ["/", "/healthz"] {
        shown.push_str(&format!("$ GET {path}\n{}\n", exchange(&address, "GET", path, "", "").head()));
    }
    let look = Look { kept: &["status", "types[].name", "breakers[].name"], loose: &[] };
    let health = exchange(&address, "GET", "/health", "", "");
    shown.push_str(&format!("$ GET /health\n{}\n--- shape\n{}\n", health.head(), shape(&health.json(), look)));
    let mut events = BufReader::new(connect(&address));
    write!(events.get_mut(), "GET /events HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut head = Vec::new();
    let data = loop {
        let mut line = String::new();
        assert!(events.read_line(&mut line).unwrap() > 0, "no event after {head:?}");
        if let Some(data) = line.strip_prefix("data: ") {
            break data.trim_end().to_owned();
        }
        head.push(line.trim_end().to_owned());
    };
    // The size of the chunk that the event came in is no header.
    let end = head.iter().position(String::is_empty).unwrap();
    let head = Response { head: head[..end].join("\n"), body: data };
    shown.push_str(&format!("$ GET /events\n{}\n--- shape of an event\n", head.head()));
    shown.push_str(&shape(&head.json(), Look::default()));
    freeze("ports/health.txt", &stage.clean(&shown));
    let response = exchange(&address, "GET", "/metrics", "", "");
    let text = format!("$ GET /metrics\n{}\n{}", response.head(), metrics(&response.body));
    freeze("ports/metrics.txt", &stage.clean(&text));
}

#[test]
fn the_openai_port_answers_what_it_did() {
    let stage = Stage::new();
    let server = stage.serve(&["--api-port", "0"]);
    let address = address(&server, "API port");
    let chat = "/v1/chat/completions";
    let kind = "Content-Type: application/json\r\n";
    let question = json!({"model": "default", "messages": [{"role": "user", "content": "Who is there?"}]});
    let with = |key: &str, value: Value| {
        let mut question = question.clone();
        question[key] = value;
        question.to_string()
    };
    let usage = {
        let mut question = question.clone();
        question["stream"] = json!(true);
        question["stream_options"] = json!({"include_usage": true});
        question["max_tokens"] = json!(3);
        question.to_string()
    };
    let requests = [
        ("GET", "/v1/models", String::new(), ""),
        ("GET", "/v1/nowhere", String::new(), ""),
        ("GET", chat, String::new(), ""),
        ("POST", chat, question.to_string(), kind),
        ("POST", chat, usage, kind),
        ("POST", chat, "{".to_owned(), kind),
        ("POST", chat, "{}".to_owned(), kind),
        ("POST", chat, with("model", json!("delphi/oracle")), kind),
        ("POST", chat, with("messages", json!([])), kind),
        ("POST", chat, with("n", json!(2)), kind),
        ("POST", chat, with("temperature", json!("warm")), kind),
        ("POST", chat, question.to_string(), "Content-Type: text/plain\r\n"),
        ("POST", chat, question.to_string(), "Host: evil.example\r\nContent-Type: application/json\r\n"),
        ("POST", chat, question.to_string(), "Origin: http://evil.example\r\nContent-Type: application/json\r\n"),
        ("OPTIONS", chat, String::new(), "Origin: http://evil.example\r\n"),
    ];
    let digit = |character: char| character.is_ascii_digit();
    let mut shown = String::new();
    for (method, path, body, headers) in requests {
        let response = exchange(&address, method, path, headers, &body);
        let asked = headers.replace("\r\n", "\n");
        let answer = mask(&response.body, "\"created\":", digit, "TIME");
        let answer = mask(&answer, "\"id\":\"chatcmpl-", |character| character != '"', "ID");
        let answer = answer.trim_end();
        shown.push_str(&format!("$ {method} {path}\n{asked}{body}\n---\n{}\n{answer}\n\n", response.head()));
    }
    freeze("ports/openai.txt", &stage.clean(&shown));
}
