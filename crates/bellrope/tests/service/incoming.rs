//! Streams from a caller that their method hands to a task of its own: the task ends with the call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use bellrope::{
    Server,
    service::{Incoming, Stream, StreamCut, produce},
};

/// What lives, or has seen the end of its stream.
#[derive(Default)]
struct Counts {
    alive: AtomicUsize,
    whole: AtomicUsize,
    cut: AtomicUsize,
}

struct Alive(Arc<Counts>);

impl Alive {
    fn new(counts: &Arc<Counts>) -> Self {
        counts.alive.fetch_add(1, SeqCst);
        Self(Arc::clone(counts))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, SeqCst);
    }
}

#[bellrope::service]
trait Sums {
    async fn waits(&self, numbers: Incoming<u8>) -> Result<u64, String>;
    async fn answers_early(&self, numbers: Incoming<u8>) -> u8;
    async fn beside(&self, numbers: Incoming<u8>) -> u64;
    fn both_ways(&self, numbers: Incoming<u8>) -> impl Stream<Item = u64>;
    async fn in_a_task(&self, numbers: Incoming<u8>) -> Option<u8>;
    fn at_once(&self, numbers: Incoming<u8>) -> impl Stream<Item = bool>;
}

struct Host(Arc<Counts>);

impl Host {
    fn start(&self, numbers: Incoming<u8>) -> tokio::task::JoinHandle<Result<u64, StreamCut>> {
        let (alive, mut numbers) = (Alive::new(&self.0), numbers.detach());
        tokio::spawn(async move {
            let mut sum = 0;
            while let Some(number) = numbers.next().await {
                sum += u64::from(number.inspect_err(|_| {
                    alive.0.cut.fetch_add(1, SeqCst);
                })?);
            }
            alive.0.whole.fetch_add(1, SeqCst);
            Ok(sum)
        })
    }
}

#[bellrope::service]
impl Sums for Host {
    async fn waits(&self, numbers: Incoming<u8>) -> Result<u64, String> {
        let sum = self.start(numbers).await.map_err(|error| error.to_string())?;
        sum.map_err(|error| error.to_string())
    }

    async fn answers_early(&self, numbers: Incoming<u8>) -> u8 {
        drop(self.start(numbers));
        9
    }

    async fn beside(&self, mut numbers: Incoming<u8>) -> u64 {
        let work = async {
            let mut sum = 0;
            while let Some(number) = numbers.next().await {
                sum += u64::from(number);
            }
            sum
        };
        tokio::join!(work, tokio::task::yield_now()).0
    }

    fn both_ways(&self, numbers: Incoming<u8>) -> impl Stream<Item = u64> {
        let task = self.start(numbers);
        produce(async move |sums| {
            sums.send(1).await;
            if let Ok(Ok(sum)) = task.await {
                sums.send(sum).await;
            }
        })
    }

    async fn in_a_task(&self, mut numbers: Incoming<u8>) -> Option<u8> {
        let alive = Alive::new(&self.0);
        let task = tokio::spawn(async move {
            let _alive = alive;
            numbers.next().await
        });
        task.await.expect("the task reads its stream")
    }

    fn at_once(&self, mut numbers: Incoming<u8>) -> impl Stream<Item = bool> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let came = std::pin::Pin::new(&mut numbers).poll_next(&mut context).is_ready();
        produce(async move |known| known.send(came || numbers.next().await.is_some()).await)
    }
}

struct Served {
    _home: tempfile::TempDir,
    _server: Server,
    counts: Arc<Counts>,
    sums: SumsBlockingClient,
}

fn served() -> Served {
    let (home, counts) = (tempfile::tempdir().unwrap(), Arc::<Counts>::default());
    let path = home.path().join("private").join("sums.sock");
    let server = Server::builder().service(Host(Arc::clone(&counts))).bind(&path).unwrap();
    let sums = SumsBlockingClient::connect(&path).unwrap();
    Served { _home: home, _server: server, counts, sums }
}

