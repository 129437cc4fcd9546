//! Bare slots in shared memory, the least that a call between two processes can be. A slot is a word and a payload. The
//! client writes the payload and then the word; the server copies it out, writes it into a slot of its own, and then the
//! word; the client copies it out. As many connections, calls under way and bytes as with Bellrope, but no message type,
//! no call id, no length, no check, no wake-up, no limit, no count: a side that dies would leave the other waiting.
//!
//! It needs nothing but shared memory, so that the comparison with peers can have it without the rest of this crate.

use bellrope_shm::{View, sync::Ordering};

const PAGE: usize = 4096;
const WORD: usize = 8;
/// The word that ends it, alone on the first page.
const END: usize = 0;

/// How many slots there are, and of what size.
#[derive(Debug, Clone, Copy)]
pub struct SlotShape {
    /// Pairs of a client and the server.
    pub connections: usize,
    /// Slots of a connection, in each direction.
    pub depth: usize,
    /// Payload bytes.
    pub size: usize,
}

/// The server's end: an echo.
#[derive(Debug)]
pub struct ServerEnd {
    slots: Slots,
    /// Calls answered, for each connection.
    answered: Vec<u64>,
    payload: Vec<u8>,
}

impl ServerEnd {
    /// The end over this memory, which has [`SlotShape::bytes`] bytes.
    #[must_use]
    pub fn new(view: View, shape: SlotShape) -> Self {
        let (answered, payload) = (vec![0; shape.connections], vec![0; shape.size]);
        Self { slots: Slots::new(view, shape), answered, payload }
    }

    /// Whether the client's end is gone.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.slots.view.load(END, Ordering::Acquire) != 0
    }

    /// Answers what has come on all connections. Whether there was anything.
    #[inline]
    pub fn round(&mut self) -> bool {
        let mut found = false;
        for (connection, count) in self.answered.iter_mut().enumerate() {
            while self.slots.take(Direction::There, connection, *count, &mut self.payload) {
                self.slots.put(Direction::Back, connection, *count, &self.payload);
                *count += 1;
                found = true;
            }
        }
        found
    }
}

/// The client's end. The server's is over when this is dropped.
#[derive(Debug)]
pub struct ClientEnd {
    slots: Slots,
    /// Calls sent and answered, for each connection.
    counts: Vec<(u64, u64)>,
    reply: Vec<u8>,
}

impl ClientEnd {
    /// The end over this memory, which has [`SlotShape::bytes`] bytes.
    #[must_use]
    pub fn new(view: View, shape: SlotShape) -> Self {
        let (counts, reply) = (vec![(0, 0); shape.connections], vec![0; shape.size]);
        Self { slots: Slots::new(view, shape), counts, reply }
    }

    /// How many connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.counts.len()
    }

    /// The answer that was taken last.
    #[must_use]
    pub fn reply(&self) -> &[u8] {
        &self.reply
    }

    /// Calls of a connection that are not answered yet.
    #[inline]
    #[must_use]
    pub fn under_way(&self, connection: usize) -> u64 {
        let (sent, answered) = self.counts[connection];
        sent - answered
    }

    /// Whether a connection has a slot left for a call.
    #[inline]
    #[must_use]
    pub fn has_room(&self, connection: usize) -> bool {
        self.under_way(connection) < self.slots.shape.depth as u64
    }

    /// Sends a call, for which there must be room.
    #[inline]
    pub fn send(&mut self, connection: usize, payload: &[u8]) {
        let sent = &mut self.counts[connection].0;
        self.slots.put(Direction::There, connection, *sent, payload);
        *sent += 1;
    }

    /// Takes an answer, if one has come.
    #[inline]
    pub fn take(&mut self, connection: usize) -> bool {
        let (sent, answered) = &mut self.counts[connection];
        let came = answered < sent && self.slots.take(Direction::Back, connection, *answered, &mut self.reply);
        *answered += u64::from(came);
        came
    }
}

impl Drop for ClientEnd {
    fn drop(&mut self) {
        self.slots.view.store(END, 1, Ordering::Release);
    }
}

/// From client to server, and back.
#[derive(Debug, Clone, Copy)]
enum Direction {
    There,
    Back,
}

/// The slots of all connections: after the first page, whole pages for each direction of each.
#[derive(Debug)]
struct Slots {
    view: View,
    shape: SlotShape,
}

impl Slots {
    /// The slots in fresh memory, or those that the other side made there. Every page is touched, so that nobody waits for
    /// the kernel later.
    fn new(view: View, shape: SlotShape) -> Self {
        let touched = (0..shape.bytes()).step_by(PAGE).fold(0, |sum, at| sum | view.load(at, Ordering::Relaxed));
        std::hint::black_box(touched);
        Self { view, shape }
    }

    /// Fills the slot of the `count`th message of a connection.
    #[inline]
    fn put(&self, direction: Direction, connection: usize, count: u64, payload: &[u8]) {
        let at = self.at(direction, connection, count);
        self.view.write(at + WORD, payload);
        self.view.store(at, count + 1, Ordering::Release);
    }

    /// Copies the `count`th message of a connection out, if it has come.
    #[inline]
    fn take(&self, direction: Direction, connection: usize, count: u64, into: &mut [u8]) -> bool {
        let at = self.at(direction, connection, count);
        let there = self.view.load(at, Ordering::Acquire) == count + 1;
        if there {
            self.view.read(at + WORD, into);
        }
        there
    }

    #[inline]
    fn at(&self, direction: Direction, connection: usize, count: u64) -> usize {
        let segment = 2 * connection + direction as usize;
        PAGE + segment * self.shape.segment() + (count % self.shape.depth as u64) as usize * self.shape.slot()
    }
}

impl SlotShape {
    /// Bytes of a slot.
    fn slot(&self) -> usize {
        (WORD + self.size).next_multiple_of(WORD)
    }

    /// Bytes of the slots of a connection in one direction.
    fn segment(&self) -> usize {
        (self.depth * self.slot()).next_multiple_of(PAGE)
    }

    /// Bytes of all of it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        PAGE + 2 * self.connections * self.segment()
    }
}
