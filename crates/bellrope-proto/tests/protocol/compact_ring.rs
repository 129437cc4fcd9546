//! Where the records of a ring with a front and a back lie, to the byte, and when such a ring starts over.

use bellrope_proto::{
    frame::Kind,
    layout::{Geometry, RECORDS},
    ring::RecordClass,
};
use bellrope_shm::sync::Ordering::Relaxed;

use crate::ring::{Ring, ring};

/// Bytes of a lap in the front, and where the next lap begins.
const FRONT: u64 = 1792;
const LAP: u64 = 4096;
/// The same of a ring that is longer than the window, and where in a lap in the back a producer of records of 64 bytes looks
/// how far the consumer is: where the next one would leave the window.
const LONG_LAP: u64 = 16384;
const LOOK: u64 = 4096 - 64;
/// Where it looks once it has started over three times. In a lap that began so it goes as far as the consumer was when it last
/// looked, which is 9 records less from lap to lap.
const FOURTH_LOOK: u64 = 4 * LONG_LAP + 2304;
/// Bytes behind a bulk record that stay free: the next header word, and room for cancels and credits.
const BEHIND: u64 = 8 + 512;
/// The flag in the header word of a record that lets the ring start over.
const RESTART: u64 = 1 << 57;

fn compact() -> Ring {
    ring(Geometry::new(LAP as u32).unwrap().into_compact())
}

/// Sends a record of that many bytes, visible at once. Answers whether there was room.
fn push(ring: &mut Ring, size: u64) -> bool {
    let room = ring.stage(RecordClass::Bulk, &vec![7; size as usize - 16]);
    let _ = ring.producer.publish();
    room
}

#[test]
fn a_record_lets_the_ring_start_over_where_another_one_as_large_would_have_no_room() {
    // A record as large as 264 bytes, in steps of 128, with what stays free behind it: 384 + 520 = 904 bytes.
    for (before, size, read, starts_over) in [
        (&[][..], 256, 0, false), // two of these have room, with 776 bytes each
        (&[], 264, 0, true),
        (&[16], 264, 1, false),            // 904 bytes are left behind it
        (&[264, 264, 104], 264, 0, false), // the consumer is at the start, whose word is not to be touched
        (&[264, 264, 104], 264, 2, true),  // it ends at 896: neither behind it nor before it there is room
        (&[264, 264, 264], 264, 2, false), // it ends at 1056: another one has room at the start, once that is free
    ] {
        let mut ring = compact();
        for size in before {
            assert!(push(&mut ring, *size));
        }
        ring.receive(read);
        assert!(push(&mut ring, size));
        let at = before.iter().sum::<u64>();
        assert_eq!(ring.producer.position(), at + size, "{before:?}");
        let word = ring.view.load(RECORDS + at as usize, Relaxed);
        assert_eq!(word & RESTART != 0, starts_over, "{before:?}, {size}, {read} read");
    }
}

#[test]
fn where_the_consumer_is_makes_no_room_before_it_has_let_the_ring_start_over() {
    let mut ring = compact();
    for size in [264, 264, 104] {
        assert!(push(&mut ring, size));
    }
    ring.receive(3);
    assert!(push(&mut ring, 264));
    assert_eq!(ring.view.load(RECORDS + 632, Relaxed) & RESTART, RESTART);
    // The start has room, but where the next record goes is not decided yet: it takes the offer back, and goes on behind it.
    ring.producer.look().unwrap();
    assert_eq!(ring.producer.consumer(), 632);
    assert!(push(&mut ring, 64));
    assert_eq!(ring.producer.position(), 896 + 64);
    assert_eq!(ring.view.load(RECORDS + 632, Relaxed) & RESTART, 0);
    // If the consumer was quicker, the next one is at the start of the next lap.
    let mut ring = compact();
    for size in [264, 264, 104] {
        assert!(push(&mut ring, size));
    }
    ring.receive(3);
    assert!(push(&mut ring, 264));
    ring.receive(1);
    ring.producer.look().unwrap();
    assert!(push(&mut ring, 64));
    assert_eq!(ring.producer.position(), LAP + 64);
}

#[test]
fn the_straight_way_starts_over_as_the_other_does_and_nowhere_else() {
    for withdrawn in [false, true] {
        let mut ring = compact();
        assert!(push(&mut ring, 264));
        let front = ring.consumer.front();
        assert!(front.starts_over() && ring.consumer.plain(front, Kind::Request, false).is_none());
        let front = ring.consumer.starting_over(front).unwrap();
        let record = ring.consumer.plain(front, Kind::Request, false).unwrap();
        if withdrawn {
            assert!(push(&mut ring, 64));
        }
        let mut taken = [0; 264 - 16];
        let _ = ring.consumer.take(&record, &mut taken);
        assert_eq!(taken, [7; 264 - 16]);
        assert_eq!(ring.consumer.position(), if withdrawn { 264 } else { LAP });
        assert_eq!(ring.view.load(RECORDS, Relaxed) == 0, !withdrawn);
        let front = ring.consumer.front();
        assert_eq!(ring.consumer.plain(front, Kind::Request, false).is_some(), withdrawn);
        assert!(!front.starts_over() && ring.consumer.starting_over(front).is_none());
    }
    // In another ring, or in the back, the flag is a fault.
    for mut ring in [ring(Geometry::new(LAP as u32).unwrap()), in_the_back()] {
        assert!(push(&mut ring, 264));
        let _ = ring.consumer.peek();
        while ring.consumer.peek().unwrap().is_some_and(|record| record.header.len != 264 - 16) {
            let _ = ring.pop();
        }
        let front = ring.consumer.front();
        let place = (0..ring.view.len())
            .step_by(8)
            .find(|at| ring.view.load(*at, Relaxed) == (264 - 16) | (2 << 48) | (1 << 32));
        let place = place.expect("it lies somewhere");
        assert!(!front.starts_over());
        ring.view.store(place, ring.view.load(place, Relaxed) | RESTART, Relaxed);
        let front = ring.consumer.front();
        assert!(front.starts_over() && ring.consumer.starting_over(front).is_none());
    }
}

