//! What a ring promises, to the byte: where records may go, when positions are published and looked at, what is refused.
//! `ring_model.rs` has the same in any order of steps, and asks for less.

mod drafts;

use bellrope_proto::{
    Violation,
    frame::{Header, Kind},
    layout::{AWAITED, CONSUMER_POSITION, EMPTY, Geometry, RECORDS},
    ring::{Armed, Consumer, Producer, RecordClass, Wake, admitted},
};
use bellrope_shm::{SharedMemory, View, sync::Ordering::Relaxed};

/// Bytes that bulk leaves free for cancels and credits.
const SPARE: u64 = 512;

/// The payloads of records of that many bytes.
const SIZE_16: &[u8] = &[];
const SIZE_24: &[u8] = &[1; 8];
const SIZE_64: &[u8] = &[2; 48];

pub(crate) struct Ring {
    pub(crate) producer: Producer,
    pub(crate) consumer: Consumer,
    pub(crate) view: View,
}

pub(crate) fn ring(geometry: Geometry) -> Ring {
    let view = SharedMemory::anonymous(geometry.segment_len()).view(0..geometry.segment_len());
    Ring { producer: Producer::new(view.clone(), geometry), consumer: Consumer::new(view.clone(), geometry), view }
}

fn page() -> Ring {
    ring(Geometry::new(4096).unwrap())
}

impl Ring {
    pub(crate) fn stage(&mut self, class: RecordClass, payload: &[u8]) -> bool {
        self.producer.push(class, Kind::Request, 1, 1, None, payload).unwrap()
    }

    /// Stages bulk records, and publishes them.
    pub(crate) fn send(&mut self, count: usize, payload: &[u8]) {
        for _ in 0..count {
            assert!(self.stage(RecordClass::Bulk, payload));
        }
        let _ = self.producer.publish();
    }

    /// Stages records until there is no room. Answers where the last one ends.
    pub(crate) fn fill(&mut self, class: RecordClass, payload: &[u8]) -> u64 {
        while self.stage(class, payload) {}
        self.producer.position()
    }

    pub(crate) fn pop(&mut self) -> Wake {
        let record = self.consumer.peek().unwrap().expect("a record");
        self.consumer.advance(&record)
    }

    /// Takes records, and publishes the position behind them.
    pub(crate) fn receive(&mut self, count: usize) -> u64 {
        for _ in 0..count {
            let _ = self.pop();
        }
        let _ = self.consumer.arm();
        self.published()
    }

    /// What the consumer has published, without the producer's tag.
    fn published(&self) -> u64 {
        self.view.load(CONSUMER_POSITION, Relaxed) & !AWAITED
    }
}

#[test]
fn only_a_published_record_is_worth_a_closer_look() {
    let mut ring = page();
    assert!(!ring.consumer.is_ready(), "nothing is there");
    assert_eq!(ring.consumer.arm(), (Armed::Asleep, Wake::NO));
    assert!(!ring.consumer.is_ready(), "nothing but the sleep tag is there");
    assert!(ring.stage(RecordClass::Bulk, SIZE_16) && ring.stage(RecordClass::Bulk, SIZE_16));
    assert!(!ring.consumer.is_ready(), "staged records are not visible");
    assert!(ring.producer.publish().needed());
    for _ in 0..2 {
        assert!(ring.consumer.is_ready());
        let _ = ring.pop();
    }
    assert!(!ring.consumer.is_ready(), "all is read");
}

