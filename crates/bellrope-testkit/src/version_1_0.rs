//! Both sides of version 1.0, made of raw bytes and raw memory by docs/wire.md as it was: shared memory alone, no feature
//! bits, kinds 1 to 9. They share no code with what they talk to, and never sleep: a record is polled for.

use std::{
    collections::HashMap,
    os::unix::net::UnixListener,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::Instant,
};

use bellrope_shm::{SharedMemory, View, clock, socket::Socket, sync::Ordering, wait};

use crate::support::PATIENCE;

const HELLO: usize = 88;
const HEAD: usize = 64;
const RECORDS: usize = 0x100;
const ADMITTED: usize = 0x80;
const ASLEEP: u64 = u64::MAX;
const AWAITED: u64 = 1 << 63;
const PAD: u64 = 1 << 48;
/// What the server of this file offers on each connection.
const CAPACITY: u64 = 65_536;
const MAX_MESSAGE: u32 = 1 << 20;
/// It keeps no account of credit: what a test has it stream costs less.
const WINDOW: u32 = 65_536;
/// Its message types: number, style, name.
const TYPES: [(u16, u8, &str); 4] = [(1, 0, "echo"), (2, 1, "count"), (3, 2, "total"), (4, 3, "double")];

/// A record, as it was read.
#[derive(Debug, Clone)]
struct Record {
    kind: u8,
    message_type: u16,
    id: u64,
    extension: Option<u64>,
    payload: Vec<u8>,
}

/// One side of a connection: a ring that it writes and one that it reads.
struct Rings {
    socket: Socket,
    capacity: u64,
    out: View,
    written: u64,
    /// How far the other side has read, as far as it was seen.
    read_there: u64,
    inward: View,
    read: u64,
}

impl Rings {
    fn new(socket: Socket, memory: &Arc<SharedMemory>, capacity: u64, is_server: bool) -> Self {
        let segment = (RECORDS + capacity as usize).next_multiple_of(4096);
        let (requests, responses) = (memory.view(0..segment), memory.view(segment..2 * segment));
        let (out, inward) = if is_server { (responses, requests) } else { (requests, responses) };
        Self { socket, capacity, out, written: 0, read_there: 0, inward, read: 0 }
    }

    /// Where a record of this size goes. `None`: there is no room. The flag says that it starts the next lap.
    fn place(&mut self, size: u64) -> Option<(u64, bool)> {
        self.read_there = self.out.load(0, Ordering::Acquire) & !AWAITED;
        let (offset, reader) = (self.written % self.capacity, self.read_there % self.capacity);
        if self.written / self.capacity > self.read_there / self.capacity {
            return (offset + size + 8 <= reader).then_some((offset, false));
        }
        if offset + size + 8 <= self.capacity {
            return Some((offset, false));
        }
        (size + 8 <= reader).then_some((0, true))
    }

    /// Writes a record. Answers `false` if there is no room.
    fn try_push(&mut self, kind: u8, message_type: u16, id: u64, extension: Option<u64>, payload: &[u8]) -> bool {
        let extended = u64::from(extension.is_some());
        let size = 16 + 8 * extended + (payload.len() as u64).next_multiple_of(8);
        let Some((offset, wraps)) = self.place(size) else { return false };
        let at = RECORDS + offset as usize;
        let header = payload.len() as u64 | u64::from(message_type) << 32 | u64::from(kind) << 48 | extended << 56;
        self.out.store(at + size as usize, 0, Ordering::Relaxed);
        self.out.store(at + 8, id, Ordering::Relaxed);
        if let Some(extension) = extension {
            self.out.store(at + 16, extension, Ordering::Relaxed);
        }
        self.out.write(at + 16 + 8 * extended as usize, payload);
        let stand = self.written % self.capacity;
        let (word, at) = if wraps {
            self.out.store(at, header, Ordering::Relaxed);
            self.written += self.capacity - stand;
            (PAD, RECORDS + stand as usize)
        } else {
            (header, at)
        };
        self.written += size;
        if self.out.swap(at, word, Ordering::AcqRel) == ASLEEP {
            self.socket.ring();
        }
        true
    }

