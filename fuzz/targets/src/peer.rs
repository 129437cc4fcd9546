//! A peer that writes what it likes into the shared memory, between any two of our calls and within them.

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use arbitrary::Arbitrary;
use bellrope_proto::{
    frame::{Header, Kind},
    layout::{ADMITTED, ASLEEP, CONSUMER_POSITION, EMPTY, Geometry, RECORDS},
};
use bellrope_shm::{View, kill_points, sync::Ordering};

/// One word written into a ring.
#[derive(Debug, Clone, Arbitrary)]
pub(crate) struct Scribble {
    place: Place,
    word: Word,
}

#[derive(Debug, Clone, Arbitrary)]
enum Place {
    /// So many words after where the next record is.
    Near(u8),
    Anywhere(u16),
    ConsumerPosition,
    Admitted,
}

/// Words that get past a check or two, and some that do not.
#[derive(Debug, Clone, Arbitrary)]
enum Word {
    Header { len: u16, message_type: u8, kind: u8, extended: bool },
    Position(u16),
    Small(u8),
    Any(u64),
    Pad,
    Asleep,
    Empty,
}

impl Word {
    fn bits(&self) -> u64 {
        match *self {
            Self::Header { len, message_type, kind, extended } => {
                u64::from(len) | u64::from(message_type) << 32 | u64::from(kind % 15) << 48 | u64::from(extended) << 56
                    // The flag of compact rings.
                    | u64::from(kind >= 0xF0) << 57
            }
            Self::Position(words) => u64::from(words) * 8,
            Self::Small(value) => value.into(),
            Self::Any(bits) => bits,
            Self::Pad => Header::pad(),
            Self::Asleep => ASLEEP,
            Self::Empty => EMPTY,
        }
    }
}

impl Scribble {
    /// Writes it into the ring in `view`, whose next record is at position `next`.
    pub(crate) fn write(&self, view: &View, geometry: Geometry, next: u64) {
        let words = geometry.capacity / 8;
        let offset = match self.place {
            Place::Near(skip) => RECORDS + ((next / 8 + u64::from(skip)) % words * 8) as usize,
            Place::Anywhere(word) => RECORDS + (u64::from(word) % words * 8) as usize,
            Place::ConsumerPosition => CONSUMER_POSITION,
            Place::Admitted => ADMITTED,
        };
        view.store(offset, self.word.bits(), Ordering::Relaxed);
    }
}

/// A kind of record that can be pushed.
pub(crate) fn kind(bits: u8) -> Kind {
    const KINDS: [Kind; 10] = [
        Kind::Request,
        Kind::Cancel,
        Kind::Credit,
        Kind::Response,
        Kind::Error,
        Kind::Chunk,
        Kind::End,
        Kind::Fragment,
        Kind::Types,
        Kind::Described,
    ];
    KINDS[usize::from(bits) % KINDS.len()]
}

/// Writes that happen within our calls, one at each of the points where a process could be killed. Where the program was
/// built without those points they never happen.
pub(crate) struct Intruder {
    queue: Rc<RefCell<VecDeque<(Scribble, u64)>>>,
}

impl Intruder {
    /// An intruder into the ring in `view`, until it is dropped.
    pub(crate) fn new(view: View, geometry: Geometry) -> Self {
        let queue: Rc<RefCell<VecDeque<(Scribble, u64)>>> = Rc::default();
        let theirs = Rc::clone(&queue);
        kill_points::intrude(Some(Box::new(move || {
            if let Some((scribble, next)) = theirs.borrow_mut().pop_front() {
                scribble.write(&view, geometry, next);
            }
        })));
        Self { queue }
    }

    /// Has this written at the next point that is not taken.
    pub(crate) fn add(&self, scribble: Scribble, next: u64) {
        self.queue.borrow_mut().push_back((scribble, next));
    }
}

impl Drop for Intruder {
    fn drop(&mut self) {
        kill_points::intrude(None);
    }
}
