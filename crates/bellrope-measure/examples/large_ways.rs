//! Ways for large messages through shared memory, as copies alone: what the feature bits 4 and 8, once reserved, would
//! have brought. `docs/performance.md` has the figures and what was decided.
//!
//! ```sh
//! cargo run --release -p bellrope-measure --no-default-features --example large_ways
//! ```
//!
//! One thread sends over one mapping of the memory, another takes over a second one, each on a CPU of its own. Nothing else
//! is there: no header, no call, no wake-up. Whatever is taken is copied to private memory before it is read, since the
//! sender may write it at any time; then each byte is read. The ways take turns. The best of the rounds counts, with the median
//! beside it: whatever else a machine does makes two threads that spin slower, and never faster.

use std::{
    hint::{black_box, spin_loop},
    io::{self, Write as _},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use bellrope_shm::{SharedMemory, View, process::pin_to_cpu};

/// Bytes of a ring, as is the default.
const RING: usize = 256 * 1024;
/// Bytes copied at once, as parts of large messages are.
const PART: usize = 32 * 1024;
/// Messages under way.
const DEPTH: usize = 64;
const SIZES: [usize; 2] = [64 * 1024, 1024 * 1024];
const ROUNDS: usize = 15;
/// Bytes that each way carries in a round.
const ROUND: usize = 64 << 20;
/// A message that waits behind a larger one.
const SMALLER: usize = 100 * 1024;
const LARGER: usize = 10 << 20;

/// How a message travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Through the ring, one message after the other, put together before it is read.
    Ring,
    /// Through the ring, a part of each message under way in turn, all of them put together.
    RingMixed,
    /// Through the ring, read part by part.
    RingByParts,
    /// In a block of its own, of which there are as many as messages under way, put together before it is read.
    Lane(usize),
    /// The same, read part by part.
    LaneByParts(usize),
}

const WAYS: [(Way, &str); 7] = [
    (Way::Ring, "ring, whole (as built)"),
    (Way::RingMixed, "ring, parts of 64 mixed, whole"),
    (Way::RingByParts, "ring, part by part"),
    (Way::Lane(DEPTH), "lane of 64 blocks, whole"),
    (Way::LaneByParts(DEPTH), "lane of 64 blocks, part by part"),
    (Way::Lane(2), "lane of 2 blocks, whole"),
    (Way::LaneByParts(2), "lane of 2 blocks, part by part"),
];

/// How far each side is, in parts, or in messages of a lane.
#[derive(Debug, Default)]
struct Positions {
    sent: Line,
    taken: Line,
}

/// A counter that shares its cache line with nothing.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line(AtomicU64);

impl Line {
    /// Waits until it is at least this.
    fn reaches(&self, value: u64) {
        // Acquire: pairs with the release in `set`.
        while self.0.load(Ordering::Acquire) < value {
            spin_loop();
        }
    }

    fn set(&self, value: u64) {
        // Release: pairs with the acquire in `reaches`.
        self.0.store(value, Ordering::Release);
    }
}

fn main() -> io::Result<()> {
    let mut out = io::stdout();
    for size in SIZES {
        writeln!(out, "{} KiB, {DEPTH} under way: messages a second, and shared memory in use", size / 1024)?;
        let mut figures = vec![Vec::new(); WAYS.len()];
        for _ in 0..ROUNDS {
            for (at, (way, _)) in WAYS.iter().enumerate() {
                figures[at].push(carry(*way, size, ROUND / size)?);
            }
        }
        for ((way, name), figures) in WAYS.iter().zip(&mut figures) {
            figures.sort_unstable_by(f64::total_cmp);
            let (median, best) = (figures[ROUNDS / 2], figures[ROUNDS - 1]);
            let memory = memory_of(*way, size) / 1024;
            writeln!(out, "  {name:32} {best:>9.0}  (median {median:>9.0})  {memory:>6} KiB")?;
        }
    }
    writeln!(out, "{} KiB sent right behind {} MiB: when each is there, in us", SMALLER / 1024, LARGER >> 20)?;
    for (name, order) in [("one after the other", false), ("parts mixed", true)] {
        let mut times: Vec<_> = (0..ROUNDS).map(|_| behind(order)).collect::<io::Result<_>>()?;
        times.sort_unstable();
        let (small, large) = times[0];
        writeln!(out, "  {name:32} {:>6} and {:>6}", small.as_micros(), large.as_micros())?;
    }
    Ok(())
}

fn memory_of(way: Way, size: usize) -> usize {
    match way {
        Way::Ring | Way::RingMixed | Way::RingByParts => RING,
        Way::Lane(blocks) | Way::LaneByParts(blocks) => blocks * size,
    }
}

/// Carries so many messages, at least as many as are under way. Answers how many a second.
fn carry(way: Way, size: usize, messages: usize) -> io::Result<f64> {
    let messages = messages.next_multiple_of(DEPTH);
    let (to, from) = mappings(memory_of(way, size))?;
    let positions = Positions::default();
    let (began, read) = on_two_cpus(
        || send(way, &to, &positions, &vec![7; size], messages),
        || (Instant::now(), take(way, &from, &positions, size, messages)),
    )?;
    let took = began.elapsed();
    assert_eq!(read, 7 * (size * messages) as u64, "each byte was read");
    Ok(messages as f64 / took.as_secs_f64())
}

/// Runs both at once, each on a CPU of its own: a thread of this program's start would hand its CPU on to all others.
fn on_two_cpus<T: Send>(send: impl FnOnce() + Send, take: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let sending = scope.spawn(|| pin_to_cpu(1).map(|()| send()));
        let taking = scope.spawn(|| pin_to_cpu(0).map(|()| take()));
        sending.join().expect("the sender does not panic")?;
        taking.join().expect("the taker does not panic")
    })
}