    /// The next record, if one came.
    fn next(&mut self) -> Option<Record> {
        let mut at = RECORDS + (self.read % self.capacity) as usize;
        let mut word = self.inward.load(at, Ordering::Acquire);
        if word == PAD {
            self.read = (self.read / self.capacity + 1) * self.capacity;
            at = RECORDS;
            word = self.inward.load(at, Ordering::Acquire);
        }
        if word == 0 || word == ASLEEP {
            return None;
        }
        let (kind, flags) = ((word >> 48) as u8, (word >> 56) as u8);
        assert!((2..=9).contains(&kind) && flags <= 1, "version 1.0 knows no header {word:#x}");
        let extension = (flags == 1).then(|| self.inward.load(at + 16, Ordering::Relaxed));
        let mut payload = vec![0; word as u32 as usize];
        self.inward.read(at + 16 + 8 * usize::from(flags), &mut payload);
        let id = self.inward.load(at + 8, Ordering::Relaxed);
        self.read += 16 + 8 * u64::from(flags) + (payload.len() as u64).next_multiple_of(8);
        if self.inward.swap(0, self.read, Ordering::AcqRel) & AWAITED != 0 {
            self.socket.ring();
        }
        Some(Record { kind, message_type: (word >> 32) as u16, id, extension, payload })
    }
}

/// Waits for something of the other side, which is to come soon.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::yield_now();
    }
}

/// Reads exactly so many bytes, with the memory that may come with the first.
fn read(socket: &Socket, into: &mut [u8]) -> Option<bellrope_shm::MemoryHandle> {
    let (mut filled, mut memory) = (0, None);
    while filled < into.len() {
        assert!(wait::readable(socket, Some(PATIENCE)).unwrap(), "nothing comes over the socket");
        let (count, came) = socket.receive_with_memory(&mut into[filled..]).unwrap();
        assert!(count > 0, "the other side hung up in mid-handshake");
        memory = memory.or(came);
        filled += count;
    }
    memory
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().unwrap())
}

/// The hello of version 1.0 that asks for this transport.
fn hello(transport: u8) -> [u8; HELLO] {
    let mut hello = [0; HELLO];
    hello[..8].copy_from_slice(b"BELLROPE");
    hello[8] = 1;
    hello[12] = transport;
    hello[14] = 3;
    hello[24..27].copy_from_slice(b"old");
    hello
}

/// A client of version 1.0.
pub struct OldClient {
    rings: Rings,
    types: HashMap<String, u16>,
    /// The answer to its hello: head and body.
    pub answer: Vec<u8>,
    max_record: usize,
    window: i64,
    last_id: u64,
}

impl OldClient {
    /// Connects.
    ///
    /// # Panics
    /// If there is no server, or what it answers is not what version 1.0 has.
    #[must_use]
    pub fn connect(path: &Path) -> Self {
        let socket = Socket::connect(path).unwrap();
        assert_eq!(socket.send(&hello(0)).unwrap(), HELLO);
        let mut answer = vec![0; HEAD];
        let memory = read(&socket, &mut answer);
        assert_eq!((&answer[..10], &answer[12..14]), (&b"BELLROPE\x01\0"[..], &[0, 0][..]), "it is let in");
        let body = u32_at(&answer, 48) as usize;
        assert!(body <= 65_536);
        answer.resize(HEAD + body, 0);
        read(&socket, &mut answer[HEAD..]);
        let (mut types, mut rest) = (HashMap::new(), &answer[HEAD..]);
        while let Some((&[t0, t1, _, len], behind)) = rest.split_first_chunk() {
            let (name, behind) = behind.split_at(len.into());
            types.entry(String::from_utf8(name.to_vec()).unwrap()).or_insert(u16::from_le_bytes([t0, t1]));
            rest = behind;
        }
        assert!(rest.is_empty());
        let capacity = u32_at(&answer, 32);
        let segment = (RECORDS + capacity as usize).next_multiple_of(4096);
        let memory = SharedMemory::open(&memory.expect("memory comes with the answer"), 2 * segment).unwrap();
        let max_record = (capacity / 4).min(u32_at(&answer, 36)) as usize;
        let window = u32_at(&answer, 44).into();
        let rings = Rings::new(socket, &memory, capacity.into(), false);
        Self { rings, types, answer, max_record, window, last_id: 0 }
    }

