//! Every interleaving of the two sides of a ring, of a stream under credit, of a death, and of those who share a budget,
//! checked with loom. A lost wake-up shows as a deadlock.
//!
//! Run with: `RUSTFLAGS="--cfg loom" cargo test -p bellrope-proto --release --target-dir target/loom --test loom`
#![cfg(loom)]

use std::sync::Arc;

use bellrope_proto::{
    BufferBudget,
    connection::{AnswerKind, ClientConnection, Failure, Inbound, Loss, ServerConnection, Terms, pair},
    frame::Kind,
    handshake::Style,
    layout::{Geometry, RECORDS},
    ring::{Armed, Consumer, Producer, Record, RecordClass, admitted},
};
use bellrope_shm::{SharedMemory, View};
use loom::{
    sync::{
        Notify,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

/// A ring small enough for every schedule to be tried. Records here have 8 bytes of payload: 24 bytes each.
fn ring(capacity: u64, window: u64) -> (Producer, Consumer, View) {
    made_of(Geometry { capacity, window, compact: false })
}

fn made_of(geometry: Geometry) -> (Producer, Consumer, View) {
    let Geometry { capacity, window, compact } = geometry;
    let len = RECORDS + (capacity + if compact { window } else { 0 }) as usize;
    let view = SharedMemory::anonymous(len).view(0..len);
    (Producer::new(view.clone(), geometry), Consumer::new(view.clone(), geometry), view)
}

/// The two doorbells of a connection.
#[derive(Clone)]
struct Bells {
    consumer: Arc<Notify>,
    producer: Arc<Notify>,
}

impl Bells {
    fn new() -> Self {
        Self { consumer: Arc::new(Notify::new()), producer: Arc::new(Notify::new()) }
    }
}

/// Stages one record, when there is room for it.
fn produce(producer: &mut Producer, bells: &Bells, id: u64) {
    loop {
        let payload = (id * 7).to_le_bytes();
        if producer.push(RecordClass::Bulk, Kind::Request, 1, id, None, &payload).unwrap() {
            return;
        }
        publish(producer, bells);
        if producer.await_room().unwrap() {
            bells.producer.wait();
        }
    }
}

fn publish(producer: &mut Producer, bells: &Bells) {
    if producer.publish().needed() {
        bells.consumer.notify();
    }
}

fn consume(consumer: &mut Consumer, bells: &Bells) -> Record {
    loop {
        if let Some(record) = consumer.peek().unwrap() {
            let mut payload = [0; 8];
            consumer.read(&record, 0, &mut payload);
            assert_eq!(u64::from_le_bytes(payload), record.id * 7, "a record is whole when it is seen");
            if consumer.advance(&record).needed() {
                bells.producer.notify();
            }
            return record;
        }
        if consumer.relieve().needed() {
            bells.producer.notify();
        }
        let (armed, wake) = consumer.arm();
        if wake.needed() {
            bells.producer.notify();
        }
        if armed == Armed::Asleep {
            bells.consumer.wait();
        }
    }
}

/// `count` records through the ring, `batch` a commit, both sides sleeping whenever they can.
fn every_record_arrives(capacity: u64, window: u64, count: u64, batch: u64) {
    every_record_arrives_in(Geometry { capacity, window, compact: false }, 0, count, batch);
}

/// As [`every_record_arrives`], after so many records were sent and taken one by one, but for two at first.
fn every_record_arrives_in(geometry: Geometry, before: u64, count: u64, batch: u64) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let (mut producer, mut consumer, _) = made_of(geometry);
        let bells = Bells::new();
        for id in 1..=before {
            produce(&mut producer, &bells, id);
            publish(&mut producer, &bells);
            if id > 1 {
                consume(&mut consumer, &bells);
            }
        }
        if before > 0 {
            consume(&mut consumer, &bells);
        }
        let theirs = bells.clone();
        let thread = thread::spawn(move || {
            for id in 1..=count {
                produce(&mut producer, &theirs, before + id);
                if id % batch == 0 || id == count {
                    publish(&mut producer, &theirs);
                }
            }
        });
        for id in before + 1..=before + count {
            assert_eq!(consume(&mut consumer, &bells).id, id, "records come in order");
        }
        thread.join().unwrap();
        assert_eq!(consumer.peek().unwrap(), None, "nothing follows the last record");
    });
}

// Fault 13.
#[test]
fn a_sleeping_consumer_misses_no_commit() {
    every_record_arrives(256, 256, 3, 1);
}

// Fault 13.
#[test]
fn a_producer_without_room_is_woken_when_there_is_room_again() {
    // Two records fill the ring, and the consumer publishes lazily, so only the tag can wake the producer.
    every_record_arrives(64, 1024, 4, 1);
}

