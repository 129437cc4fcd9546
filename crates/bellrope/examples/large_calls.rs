//! Calls a second with up to 64 under way on one connection, by size, and for large messages by when the client takes its
//! answers. Every byte of each answer is read.
//! `docs/performance.md` has the figures.
//!
//! ```sh
//! cargo run --release -p bellrope --example large_calls
//! ```
#![expect(clippy::print_stdout, reason = "an example prints what it found")]

use std::{
    error::Error,
    hint::black_box,
    path::Path,
    time::{Duration, Instant},
};

use bellrope::{
    Server,
    client::{ClientConfig, Connection, MessageType, SpinPolicy},
    server::ServerConfig,
};

const SIZES: [usize; 5] = [64, 1 << 10, 64 << 10, 256 << 10, 1 << 20];
const DEPTH: usize = 64;
const TURNS: usize = 5;
const TIME: Duration = Duration::from_millis(300);

/// When the client takes the answers that have come.
#[derive(Debug, Clone, Copy)]
enum Taken {
    /// When no more may be under way: those that came before are kept by the connection.
    Late,
    /// After each call that is sent.
    AtOnce,
}

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("private").join("large.sock");
    let config = ServerConfig::new().spin(SpinPolicy::Always);
    let server = Server::builder().config(config).in_place("echo", |_| Ok(())).bind(&path)?;
    println!("{:>9} {:>22} {:>22}", "bytes", "taken late, a second", "taken at once");
    for size in SIZES {
        let mut best = [0.0_f64; 2];
        for _ in 0..TURNS {
            for (best, taken) in best.iter_mut().zip([Taken::Late, Taken::AtOnce]) {
                *best = best.max(echoes(&path, size, taken)?);
            }
        }
        println!("{size:>9} {:>22.0} {:>22.0}", best[0], best[1]);
    }
    server.shutdown();
    Ok(())
}

/// Echoes a second.
fn echoes(path: &Path, size: usize, taken: Taken) -> Result<f64, Box<dyn Error>> {
    let mut connection = Connection::with(&ClientConfig::new(path).spin(SpinPolicy::Always))?;
    let echo = connection.message_type("echo")?;
    let (payload, mut reply) = (vec![0x5A; size], Vec::new());
    let mut answered = 0_u64;
    let began = Instant::now();
    while began.elapsed() < TIME {
        send(&mut connection, echo, &payload, &mut reply, taken, &mut answered)?;
        take(&mut connection, &mut reply, &mut answered)?;
    }
    let rate = answered as f64 / began.elapsed().as_secs_f64();
    while connection.in_flight() > 0 {
        connection.wait(&mut reply)?.outcome?;
    }
    Ok(rate)
}

/// Sends until as many are under way as may be, or there is no room for more.
fn send(
    connection: &mut Connection,
    echo: MessageType,
    payload: &[u8],
    reply: &mut Vec<u8>,
    taken: Taken,
    answered: &mut u64,
) -> Result<(), Box<dyn Error>> {
    while connection.in_flight() < DEPTH {
        if payload.len() > 64 << 10 {
            connection.submit(echo, payload)?;
            if matches!(taken, Taken::AtOnce) {
                take(connection, reply, answered)?;
            }
        } else if connection.queue(echo, payload)?.is_none() {
            break;
        }
    }
    connection.flush();
    Ok(())
}

/// Takes the answers that are there, and reads each.
fn take(connection: &mut Connection, reply: &mut Vec<u8>, answered: &mut u64) -> Result<(), Box<dyn Error>> {
    while let Some(completion) = connection.poll(reply)? {
        completion.outcome?;
        let words = reply.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap_or_default()));
        black_box(words.fold(0, u64::wrapping_add));
        *answered += 1;
    }
    Ok(())
}