#[test]
fn a_look_for_one_kind_finds_records_of_that_kind_alone_and_moves_nobody() {
    let mut ring = page();
    assert_eq!(ring.consumer.peek_for(Kind::Request), None, "nothing is there");
    assert_eq!(ring.consumer.arm().0, Armed::Asleep);
    assert_eq!(ring.consumer.peek_for(Kind::Request), None, "nothing but the sleep tag is there");
    assert!(ring.producer.push(RecordClass::Bulk, Kind::Request, 3, 7, Some(9), SIZE_24).unwrap());
    let _ = ring.producer.publish();
    for _ in 0..2 {
        assert_eq!(ring.consumer.peek_for(Kind::Response), None);
        let record = ring.consumer.peek_for(Kind::Request).expect("a request");
        assert_eq!((record.header.message_type, record.id, record.extension), (3, 7, 9));
        assert_eq!(ring.consumer.peek(), Ok(Some(record)));
    }
    let _ = ring.pop();
    assert!(ring.producer.push(RecordClass::Bulk, Kind::Request, 4, 8, None, SIZE_24).unwrap());
    let _ = ring.producer.publish();
    let record = ring.consumer.peek_for(Kind::Request).expect("a request without an extension");
    assert_eq!((record.header.message_type, record.id, record.extension, record.header.len), (4, 8, 0, 8));
    assert_eq!(ring.consumer.peek(), Ok(Some(record)));
    // What cannot be a record is none of its kind either, and for others to name.
    let mut ring = page();
    let header = |len| Header { len, message_type: 0, kind: Kind::Request, extended: false }.encode();
    ring.view.store(RECORDS, header(1025), Relaxed);
    assert_eq!(ring.consumer.peek_for(Kind::Request), None);
    assert_eq!(ring.consumer.peek(), Err(Violation::RecordBeyondRing { len: 1025, offset: 0 }));
}

#[test]
fn the_sleep_tag_can_be_taken_back() {
    let mut ring = page();
    assert_eq!(ring.consumer.arm().0, Armed::Asleep);
    assert_eq!(ring.consumer.arm().0, Armed::Asleep, "who sleeps already may say so again");
    ring.consumer.disarm();
    assert!(ring.stage(RecordClass::Bulk, SIZE_16));
    assert_eq!(ring.producer.publish(), Wake::NO, "nobody sleeps any more");
    ring.consumer.disarm();
    assert!(ring.consumer.is_ready(), "a record is not taken for the tag");
}

#[test]
fn a_pad_at_the_start_of_any_lap_is_refused_and_moves_nobody() {
    let mut ring = page();
    for lap in 0..2 {
        ring.view.store(RECORDS, Header::pad(), Relaxed);
        assert_eq!(ring.consumer.peek(), Err(Violation::PadAtStart));
        assert_eq!(ring.consumer.position(), lap * 4096);
        // An honest lap that ends with a pad, of which the consumer has read nothing but that pad.
        ring.view.store(RECORDS, EMPTY, Relaxed);
        if lap == 0 {
            ring.send(200, SIZE_16);
            ring.receive(200);
            ring.view.store(RECORDS + 3200, Header::pad(), Relaxed);
            ring.view.store(RECORDS, EMPTY, Relaxed);
            assert_eq!(ring.consumer.peek(), Ok(None));
        }
    }
}

// Faults 1, 7.
#[test]
fn a_pad_leads_to_no_other_pad() {
    let mut ring = page();
    ring.send(1, SIZE_16);
    let _ = ring.pop();
    ring.view.store(RECORDS + 16, Header::pad(), Relaxed);
    ring.view.store(RECORDS, Header::pad(), Relaxed);
    assert_eq!(ring.consumer.peek(), Err(Violation::PadAtStart));
}

// Faults 1, 7.
#[test]
fn a_record_may_end_with_the_ring_and_not_a_word_later() {
    // It takes 16 bytes at the start of the ring, one of `len` behind it, and a header word.
    let verdict = |len: u32, at: u64| {
        let mut ring = ring(Geometry { capacity: 1024, window: 1024, compact: false });
        let header = |len| Header { len, message_type: 0, kind: Kind::Request, extended: false }.encode();
        for offset in (0..at).step_by(16) {
            ring.view.store(RECORDS + offset as usize, header(0), Relaxed);
        }
        ring.view.store(RECORDS + at as usize, header(len), Relaxed);
        for _ in (0..at).step_by(16) {
            let _ = ring.pop();
        }
        ring.consumer.peek().map(|record| record.unwrap().end())
    };
    assert_eq!(verdict(256, 0), Ok(272), "the largest record there is");
    assert_eq!(verdict(257, 0), Err(Violation::RecordBeyondRing { len: 257, offset: 0 }), "the ring has room for it");
    assert_eq!(verdict(256, 736), Ok(1008));
    assert_eq!(verdict(232, 768), Ok(1016), "up to the last word of the ring, which is the next header's");
    assert_eq!(verdict(240, 768), Err(Violation::RecordBeyondRing { len: 240, offset: 768 }));
    assert_eq!(verdict(256, 768), Err(Violation::RecordBeyondRing { len: 256, offset: 768 }));
    assert_eq!(verdict(0, 1008), Err(Violation::RecordBeyondRing { len: 0, offset: 1008 }));
}