// Fault 11.
#[test]
fn early_wrap_shows_no_stale_record() {
    // The window holds one record: the producer starts over as soon as it sees the start free.
    every_record_arrives(256, 32, 4, 1);
}

/// A ring whose front holds so many records.
fn compact(records: u64) -> Geometry {
    Geometry { capacity: 128, window: 24 * records + 8, compact: true }
}

// Faults 11, 13.
#[test]
fn a_ring_starts_over_or_goes_on_and_both_sides_know_which() {
    // Each record lets the ring start over, unless the next one comes before it is taken.
    every_record_arrives_in(compact(1), 0, 3, 1);
    every_record_arrives_in(compact(2), 0, 4, 1);
}

// Faults 11, 13.
#[test]
fn a_ring_that_starts_over_takes_records_committed_together() {
    every_record_arrives_in(compact(2), 0, 4, 2);
    every_record_arrives_in(compact(3), 0, 5, 3);
}

// Fault 13.
#[test]
fn a_ring_goes_on_in_the_back_and_returns_to_the_front() {
    // The records before take it to the back; those checked return, and leave again. None of that loses a wake-up.
    for before in [3, 7, 8, 9, 10] {
        every_record_arrives_in(compact(1), before, 3, 1);
    }
}

#[test]
fn records_committed_together_arrive_together() {
    every_record_arrives(256, 256, 4, 2);
    every_record_arrives(64, 32, 4, 2);
}

// Faults 13, 14.
#[test]
fn taking_the_sleep_tag_back_loses_no_commit() {
    loom::model(|| {
        let (mut producer, mut consumer, _) = ring(256, 256);
        let bells = Bells::new();
        let theirs = bells.clone();
        let thread = thread::spawn(move || {
            produce(&mut producer, &theirs, 1);
            publish(&mut producer, &theirs);
        });
        if consumer.arm().0 == Armed::Asleep {
            // As after a time-out: look for ourselves again.
            consumer.disarm();
        }
        assert_eq!(consume(&mut consumer, &bells).id, 1);
        thread.join().unwrap();
    });
}

// Fault 37.
#[test]
fn what_a_dead_consumer_acted_upon_was_admitted() {
    loom::model(|| {
        let (mut producer, mut consumer, view) = ring(256, 256);
        let acted = Arc::new(AtomicU64::new(0));
        let theirs = Arc::clone(&acted);
        let bells = Bells::new();
        produce(&mut producer, &bells, 1);
        produce(&mut producer, &bells, 2);
        publish(&mut producer, &bells);
        let server = thread::spawn(move || {
            for _ in 0..2 {
                let record = consumer.peek().unwrap().unwrap();
                let _ = consumer.advance(&record);
                consumer.admit();
                theirs.store(record.end(), Ordering::Release);
            }
        });
        // Wherever the server stands: everything it has acted upon is admitted.
        let acted = acted.load(Ordering::Acquire);
        assert!(admitted(&view) >= acted);
        server.join().unwrap();
    });
}

/// Both ends of a connection whose streams may be one chunk ahead.
fn connection() -> (ClientConnection, ServerConnection<Vec<u8>>) {
    let geometry = Geometry { capacity: 512, window: 512, compact: false };
    let terms = Terms { geometry, max_message: 128, max_in_flight: 2, stream_window: 1 };
    pair(&SharedMemory::anonymous(geometry.mapping_len()), terms)
}

fn check_few_switches(switches: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches);
    builder.max_branches = 20_000;
    builder.check(body);
}

/// The server's side of a stream of so many chunks: sleeps whenever it lacks credit or room.
fn stream(server: &mut ServerConnection<Vec<u8>>, bells: &Bells, chunks: u8) {
    let commit = |server: &mut ServerConnection<Vec<u8>>| {
        if server.commit().needed() {
            bells.producer.notify();
        }
    };
    let mut begun = false;
    while !begun || server.open_calls() > 0 {
        match server.next_inbound().unwrap() {
            Some(Inbound::Call(request)) => {
                server.take(&request, &mut []);
                assert!(server.open(request.id, Style::ServerStream).unwrap());
                (0..chunks).for_each(|number| server.chunk(request.id, vec![number]).unwrap());
                server.finish(request.id, Ok(())).unwrap();
                begun = true;
                commit(server);
            }
            Some(other) => panic!("{other:?}"),
            None => {
                server.flush().unwrap();
                let armed = server.arm().unwrap();
                commit(server);
                if armed == Armed::Asleep && (!begun || server.open_calls() > 0) {
                    bells.consumer.wait();
                }
            }
        }
    }
    commit(server);
}

