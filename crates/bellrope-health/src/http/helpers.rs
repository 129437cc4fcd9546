//! The further threads of a listener. Each has a runtime of its own, and serves the connections that it is given from their
//! first byte to their last: no request goes from one thread to another, and what it asks others for is waited for where it
//! was asked.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::JoinHandle,
};

use tokio::{
    net::TcpStream,
    runtime::Runtime,
    sync::{mpsc, watch},
};

use super::{
    phase::{Phase, until},
    places::Place,
    serving::{Serving, be_the_earliest},
};

/// A thread's runtime: all of it on that thread.
pub(super) fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().max_io_events_per_tick(64).build()
}

/// A connection on its way to the thread that serves it.
struct Guest {
    stream: std::net::TcpStream,
    place: Place,
    counted: Counted,
}

/// The threads beside the one that accepts. Dropped, each of them ends.
pub(super) struct Helpers {
    /// Connections of the thread that accepts, and of each of the others.
    open: Vec<Arc<AtomicUsize>>,
    doors: Vec<mpsc::UnboundedSender<Guest>>,
    threads: Vec<JoinHandle<()>>,
    /// Whoever is open holds one end of it; nothing is ever sent.
    lives: Option<mpsc::Sender<Infallible>>,
    ended: mpsc::Receiver<Infallible>,
}

/// A connection that counts for its thread until it ends.
pub(super) struct Counted {
    open: Arc<AtomicUsize>,
    _lives: Option<mpsc::Sender<Infallible>>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Relaxed);
    }
}

impl Helpers {
    /// Starts as many threads as the configuration wants beside the one that calls this.
    pub(super) fn start(serving: &Serving) -> io::Result<Self> {
        let config = &serving.config;
        let (lives, ended) = mpsc::channel(1);
        let (open, doors, threads) = (vec![Arc::default()], Vec::new(), Vec::new());
        let mut helpers = Self { open, doors, threads, lives: Some(lives), ended };
        for _ in 1..config.threads {
            let (door, guests) = mpsc::unbounded_channel();
            let runtime = runtime()?;
            let serving = serving.clone();
            let mut thread = std::thread::Builder::new().name(config.thread_name.to_owned());
            if let Some(bytes) = config.stack_bytes {
                thread = thread.stack_size(bytes);
            }
            let thread = thread.spawn(move || {
                runtime.block_on(host(guests, serving));
                // Takes all connections along.
                runtime.shutdown_background();
            })?;
            helpers.open.push(Arc::default());
            helpers.doors.push(door);
            helpers.threads.push(thread);
        }
        Ok(helpers)
    }

    /// Has a connection served by the thread that has fewest: this one where it is one of them, so that a lone connection goes to
    /// no other. As many wait as there are places, at most.
    pub(super) fn assign(&self, stream: TcpStream, place: Place, serving: &Serving) -> io::Result<()> {
        let loads = self.open.iter().map(|open| open.load(Relaxed)).enumerate();
        let fewest = loads.min_by_key(|(_, open)| *open).map_or(0, |(number, _)| number);
        let open = Arc::clone(&self.open[fewest]);
        open.fetch_add(1, Relaxed);
        let counted = Counted { open, _lives: self.lives.clone() };
        match fewest.checked_sub(1).and_then(|number| self.doors.get(number)) {
            None => serving.converse(stream, place, counted),
            // One that has ended serves nobody: then all is about to stop.
            Some(door) => drop(door.send(Guest { stream: stream.into_std()?, place, counted })),
        }
        Ok(())
    }

    /// Returns when every connection has ended. None is seated after this.
    pub(super) async fn all_ended(&mut self) {
        self.lives = None;
        self.ended.recv().await;
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        self.doors.clear();
        for thread in self.threads.drain(..) {
            // What panicked has said so.
            let _ = thread.join();
        }
    }
}

/// Serves what comes to a thread until nothing more can come, or all is to stop.
async fn host(mut guests: mpsc::UnboundedReceiver<Guest>, serving: Serving) {
    let mut phases: watch::Receiver<Phase> = serving.phases.clone();
    let hosting = async {
        while let Some(Guest { stream, place, counted }) = guests.recv().await {
            // Without a place in the runtime's table it is closed.
            if let Ok(stream) = TcpStream::from_std(stream) {
                serving.converse(stream, place, counted);
            }
        }
    };
    tokio::select! {
        () = hosting => {}
        () = be_the_earliest(&serving.config) => {}
        () = until(&mut phases, |phase| phase == Phase::Stopped) => {}
    }
}