#[test]
fn a_part_of_a_payload_is_read_from_its_offset_on() {
    let mut ring = page();
    let payload: Vec<u8> = (0..100).collect();
    ring.send(1, &payload);
    let record = ring.consumer.peek().unwrap().unwrap();
    for (offset, len) in [(0, 100), (1, 99), (60, 40), (100, 0), (8, 8)] {
        let mut read = vec![0; len];
        ring.consumer.read(&record, offset, &mut read);
        assert_eq!(read, payload[offset..offset + len]);
    }
}

#[test]
#[should_panic(expected = "only the payload is to be read")]
fn what_lies_behind_a_payload_is_not_read() {
    let mut ring = page();
    ring.send(1, SIZE_64);
    let record = ring.consumer.peek().unwrap().unwrap();
    ring.consumer.read(&record, 1, &mut [0; 48]);
}

#[test]
fn a_consumer_publishes_its_position_after_every_quarter_of_the_window_in_use() {
    let mut ring = ring(Geometry { capacity: 4096, window: 1024, compact: false });
    assert_eq!(ring.fill(RecordClass::Control, SIZE_64), 4032);
    let _ = ring.producer.publish();
    let mut published = vec![0];
    for _ in 0..63 {
        assert_eq!(ring.pop(), Wake::NO, "nobody waits");
        let now = ring.published();
        if published.last() != Some(&now) {
            assert_eq!(now, ring.consumer.position());
            published.push(now);
        }
    }
    // Quarters of the window, then of the offset reached.
    assert_eq!(published, [0, 256, 512, 768, 1024, 1408, 1920, 2560, 3456]);
    // In the next lap the window is small again.
    ring.receive(0);
    ring.send(8, SIZE_64);
    for _ in 0..2 {
        let _ = ring.pop();
        assert_eq!(ring.published(), 4032);
    }
    let _ = ring.pop();
    assert_eq!(ring.published(), 4096 + 192, "the pad and three records make 256 bytes");
}

#[test]
fn a_consumer_that_idles_publishes_its_position_for_a_producer_that_waits_and_no_other() {
    let mut ring = page();
    ring.send(2, SIZE_64);
    let _ = ring.pop();
    assert_eq!((ring.consumer.relieve(), ring.published()), (Wake::NO, 0), "nobody waits");
    assert_eq!(ring.producer.await_room(), Ok(true));
    assert_eq!(ring.producer.await_room(), Ok(true), "who waits already may say so again");
    assert_eq!((ring.consumer.relieve(), ring.published()), (Wake::YES, 64));
    assert_eq!(ring.producer.await_room(), Ok(false), "there is room already");
    assert_eq!(ring.producer.consumer(), 64);
    assert_eq!(ring.producer.await_room(), Ok(true));
    assert_eq!(ring.consumer.relieve(), Wake::NO, "nothing was read since");
    assert_eq!(ring.consumer.arm(), (Armed::Ready, Wake::NO), "nothing was read since");
    let _ = ring.pop();
    assert_eq!(ring.consumer.arm(), (Armed::Asleep, Wake::YES));
}

#[test]
fn a_look_that_finds_nothing_lets_a_producer_go_on_that_waits() {
    let mut ring = page();
    ring.send(2, SIZE_64);
    let _ = ring.pop();
    assert_eq!(ring.producer.await_room(), Ok(true));
    assert_eq!((ring.consumer.relieve_if_drained(), ring.published()), (None, 0), "a record is there");
    let _ = ring.pop();
    assert_eq!((ring.consumer.relieve_if_drained(), ring.published()), (Some(Wake::YES), 128));
    assert_eq!(ring.consumer.relieve_if_drained(), Some(Wake::NO), "nobody waits any more");
    assert_eq!(ring.consumer.arm().0, Armed::Asleep);
    assert_eq!(ring.producer.await_room(), Ok(false));
    assert_eq!(ring.consumer.relieve_if_drained(), Some(Wake::NO), "nothing but the sleep tag is there");
}