    /// The names that it knows.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.types.keys().map(String::as_str)
    }

    fn push(&mut self, kind: u8, message_type: u16, id: u64, extension: Option<u64>, payload: &[u8]) {
        wait_for("room", || self.rings.try_push(kind, message_type, id, extension, payload).then_some(()));
    }

    /// Begins a call.
    fn begin(&mut self, name: &str, payload: &[u8]) -> u64 {
        self.last_id += 1;
        let (id, number, part) = (self.last_id, self.types[name], self.max_record.min(32_768));
        let mut rest = payload;
        if rest.len() > self.max_record {
            while rest.len() > part {
                self.push(9, 0, id, Some(payload.len() as u64), &rest[..part]);
                rest = &rest[part..];
            }
        }
        self.push(2, number, id, None, rest);
        id
    }

    fn answer_to(&mut self, id: u64) -> Record {
        let record = wait_for("an answer", || self.rings.next());
        assert_eq!(record.id, id, "only this call is under way: {record:?}");
        record
    }

    /// Takes what comes until the call has ended, and answers with the response or the chunks.
    fn end(&mut self, id: u64) -> Vec<Vec<u8>> {
        let (mut taken, mut owed, mut partial) = (Vec::new(), 0, Vec::new());
        loop {
            let record = self.answer_to(id);
            match record.kind {
                9 => partial.extend(record.payload),
                5 => {
                    partial.extend(record.payload);
                    return vec![partial];
                }
                7 => {
                    assert_eq!(record.extension, Some(taken.len() as u64));
                    owed += record.payload.len() as i64 + 64;
                    taken.push(record.payload);
                    if owed >= self.window / 2 {
                        self.push(4, 0, id, Some(owed as u64), b"");
                        owed = 0;
                    }
                }
                8 => {
                    assert_eq!(record.extension, Some(taken.len() as u64));
                    return taken;
                }
                4 => {}
                kind => panic!("kind {kind}: {:?}", String::from_utf8_lossy(&record.payload)),
            }
        }
    }

    /// Calls a type that is answered once, or with a stream.
    ///
    /// # Panics
    /// If the answer is not what version 1.0 has, or an error.
    pub fn call(&mut self, name: &str, payload: &[u8]) -> Vec<Vec<u8>> {
        let id = self.begin(name, payload);
        self.end(id)
    }

    /// Calls a type that takes a stream. What these chunks cost must stay below the window.
    ///
    /// # Panics
    /// As [`Self::call`].
    pub fn upload(&mut self, name: &str, chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let id = self.begin(name, b"");
        for (number, chunk) in chunks.iter().enumerate() {
            self.push(7, 0, id, Some(number as u64), chunk);
        }
        self.push(8, 0, id, Some(chunks.len() as u64), b"");
        self.end(id)
    }

    /// Calls and gives up. Answers with the code of the error that the server ends it with.
    ///
    /// # Panics
    /// As [`Self::call`].
    pub fn cancel(&mut self, name: &str) -> u16 {
        let id = self.begin(name, b"");
        self.push(3, 0, id, None, b"");
        let record = self.answer_to(id);
        assert_eq!(record.kind, 6);
        record.message_type
    }
}

/// A server of version 1.0, with `echo`, `count`, `total` and `double`. It ends when it is dropped.
pub struct OldServer {
    stopping: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl OldServer {
    /// Listens at this path.
    ///
    /// # Panics
    /// If the path is taken.
    #[must_use]
    pub fn bind(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (stopping, refused) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let thread = std::thread::spawn({
            let (stopping, refused) = (Arc::clone(&stopping), Arc::clone(&refused));
            move || {
                let mut serving: Vec<Serving> = Vec::new();
                while !stopping.load(SeqCst) {
                    if let Ok((stream, _)) = listener.accept() {
                        stream.set_nonblocking(true).unwrap();
                        match Serving::welcome(stream.into()) {
                            Some(one) => serving.push(one),
                            None => drop(refused.fetch_add(1, SeqCst)),
                        }
                    }
                    serving.iter_mut().for_each(Serving::turn);
                    std::thread::yield_now();
                }
            }
        });
        Self { stopping, refused, thread: Some(thread) }
    }

    /// How many asked for a transport that version 1.0 does not have.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refused.load(SeqCst)
    }
}

impl Drop for OldServer {
    fn drop(&mut self) {
        self.stopping.store(true, SeqCst);
        let ended = self.thread.take().map(JoinHandle::join);
        if let (Some(Err(panic)), false) = (ended, std::thread::panicking()) {
            std::panic::resume_unwind(panic);
        }
    }
}

/// A connection of the server.
struct Serving {
    rings: Rings,
    /// The parts of a large request.
    partial: Vec<u8>,
    /// Calls that still take chunks: their style, and the bytes that came.
    open: HashMap<u64, (u8, Vec<u8>, u64)>,
    /// What found no room.
    waiting: Vec<Record>,
}

