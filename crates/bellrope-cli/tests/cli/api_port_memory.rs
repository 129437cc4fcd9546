//! What the API port takes of memory, whatever is posted to it.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
};

use crate::{
    api_port::address,
    support::{Home, PATIENCE, Running},
};

const MIB: u64 = 1 << 20;
/// Requests at the same time, and bytes of each: there is room for some of the smaller ones, whatever they are full of, and
/// for none of the larger that are the worst.
const AT_ONCE: usize = 6;
const SIZES: [usize; 2] = [256 * 1024, 4 << 20];
/// What all bodies may take, and what is made of them; see docs/limits.md.
const BODIES: u64 = 64 * MIB;
const VALUES: u64 = 64 * MIB;

fn memory(server: &Running, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// The status of the answer.
fn post(address: &str, path: &str, body: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    // A request that is refused may not be read to its end.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap()
}

/// Requests full of one thing, with their paths.
fn bodies(size: usize) -> Vec<(&'static str, Vec<u8>)> {
    let full_of = |before: &str, one: &str, after: &str| {
        let all = one.repeat(size / one.len());
        format!("{before}{}{after}", all.trim_end_matches(',')).into_bytes()
    };
    let called = r#"{"model":"default","messages":[{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f","arguments":"#;
    let used = r#"{"model":"default","max_tokens":9,"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"f","input":{"a":"#;
    vec![
        ("/v1/chat/completions", full_of(&format!("{called}["), "1,", "]}}]}]}")),
        ("/v1/chat/completions", full_of(&format!("{{{CHAT},\"metadata\":{{\"a\":["), "{\"a\":1},", "]}}")),
        (
            "/v1/chat/completions",
            full_of("{\"model\":\"default\",\"messages\":[", r#"{"role":"user","content":"a"},"#, "]}"),
        ),
        ("/v1/chat/completions", full_of(&format!("{{{CHAT},\"x\":["), "[],", "]}")),
        (
            "/v1/chat/completions",
            full_of("{\"model\":\"default\",\"messages\":[{\"role\":\"user\",\"content\":\"", "\\u0001", "\"}]}"),
        ),
        ("/v1/messages", full_of(&format!("{used}["), "1,", "]}}]}]}")),
        (
            "/v1/messages",
            full_of(
                &format!("{{{CHAT},\"max_tokens\":9,\"tools\":[{{\"name\":\"f\",\"input_schema\":{{\"a\":["),
                "{\"a\":{}},",
                "]}}]}",
            ),
        ),
        (
            "/v1/responses",
            full_of(
                "{\"model\":\"default\",\"input\":[",
                r#"{"type":"function_call_output","call_id":"a","output":"b"},"#,
                "]}",
            ),
        ),
        ("/v1/completions", full_of("{\"model\":\"default\",\"prompt\":\"a\",\"logit_bias\":{", "\"1\":1,", "}}")),
        ("/v1/embeddings", full_of("{\"model\":\"default\",\"input\":[", "1,", "]}")),
    ]
}

/// One that every path reads.
const CHAT: &str = r#""model":"default","messages":[{"role":"user","content":"Hi"}]"#;

// Fault 58.
#[test]
fn memory_stays_within_the_bounds_of_all_bodies_whatever_is_posted() {
    let home = Home::new();
    let server = home.serve(["--api-port", "0"]);
    let address = address(&server);
    assert_eq!(post(&address, "/v1/chat/completions", format!("{{{CHAT}}}").as_bytes()), 200);
    let before = memory(&server, "VmRSS");
    for (number, (path, body)) in SIZES.into_iter().flat_map(bodies).enumerate() {
        fs::write(format!("/proc/{}/clear_refs", server.id()), "5").unwrap();
        let answers: Vec<u16> = std::thread::scope(|scope| {
            let posting: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(|| post(&address, path, &body))).collect();
            posting.into_iter().map(|posting| posting.join().unwrap()).collect()
        });
        // The texts of bodies are there at most three times: as they came, as they were read, and as they are sent.
        let taken = BODIES.min((AT_ONCE * body.len()) as u64);
        let (peak, bound) = (memory(&server, "VmHWM"), before + 3 * taken + VALUES + 8_000_000);
        let line = format!("{path} {number}: {answers:?}, {} MiB at the most, bound {} MiB", peak / MIB, bound / MIB);
        writeln!(std::io::stdout(), "{line}").unwrap();
        assert!(peak <= bound, "{line}");
        assert!(answers.iter().all(|status| matches!(status, 200 | 400 | 413 | 503)), "{line}");
    }
    assert_eq!(post(&address, "/v1/chat/completions", format!("{{{CHAT}}}").as_bytes()), 200, "it goes on");
}
