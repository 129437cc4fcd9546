//! Streams whose items come from tasks and threads beside their block, and requests that tasks read.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use bellrope::{
    Server,
    service::{DetachedSender, Stream, produce},
};

#[bellrope::service]
trait Numbers {
    fn task_waited_for(&self, to: u32) -> impl Stream<Item = u32>;
    fn task_alone(&self, to: u32) -> impl Stream<Item = u32>;
    fn thread_alone(&self, to: u32) -> impl Stream<Item = u32>;
    fn not_detached(&self) -> impl Stream<Item = u32>;
}

/// Counts the tasks and threads that live.
#[derive(Default)]
struct Host(Arc<AtomicUsize>);

struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

async fn send(items: DetachedSender<u32>, to: u32, _alive: Alive) {
    for item in 0..to {
        if items.send(item).await.is_err() {
            break;
        }
    }
}

#[bellrope::service]
impl Numbers for Host {
    fn task_waited_for(&self, to: u32) -> impl Stream<Item = u32> {
        let alive = Alive::new(&self.0);
        produce(async move |items| {
            let _ = tokio::spawn(send(items.detach(), to, alive)).await;
        })
    }

    fn task_alone(&self, to: u32) -> impl Stream<Item = u32> {
        let alive = Alive::new(&self.0);
        produce(async move |items| drop(tokio::spawn(send(items.detach(), to, alive))))
    }

    fn thread_alone(&self, to: u32) -> impl Stream<Item = u32> {
        let alive = Alive::new(&self.0);
        produce(async move |items| {
            let (runtime, items) = (tokio::runtime::Handle::current(), items.detach());
            drop(tokio::task::spawn_blocking(move || runtime.block_on(send(items, to, alive))));
        })
    }

    fn not_detached(&self) -> impl Stream<Item = u32> {
        let alive = Alive::new(&self.0);
        produce(async move |items| {
            tokio::join!(items.send(1), items.send(2));
            drop(tokio::spawn(async move {
                let _alive = alive;
                items.send(3).await;
            }));
        })
    }
}

#[track_caller]
fn none_is_left(alive: &AtomicUsize) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while alive.load(SeqCst) > 0 {
        assert!(Instant::now() < deadline, "{} still live", alive.load(SeqCst));
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_stream_has_what_tasks_and_threads_send_and_they_end_with_it() {
    let (home, alive) = (tempfile::tempdir().unwrap(), Arc::default());
    let path = home.path().join("private").join("numbers.sock");
    let _server = Server::builder().service(Host(Arc::clone(&alive))).bind(&path).unwrap();
    let client = NumbersBlockingClient::connect(&path).unwrap();
    let all = || [client.task_waited_for(1_000), client.task_alone(1_000), client.thread_alone(1_000)];
    for items in all() {
        let items: Vec<_> = items.unwrap().collect::<Result<_, _>>().unwrap();
        assert!(items.iter().copied().eq(0..1_000), "{} items", items.len());
    }
    none_is_left(&alive);
    for _ in 0..20 {
        let endless = [client.task_waited_for(u32::MAX), client.task_alone(u32::MAX), client.thread_alone(u32::MAX)];
        for items in endless {
            assert_eq!(items.unwrap().next().unwrap().unwrap(), 0);
        }
    }
    none_is_left(&alive);
    let mut items = client.not_detached().unwrap();
    assert_eq!([items.next().unwrap().unwrap(), items.next().unwrap().unwrap()], [1, 2]);
    // It would look whole, and the task would wait for ever.
    let error = items.next().unwrap().unwrap_err().to_string();
    assert!(error.contains("sends through `sender.detach()`"), "{error}");
    none_is_left(&alive);
}

#[test]
fn a_task_that_reads_a_request_ends_with_the_call() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("early.sock");
    let alive = Arc::<AtomicUsize>::default();
    let (counting, cut) = (Arc::clone(&alive), Arc::<AtomicUsize>::default());
    let counting_cut = Arc::clone(&cut);
    let _server = Server::builder()
        .client_stream("early", move |_, mut chunks| {
            let (counting, cut) = (Arc::clone(&counting), Arc::clone(&counting_cut));
            async move {
                // Counted where the task begins at once: a handler that was never polled has none.
                let alive = Alive::new(&counting);
                tokio::spawn(async move {
                    let _alive = alive;
                    while let Some(_chunk) = chunks.try_next().await.inspect_err(|_| {
                        cut.fetch_add(1, SeqCst);
                    })? {}
                    Ok::<_, bellrope::server::CallerGone>(())
                });
                Ok(b"early".to_vec())
            }
        })
        .bind(&path)
        .unwrap();
    let client = bellrope::Client::connect(&path).unwrap();
    for expected in 1..=20 {
        let mut upload = client.client_stream("early", b"").unwrap();
        // The answer may be there already.
        let _ = upload.send(b"1");
        let deadline = Instant::now() + Duration::from_secs(30);
        while alive.load(SeqCst) + cut.load(SeqCst) < expected {
            assert!(Instant::now() < deadline, "no task began");
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(upload);
        none_is_left(&alive);
        assert_eq!(cut.load(SeqCst), expected, "half a stream is no whole one");
    }
}

/// In one task with the stream's reader, beside its block.
#[tokio::test]
async fn a_sender_beside_the_reader_is_told_as_others_are() {
    let (hand, taken) = tokio::sync::oneshot::channel();
    let stream = produce(async move |items| drop(hand.send(items.detach())));
    let mut stream = std::pin::pin!(stream);
    let mut next = async || std::future::poll_fn(|context| stream.as_mut().poll_next(context)).await;
    let sending = async {
        let items = taken.await.unwrap();
        for item in 0..100 {
            items.send(item).await.unwrap();
        }
    };
    let reading = async {
        let mut all = Vec::new();
        while let Some(item) = next().await {
            all.push(item);
        }
        all
    };
    let both = async { tokio::join!(sending, reading).1 };
    let all = tokio::time::timeout(Duration::from_secs(30), both).await.expect("nobody waits for ever");
    assert!(all.into_iter().eq(0..100));
}
