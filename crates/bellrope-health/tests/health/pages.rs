//! Every path, and the live page.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    time::Instant,
};

use bellrope::{Client, server::ServerConfig};
use serde_json::Value;

use super::{
    support::{PATIENCE, eventually, serve},
    web::{PATHS, connect, get, request, watch},
};

#[test]
fn every_path_is_answered_whole_uncached_and_once() {
    let server = serve(ServerConfig::default());
    let health = watch(&server);
    for path in PATHS {
        let answer = get(health.local_addr(), path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert_eq!(answer.headers["content-length"], answer.body.len().to_string(), "{path}");
        assert_eq!(answer.headers["cache-control"], "no-store", "{path}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(answer.headers["connection"], "close", "{path}");
        assert!(answer.body.ends_with('\n'), "{path}");
    }
    assert_eq!(get(health.local_addr(), "/live?verbose=1").json()["status"], "alive");
    assert_eq!(
        get(health.local_addr(), "/metrics").headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
}

#[test]
fn head_is_get_without_the_body() {
    let server = serve(ServerConfig::default());
    let health = watch(&server);
    for path in PATHS {
        let (head, get) = (request(health.local_addr(), "HEAD", path), get(health.local_addr(), path));
        assert_eq!((head.status, head.body.as_str()), (get.status, ""), "{path}");
        assert_eq!(head.headers["content-type"], get.headers["content-type"], "{path}");
        assert!(head.headers["content-length"].parse::<usize>().unwrap() > 0, "{path}");
    }
}

#[test]
fn other_methods_and_paths_are_refused_with_what_there_is() {
    let server = serve(ServerConfig::default());
    let health = watch(&server);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"] {
        let answer = request(health.local_addr(), method, "/health");
        assert_eq!((answer.status, answer.headers["allow"].as_str()), (405, "GET, HEAD"), "{method}");
    }
    for path in ["//", "/healt", "/health/", "/../health", "/metrics%00"] {
        let answer = get(health.local_addr(), path);
        assert_eq!(answer.status, 404, "{path}");
        for path in PATHS.iter().chain(&["/events"]) {
            assert!(answer.json()["paths"].as_array().unwrap().iter().any(|known| known == path), "{path}");
        }
    }
}

#[test]
fn listeners_hear_of_the_server_every_second_and_there_are_at_most_sixteen() {
    let server = serve(ServerConfig::default());
    let health = watch(&server);
    let listen = || {
        let mut socket = BufReader::new(connect(health.local_addr()));
        socket.get_mut().write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut status = String::new();
        socket.read_line(&mut status).unwrap();
        (status.split(' ').nth(1).unwrap().to_owned(), socket)
    };
    let event = |socket: &mut BufReader<TcpStream>| -> Value {
        let mut line = String::new();
        while !line.starts_with("data: ") {
            line.clear();
            assert!(socket.read_line(&mut line).unwrap() > 0, "the stream of events has ended");
        }
        serde_json::from_str(&line[6..]).unwrap()
    };
    let mut listeners: Vec<_> = (0..16).map(|_| listen()).collect();
    assert!(listeners.iter().all(|(status, _)| status == "200"));
    assert_eq!(listen().0, "503");

    let client = Client::connect(&server.path).unwrap();
    for _ in 0..50 {
        client.call("echo", b"").unwrap();
    }
    client.call("fail", b"").unwrap_err();
    let (_, socket) = &mut listeners[0];
    let began = Instant::now();
    let told = loop {
        let told = event(socket);
        if told["health"]["total_requests"] == 51 {
            break told;
        }
        assert!(began.elapsed() < PATIENCE, "{told}");
    };
    assert_eq!(told["errors"]["handler_error"], 1);
    assert_eq!(told["buckets"].as_array().unwrap().len(), told["health"]["types"].as_array().unwrap().len());
    assert!(event(socket)["at_ms"].as_u64() > told["at_ms"].as_u64());
    assert_eq!(get(health.local_addr(), "/live").status, 200, "others are served meanwhile");
    listeners.truncate(15);
    eventually("a free place is taken again", || listen().0 == "200");
}

#[test]
fn the_page_takes_nothing_from_elsewhere() {
    let server = serve(ServerConfig::default());
    let health = watch(&server);
    let page = get(health.local_addr(), "/");
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    assert!(page.headers["content-security-policy"].starts_with("default-src 'none'; script-src 'self';"));
    for path in ["/", "/page.css", "/page.js"] {
        let text = get(health.local_addr(), path).body.replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains("http:") && !text.contains("https:"), "{path}");
        assert!(!text.contains("innerHTML") && !text.contains(" style="), "{path}");
    }
}
