//! A ring's two ends, in any order of steps, honest and not.

use std::collections::VecDeque;

use arbitrary::{Arbitrary, Unstructured};
use bellrope_proto::{
    Violation,
    frame::Kind,
    layout::{Geometry, WORD},
    ring::{Consumer, Producer, RecordClass},
};
use bellrope_shm::SharedMemory;

use crate::peer::{Intruder, Scribble};

#[derive(Debug, Arbitrary)]
enum Step {
    Push {
        len: u16,
        extended: bool,
        control: bool,
    },
    /// Written in two pieces, through a draft begun for less or more.
    Draft {
        hint: u16,
        pieces: [u8; 2],
        abandoned: bool,
    },
    Publish,
    Pop,
    Relieve,
    Arm,
    Disarm,
    AwaitRoom,
    Scribble(Scribble),
    Between(Scribble),
}

type Sent = (u64, Option<u64>, Vec<u8>);

/// While nobody else writes, the ring is a queue. From the first foreign word on, both ends still keep to their bounds,
/// until one of them says what is wrong. The first byte of the input chooses the size of the ring.
pub fn ring(input: &[u8]) {
    let Some((&size, rest)) = input.split_first() else { return };
    let geometry = match size % 3 {
        _ if size >= 0xF0 => match size % 2 {
            0 => Geometry { capacity: 256, window: 128, compact: true },
            _ => Geometry::new(4096).expect("a capacity").into_compact(),
        },
        0 => Geometry { capacity: 256, window: 64, compact: false },
        1 => Geometry { capacity: 1024, window: 1024, compact: false },
        _ => Geometry::new(4096).expect("a capacity"),
    };
    let mut pair = Pair::new(geometry);
    let mut input = Unstructured::new(rest);
    while !input.is_empty() {
        let Ok(step) = Step::arbitrary(&mut input) else { return };
        let was_honest = pair.honest;
        if let Err(violation) = pair.step(step) {
            assert!(!was_honest || !pair.honest, "{violation} without a foreign word");
            return;
        }
        pair.check();
    }
}

struct Pair {
    geometry: Geometry,
    view: bellrope_shm::View,
    producer: Producer,
    consumer: Consumer,
    intruder: Intruder,
    /// Whether nobody but the two ends has written.
    honest: bool,
    visible: VecDeque<Sent>,
    staged: VecDeque<Sent>,
    /// Where the ends were last seen.
    reached: (u64, u64, u64),
    next_id: u64,
}

impl Pair {
    fn new(geometry: Geometry) -> Self {
        let view = SharedMemory::anonymous(geometry.segment_len()).view(0..geometry.segment_len());
        Self {
            geometry,
            producer: Producer::new(view.clone(), geometry),
            consumer: Consumer::new(view.clone(), geometry),
            intruder: Intruder::new(view.clone(), geometry),
            view,
            honest: true,
            visible: VecDeque::new(),
            staged: VecDeque::new(),
            reached: (0, 0, 0),
            next_id: 1,
        }
    }

    fn step(&mut self, step: Step) -> Result<(), Violation> {
        let most = self.geometry.max_payload() as usize;
        match step {
            Step::Push { len, extended, control } => {
                let class = if control { RecordClass::Control } else { RecordClass::Bulk };
                let (id, payload) = self.draw(usize::from(len) % (most + 1));
                let extension = extended.then_some(id * 3);
                if self.producer.push(class, Kind::Request, 5, id, extension, &payload)? {
                    self.staged.push_back((id, extension, payload));
                }
            }
            Step::Draft { hint, pieces, abandoned } => {
                let (id, payload) = self.draw(most);
                let Some(mut draft) = self.producer.begin(RecordClass::Bulk, false, usize::from(hint) % (most + 1))?
                else {
                    return Ok(());
                };
                for piece in pieces {
                    let at = draft.len();
                    let _ = draft.append(&payload[at..(at + usize::from(piece)).min(most)]);
                }
                let written = payload[..draft.len()].to_vec();
                if !abandoned {
                    draft.stage(Kind::Request, 5, id, 0);
                    self.staged.push_back((id, None, written));
                }
            }
            Step::Publish => {
                let _ = self.producer.publish();
                self.visible.append(&mut self.staged);
            }
            Step::Pop => self.pop()?,
            Step::Relieve => _ = self.consumer.relieve(),
            Step::Arm => _ = self.consumer.arm(),
            Step::Disarm => self.consumer.disarm(),
            Step::AwaitRoom => _ = self.producer.await_room()?,
            Step::Scribble(scribble) => {
                self.honest = false;
                scribble.write(&self.view, self.geometry, self.consumer.position());
            }
            Step::Between(scribble) => {
                self.honest = false;
                self.intruder.add(scribble, self.consumer.position());
            }
        }
        Ok(())
    }

    fn pop(&mut self) -> Result<(), Violation> {
        let Some(record) = self.consumer.peek()? else {
            assert!(!self.honest || self.visible.is_empty(), "{} records are not seen", self.visible.len());
            return Ok(());
        };
        assert!(u64::from(record.header.len) <= self.geometry.max_payload());
        assert!(record.end() - self.consumer.position() <= self.geometry.capacity);
        let mut payload = vec![0; record.header.len as usize];
        self.consumer.read(&record, 0, &mut payload);
        let _ = self.consumer.advance(&record);
        self.consumer.admit();
        if self.honest {
            let seen = (record.id, record.header.extended.then_some(record.extension), payload);
            assert_eq!(Some(seen), self.visible.pop_front());
        }
        Ok(())
    }

    /// Both ends stand within their bounds, and nobody has gone back.
    fn check(&mut self) {
        let now = (self.producer.position(), self.producer.consumer(), self.consumer.position());
        assert!(now.0 >= self.reached.0 && now.1 >= self.reached.1 && now.2 >= self.reached.2, "{now:?}");
        assert!(now.1 <= now.0 && now.2.is_multiple_of(WORD), "{now:?}");
        assert!(!self.honest || now.1 <= now.2, "{now:?}");
        self.reached = now;
    }

    fn draw(&mut self, len: usize) -> (u64, Vec<u8>) {
        let id = self.next_id;
        self.next_id += 1;
        (id, (0..len).map(|index| (id as usize * 31 + index) as u8).collect())
    }
}
