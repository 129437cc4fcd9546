//! The server process: handlers of every style that note each call before they answer it.

use std::{path::Path, sync::Arc};

use bellrope::{HandlerError, Server, ServerConfig};
use bellrope_shm::clock;

use super::{
    chunks_of,
    journal::Journal,
    ledger::{Event, Flow},
    payload, until_dismissed,
};

pub(crate) fn run(socket: &Path, journal: &Path) {
    let journal = Arc::new(Journal::create(journal));
    let mut config = ServerConfig::default();
    config.ring_bytes = 64 * 1024;
    let [now, later, count, sum, both] = std::array::from_fn(|_| Arc::clone(&journal));
    let server = Server::builder()
        .config(config)
        .unary("now", move |call, reply| {
            ran(&now, call.payload());
            reply.write(call.payload());
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
        .bind(socket)
        .unwrap();
    until_dismissed();
    server.shutdown();
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
