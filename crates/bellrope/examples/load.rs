//! A load for a running `bellrope serve`, to see dashboards and rules at work:
//! `cargo run --release -p bellrope --example load -- SOCKET SECONDS [ECHOES]`.
//!
//! For so many seconds it calls `echo` on four connections, sixteen calls in flight on each, at most ECHOES in all; it
//! streams chats one after the other, and every 100 ms sends a request that its handler refuses. Twenty more
//! connections are open and idle. At the end it prints as JSON what it has called.
#![expect(clippy::print_stdout, reason = "an example prints what it did")]

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bellrope::{
    Client,
    client::{Connection, MessageType},
};

const CALLERS: usize = 4;
const IN_FLIGHT: usize = 16;
const IDLE: usize = 20;
const REFUSED_EVERY: Duration = Duration::from_millis(100);
const CHAT: &str = r#"{ "messages": [{ "role": "user", "content": "What is a bell rope for?" }] }"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let socket = PathBuf::from(args.next().ok_or("usage: load SOCKET SECONDS [ECHOES]")?);
    let seconds: u64 = args.next().ok_or("usage: load SOCKET SECONDS [ECHOES]")?.parse()?;
    let most = args.next().map_or(Ok(u64::MAX), |text| text.parse())?;
    let until = Instant::now() + Duration::from_secs(seconds);

    let idle = (0..IDLE).map(|_| Connection::connect(&socket)).collect::<Result<Vec<_>, _>>()?;
    let (echoes, chats) = std::thread::scope(|scope| {
        let chats = scope.spawn(|| chat(&socket, until).map_err(|error| error.to_string()));
        let echoes = echo(&socket, until, most).map_err(|error| error.to_string());
        (echoes, chats.join())
    });
    let (chats, refused) = chats.map_err(|_| "the chats panicked")??;
    drop(idle);
    println!("{}", serde_json::json!({ "echo": echoes?, "chats": chats, "refused": refused }));
    Ok(())
}

fn echo(socket: &Path, until: Instant, most: u64) -> Result<u64, Box<dyn std::error::Error>> {
    let connect = |_| -> Result<(Connection, MessageType), Box<dyn std::error::Error>> {
        let connection = Connection::connect(socket)?;
        let echo = connection.message_type("echo")?;
        Ok((connection, echo))
    };
    let mut callers = (0..CALLERS).map(connect).collect::<Result<Vec<_>, _>>()?;
    let (mut sent, mut answered, mut reply) = (0, 0, Vec::new());
    while Instant::now() < until || answered < sent {
        for (connection, echo) in &mut callers {
            while let Some(completion) = connection.poll(&mut reply)? {
                completion.outcome?;
                answered += 1;
            }
            while sent < most && connection.in_flight() < IN_FLIGHT && Instant::now() < until {
                if connection.queue(*echo, &[0x5a; 64])?.is_none() {
                    break;
                }
                sent += 1;
            }
            connection.flush();
        }
        if sent == most {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(answered)
}

/// Returns how many chats came whole, and how many bad requests were refused.
fn chat(socket: &Path, until: Instant) -> Result<(u64, u64), Box<dyn std::error::Error>> {
    let client = Client::connect(socket)?;
    let (mut chats, mut refused, mut next_refused) = (0, 0, Instant::now());
    while Instant::now() < until {
        for chunk in client.stream("ai.chat_stream", CHAT.as_bytes())? {
            chunk?;
        }
        chats += 1;
        if Instant::now() >= next_refused {
            next_refused += REFUSED_EVERY;
            refused += u64::from(client.call("ai.chat", b"no JSON").is_err());
        }
    }
    Ok((chats, refused))
}