#[test]
fn a_consumer_publishes_its_position_before_it_sleeps() {
    let mut ring = page();
    ring.send(1, SIZE_64);
    let _ = ring.pop();
    assert_eq!(ring.published(), 0);
    assert_eq!(ring.consumer.arm(), (Armed::Asleep, Wake::NO));
    assert_eq!(ring.published(), 64);
}

// Fault 37.
#[test]
fn what_is_admitted_is_what_was_read_so_far() {
    let mut ring = page();
    ring.send(3, SIZE_24);
    let _ = (ring.pop(), ring.pop());
    assert_eq!(admitted(&ring.view), 0, "read, and not yet acted upon");
    ring.consumer.admit();
    assert_eq!((admitted(&ring.view), ring.consumer.position()), (48, 48));
}

#[test]
fn bulk_fills_a_ring_up_to_the_control_room_and_control_fills_that_to_the_last_word() {
    let mut ring = page();
    assert_eq!(ring.fill(RecordClass::Bulk, SIZE_24), 4096 - 8 - SPARE);
    assert_eq!(ring.fill(RecordClass::Control, SIZE_16), 4096 - 8);
}

#[test]
fn a_producer_a_lap_ahead_goes_up_to_the_consumer_and_no_further() {
    let mut ring = page();
    ring.send(1, SIZE_16);
    ring.fill(RecordClass::Bulk, SIZE_24);
    let _ = ring.producer.publish();
    let consumer = ring.receive(101);
    assert_eq!(consumer, 16 + 100 * 24);
    let end = 4096 + consumer - 8;
    assert_eq!(ring.fill(RecordClass::Bulk, SIZE_24), end - SPARE);
    assert_eq!(ring.fill(RecordClass::Control, SIZE_16), end);
    let _ = ring.producer.publish();
    let mut left = 0;
    while ring.consumer.peek().unwrap().is_some() {
        let _ = ring.pop();
        left += 1;
    }
    assert_eq!(left, (ring.producer.position() - 4096 - 1896) / 16 + 79 + 48, "nothing was overwritten");
}

#[test]
fn a_producer_whose_consumer_stands_at_the_start_of_the_lap_has_the_rest_of_it() {
    let mut ring = page();
    ring.fill(RecordClass::Bulk, SIZE_64);
    let _ = ring.producer.publish();
    ring.receive(55);
    ring.send(1, SIZE_64);
    assert_eq!(ring.producer.position(), 4096 + 64);
    // The consumer sees the record of the new lap and passes the pad before it, which leaves it at the start.
    assert!(ring.consumer.peek().unwrap().is_some());
    assert_eq!(ring.receive(0), 4096);
    assert_eq!(ring.fill(RecordClass::Bulk, SIZE_64), 4096 + 3520);
    assert_eq!(ring.producer.consumer(), 4096);
}

#[test]
fn a_producer_starts_over_where_the_next_record_would_leave_the_window_if_the_start_is_free() {
    // (where the consumer stands, whether that leaves room for a record of 24 bytes and the control room)
    for (received, free) in [(23, true), (22, false)] {
        let mut ring = ring(Geometry { capacity: 4096, window: 1024, compact: false });
        ring.send(1, SIZE_16);
        ring.send(40, SIZE_24);
        ring.send(1, SIZE_16);
        assert_eq!(ring.receive(received), 16 + (received as u64 - 1) * 24);
        ring.send(1, SIZE_24);
        assert_eq!(ring.producer.position(), 1016, "up to the last word of the window");
        ring.send(1, SIZE_24);
        assert_eq!(ring.producer.position(), if free { 4096 + 24 } else { 1040 });
    }
}

