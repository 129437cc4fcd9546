//! What callers choose or do opens no breaker of `serve`, whatever its message types.

use std::time::Duration;

use bellrope::{
    CallError, Client,
    client::{CallOptions, Rejection, Style},
};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Home, Running, eventually};

/// More than any breaker stands of what counts.
const OFTEN: usize = 7;

/// A request that the handler of this type accepts.
fn request(name: &str) -> &'static str {
    match name {
        "ai.chat" | "ai.chat_stream" => r#"{"messages":[{"role":"user","content":"Take your time"}]}"#,
        "ai.embed" => r#"{"input":["Hi"]}"#,
        "ai.resume" | "ai.cancel" => r#"{"id":"0"}"#,
        "ai.complete" | "ai.complete_stream" => r#"{"prompt":"fn main"}"#,
        "bellrope.schema" => r#"{"method":"ai.chat"}"#,
        _ => "",
    }
}

/// Makes a call to its end, and fails the test if a breaker refused it.
fn call(client: &Client, name: &str, style: Style, payload: &[u8], within: Duration) -> Result<(), CallError> {
    let outcome = if style == Style::Unary {
        client.call_within(name, payload, within).map(drop)
    } else {
        let options = CallOptions::new().timeout(within);
        client.stream_with(name, payload, &options).and_then(|mut chunks| chunks.try_for_each(|chunk| chunk.map(drop)))
    };
    let is_refused = matches!(&outcome, Err(CallError::Rejected { reason: Rejection::Breaker, .. }));
    assert!(!is_refused, "{name}: {outcome:?}");
    outcome
}

// Faults 47, 60.
#[test]
fn whatever_a_hostile_client_does_an_honest_one_is_never_rejected() {
    let home = Home::new();
    // Answers of 30 ms, of which all are slow by the settings.
    home.config("[server.breaker]\nslow_call_ms = 1\n[gateway.embedded]\ntokens_per_second = 100\ntokens = 3\n");
    let config = home.path("bellrope.toml");
    let _server = home.serve(["--config", config.to_str().unwrap()]);
    let (honest, hostile) = (Client::connect(home.socket()).unwrap(), Client::connect(home.socket()).unwrap());
    let patience = Duration::from_secs(60);
    let types = honest.message_types();
    assert!(types.len() > 8, "{types:?}");
    for (name, style) in &types {
        let (style, good) = (*style, request(name).as_bytes());
        let answered = |after: &str| {
            let outcome = call(&honest, name, style, good, patience);
            // There is no answer to be cancelled, and this provider has no vectors.
            let is_said_no = matches!(outcome, Err(CallError::InvalidRequest { .. }));
            assert!(
                outcome.is_ok() || is_said_no && ["ai.cancel", "ai.embed"].contains(&&**name),
                "{name} after {after}: {outcome:?}"
            );
        };
        for _ in 0..OFTEN {
            for bad in [&b"{"[..], b"\xff\xfe", b"[]", br#"{"messages":[],"prompt":7,"action":"fly"}"#] {
                let _ = call(&hostile, name, style, bad, patience);
            }
        }
        answered("bad input");
        let big = vec![b'['; 1_000_000];
        for _ in 0..OFTEN {
            let _ = call(&hostile, name, style, &big, patience);
        }
        answered("big input");
        for _ in 0..OFTEN {
            // Passed before it is taken, and just after a call is slow.
            let _ = call(&hostile, name, style, good, Duration::from_micros(1));
            let _ = call(&hostile, name, style, good, Duration::from_millis(3));
        }
        answered("deadlines");
        for _ in 0..OFTEN {
            if style != Style::Unary {
                drop(hostile.stream(name, good));
                let mut begun = hostile.stream(name, good).unwrap();
                let _ = begun.next();
            }
        }
        answered("cancels");
        let dying: Vec<_> =
            (0..OFTEN).map(|_| Running::start(&mut home.command(["call", name.as_str(), request(name)]))).collect();
        for process in dying {
            process.signal(Signal::KILL);
            process.finish();
        }
        answered("deaths");
    }
    // All of it has ended, and nothing of it was counted.
    let breakers: Value = serde_json::from_slice(&honest.call("bellrope.breaker", b"").unwrap()).unwrap();
    for row in breakers["breakers"].as_array().unwrap() {
        let clean = row["state"] == "closed" && row["opened"] == 0 && row["rejections"] == 0;
        assert!(clean && row["callers"].as_array().unwrap().is_empty(), "{row}");
    }
    eventually("nothing runs any more", || {
        let stats: Value = serde_json::from_slice(&honest.call("bellrope.stats", b"").unwrap()).unwrap();
        let rows = stats["health"]["types"].as_array().unwrap();
        rows.iter().all(|row| row["running"] == 0 || row["name"] == "bellrope.stats")
    });
}
