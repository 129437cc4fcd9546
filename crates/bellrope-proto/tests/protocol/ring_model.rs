//! The ring against the plainest model of one: a `VecDeque`.

use std::collections::VecDeque;

use bellrope_proto::{
    frame::Kind,
    layout::{CONSUMER_POSITION, Geometry, RECORDS},
    ring::{Armed, Consumer, Producer, RecordClass},
};
use bellrope_shm::{SharedMemory, View, sync::Ordering};
use proptest::prelude::*;

fn ring(geometry: Geometry) -> (Producer, Consumer, View) {
    let view = SharedMemory::anonymous(geometry.segment_len()).view(0..geometry.segment_len());
    (Producer::new(view.clone(), geometry), Consumer::new(view.clone(), geometry), view)
}

#[derive(Debug, Clone)]
enum Step {
    Push {
        len: usize,
        extended: bool,
        control: bool,
    },
    /// Written in pieces, through a draft that was begun for less.
    Draft {
        hint: usize,
        pieces: Vec<usize>,
    },
    Abandon {
        hint: usize,
    },
    Publish,
    Pop,
    Arm,
    Disarm,
    AwaitRoom,
}

fn steps(max_payload: usize) -> impl Strategy<Value = Vec<Step>> {
    let len = prop_oneof![4 => 0..max_payload.min(100), 2 => 0..=max_payload, 1 => Just(max_payload)];
    let hint = 0..=max_payload;
    let step = prop_oneof![
        6 => (len, any::<bool>(), any::<bool>()).prop_map(|(len, extended, control)| Step::Push { len, extended, control }),
        2 => (hint.clone(), prop::collection::vec(0..200_usize, 0..4)).prop_map(|(hint, pieces)| Step::Draft { hint, pieces }),
        1 => hint.prop_map(|hint| Step::Abandon { hint }),
        4 => Just(Step::Publish),
        7 => Just(Step::Pop),
        1 => Just(Step::Arm),
        1 => Just(Step::Disarm),
        1 => Just(Step::AwaitRoom),
    ];
    prop::collection::vec(step, 1..400)
}

fn bytes(id: u64, len: usize) -> Vec<u8> {
    (0..len).map(|index| (id as usize * 31 + index) as u8).collect()
}