#[test]
fn a_record_that_ends_with_the_window_stays_in_it_though_the_start_is_free() {
    let mut ring = ring(Geometry { capacity: 4096, window: 1024, compact: false });
    ring.send(1, SIZE_16);
    ring.send(41, SIZE_24);
    assert_eq!(ring.receive(42), 1000);
    // This one and the header word after it end where the window does. Bulk looks for more: it leaves the control room free.
    assert!(ring.stage(RecordClass::Control, SIZE_16));
    assert_eq!(ring.producer.position(), 1016);
    assert!(ring.stage(RecordClass::Control, SIZE_16));
    assert_eq!(ring.producer.position(), 4096 + 16, "the next one would leave it");
}

#[test]
fn beyond_the_window_a_producer_looks_for_the_consumer_once_in_a_quarter_of_it() {
    let mut ring = ring(Geometry { capacity: 8192, window: 1024, compact: false });
    ring.send(16, SIZE_64); // it looked before the last of these
    assert_eq!(ring.receive(16), 1024);
    let mut positions = Vec::new();
    for _ in 0..4 {
        ring.send(1, SIZE_64);
        positions.push(ring.producer.position());
    }
    assert_eq!(positions, [1088, 1152, 1216, 8192 + 64]);
}

#[test]
fn the_largest_payload_is_a_quarter_of_the_ring() {
    let mut ring = page();
    assert_eq!(ring.producer.max_payload(), 1024);
    assert!(ring.stage(RecordClass::Bulk, &[0; 1024]));
}

#[test]
#[should_panic(expected = "a quarter of the ring")]
fn a_payload_beyond_a_quarter_of_the_ring_is_not_taken() {
    page().stage(RecordClass::Bulk, &[0; 1025]);
}

// Fault 2.
#[test]
fn a_consumer_that_goes_back_or_stands_between_words_is_found_out() {
    for hostile in [40, 56, 68] {
        let mut ring = page();
        ring.send(4, SIZE_64);
        ring.receive(1);
        assert_eq!(ring.producer.await_room(), Ok(false));
        ring.view.store(CONSUMER_POSITION, hostile, Relaxed);
        let found = ring.producer.await_room();
        assert_eq!(found, Err(Violation::Position { found: hostile, from: 64, to: 256 }));
    }
}

#[test]
fn wake_ups_add_up() {
    for (one, other) in [(Wake::NO, Wake::NO), (Wake::NO, Wake::YES), (Wake::YES, Wake::NO), (Wake::YES, Wake::YES)] {
        let mut both = one;
        both |= other;
        assert_eq!(both.needed(), one.needed() || other.needed());
    }
}

/// KiB of all shared memory of that size that are in this process's resident set.
fn resident_kib(mapping_len: usize) -> usize {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let number = |line: &str| line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap();
    let (mut shared, mut ours) = (false, false);
    let mut resident = 0;
    for line in maps.lines() {
        // A mapping's first line is the one that starts with addresses, and ends with a file's name: a heap can have any
        // size too, but none.
        if !line.split_whitespace().next().is_some_and(|word| word.ends_with(':')) {
            shared = line.contains("/memfd:bellrope");
        } else if line.starts_with("Size:") {
            ours = shared && number(line) * 1024 == mapping_len;
        } else if line.starts_with("Rss:") && ours {
            resident += number(line);
        }
    }
    resident
}

#[test]
fn either_end_can_take_its_ring_out_of_the_resident_set_and_loses_nothing() {
    // No other shared memory of this process has this size.
    let geometry = Geometry { capacity: 37 * 4096 - RECORDS as u64, window: 1024, compact: false };
    let mapping_len = geometry.segment_len();
    let view = SharedMemory::anonymous(mapping_len).view(0..mapping_len);
    let geometry = Geometry { capacity: 128 * 1024, window: 1024, compact: false };
    let (producer, consumer) = (Producer::new(view.clone(), geometry), Consumer::new(view.clone(), geometry));
    let releases: [&dyn Fn(); 2] = [&|| producer.release_pages(), &|| consumer.release_pages()];
    for release in releases {
        for page in 0..37 {
            view.store(page * 4096, 7, Relaxed);
        }
        assert_eq!(resident_kib(mapping_len), 37 * 4);
        release();
        assert_eq!(resident_kib(mapping_len), 0);
        assert_eq!(view.load(36 * 4096, Relaxed), 7);
    }
}
