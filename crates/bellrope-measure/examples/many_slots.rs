//! What stands between a thousand connections with calls of 1 KB and bare slots: bare slots with what a call has beside them, one thing
//! after the other. `docs/performance.md` has the figures and what follows from them.
//!
//! ```sh
//! cargo run --release -p bellrope-measure --no-default-features --example many_slots
//! ```
//!
//! A client thread and a server thread, each on a CPU of its own, with a mapping each of the same memory. Each connection has one call under
//! way. The steps take turns. The best of the rounds counts, with the median beside it: whatever else a machine does makes two
//! threads that spin slower, and never faster. The number of connections and the bytes of a call may be given.

use std::{
    hint::{black_box, spin_loop},
    io::{self, Write as _},
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use bellrope_shm::{SharedMemory, View, process::pin_to_cpu, sync::Ordering};

const ROUNDS: usize = 9;
/// How long a step is measured in a round.
const TIME: Duration = Duration::from_millis(100);
const PAGE: usize = 4096;
const LINE: usize = 64;
/// Where the payload begins, behind the word and the place of an id.
const PAYLOAD: usize = 16;
/// Where the two directions lie in one page.
const THERE: usize = 0x100;
const BACK: usize = 0x900;
/// The longest payload for which one page holds both.
const LONGEST: usize = 1664;
/// Lines of private state that a call touches: of the server with the word in which it says what it has admitted, of the client.
const SERVER_LINES: usize = 6;
const CLIENT_LINES: usize = 4;
/// Some ten instructions each.
const SERVER_WORK: u32 = 110;
const CLIENT_WORK: u32 = 60;

/// What a call has beside a word and a payload.
#[derive(Debug, Clone, Copy, Default)]
struct Step {
    /// Both directions lie in one page, not in one each.
    one_page: bool,
    /// A message is published by a swap, which tells whether the other side sleeps, not by a store.
    swaps: bool,
    /// All lines of a message are fetched for writing before it is written, and the next connection's word before it is looked at.
    fetches: bool,
    /// Whoever has read a message empties its word by an exchange, and whoever writes the next one there looks at that first: a ring that
    /// starts over.
    empties: bool,
    /// Each side has state of its own for each connection.
    keeps: bool,
    /// Each side computes: checks, counts, breaker, guard.
    computes: bool,
}

const NAMES: [&str; 7] = [
    "bare slots",
    "both directions in one page",
    "published by a swap",
    "lines fetched before they are used",
    "the word emptied by its reader",
    "state of each connection",
    "work on each side",
];

impl Step {
    /// With the first so many things.
    fn with(first: usize) -> Self {
        Self {
            one_page: first > 0,
            swaps: first > 1,
            fetches: first > 2,
            empties: first > 3,
            keeps: first > 4,
            computes: first > 5,
        }
    }
}

/// One side of all connections.
struct Side<'memory> {
    view: &'memory View,
    step: Step,
    /// Lines of private state of a connection.
    lines: usize,
    work: u32,
    state: Vec<Line>,
    payload: Vec<u8>,
}

/// A line that shares its cache line with nothing.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Line(u64);

impl Side<'_> {
    fn at(&self, connection: usize, place: usize) -> usize {
        match (self.step.one_page, place) {
            (true, _) => connection * PAGE + place,
            (false, THERE) => 2 * connection * PAGE,
            (false, _) => (2 * connection + 1) * PAGE,
        }
    }

    /// Writes the `count`th message of a connection.
    #[inline]
    fn put(&self, connection: usize, place: usize, count: u64) {
        let at = self.at(connection, place);
        if self.step.empties {
            assert_eq!(self.view.load(at, Ordering::Acquire), 0, "the last one was read");
        }
        if self.step.fetches {
            (0..PAYLOAD + self.payload.len()).step_by(LINE).for_each(|line| self.view.prefetch_to_write(at + line));
        }
        self.view.write(at + PAYLOAD, &self.payload);
        if self.step.swaps {
            self.view.swap(at, count, Ordering::AcqRel);
        } else {
            self.view.store(at, count, Ordering::Release);
        }
    }

    /// Takes the `count`th message of a connection, if it has come.
    #[inline]
    fn take(&mut self, connection: usize, place: usize, count: u64) -> bool {
        let at = self.at(connection, place);
        if self.view.load(at, Ordering::Acquire) != count {
            return false;
        }
        self.view.read(at + PAYLOAD, &mut self.payload);
        if self.step.empties {
            let emptied = self.view.compare_exchange(at, count, 0, Ordering::AcqRel, Ordering::Relaxed);
            assert!(emptied.is_ok(), "nobody else writes it");
        }
        true
    }

    /// What a call costs beside its message.
    #[inline]
    fn attend(&mut self, connection: usize) {
        if self.step.keeps {
            self.state[connection * self.lines..][..self.lines].iter_mut().for_each(|line| line.0 += 1);
        }
        if self.step.computes {
            let mut lanes = black_box([connection as u64; 4]);
            for round in 0..self.work {
                for lane in &mut lanes {
                    *lane = lane.rotate_left(round) ^ 0x9E37_79B9_7F4A_7C15;
                }
            }
            black_box(lanes);
        }
    }

    #[inline]
    fn fetch(&self, connection: usize, place: usize) {
        if self.step.fetches {
            let at = self.at(connection, place);
            self.view.prefetch(at);
            self.view.prefetch(at + LINE);
        }
    }
}