/// Two mappings of the same fresh memory, as two processes have them.
fn mappings(len: usize) -> io::Result<(View, View)> {
    let (memory, handle) = SharedMemory::create(len)?;
    let other = SharedMemory::open(&handle, len).map_err(io::Error::other)?;
    Ok((memory.view(0..len), other.view(0..len)))
}

fn send(way: Way, view: &View, positions: &Positions, source: &[u8], messages: usize) {
    let (size, parts) = (source.len(), source.len() / PART);
    match way {
        Way::Ring | Way::RingMixed | Way::RingByParts => {
            let slots = RING / PART;
            for part in 0..messages * parts {
                positions.taken.reaches((part + 1).saturating_sub(slots) as u64);
                // Which part of a message it is makes no difference to its cost: all are in the sender's cache, or none.
                let at = if way == Way::RingMixed { part / DEPTH % parts } else { part % parts } * PART;
                view.write(part % slots * PART, &source[at..at + PART]);
                positions.sent.set(part as u64 + 1);
            }
        }
        Way::Lane(blocks) | Way::LaneByParts(blocks) => {
            for message in 0..messages {
                positions.taken.reaches((message + 1).saturating_sub(blocks) as u64);
                let block = message % blocks * size;
                for (part, bytes) in source.chunks(PART).enumerate() {
                    view.write(block + part * PART, bytes);
                }
                positions.sent.set(message as u64 + 1);
            }
        }
    }
}

/// Takes all messages. Answers the sum of their bytes.
fn take(way: Way, view: &View, positions: &Positions, size: usize, messages: usize) -> u64 {
    let parts = size / PART;
    let mut sum = 0;
    let mut part_of_it = vec![0; PART];
    match way {
        Way::Ring | Way::RingMixed | Way::RingByParts => {
            let (slots, together) = (RING / PART, if way == Way::RingMixed { DEPTH } else { 1 });
            let mut whole = vec![vec![0; if way == Way::RingByParts { 0 } else { size }]; together];
            for part in 0..messages * parts {
                positions.sent.reaches(part as u64 + 1);
                let from = part % slots * PART;
                if way == Way::RingByParts {
                    view.read(from, &mut part_of_it);
                    positions.taken.set(part as u64 + 1);
                    sum += read(&part_of_it);
                    continue;
                }
                let (message, at) = (part % together, part / together % parts);
                view.read(from, &mut whole[message][at * PART..][..PART]);
                positions.taken.set(part as u64 + 1);
                if at + 1 == parts {
                    sum += read(&whole[message]);
                }
            }
        }
        Way::Lane(blocks) | Way::LaneByParts(blocks) => {
            let mut whole = vec![0; size];
            for message in 0..messages {
                positions.sent.reaches(message as u64 + 1);
                let block = message % blocks * size;
                for at in (0..size).step_by(PART) {
                    if let Way::Lane(_) = way {
                        view.read(block + at, &mut whole[at..at + PART]);
                    } else {
                        view.read(block + at, &mut part_of_it);
                        sum += read(&part_of_it);
                    }
                }
                positions.taken.set(message as u64 + 1);
                if let Way::Lane(_) = way {
                    sum += read(&whole);
                }
            }
        }
    }
    sum
}

/// Reads each byte.
fn read(bytes: &[u8]) -> u64 {
    let (words, rest) = black_box(bytes).as_chunks::<8>();
    debug_assert!(rest.is_empty(), "parts are whole words");
    let mut lanes = 0_u64;
    for word in words {
        // Four sums of two bytes each: 8 bytes of 7 stay far below what two bytes hold if they are folded in time.
        let word = u64::from_ne_bytes(*word);
        let pairs = (word & 0x00FF_00FF_00FF_00FF) + (word >> 8 & 0x00FF_00FF_00FF_00FF);
        lanes += pairs.wrapping_mul(0x0001_0001_0001_0001) >> 48;
    }
    black_box(lanes)
}

/// A large message and, right behind it, a smaller one. Answers when the smaller and the larger were there whole.
fn behind(mixed: bool) -> io::Result<(Duration, Duration)> {
    let parts = |size: usize| size.div_ceil(PART);
    let (larger, smaller) = (parts(LARGER), parts(SMALLER));
    // Whose each part is: `true` of the smaller.
    let order: Vec<bool> =
        (0..larger + smaller).map(|at| if mixed { at % 2 == 1 && at / 2 < smaller } else { at >= larger }).collect();
    let (to, from) = mappings(RING)?;
    let positions = Positions::default();
    let (count, slots) = (order.len(), RING / PART);
    let send = || {
        let source = vec![7; LARGER];
        positions.taken.reaches(1);
        for part in 0..count {
            positions.taken.reaches((part + 2).saturating_sub(slots) as u64);
            to.write(part % slots * PART, &source[part % larger * PART..][..PART]);
            positions.sent.set(part as u64 + 1);
        }
    };
    let take = || {
        // Touched before, as buffers that are used again are.
        let mut whole = [vec![1; LARGER], vec![1; smaller * PART]];
        let (mut filled, mut done) = ([0; 2], [Duration::ZERO; 2]);
        positions.taken.set(1);
        let began = Instant::now();
        for (part, is_smaller) in order.iter().enumerate() {
            let which = usize::from(*is_smaller);
            positions.sent.reaches(part as u64 + 1);
            from.read(part % slots * PART, &mut whole[which][filled[which]..][..PART]);
            positions.taken.set(part as u64 + 2);
            filled[which] += PART;
            done[which] = began.elapsed();
        }
        (done[1], done[0])
    };
    on_two_cpus(send, take)
}
