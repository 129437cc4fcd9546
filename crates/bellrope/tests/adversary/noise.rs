//! Attacks by chance: peers that write anything anywhere, and a thread that flips bits under them and the server. They
//! live in a process of their own, as attackers do. Every other connection is one over transport 1.

mod stream;

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed as Plain},
    },
    time::{Duration, Instant},
};

use bellrope_proto::{
    frame::Kind,
    layout::{ADMITTED, CONSUMER_POSITION, RECORDS},
};
use bellrope_shm::{SharedMemory, sync::Ordering::Relaxed};
use bellrope_testkit::{raw_stream::StreamPeer, role};
use fastrand::Rng;

use crate::{StopOnDrop, peer::Peer};

/// Peers at once.
pub(crate) const PEERS: u64 = 2;
/// The part of a noisy process, and what it is told: the seed, milliseconds.
const ROLE: &str = "noise";
const SEED: &str = "BELLROPE_NOISE_SEED";
const LENGTH_MS: &str = "BELLROPE_NOISE_MS";
/// What such a process says before how many connections it took.
const TOOK: &str = "connections that made noise: ";
/// Most steps of a peer before it leaves and another comes.
const STEPS: u32 = 400;
/// Message types that a peer calls: all there are, and some that there are not.
const TYPES: u16 = 24;
/// Call ids, few enough to be used again and again.
const IDS: u64 = 8;

/// Has another process of this program, which runs this test, make noise for so long. Answers how many connections it
/// took.
pub(crate) fn make(test: &str, path: &Path, seed: u64, length: Duration) -> u64 {
    let more = [(SEED, seed.to_string()), (LENGTH_MS, length.as_millis().to_string())];
    role::start(test, ROLE, path, &more, false).end(TOOK).parse().unwrap()
}

/// Makes the noise if this is the process for it, and says whether it is.
pub(crate) fn is_made_here() -> bool {
    let Some(path) = role::is_played_here(ROLE) else { return false };
    role::say(TOOK, scribble(Path::new(&path), role::number(SEED), Duration::from_millis(role::number(LENGTH_MS))));
    true
}

/// Goes on for so long. Answers how many connections it took.
fn scribble(path: &Path, seed: u64, length: Duration) -> u64 {
    let memory: Mutex<Vec<Arc<SharedMemory>>> = Mutex::default();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flipping = scope.spawn(|| flip(&memory, Rng::with_seed(!seed), &over));
        let peers: Vec<_> = (0..PEERS)
            .map(|number| {
                let memory = &memory;
                scope.spawn(move || {
                    let deadline = Instant::now() + length;
                    let mut rng = Rng::with_seed(seed.wrapping_add(number));
                    let mut connections = 0;
                    while Instant::now() < deadline {
                        // Those that left may still have their places for a moment.
                        if rng.bool() {
                            let Ok(mut peer) = StreamPeer::try_to_connect(path, "adversary") else { continue };
                            stream::live(&mut peer, &mut rng);
                            connections += 1;
                            continue;
                        }
                        let Ok(mut peer) = Peer::try_to_connect(path) else { continue };
                        peer.careless = true;
                        memory.lock().unwrap().push(Arc::clone(&peer.memory));
                        live(&mut peer, &mut rng);
                        memory.lock().unwrap().retain(|other| !Arc::ptr_eq(other, &peer.memory));
                        connections += 1;
                    }
                    connections
                })
            })
            .collect();
        // However the peers end, the other thread does, too.
        let stopping = StopOnDrop(&over);
        let connections = peers.into_iter().map(|peer| peer.join().unwrap()).sum();
        drop(stopping);
        flipping.join().unwrap();
        connections
    })
}

/// As many threads as [`scribble`] has peers write to memory of their own while `work` goes on.
pub(crate) fn keep_busy(work: impl FnOnce()) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..PEERS {
            let over = &over;
            scope.spawn(move || {
                let (mut rng, mut memory) = (Rng::with_seed(seed), vec![0_u64; 4096]);
                while !over.load(Plain) {
                    let at = rng.usize(0..memory.len());
                    memory[at] = std::hint::black_box(memory[at] ^ word(&mut rng));
                }
            });
        }
        // They end however the work does.
        let _stopping = StopOnDrop(&over);
        work();
    });
}