/// Calls a second.
fn measure(step: Step, connections: usize, size: usize) -> io::Result<f64> {
    let len = 2 * connections * PAGE;
    let (memory, handle) = SharedMemory::create(len)?;
    let other = SharedMemory::open(&handle, len).map_err(io::Error::other)?;
    let (near, far) = (memory.view(0..len), other.view(0..len));
    let over = AtomicBool::new(false);
    let side = |view, lines, work| Side {
        view,
        step,
        lines,
        work,
        state: vec![Line(1); lines * connections],
        payload: vec![7; size],
    };
    thread::scope(|scope| {
        let server =
            scope.spawn(|| pin_to_cpu(1).map(|()| serve(side(&far, SERVER_LINES, SERVER_WORK), connections, &over)));
        let client = scope.spawn(|| {
            let called = pin_to_cpu(0).map(|()| call(side(&near, CLIENT_LINES, CLIENT_WORK), connections));
            over.store(true, Ordering::Relaxed);
            called
        });
        let called = client.join().expect("the client does not panic");
        server.join().expect("the server does not panic")?;
        called
    })
}

fn serve(mut side: Side<'_>, connections: usize, over: &AtomicBool) {
    let mut counts = vec![0_u64; connections];
    while !over.load(Ordering::Relaxed) {
        for (connection, count) in counts.iter_mut().enumerate() {
            side.fetch((connection + 1) % connections, THERE);
            if side.take(connection, THERE, *count + 1) {
                *count += 1;
                side.attend(connection);
                side.put(connection, BACK, *count);
            }
        }
    }
}

/// Calls on all connections in turn, first until all have been answered often, then for the time.
fn call(mut side: Side<'_>, connections: usize) -> f64 {
    const WARM_UP: u64 = 20;
    let mut counts = vec![0_u64; connections];
    let (mut answered, mut counted, mut began) = (0_u64, 0, Instant::now());
    loop {
        for (connection, count) in counts.iter_mut().enumerate() {
            if *count > 0 {
                if !side.take(connection, BACK, *count) {
                    spin_loop();
                    continue;
                }
                answered += 1;
                side.attend(connection);
            }
            *count += 1;
            side.put(connection, THERE, *count);
        }
        if counted == 0 {
            if answered >= WARM_UP * connections as u64 {
                (counted, began) = (answered, Instant::now());
            }
        } else if began.elapsed() >= TIME {
            return (answered - counted) as f64 / began.elapsed().as_secs_f64();
        }
    }
}

fn main() -> io::Result<()> {
    let mut given = std::env::args().skip(1).map(|given| given.parse::<usize>());
    let (connections, size) = match (given.next(), given.next()) {
        (None, _) => (1000, 1024),
        (Some(Ok(connections)), None) if connections > 0 => (connections, 1024),
        (Some(Ok(connections)), Some(Ok(size))) if connections > 0 && size <= LONGEST => (connections, size),
        _ => return Err(io::Error::other(format!("usage: many_slots [CONNECTIONS [BYTES, at most {LONGEST}]]"))),
    };
    let mut figures = vec![Vec::new(); NAMES.len()];
    for _ in 0..ROUNDS {
        for (first, figures) in figures.iter_mut().enumerate() {
            figures.push(measure(Step::with(first), connections, size)?);
        }
    }
    let mut out = io::stdout();
    writeln!(out, "{connections} connections, {size} B: million calls a second, and the share of bare slots")?;
    let mut bare = None;
    for (first, (name, figures)) in NAMES.iter().zip(&mut figures).enumerate() {
        figures.sort_unstable_by(f64::total_cmp);
        let (median, best) = (figures[ROUNDS / 2] / 1e6, figures[ROUNDS - 1] / 1e6);
        let (bare_best, bare_median) = *bare.get_or_insert((best, median));
        let plus = if first > 0 { "+ " } else { "" };
        writeln!(
            out,
            "  {:36} {best:>6.2}  {:>5.2}  (median {median:>6.2}  {:>5.2})",
            format!("{plus}{name}"),
            best / bare_best,
            median / bare_median
        )?;
    }
    Ok(())
}
