//! A server with handlers of every style, and waiting.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bellrope::{
    HandlerError, Server,
    server::{ServerBuilder, ServerConfig},
};
use tempfile::TempDir;

/// A server on a private path, gone with the test.
pub struct TestServer {
    /// The server.
    pub server: Server,
    /// Where it listens.
    pub path: PathBuf,
    /// How many handlers of `never` and `endless` were dropped.
    pub dropped: Arc<AtomicUsize>,
    _home: TempDir,
}

impl TestServer {
    /// How many handlers of `never` and `endless` were dropped so far.
    pub fn dropped(&self) -> usize {
        self.dropped.load(Ordering::SeqCst)
    }
}

/// Starts a server with handlers of every style.
///
/// # Panics
/// If these settings are refused.
pub fn serve(config: ServerConfig) -> TestServer {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let dropped = Arc::default();
    let server = builder(&dropped).config(config).bind(&path).unwrap();
    TestServer { server, path, dropped, _home: home }
}

struct CountDrop(Arc<AtomicUsize>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Handlers of every style. `dropped` counts the handlers of `never` and `endless` that were dropped.
pub fn builder(dropped: &Arc<AtomicUsize>) -> ServerBuilder {
    let (never, endless) = (Arc::clone(dropped), Arc::clone(dropped));
    Server::builder()
        .unary("echo", |call, reply| {
            reply.put(call.payload());
            Ok(())
        })
        .unary("fail", |_, _| Err(HandlerError::new("as asked")))
        .unary("panic", |_, _| panic!("on purpose"))
        .unary_async("later", |call| async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Ok(call.into_payload())
        })
        .unary_async("panic_later", |_| async move {
            tokio::task::yield_now().await;
            panic!("on purpose, later")
        })
        .unary_async("never", move |_| {
            let guard = CountDrop(Arc::clone(&never));
            async move {
                let _guard = guard;
                std::future::pending().await
            }
        })
        .server_stream("count", |call, mut chunks| async move {
            let count: u32 = std::str::from_utf8(call.payload()).unwrap().parse().unwrap();
            for n in 0..count {
                chunks.send(n.to_le_bytes()).await?;
            }
            Ok(())
        })
        .server_stream("endless", move |_, mut chunks| {
            let guard = CountDrop(Arc::clone(&endless));
            async move {
                let _guard = guard;
                loop {
                    chunks.send([7; 1000]).await?;
                }
            }
        })
        .unary("broken", |_, _| Err(HandlerError::failure("it is broken")))
        .unary("fail_with", |_, _| Err(HandlerError::with_code(42, "as agreed")))
        .unary("refuse", |_, _| Err(HandlerError::invalid_request("not like this")))
        .unary("grow", |call, reply| {
            let size: usize = std::str::from_utf8(call.payload()).unwrap().parse().unwrap();
            let piece = [7; 4096];
            (0..size).step_by(4096).for_each(|at| reply.put(&piece[..(size - at).min(4096)]));
            Ok(())
        })
        .unary_async("grow_later", |call| async move {
            let size: usize = std::str::from_utf8(call.payload()).unwrap().parse().unwrap();
            Ok(vec![7; size])
        })
        .client_stream("total", |call, mut chunks| async move {
            let mut total = call.payload().len();
            while let Some(chunk) = chunks.next().await {
                total += chunk.len();
            }
            Ok(total.to_string().into_bytes())
        })
        .client_stream("first", |_, mut chunks| async move { Ok(chunks.next().await.unwrap_or_default()) })
        .duplex("double", |_, mut incoming, mut outgoing| async move {
            while let Some(chunk) = incoming.next().await {
                outgoing.send([&chunk[..], &chunk[..]].concat()).await?;
            }
            Ok(())
        })
        .server_stream("broken_stream", |_, mut chunks| async move {
            chunks.send(b"one").await?;
            Err(HandlerError::new("after one chunk"))
        })
        .unary_blocking("work", |call| {
            std::thread::sleep(Duration::from_micros(200));
            Ok(call.payload().to_vec())
        })
        .unary_reader("read", |_, request| {
            let read = std::io::copy(request, &mut std::io::sink())?;
            Ok(read.to_string().into_bytes())
        })
}

/// How long anything may take that a test waits for: far more than it takes, on the slowest machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until a condition holds.
///
/// # Panics
/// If it does not hold within [`PATIENCE`].
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come true within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