impl Serving {
    /// Answers a hello. `None`: it was refused.
    fn welcome(socket: Socket) -> Option<Self> {
        let mut hello = [0; HELLO];
        read(&socket, &mut hello);
        assert_eq!((&hello[..10], hello[15]), (&b"BELLROPE\x01\0"[..], 0));
        let mut answer = vec![0; HEAD];
        answer[..9].copy_from_slice(b"BELLROPE\x01");
        if hello[12] != 0 {
            let text = format!("transport {} is not supported; 0 (shared memory) is", hello[12]);
            answer[12] = 2;
            answer[48..52].copy_from_slice(&(text.len() as u32).to_le_bytes());
            answer.extend_from_slice(text.as_bytes());
            socket.send(&answer).unwrap();
            return None;
        }
        let numbers = [CAPACITY as u32, MAX_MESSAGE, 16, WINDOW];
        for (at, number) in (32..).step_by(4).zip(numbers) {
            answer[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        answer[56..64].copy_from_slice(&clock::monotonic_us().to_le_bytes());
        for (number, style, name) in TYPES {
            answer.extend_from_slice(&number.to_le_bytes());
            answer.extend_from_slice(&[style, name.len() as u8]);
            answer.extend_from_slice(name.as_bytes());
        }
        let body = (answer.len() - HEAD) as u32;
        answer[48..52].copy_from_slice(&body.to_le_bytes());
        let segment = (RECORDS + CAPACITY as usize).next_multiple_of(4096);
        let (memory, handle) = SharedMemory::create(2 * segment).unwrap();
        assert_eq!(socket.send_with_memory(&answer, &handle).unwrap(), answer.len());
        let rings = Rings::new(socket, &memory, CAPACITY, true);
        Some(Self { rings, partial: Vec::new(), open: HashMap::new(), waiting: Vec::new() })
    }

    fn say(&mut self, kind: u8, message_type: u16, id: u64, extension: Option<u64>, payload: &[u8]) {
        self.waiting.push(Record { kind, message_type, id, extension, payload: payload.to_vec() });
    }

    fn turn(&mut self) {
        let rings = &mut self.rings;
        let mut sent = 0;
        for Record { kind, message_type, id, extension, payload } in &self.waiting {
            if !rings.try_push(*kind, *message_type, *id, *extension, payload) {
                break;
            }
            sent += 1;
        }
        self.waiting.drain(..sent);
        if !self.waiting.is_empty() {
            return;
        }
        let Some(record) = self.rings.next() else { return };
        let id = record.id;
        match record.kind {
            9 => self.partial.extend(record.payload),
            2 => {
                self.rings.inward.store(ADMITTED, self.rings.read, Ordering::Release);
                let mut payload = std::mem::take(&mut self.partial);
                payload.extend(record.payload);
                self.serve(record.message_type, id, &payload);
            }
            3 => {
                if self.open.remove(&id).is_some() {
                    self.say(6, 6, id, None, b"cancelled by the caller");
                }
            }
            4 => {}
            7 => {
                let Some((style, bytes, chunks)) = self.open.get_mut(&id) else { return };
                assert_eq!(record.extension, Some(*chunks));
                *chunks += 1;
                bytes.extend_from_slice(&record.payload);
                let (style, number) = (*style, *chunks - 1);
                self.say(4, 0, id, Some(record.payload.len() as u64 + 64), b"");
                if style == 3 {
                    self.say(7, 0, id, Some(number), &[&record.payload[..], &record.payload].concat());
                }
            }
            8 => {
                let Some((style, bytes, chunks)) = self.open.remove(&id) else { return };
                assert_eq!(record.extension, Some(chunks));
                match style {
                    2 => self.say(5, 0, id, None, bytes.len().to_string().as_bytes()),
                    _ => self.say(8, 0, id, Some(chunks), b""),
                }
            }
            kind => panic!("a client sends no kind {kind}"),
        }
    }

    fn serve(&mut self, message_type: u16, id: u64, payload: &[u8]) {
        match message_type {
            1 if payload.len() <= CAPACITY as usize / 4 => self.say(5, 0, id, None, payload),
            1 => {
                let mut rest = payload;
                while rest.len() > 16_384 {
                    self.say(9, 0, id, Some(payload.len() as u64), &rest[..16_384]);
                    rest = &rest[16_384..];
                }
                self.say(5, 0, id, None, rest);
            }
            2 => {
                let count: u32 = std::str::from_utf8(payload).unwrap().parse().unwrap();
                for number in 0..count {
                    self.say(7, 0, id, Some(number.into()), &number.to_le_bytes());
                }
                self.say(8, 0, id, Some(count.into()), b"");
            }
            3 | 4 => drop(self.open.insert(id, (message_type as u8 - 1, Vec::new(), 0))),
            _ => self.say(6, 3, id, None, b"no handler has this number"),
        }
    }
}