/// Does what comes to mind, until the server has had enough.
fn live(peer: &mut Peer, rng: &mut Rng) {
    for _ in 0..rng.u32(1..STEPS) {
        if peer.is_hung_up() {
            return;
        }
        match rng.u32(0..20) {
            0 => peer.requests.store(near(peer.front(), rng, peer.requests.len()), word(rng), Relaxed),
            1 => peer.responses.store(near(peer.next_answer_at(), rng, peer.responses.len()), word(rng), Relaxed),
            2 => {
                let view = if rng.bool() { &peer.requests } else { &peer.responses };
                view.store(if rng.bool() { CONSUMER_POSITION } else { ADMITTED }, word(rng), Relaxed);
            }
            3 => peer.commit_word(word(rng)),
            4 => peer.socket.ring(),
            5 => peer.responses.punch_pages(rng.usize(0..64) * 4096),
            6 => peer.responses.store(CONSUMER_POSITION, rng.u64(0..4096) * 8, Relaxed),
            7..=18 => {
                let AnyRecord { kind, message_type, id, extension, payload } = any_record(rng);
                peer.send(kind, message_type, id, extension, &payload);
            }
            // The server gets a chance to see it.
            _ => std::thread::sleep(Duration::from_micros(rng.u64(0..300))),
        }
    }
}

/// A record that may be right.
struct AnyRecord {
    kind: Kind,
    message_type: u16,
    id: u64,
    extension: Option<u64>,
    payload: Vec<u8>,
}

fn any_record(rng: &mut Rng) -> AnyRecord {
    let kind = match rng.u32(0..12) {
        0 => Kind::Cancel,
        1 => Kind::Credit,
        2 => Kind::End,
        3 => Kind::Fragment,
        4..=5 => Kind::Chunk,
        _ => Kind::Request,
    };
    let extended = match kind {
        Kind::Cancel => false,
        Kind::Request => rng.u32(0..8) == 0,
        _ => true,
    };
    let empty = matches!(kind, Kind::Cancel | Kind::Credit | Kind::End);
    let most = if rng.u32(0..8) == 0 { 60_000 } else { 300 };
    let len = if empty { 0 } else { rng.usize(0..most) };
    let mut payload = vec![0; len];
    rng.fill(&mut payload);
    let extension = extended.then(|| if rng.bool() { rng.u64(0..4) } else { word(rng) });
    let message_type = if kind == Kind::Request { any_type(rng) } else { 0 };
    AnyRecord { kind, message_type, id: rng.u64(0..IDS), extension, payload }
}

fn any_type(rng: &mut Rng) -> u16 {
    rng.u16(0..TYPES)
}

/// A word near this one, mostly.
fn near(at: usize, rng: &mut Rng, len: usize) -> usize {
    let offset = if rng.u32(0..4) > 0 { at + 8 * rng.usize(0..32) } else { RECORDS + 8 * rng.usize(0..512) };
    offset.min(len - 8)
}

/// Anything, but often something that could be a header, a position or a size.
fn word(rng: &mut Rng) -> u64 {
    match rng.u32(0..5) {
        0 => rng.u64(..),
        1 => rng.u64(0..1 << 20),
        2 => u64::MAX,
        3 => 0,
        _ => {
            let (len, message_type) = (rng.u64(0..2000), u64::from(any_type(rng)));
            len | message_type << 32 | rng.u64(0..12) << 48 | rng.u64(0..2) << 56
        }
    }
}

/// Flips single bits all over the memory of all peers.
fn flip(memory: &Mutex<Vec<Arc<SharedMemory>>>, mut rng: Rng, over: &AtomicBool) {
    while !over.load(Plain) {
        let chosen = {
            let memory = memory.lock().unwrap();
            rng.choice(&*memory).cloned()
        };
        if let Some(memory) = chosen {
            let half = memory.view(0..8).mapping_len() / 2;
            for _ in 0..64 {
                let segment = if rng.bool() { memory.view(0..half) } else { memory.view(half..2 * half) };
                // Most of it where the traffic is.
                let reach = if rng.u32(0..4) > 0 { 4096 } else { half };
                let at = 8 * rng.usize(0..reach / 8);
                segment.store(at, segment.load(at, Relaxed) ^ 1 << rng.u32(0..64), Relaxed);
            }
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}