/// Runs steps against both, and checks every answer and every wake-up.
fn check(geometry: Geometry, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (mut producer, mut consumer, _) = ring(geometry);
    let mut model: VecDeque<(u64, Option<u64>, Vec<u8>)> = VecDeque::new();
    let mut staged = VecDeque::new();
    let (mut id, mut asleep, mut producer_waits) = (0, false, false);
    for step in steps {
        id += 1;
        match step {
            Step::Push { len, extended, control } => {
                let class = if control { RecordClass::Control } else { RecordClass::Bulk };
                let (payload, extension) = (bytes(id, len), extended.then_some(id * 3));
                let pushed = producer.push(class, Kind::Request, 5, id, extension, &payload).unwrap();
                if pushed {
                    staged.push_back((id, extension, payload));
                } else if model.is_empty() && staged.is_empty() {
                    // What the consumer has read but not published yet can still be in the way of an empty ring's
                    // producer; the consumer publishes when asked.
                    prop_assert!(producer.await_room().unwrap());
                    prop_assert!(consumer.relieve().needed());
                    producer_waits = false;
                    let again = producer.push(class, Kind::Request, 5, id, extension, &payload).unwrap();
                    prop_assert!(again, "an empty ring takes every record");
                    staged.push_back((id, extension, payload));
                }
            }
            Step::Publish => {
                let expected = !staged.is_empty() && std::mem::take(&mut asleep);
                prop_assert_eq!(producer.publish().needed(), expected, "woken when asleep, and only then");
                model.append(&mut staged);
            }
            Step::Draft { hint, pieces } => {
                let Some(mut draft) = producer.begin(RecordClass::Bulk, false, hint).unwrap() else { continue };
                let mut written = Vec::new();
                for piece in pieces {
                    let piece = bytes(id, piece);
                    let fits = draft.append(&piece);
                    prop_assert!(fits || written.len() + piece.len() > hint, "the hint is a promise");
                    if fits {
                        written.extend(piece);
                    }
                }
                let mut back = vec![0; draft.len()];
                draft.read_back(&mut back);
                prop_assert_eq!(&back, &written);
                draft.stage(Kind::Request, 5, id, 0);
                staged.push_back((id, None, written));
            }
            Step::Abandon { hint } => drop(producer.begin(RecordClass::Bulk, true, hint).unwrap()),
            Step::Pop => {
                let record = consumer.peek().unwrap();
                prop_assert_eq!(record.map(|record| record.id), model.front().map(|front| front.0));
                let wake = if let Some(record) = record {
                    let (_, extension, payload) = model.pop_front().unwrap();
                    let mut read = vec![0; record.header.len as usize];
                    consumer.read(&record, 0, &mut read);
                    prop_assert_eq!(&read, &payload);
                    prop_assert_eq!(record.header.extended.then_some(record.extension), extension);
                    // The straight way finds the same, once the flag is set aside that lets the ring start over.
                    let front = consumer.front();
                    let extended = extension.is_some();
                    prop_assert_eq!(consumer.plain(front, Kind::Request, !extended), None);
                    let plain = match consumer.plain(front, Kind::Request, extended) {
                        Some(plain) => plain,
                        None => {
                            prop_assert!(geometry.compact && front.starts_over(), "there is no flag in other rings");
                            let front = consumer.starting_over(front).unwrap();
                            consumer.plain(front, Kind::Request, extended).unwrap()
                        }
                    };
                    let found = (plain.id, plain.message_type, plain.len, plain.extension);
                    prop_assert_eq!(found, (record.id, 5, read.len(), extension.unwrap_or(0)));
                    let mut taken = vec![0; plain.len];
                    let wake = consumer.take(&plain, &mut taken);
                    prop_assert_eq!(taken, read.clone());
                    wake
                } else {
                    consumer.relieve()
                };
                prop_assert!(!wake.needed() || producer_waits, "no wake-up for nothing");
                producer_waits &= !wake.needed();
            }
            Step::Arm => {
                let (armed, wake) = consumer.arm();
                prop_assert!(!wake.needed() || producer_waits);
                producer_waits &= !wake.needed();
                prop_assert_eq!(armed == Armed::Asleep, model.is_empty());
                asleep = model.is_empty();
            }
            Step::Disarm => {
                consumer.disarm();
                asleep = false;
            }
            Step::AwaitRoom => producer_waits |= producer.await_room().unwrap(),
        }
    }
    Ok(())
}

/// Of each kind; `BELLROPE_CASES` asks for more or fewer.
const CASES: u32 = 400;