/// A ring whose last lap begins in the back, with one record of 64 bytes there.
fn in_the_back() -> Ring {
    let mut ring = ring(Geometry::new(LONG_LAP as u32).unwrap().into_compact());
    while ring.producer.position() < LONG_LAP {
        assert!(push(&mut ring, 64));
    }
    assert_eq!(ring.producer.position(), LONG_LAP + 64);
    ring
}

fn read_all(ring: &mut Ring) -> u64 {
    let mut records = 0;
    while ring.consumer.peek().unwrap().is_some() {
        let _ = ring.pop();
        records += 1;
    }
    ring.receive(0);
    records
}

/// Goes on in the back up to there, with a consumer that takes a record for each that comes.
fn go_on(ring: &mut Ring, to: u64) {
    while ring.producer.position() < to {
        assert!(push(ring, 64));
        ring.receive(1);
    }
    assert_eq!(ring.producer.position(), to);
}

/// Goes on in the back, where the producer starts over three times, to where it looks for the fourth time how far the consumer
/// is, which has read all but the last so many records.
fn to_the_fourth_look(waiting: u64) -> Ring {
    let mut ring = before_the_fourth_look(waiting);
    for _ in 0..waiting {
        assert!(push(&mut ring, 64));
    }
    assert_eq!(ring.producer.position(), FOURTH_LOOK);
    ring
}

/// As above, so many records earlier.
fn before_the_fourth_look(records: u64) -> Ring {
    let mut ring = in_the_back();
    read_all(&mut ring);
    for lap in 1..4 {
        go_on(&mut ring, lap * LONG_LAP + LOOK);
        assert!(push(&mut ring, 64));
        ring.receive(1);
        assert_eq!(ring.producer.position(), (lap + 1) * LONG_LAP + 64);
    }
    go_on(&mut ring, FOURTH_LOOK - 64 * records);
    ring
}

#[test]
fn a_producer_returns_to_the_front_when_its_consumer_was_up_to_date_at_four_looks() {
    // (records that wait, whether that is up to date: a quarter of the window and the record itself)
    for (waiting, up_to_date) in [(0, true), (17, true), (18, false)] {
        let mut ring = to_the_fourth_look(waiting);
        assert!(push(&mut ring, 64));
        let end = if up_to_date { 5 * LONG_LAP + 64 } else { FOURTH_LOOK + 64 };
        assert_eq!(ring.producer.position(), end, "{waiting} wait");
    }
}

#[test]
fn a_producer_that_sends_several_at_once_stays_in_the_back() {
    let mut ring = before_the_fourth_look(1);
    assert!(ring.stage(RecordClass::Bulk, &[7; 48]));
    assert_eq!(ring.producer.position(), FOURTH_LOOK);
    assert!(push(&mut ring, 64));
    assert_eq!(ring.producer.position(), FOURTH_LOOK + 64, "one was staged");
}

#[test]
fn a_record_that_the_front_has_no_room_for_stays_in_the_back() {
    // (bytes, whether it returns, whether the ring may start over with it)
    for (size, returns, starts_over) in
        [(256, true, false), (264, true, true), (FRONT - BEHIND, true, true), (FRONT - BEHIND + 8, false, false)]
    {
        let mut ring = to_the_fourth_look(0);
        assert!(push(&mut ring, size));
        let end = if returns { 5 * LONG_LAP + size } else { FOURTH_LOOK + size };
        assert_eq!(ring.producer.position(), end, "{size}");
        let word = ring.view.load(RECORDS, Relaxed);
        assert_eq!(returns && word & RESTART != 0, starts_over, "{size}");
    }
}

#[test]
fn the_back_is_taken_when_the_front_is_full_and_once_more_when_its_last_lap_was_read() {
    let full = (FRONT - BEHIND) / 64 * 64;
    let mut ring = to_the_fourth_look(0);
    // As long as the consumer may stand in the back, that is not free.
    while push(&mut ring, 64) {}
    assert_eq!(ring.producer.position(), 5 * LONG_LAP + full);
    assert!(ring.consumer.peek().unwrap().is_some());
    let _ = ring.pop();
    ring.receive(0);
    assert!(push(&mut ring, 64));
    assert_eq!(ring.producer.position(), 6 * LONG_LAP + 64);
    assert_eq!(read_all(&mut ring), full / 64, "nothing was overwritten");
}

#[test]
fn in_the_back_a_producer_looks_once_in_a_quarter_of_the_window_whether_it_may_start_over() {
    let mut ring = in_the_back();
    while ring.producer.position() < LONG_LAP + LOOK + 64 {
        assert!(push(&mut ring, 64));
    }
    read_all(&mut ring);
    go_on(&mut ring, LONG_LAP + LOOK + 1024);
    assert!(push(&mut ring, 64));
    assert_eq!(ring.producer.position(), 2 * LONG_LAP + 64);
}