// Fault 13.
#[test]
fn a_stream_that_waits_for_credit_goes_on_when_it_comes() {
    check_few_switches(2, || {
        let (mut client, mut server) = connection();
        let bells = Bells::new();
        let theirs = bells.clone();
        let id = client.submit(1, Style::ServerStream, &[], None).unwrap();
        let ring = |client: &mut ClientConnection| {
            if client.commit().needed() {
                bells.consumer.notify();
            }
        };
        ring(&mut client);
        let thread = thread::spawn(move || stream(&mut server, &theirs, 2));
        let mut due = 0;
        loop {
            if let Some(answer) = client.next_answer().unwrap() {
                let mut payload = vec![0; answer.len];
                client.take(&answer, &mut payload);
                if answer.kind == AnswerKind::End {
                    break;
                }
                assert_eq!((answer.id, payload), (id, vec![due]), "chunks come in order");
                due += 1;
                client.consumed(id, 1).unwrap();
                ring(&mut client);
            } else {
                let armed = client.arm(false).unwrap();
                ring(&mut client);
                if armed == Armed::Asleep {
                    bells.producer.wait();
                }
            }
        }
        assert_eq!(due, 2);
        thread.join().unwrap();
    });
}

/// A server that takes two calls and answers them, and dies after so many steps of that.
fn serve_until_death(server: &mut ServerConnection<Vec<u8>>, bells: &Bells, steps: u32, taken: &AtomicU64) {
    let mut step = 0;
    let mut lives = || {
        step += 1;
        step <= steps
    };
    for call in 1..=2 {
        let Some(Inbound::Call(request)) = server.next_inbound().unwrap() else { panic!("both calls are there") };
        if !lives() {
            return;
        }
        server.take(&request, &mut []);
        taken.store(call, Ordering::Release);
        if !lives() {
            return;
        }
        server.answer(request.id, 0, &mut Vec::new(), Ok::<_, Failure>, |_| Ok(())).unwrap();
        if !lives() {
            return;
        }
        if server.commit().needed() {
            bells.producer.notify();
        }
        if !lives() {
            return;
        }
    }
}

// Faults 11, 37.
#[test]
fn whoever_hears_of_a_death_has_every_answer_that_was_committed_and_the_truth_about_the_rest() {
    for steps in 0..=8 {
        check_few_switches(2, move || {
            let (mut client, mut server) = connection();
            let bells = Bells::new();
            let calls = [(); 2].map(|()| client.submit(1, Style::Unary, &[], None).unwrap());
            let _ = client.commit();
            let (taken, gone) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
            let thread = {
                let (bells, taken, gone) = (bells.clone(), Arc::clone(&taken), Arc::clone(&gone));
                thread::spawn(move || {
                    serve_until_death(&mut server, &bells, steps, &taken);
                    // The kernel hangs up for whoever dies, and that wakes everybody who waits.
                    gone.store(1, Ordering::Release);
                    bells.producer.notify();
                })
            };
            let mut answered = Vec::new();
            let mut hung_up = false;
            while answered.len() < calls.len() {
                // In this order: what was committed before the death is found after its news.
                let news = gone.load(Ordering::Acquire) == 1;
                while let Some(answer) = client.next_answer().unwrap() {
                    client.take(&answer, &mut []);
                    answered.push(answer.id);
                }
                if news {
                    hung_up = true;
                    break;
                }
                if answered.len() < calls.len() && client.arm(false).unwrap() == Armed::Asleep {
                    bells.producer.wait();
                }
            }
            thread.join().unwrap();
            assert!(hung_up || steps >= 8 || answered.len() == calls.len());
            // The third step of each call is followed by its commit.
            let (taken, committed) = (taken.load(Ordering::Acquire), ((steps + 1) / 4).min(2) as usize);
            assert_eq!(answered.len(), committed, "what was committed is there, and nothing else");
            for (number, call) in (1..).zip(calls) {
                if !answered.contains(&call) {
                    let truth = if number <= taken { Loss::Unknown } else { Loss::NotExecuted };
                    assert_eq!(client.loss(call), truth, "call {number}, of which {taken} were taken");
                }
            }
        });
    }
}

// Fault 34.
#[test]
fn those_who_share_a_budget_never_have_more_than_all_of_it() {
    loom::model(|| {
        let budget = BufferBudget::new(100);
        let threads = [(60, 20), (60, 60)].map(|(bytes, kept)| {
            let budget = Arc::clone(&budget);
            thread::spawn(move || {
                let Some(mut reservation) = budget.reserve(bytes) else { return };
                assert!(budget.used() >= bytes && budget.used() <= 100);
                reservation.shrink_to(kept);
            })
        });
        if let Some(reservation) = budget.reserve(40) {
            assert!(budget.used() >= reservation.bytes() && budget.used() <= 100);
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(budget.used(), 0, "all of it came back");
    });
}
