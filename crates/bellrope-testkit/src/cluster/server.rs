//! The server process: handlers of every style that note each call before they answer it.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bellrope::{HandlerError, Server, server::ServerConfig};
use bellrope_shm::clock;

use super::{
    conventions::{KILL_AT, PATIENCE, chunks_of, until_dismissed},
    journal::Journal,
    process::ready_mark,
};
use crate::{
    ledger::{Event, Flow},
    payload,
};

/// How long a server that retires lets go on what is under way.
const DRAIN: Duration = Duration::from_millis(20);

pub(super) fn run(number: u64, socket: &Path, journal: &Path) {
    let ready = ready_mark(journal);
    let journal = Arc::new(Journal::create(journal));
    let mut config = ServerConfig::default();
    // Every other server has rings so small that all sides wait for room and credit all the time.
    (config.ring_bytes, config.stream_window) = if number.is_multiple_of(2) { (4096, 1024) } else { (65_536, 8192) };
    let [now, later, count, sum, both, watch] = std::array::from_fn(|_| Arc::clone(&journal));
    let server = Server::builder()
        .config(config)
        .unary("now", move |call, reply| {
            ran(&now, call.payload());
            reply.put(call.payload());
            Ok(())
        })
        .unary_async("later", move |call| {
            ran(&later, call.payload());
            async move {
                tokio::task::yield_now().await;
                Ok(call.into_payload())
            }
        })
        .server_stream("count", move |call, mut chunks| {
            let call = ran(&count, call.payload());
            async move {
                for number in 0..chunks_of(call) {
                    chunks.send(payload::chunk(call, number, payload::LEAST_CHUNK + number as usize)).await?;
                }
                Ok(())
            }
        })
        .client_stream("sum", move |call, mut chunks| {
            let (journal, call) = (Arc::clone(&sum), ran(&sum, call.payload()));
            async move {
                while let Some(chunk) = chunks.next().await {
                    note_chunk(&journal, call, &chunk)?;
                }
                journal.note(&Event::Whole { call, flow: Flow::Up, total: chunks_of(call) });
                Ok(payload::of(call, payload::LEAST))
            }
        })
        .duplex("both", move |call, mut incoming, mut outgoing| {
            let (journal, call) = (Arc::clone(&both), ran(&both, call.payload()));
            async move {
                while let Some(chunk) = incoming.next().await {
                    note_chunk(&journal, call, &chunk)?;
                    outgoing.send(chunk).await?;
                }
                journal.note(&Event::Whole { call, flow: Flow::Up, total: chunks_of(call) });
                Ok(())
            }
        })
        .server_stream("watch", move |call, _chunks| {
            let call = ran(&watch, call.payload());
            let attended = Attended { journal: Arc::clone(&watch), call };
            async move {
                let _attended = attended;
                std::future::pending().await
            }
        })
        .bind(socket)
        .unwrap();
    // Under its name only when it is closed: whoever sees it counts our descriptors.
    fs::write(ready.with_extension("new"), []).unwrap();
    fs::rename(ready.with_extension("new"), ready).unwrap();
    if until_dismissed() {
        server.drain(DRAIN);
    } else if std::env::var_os(KILL_AT).is_none() {
        // One that is to die on its way out is dismissed while its clients are still there.
        check_that_nothing_is_left(&server);
    }
    server.shutdown();
}

/// A call whose handler is there. Its end is noted, however it comes.
struct Attended {
    journal: Arc<Journal>,
    call: u64,
}

impl Drop for Attended {
    fn drop(&mut self) {
        self.journal.note(&Event::Left { call: self.call });
    }
}

/// A server whose clients are gone, however they went, holds nothing of theirs, and has found no fault with them.
fn check_that_nothing_is_left(server: &Server) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let snapshot = server.metrics().snapshot();
        let running: u64 = snapshot.types.iter().map(|counted| counted.running).sum();
        let left = (snapshot.active_connections, running, snapshot.buffers.map(|(used, _)| used));
        if left == (0, 0, Some(0)) {
            assert_eq!((snapshot.violations, snapshot.stalled), (0, 0), "whoever dies breaks no rule");
            return;
        }
        assert!(Instant::now() < deadline, "connections, calls and bytes of the budget are left: {left:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Notes that a call is run. Answers which.
fn ran(journal: &Journal, payload: &[u8]) -> u64 {
    let call = payload::call_of(payload);
    journal.note(&Event::Ran { call, at_us: clock::monotonic_us() });
    call
}

fn note_chunk(journal: &Journal, call: u64, chunk: &[u8]) -> Result<(), HandlerError> {
    let (made_for, number) = payload::chunk_of(chunk);
    if made_for != call {
        return Err(HandlerError::new("a chunk of another call came"));
    }
    journal.note(&Event::Chunk { call, flow: Flow::Up, number });
    Ok(())
}
