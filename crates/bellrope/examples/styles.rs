//! A server with message types of every style, for tests of clients in other languages:
//! `cargo run -p bellrope --example styles -- SOCKET [MORE]`. With `MORE` there are so many types more, with long names, each of
//! which is an `echo`.
//!
//! It prints `ready` as soon as it listens, and ends when its standard input does: a test that dies leaves none behind.
//!
//! | type | style | what it does |
//! |---|---|---|
//! | `echo` | unary | answers with the request |
//! | `fail`, `refuse`, `panic` | unary | end with the request as their text: an error of code 7, an invalid request, a panic |
//! | `repeat` | unary | answers with as many bytes as the request says in decimal |
//! | `never` | unary | does not answer |
//! | `count` | server stream | numbers in decimal, as many as the request says, or without end |
//! | `drip` | server stream | the request, a byte a chunk |
//! | `break` | server stream | one chunk, then an error |
//! | `join` | client stream | answers with all chunks in one |
//! | `first` | client stream | answers with the first chunk, without waiting for the end |
//! | `ignore` | client stream | takes no chunk and does not answer |
//! | `shout` | duplex | each chunk, in capitals |
//! | `add`, `remove` | unary | adds an `echo` under the name in the request, while the server runs, and takes it out |
//! | `calls` | unary | how many echoes were served, and how many handlers of other types run and were dropped, as JSON |
#![expect(clippy::print_stdout, reason = "an example says when it listens")]

use std::{
    future::pending,
    io::Read as _,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use bellrope::{
    HandlerError, Server,
    server::{OwnedCall, ServerBuilder},
};

/// What `calls` tells.
#[derive(Debug, Default)]
struct Counts {
    served: AtomicU64,
    running: AtomicU64,
    dropped: AtomicU64,
}

/// A handler that runs. If it is dropped before it is done, that is counted.
struct Running {
    counts: Arc<Counts>,
    done: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let socket = arguments.next().ok_or("usage: styles SOCKET [MORE]")?;
    let more = arguments.next().map_or(Ok(0), |more| more.parse())?;
    let (counts, running) = (Arc::default(), Arc::default());
    let server = duplex(client_streams(server_streams(unary(Server::builder(), &counts), &counts), &counts), &counts);
    let server = many(changing(server, &running), more).bind(std::path::Path::new(&socket))?;
    let server = running.get_or_init(|| server);
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    server.shutdown();
    Ok(())
}

/// What changes the table of the server that runs.
fn changing(server: ServerBuilder, running: &Arc<OnceLock<Server>>) -> ServerBuilder {
    let (adding, removing) = (Arc::clone(running), Arc::clone(running));
    let not_yet = || HandlerError::with_code(1, "the server is starting");
    server
        .room_for_types(64)
        .unary_async("add", move |call| {
            let server = Arc::clone(&adding);
            async move {
                let (server, name) = (server.get().ok_or_else(not_yet)?, text(call.payload()));
                let added = server.add_types(|types| echo(types, &name));
                added.map(|()| Vec::new()).map_err(|error| HandlerError::invalid_request(error.to_string()))
            }
        })
        .unary_async("remove", move |call| {
            let server = Arc::clone(&removing);
            async move {
                let was_there = server.get().ok_or_else(not_yet)?.remove_type(&text(call.payload()));
                Ok(was_there.to_string().into_bytes())
            }
        })
}

fn many(server: ServerBuilder, more: usize) -> ServerBuilder {
    (0..more).fold(server, |server, number| echo(server, &format!("more.{number:0100}")))
}

fn echo(server: ServerBuilder, name: &str) -> ServerBuilder {
    server.unary(name, |call, reply| {
        reply.put(call.payload());
        Ok(())
    })
}

fn unary(server: ServerBuilder, counts: &Arc<Counts>) -> ServerBuilder {
    let (echoes, all, never) = (Arc::clone(counts), Arc::clone(counts), Arc::clone(counts));
    server
        .unary("echo", move |call, reply| {
            echoes.served.fetch_add(1, SeqCst);
            reply.put(call.payload());
            Ok(())
        })
        .unary("fail", |call, _| Err(HandlerError::with_code(7, text(call.payload()))))
        .unary("refuse", |call, _| Err(HandlerError::invalid_request(text(call.payload()))))
        .unary("panic", |call, _| panic!("{}", text(call.payload())))
        .unary_async("repeat", |call| async move { Ok(pattern(number(&call)?.unwrap_or(0))) })
        .unary_async("never", move |_| {
            let running = Running::new(&never);
            async move {
                let _running = running;
                pending().await
            }
        })
        .unary("calls", move |_, reply| {
            let Counts { served, running, dropped } = &*all;
            let counts = [("served", served), ("running", running), ("dropped", dropped)];
            let shown = counts.map(|(name, count)| format!("\"{name}\":{}", count.load(SeqCst)));
            reply.put(format!("{{{}}}", shown.join(",")).as_bytes());
            Ok(())
        })
}

fn server_streams(server: ServerBuilder, counts: &Arc<Counts>) -> ServerBuilder {
    let counted = Arc::clone(counts);
    server
        .server_stream("count", move |call, mut chunks| {
            let running = Running::new(&counted);
            async move {
                let end = number(&call)?.unwrap_or(usize::MAX);
                for number in 0..end {
                    chunks.send(number.to_string()).await?;
                }
                running.done();
                Ok(())
            }
        })
        .server_stream("drip", |call, mut chunks| async move {
            for byte in call.payload() {
                chunks.send([*byte]).await?;
            }
            Ok(())
        })
        .server_stream("break", |_, mut chunks| async move {
            chunks.send("half").await?;
            Err(HandlerError::with_code(9, "that was all"))
        })
}

fn client_streams(server: ServerBuilder, counts: &Arc<Counts>) -> ServerBuilder {
    let (joined, ignored) = (Arc::clone(counts), Arc::clone(counts));
    server
        .client_stream("join", move |_, mut chunks| {
            let running = Running::new(&joined);
            async move {
                let mut whole = Vec::new();
                while let Some(chunk) = chunks.next().await {
                    whole.extend(chunk);
                }
                running.done();
                Ok(whole)
            }
        })
        .client_stream("first", |_, mut chunks| async move { Ok(chunks.next().await.unwrap_or_default()) })
        .client_stream("ignore", move |_, chunks| {
            let running = Running::new(&ignored);
            async move {
                let _kept = (running, chunks);
                pending().await
            }
        })
}

fn duplex(server: ServerBuilder, counts: &Arc<Counts>) -> ServerBuilder {
    let counts = Arc::clone(counts);
    server.duplex("shout", move |_, mut incoming, mut outgoing| {
        let running = Running::new(&counts);
        async move {
            while let Some(chunk) = incoming.next().await {
                outgoing.send(chunk.to_ascii_uppercase()).await?;
            }
            running.done();
            Ok(())
        }
    })
}

impl Running {
    fn new(counts: &Arc<Counts>) -> Self {
        counts.running.fetch_add(1, SeqCst);
        Self { counts: Arc::clone(counts), done: false }
    }

    fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.counts.running.fetch_sub(1, SeqCst);
        if !self.done {
            self.counts.dropped.fetch_add(1, SeqCst);
        }
    }
}

fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload).into_owned()
}

/// The number in a request, if there is one.
fn number(call: &OwnedCall) -> Result<Option<usize>, HandlerError> {
    let text = text(call.payload());
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| HandlerError::invalid_request(format!("{text:?} is no number")))
}

/// Bytes that differ, so that none of them is missed or comes twice unnoticed.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}