fn cases() -> u32 {
    std::env::var("BELLROPE_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(CASES)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    // Fault 11.
    #[test]
    fn the_ring_behaves_like_a_queue(steps in steps(1024)) {
        check(Geometry::new(4096).unwrap(), steps)?;
    }

    // Fault 7.
    #[test]
    fn a_tiny_ring_behaves_like_a_queue(steps in steps(64)) {
        check(Geometry { capacity: 256, window: 64, compact: false }, steps)?;
    }

    // Fault 11.
    #[test]
    fn a_compact_ring_behaves_like_a_queue(steps in steps(1024)) {
        check(Geometry::new(4096).unwrap().into_compact(), steps)?;
    }

    // Fault 7.
    #[test]
    fn a_tiny_compact_ring_behaves_like_a_queue(steps in steps(64), window in 6..=32_u64) {
        check(Geometry { capacity: 256, window: 8 * window, compact: true }, steps)?;
    }
}

#[test]
fn an_empty_ring_takes_the_largest_record_wherever_its_producer_stands() {
    let geometry = Geometry::new(4096).unwrap();
    for start in 0..500 {
        let (mut producer, mut consumer, _) = ring(geometry);
        for len in [start * 2, 1024, 1024, 1024] {
            let payload = bytes(1, len.min(1024));
            assert!(producer.push(RecordClass::Bulk, Kind::Request, 1, 1, None, &payload).unwrap());
            let _ = producer.publish();
            let record = consumer.peek().unwrap().unwrap();
            let _ = consumer.advance(&record);
            assert!(consumer.peek().unwrap().is_none());
            let _ = consumer.arm();
        }
    }
}

#[test]
fn a_consumer_that_keeps_up_keeps_the_ring_within_its_first_page() {
    let geometry = Geometry::new(65536).unwrap();
    for len in [0, 64, 200, 1024] {
        let (mut producer, mut consumer, view) = ring(geometry);
        for id in 0..10_000 {
            let payload = bytes(id, len);
            assert!(producer.push(RecordClass::Bulk, Kind::Request, 1, id, None, &payload).unwrap());
            let _ = producer.publish();
            let record = consumer.peek().unwrap().unwrap();
            let _ = consumer.advance(&record);
        }
        let beyond = (4096..RECORDS + 65536).step_by(8).find(|at| view.load(*at, Ordering::Relaxed) != 0);
        assert_eq!(beyond, None, "with {len}-byte payloads");
    }
}

#[test]
fn a_consumer_that_keeps_up_keeps_a_compact_ring_within_its_front() {
    let geometry = Geometry::new(65536).unwrap().into_compact();
    let mixed: Vec<usize> = (0..1_000).map(|n| n * 7_919 % 1_100).collect();
    for lens in [&[0][..], &[64], &[256], &[600], &[1024], &[1200], &[64, 1024], &[1024, 0, 0, 300], &mixed] {
        let (mut producer, mut consumer, view) = ring(geometry);
        for id in 0..10_000 {
            let payload = bytes(id, lens[id as usize % lens.len()]);
            assert!(producer.push(RecordClass::Bulk, Kind::Request, 1, id, None, &payload).unwrap());
            let _ = producer.publish();
            let record = consumer.peek().unwrap().unwrap();
            let mut read = vec![0; payload.len()];
            consumer.read(&record, 0, &mut read);
            assert_eq!((record.id, read), (id, payload));
            let _ = consumer.advance(&record);
            assert_eq!(consumer.peek(), Ok(None));
            if id == 50 {
                // Sizes are learnt by then.
                view.write(2048, &vec![0; view.len() - 2048]);
            }
        }
        let beyond = (2048..geometry.segment_len()).step_by(8).find(|at| view.load(*at, Ordering::Relaxed) != 0);
        assert_eq!(beyond, None, "with payloads of {lens:?}");
    }
}

#[test]
fn a_producer_whose_bursts_are_over_returns_to_the_front() {
    let geometry = Geometry::new(65536).unwrap().into_compact();
    for len in [64, 1024] {
        let (mut producer, mut consumer, view) = ring(geometry);
        let mut send = |count: u64| {
            for id in 0..count {
                assert!(producer.push(RecordClass::Bulk, Kind::Request, 1, id, None, &bytes(id, len)).unwrap());
                let _ = producer.publish();
            }
            while let Some(record) = consumer.peek().unwrap() {
                let _ = consumer.advance(&record);
            }
        };
        send(30);
        assert_ne!(view.load(4096, Ordering::Relaxed), 0, "a burst needs the back");
        (0..400).for_each(|_| send(1));
        view.write(4096, &[0; 65536]);
        (0..400).for_each(|_| send(1));
        assert!((4096..4096 + 65536).step_by(8).all(|at| view.load(at, Ordering::Relaxed) == 0), "with {len} bytes");
    }
}

#[test]
fn bulk_leaves_room_for_cancels() {
    let (mut producer, _consumer, _) = ring(Geometry::new(65536).unwrap());
    while producer.push(RecordClass::Bulk, Kind::Request, 1, 1, None, &[0; 100]).unwrap() {}
    for _ in 0..16 {
        assert!(producer.push(RecordClass::Control, Kind::Cancel, 0, 1, None, &[]).unwrap());
    }
}

// Faults 1, 2.
#[test]
fn a_consumer_position_is_believed_only_within_reason() {
    for hostile in [8, 4096, 1 << 40, (1 << 63) - 8, 4, u64::MAX] {
        let (mut producer, _consumer, view) = ring(Geometry::new(4096).unwrap());
        view.store(CONSUMER_POSITION, hostile, Ordering::Relaxed);
        let error = producer.await_room().unwrap_err();
        assert_eq!(error.name(), "bad_position", "{error}");
    }
}