impl Served {
    /// Waits until no task lives, and so many have seen their stream cut.
    #[track_caller]
    fn none_lives_and_were_cut(&self, cut: usize) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let (alive, seen) = (self.counts.alive.load(SeqCst), self.counts.cut.load(SeqCst));
            if (alive, seen) == (0, cut) {
                return;
            }
            assert!(Instant::now() < deadline, "{alive} alive; {seen} cut, of {cut}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until a task lives.
    #[track_caller]
    fn one_lives(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.counts.alive.load(SeqCst) == 0 {
            assert!(Instant::now() < deadline, "no task began");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn a_detached_stream_that_is_whole_says_so() {
    let served = served();
    let mut upload = served.sums.waits().unwrap();
    assert!(upload.send(&1).unwrap() && upload.send(&2).unwrap());
    assert_eq!(upload.finish().unwrap(), 3);
    served.none_lives_and_were_cut(0);
    assert_eq!(served.counts.whole.load(SeqCst), 1);
}

#[test]
fn no_task_outlives_an_item_that_cannot_be_read() {
    let served = served();
    for cut in 1..=5 {
        let mut upload = served.sums.as_ref().client_stream("Sums.waits", b"{}").unwrap();
        let _ = upload.send(b"1");
        let _ = upload.send(b"x");
        let error = upload.finish().unwrap_err().to_string();
        assert!(error.contains("Sums.waits: item 1 of the stream cannot be read"), "{error}");
        served.none_lives_and_were_cut(cut);
    }
    let (mut sink, chunks) = served.sums.as_ref().duplex("Sums.both_ways", b"{}").unwrap();
    let _ = sink.send(b"x");
    let error = chunks.into_iter().find_map(Result::err).unwrap().to_string();
    assert!(error.contains("Sums.both_ways: item 0 of the stream cannot be read"), "{error}");
    served.none_lives_and_were_cut(6);
    assert_eq!(served.counts.whole.load(SeqCst), 0);
}

#[test]
fn no_task_outlives_a_call_that_was_cancelled() {
    let served = served();
    for cut in 1..=5 {
        let mut upload = served.sums.waits().unwrap();
        assert!(upload.send(&1).unwrap());
        served.one_lives();
        drop(upload);
        served.none_lives_and_were_cut(cut);
    }
    let (sink, mut items) = served.sums.both_ways().unwrap();
    assert_eq!(items.next().unwrap().unwrap(), 1);
    // In this order: a sink that is dropped ends its stream, and then that is whole.
    drop(items);
    served.none_lives_and_were_cut(6);
    drop(sink);
}

#[test]
fn no_task_outlives_a_call_that_was_answered_early_or_its_client() {
    let served = served();
    for cut in 1..=5 {
        let mut upload = served.sums.answers_early().unwrap();
        let _ = upload.send(&1);
        served.none_lives_and_were_cut(cut);
        assert_eq!(upload.finish().unwrap(), 9);
    }
    let gone = SumsBlockingClient::connect(served._home.path().join("private").join("sums.sock")).unwrap();
    let upload = gone.waits().unwrap();
    served.one_lives();
    drop(gone);
    drop(upload);
    served.none_lives_and_were_cut(6);
    assert_eq!(served.counts.whole.load(SeqCst), 0);
}

/// It would wait for ever when the call ends, so it is refused from the first item on.
#[test]
fn a_stream_that_was_not_detached_is_read_in_its_method_alone() {
    let served = served();
    let mut upload = served.sums.in_a_task().unwrap();
    let _ = upload.send(&1);
    let error = upload.finish().unwrap_err().to_string();
    assert!(error.contains("a task of its own reads `incoming.detach()`"), "{error}");
    served.none_lives_and_were_cut(0);

    let mut upload = served.sums.beside().unwrap();
    assert!(upload.send(&1).unwrap() && upload.send(&2).unwrap());
    assert_eq!(upload.finish().unwrap(), 3);
    let (mut sink, mut known) = served.sums.at_once().unwrap();
    assert!(sink.send(&1).unwrap());
    assert!(known.next().unwrap().unwrap());
}
