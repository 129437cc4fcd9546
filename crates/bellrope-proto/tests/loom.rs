//! Every interleaving of the ring's two sides, checked with loom. A lost wake-up shows as a deadlock.
//!
//! Run with: `RUSTFLAGS="--cfg loom" cargo test -p bellrope-proto --release --target-dir target/loom --test loom`
#![cfg(loom)]

use std::sync::Arc;

use bellrope_proto::{
    frame::Kind,
    layout::{Geometry, RECORDS},
    ring::{Armed, Class, Consumer, Producer, Record, admitted},
};
use bellrope_shm::{SharedMemory, View};
use loom::{sync::Notify, thread};

/// A ring small enough for every schedule to be tried. Records here have 8 bytes of payload: 24 bytes each.
fn ring(capacity: u64, window: u64) -> (Producer, Consumer, View) {
    let geometry = Geometry { capacity, window };
    let memory = SharedMemory::anonymous(RECORDS + capacity as usize);
    let view = memory.view(0..RECORDS + capacity as usize);
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
        if producer.push(Class::Bulk, Kind::Request, 1, id, None, &payload).unwrap() {
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
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let (mut producer, mut consumer, _) = ring(capacity, window);
        let bells = Bells::new();
        let theirs = bells.clone();
        let thread = thread::spawn(move || {
            for id in 1..=count {
                produce(&mut producer, &theirs, id);
                if id % batch == 0 || id == count {
                    publish(&mut producer, &theirs);
                }
            }
        });
        for id in 1..=count {
            assert_eq!(consume(&mut consumer, &bells).id, id, "records come in order");
        }
        thread.join().unwrap();
        assert_eq!(consumer.peek().unwrap(), None, "nothing follows the last record");
    });
}

#[test]
fn a_sleeping_consumer_misses_no_commit() {
    every_record_arrives(256, 256, 3, 1);
}

#[test]
fn a_producer_without_room_is_woken_when_there_is_room_again() {
    // Two records fill the ring, and the consumer publishes lazily, so only the tag can wake the producer.
    every_record_arrives(64, 1024, 4, 1);
}

#[test]
fn early_wrap_shows_no_stale_record() {
    // The window holds one record: the producer starts over as soon as it sees the start free.
    every_record_arrives(256, 32, 4, 1);
}

#[test]
fn records_committed_together_arrive_together() {
    every_record_arrives(256, 256, 4, 2);
    every_record_arrives(64, 32, 4, 2);
}

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

#[test]
fn what_a_dead_consumer_acted_upon_was_admitted() {
    loom::model(|| {
        let (mut producer, mut consumer, view) = ring(256, 256);
        let acted = Arc::new(loom::sync::atomic::AtomicU64::new(0));
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
                theirs.store(record.end(), loom::sync::atomic::Ordering::Release);
            }
        });
        // Wherever the server stands: everything it has acted upon is admitted.
        let acted = acted.load(loom::sync::atomic::Ordering::Acquire);
        assert!(admitted(&view) >= acted);
        server.join().unwrap();
    });
}
