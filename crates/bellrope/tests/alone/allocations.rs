//! A small call allocates nothing, neither at its caller nor at the server, whose worker is a thread of this process.
//!
//! All threads of the process are counted, so the test is alone in it.

use std::time::Duration;

use bellrope::{AsyncClient, Client, Server, client::Connection};
use bellrope_shm::CountingAllocator;
use bellrope_testkit::alone::alone;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

const SIZES: [usize; 4] = [64, 256, 1024, 4096];
const WARM_UP: usize = 1_000;
const CALLS: usize = 1_000;
/// See [`count`].
const COUNTS: usize = 5;
/// Calls that are sent together.
const BATCH: usize = 16;

#[test]
fn a_small_call_allocates_nothing_on_either_side() {
    alone("allocations::a_small_call_allocates_nothing_on_either_side", count_allocations);
}

/// Arguments that are borrowed are read where they lie, and the answer is written into the ring.
#[cfg(feature = "service")]
#[test]
fn a_small_typed_call_allocates_nothing_on_either_side() {
    alone("allocations::a_small_typed_call_allocates_nothing_on_either_side", || {
        #[bellrope::service(codec = "postcard")]
        trait Lengths {
            fn length(&self, text: &str, bytes: &[u8], times: u32) -> Result<u64, String>;
        }

        struct Adder;

        #[bellrope::service]
        impl Lengths for Adder {
            fn length(&self, text: &str, bytes: &[u8], times: u32) -> Result<u64, String> {
                Ok((text.len() + bytes.len()) as u64 * u64::from(times))
            }
        }

        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run").join("allocations.sock");
        let server = Server::builder().service(Adder).bind(&path).unwrap();
        let lengths = LengthsBlockingClient::connect(&path).unwrap();
        let counted = count(|| assert_eq!(lengths.length("ding", &[7; 100], 3).unwrap(), 312));
        assert_eq!(counted, 0);
        drop(lengths);
        assert!(server.drain(Duration::from_secs(60)));
    });
}

/// The bytes of large ones pass through memory of the caller's that stays: fresh memory would cost a fault for each page, and several
/// times the call. What is allocated is the request as the server puts it together, the answer there, and what the caller gets.
#[cfg(feature = "service")]
#[test]
fn a_large_typed_call_allocates_a_few_times() {
    alone("allocations::a_large_typed_call_allocates_a_few_times", || {
        use bellrope::service::Bytes;

        #[bellrope::service(codec = "postcard")]
        trait Copies {
            fn copy(&self, data: &[u8]) -> Bytes<'static>;
        }

        struct Copier;

        #[bellrope::service]
        impl Copies for Copier {
            fn copy(&self, data: &[u8]) -> Bytes<'static> {
                Bytes::from(data.to_vec())
            }
        }

        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run").join("allocations.sock");
        let server = Server::builder().service(Copier).bind(&path).unwrap();
        let copies = CopiesBlockingClient::connect(&path).unwrap();
        for size in [100 * 1024, 1024 * 1024] {
            let data = vec![0x5A; size];
            let counts: Vec<u64> = (0..COUNTS)
                .map(|_| {
                    ALLOCATOR.start();
                    (0..10).for_each(|_| assert!(*copies.copy(&data).unwrap() == *data));
                    ALLOCATOR.stop()
                })
                .collect();
            assert!(counts.iter().any(|counted| *counted <= 4 * 10), "calls of {size} B: {counts:?}");
        }
        drop(copies);
        assert!(server.drain(Duration::from_secs(60)));
    });
}

fn count_allocations() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("allocations.sock");
    let echo = |call: &bellrope::Call<'_>, reply: &mut bellrope::Reply<'_>| {
        reply.put(call.payload());
        Ok(())
    };
    let server = Server::builder().unary("echo", echo).bind(&path).unwrap();
    let (mut connection, client) = (Connection::connect(&path).unwrap(), Client::connect(&path).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let async_client = runtime.block_on(AsyncClient::connect(&path)).unwrap();
    let echo = connection.message_type("echo").unwrap();
    let mut reply = Vec::new();

    for size in SIZES {
        let payload = vec![0x5A; size];
        let counted = count(|| connection.call(echo, &payload, &mut reply).unwrap());
        assert!(counted == 0 && reply == payload, "Connection::call, {size} B: {counted}");

        let counted = count(|| {
            // As many as find room.
            let sent = (0..BATCH).take_while(|_| connection.queue(echo, &payload).unwrap().is_some()).count();
            assert!(sent > 0);
            (0..sent).for_each(|_| connection.wait(&mut reply).unwrap().outcome.unwrap());
        });
        assert!(counted == 0 && reply == payload, "Connection::queue, {size} B: {counted}");

        let counted = count(|| client.call_into("echo", &payload, &mut reply).unwrap());
        assert!(counted == 0 && reply == payload, "Client::call_into, {size} B: {counted}");

        // The reply that it returns is its caller's.
        let counted = count(|| assert_eq!(client.call("echo", &payload).unwrap(), payload));
        assert_eq!(counted, CALLS as u64, "Client::call, {size} B");

        let counted = count(|| client.call_into(echo, &payload, &mut reply).unwrap());
        assert!(counted == 0 && reply == payload, "Client::call_into of a known type, {size} B: {counted}");

        let counted = count(|| runtime.block_on(async_client.call_into("echo", &payload, &mut reply)).unwrap());
        assert!(counted == 0 && reply == payload, "AsyncClient::call_into, {size} B: {counted}");
    }

    // And the count is one: what does allocate is seen, in whichever thread.
    let counted = count(|| std::thread::scope(|scope| scope.spawn(|| drop(vec![0; 100])).join().unwrap()));
    assert!(counted >= CALLS as u64, "{counted}");
    drop((connection, client, async_client, runtime));
    assert!(server.drain(Duration::from_secs(60)));
}

/// How often anything in this process allocated during [`CALLS`] calls, after as many to get warm. Other threads, such as
/// one that takes note of a new connection, allocate now and then; so the least of some counts holds: what the path of a
/// call allocates is in every one.
fn count(mut one: impl FnMut()) -> u64 {
    (0..WARM_UP).for_each(|_| one());
    let counts = (0..COUNTS).map(|_| {
        ALLOCATOR.start();
        (0..CALLS).for_each(|_| one());
        ALLOCATOR.stop()
    });
    counts.min().unwrap()
}
