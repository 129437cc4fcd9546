//! Notes that survive the death of whoever made them: one small write for each, and no buffer in between.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
};

use bellrope_shm::clock;

use crate::ledger::{Event, Flow, Outcome};

/// Bytes of a note. A page holds a whole number of them, so that none is ever torn: the kernel looks for a deadly signal
/// between two pages of a write, not within one.
const NOTE: usize = 32;
/// In place of a deadline: none.
const NONE: u64 = u64::MAX;

pub(super) struct Journal {
    file: File,
}

/// A note that was read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) event: Event,
    /// When it was made, on the machine's clock.
    pub(super) at_us: u64,
}

impl Journal {
    pub(super) fn create(path: &Path) -> Self {
        Self { file: OpenOptions::new().append(true).create_new(true).open(path).unwrap() }
    }

    /// Makes a note. It is there for good when this returns.
    pub(super) fn note(&self, event: &Event) {
        let note = Note { event: *event, at_us: clock::monotonic_us() };
        assert_eq!((&self.file).write(&encode(&note)).unwrap(), NOTE);
    }
}

/// The notes in a journal from byte `from` on, and where they end.
pub(super) fn read(path: &Path, from: usize) -> (Vec<Note>, usize) {
    let mut bytes = Vec::new();
    // A process may have been killed before it could make its journal.
    if let Ok(mut file) = File::open(path) {
        file.seek(SeekFrom::Start(from as u64)).unwrap();
        file.read_to_end(&mut bytes).unwrap();
    }
    let notes = bytes.chunks_exact(NOTE).map(|note| decode(note.try_into().unwrap()));
    let notes: Vec<_> = notes.collect();
    let end = from + notes.len() * NOTE;
    (notes, end)
}

fn encode(note: &Note) -> [u8; NOTE] {
    let (kind, detail, call, value) = match note.event {
        Event::Begun { call, deadline_us } => (0, 0, call, deadline_us.unwrap_or(NONE)),
        Event::Sent { call, connection } => (1, 0, call, connection),
        Event::Ran { call, at_us } => (2, 0, call, at_us),
        Event::Chunk { call, flow, number } => (3, u8::from(flow == Flow::Up), call, number),
        Event::Whole { call, flow, total } => (4, u8::from(flow == Flow::Up), call, total),
        Event::Ended { call, outcome } => {
            let (code, by) = match outcome {
                Outcome::Answered { by } => (0, by),
                Outcome::Finished => (1, 0),
                Outcome::Failed => (2, 0),
                Outcome::Refused => (3, 0),
                Outcome::NotExecuted => (4, 0),
                Outcome::Unknown => (5, 0),
                Outcome::GivenUp => (6, 0),
                Outcome::CallerDied => (7, 0),
            };
            (5, code, call, by)
        }
        Event::Left { call } => (6, 0, call, 0),
        Event::Spared { call } => (7, 0, call, 0),
        Event::Unprovable { call } => (8, 0, call, 0),
    };
    let mut bytes = [0; NOTE];
    (bytes[0], bytes[1]) = (kind, detail);
    bytes[8..16].copy_from_slice(&call.to_le_bytes());
    bytes[16..24].copy_from_slice(&value.to_le_bytes());
    bytes[24..].copy_from_slice(&note.at_us.to_le_bytes());
    bytes
}

fn decode(note: [u8; NOTE]) -> Note {
    let word = |at: usize| u64::from_le_bytes(note[at..at + 8].try_into().unwrap());
    let (call, value) = (word(8), word(16));
    let flow = if note[1] == 0 { Flow::Down } else { Flow::Up };
    let event = match note[0] {
        0 => Event::Begun { call, deadline_us: Some(value).filter(|value| *value != NONE) },
        1 => Event::Sent { call, connection: value },
        2 => Event::Ran { call, at_us: value },
        3 => Event::Chunk { call, flow, number: value },
        4 => Event::Whole { call, flow, total: value },
        5 => {
            let outcome = match note[1] {
                0 => Outcome::Answered { by: value },
                1 => Outcome::Finished,
                2 => Outcome::Failed,
                3 => Outcome::Refused,
                4 => Outcome::NotExecuted,
                5 => Outcome::Unknown,
                6 => Outcome::GivenUp,
                7 => Outcome::CallerDied,
                other => panic!("{other} is no outcome"),
            };
            Event::Ended { call, outcome }
        }
        6 => Event::Left { call },
        7 => Event::Spared { call },
        8 => Event::Unprovable { call },
        other => panic!("{other} is no note"),
    };
    Note { event, at_us: word(24) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_note_is_read_back_as_it_was_made() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("journal");
        let outcomes = [
            Outcome::Answered { by: 3 },
            Outcome::Finished,
            Outcome::Failed,
            Outcome::Refused,
            Outcome::NotExecuted,
            Outcome::Unknown,
            Outcome::GivenUp,
            Outcome::CallerDied,
        ];
        let mut events = vec![
            Event::Begun { call: 1, deadline_us: None },
            Event::Begun { call: 2, deadline_us: Some(5) },
            Event::Sent { call: 1, connection: 9 },
            Event::Ran { call: 1, at_us: 77 },
            Event::Left { call: 1 },
            Event::Spared { call: 1 },
            Event::Unprovable { call: 1 },
        ];
        for flow in [Flow::Down, Flow::Up] {
            events.extend([Event::Chunk { call: 1, flow, number: 4 }, Event::Whole { call: 1, flow, total: 5 }]);
        }
        events.extend(outcomes.map(|outcome| Event::Ended { call: 1, outcome }));
        let journal = Journal::create(&path);
        let began = clock::monotonic_us();
        events.iter().for_each(|event| journal.note(event));
        let (notes, end) = read(&path, 0);
        assert_eq!(notes.iter().map(|note| note.event).collect::<Vec<_>>(), events);
        assert!(notes.iter().all(|note| (began..=clock::monotonic_us()).contains(&note.at_us)), "{notes:?}");
        assert_eq!(read(&path, NOTE), (notes[1..].to_vec(), end));
        assert_eq!(read(&path, end), (Vec::new(), end));
    }
}
