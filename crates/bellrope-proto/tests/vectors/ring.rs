//! What a ring looks like in memory, step by step.

use std::{collections::BTreeMap, sync::Arc};

use bellrope_proto::{
    frame::Kind,
    layout::Geometry,
    ring::{Armed, Consumer, Producer, RecordClass, Wake},
};
use bellrope_shm::{SharedMemory, View, sync::Ordering};
use serde_json::{Value, json};

use crate::bytes::hex;

struct Ring {
    producer: Producer,
    consumer: Consumer,
    view: View,
    /// Every word as it was after the last step.
    words: BTreeMap<usize, u64>,
    steps: Vec<Value>,
}

pub(crate) fn vectors() -> Value {
    let geometry = Geometry::new(4096).unwrap();
    let mut ring = Ring::new(geometry);
    ring.pass();
    json!({
        "capacity": geometry.capacity,
        "segment": geometry.segment_len(),
        "words": "each step names the words of the segment that it changed: offset -> value. All begin as 0",
        "steps": ring.steps,
    })
}

/// The request ring of a compact mapping.
pub(crate) fn compact_vectors() -> Value {
    let geometry = Geometry::new(4096).unwrap().into_compact();
    let mut ring = Ring::new(geometry);
    ring.pass_compact();
    json!({
        "capacity": geometry.capacity,
        "front": geometry.window,
        "mapping": geometry.mapping_len(),
        "words": "each step names the words of the mapping that it changed: offset -> value. All begin as 0",
        "steps": ring.steps,
    })
}

impl Ring {
    fn new(geometry: Geometry) -> Self {
        let memory: Arc<SharedMemory> = SharedMemory::anonymous(geometry.segment_len());
        let view = memory.view(0..geometry.segment_len());
        Self {
            producer: Producer::new(view.clone(), geometry),
            consumer: Consumer::new(view.clone(), geometry),
            view,
            words: BTreeMap::new(),
            steps: Vec::new(),
        }
    }

    fn pass_compact(&mut self) {
        let large = |call| [(Kind::Request, 1, call, None, 400)];
        self.push("a record behind which the ring may start over", &large(1));
        self.consume("the consumer takes it, and empties its header word: the ring starts over");
        self.arm("the consumer sleeps on that very word");
        self.push("the next record takes the place of the last one, and finds the sleep tag: ring", &large(2));
        self.push("before that was taken: the flag is withdrawn, and the record lies behind it", &large(3));
        self.push("and so does the next one", &[(Kind::Request, 1, 4, Some(77), 400)]);
        self.push("no room in the front: a pad, and the record begins a lap in the back", &large(5));
        self.consume("the consumer takes all: its lap is that in the back");
        for call in 6..60 {
            self.producer.push(RecordClass::Bulk, Kind::Request, 1, call, None, &[call as u8; 400]).unwrap();
            let _ = self.producer.publish();
            while let Some(record) = self.consumer.peek().unwrap() {
                let _ = self.consumer.advance(&record);
            }
        }
        self.step(
            "fifty-four such records, 6 to 59, each taken before the next one: when bursts are over the producer returns to the front",
            json!({ "position": self.producer.position().to_string() }),
        );
        self.push("and so it goes on there", &large(60));
        self.consume("the consumer takes it");
        for call in 61..161 {
            self.producer.push(RecordClass::Bulk, Kind::Cancel, 0, call, None, &[]).unwrap();
            let _ = self.producer.publish();
            while let Some(record) = self.consumer.peek().unwrap() {
                let _ = self.consumer.advance(&record);
            }
        }
        self.step(
            "a hundred small records, 61 to 160, each taken before the next one",
            json!({
                "position": self.producer.position().to_string(),
            }),
        );
        self.push("small records follow each other, as in other rings", &[(Kind::Cancel, 0, 161, None, 0)]);
        self.consume("the consumer takes it");
    }

    fn pass(&mut self) {
        self.push("one record", &[(Kind::Request, 1, 1, None, 4)]);
        self.consume("the consumer takes it; it need not publish yet");
        self.push("an extension, and padding behind the payload", &[(Kind::Request, 1, 2, Some(77), 9)]);
        self.consume("the consumer takes it");
        self.arm("the consumer publishes its position and sleeps on the next header word");
        self.push("the swap finds the sleep tag: ring", &[(Kind::Request, 1, 3, None, 0)]);
        self.consume("the consumer takes it");
        self.arm("the consumer sleeps again");
        self.disarm("and wakes up by itself");
        self.push(
            "three records, committed by one swap",
            &[(Kind::Request, 1, 4, None, 1), (Kind::Cancel, 0, 3, None, 0), (Kind::Request, 1, 5, None, 1)],
        );
        self.consume("the consumer takes all three");
        for call in 6..9 {
            self.push("a large record", &[(Kind::Request, 1, call, None, 1024)]);
        }
        self.push("no room: this one would leave none for the reserve", &[(Kind::Request, 1, 9, None, 600)]);
        self.await_room("the producer tags the consumer's position");
        self.consume("the consumer takes all: it publishes, finds the tag and rings");
        self.push("a pad ends the lap, and the record begins the next one", &[(Kind::Request, 1, 9, None, 600)]);
        self.consume("the consumer steps over the pad");
        self.push("the next lap goes on", &[(Kind::Credit, 0, 9, Some(500), 0)]);
        self.consume("the consumer takes it, and admits what it took so far");
        self.consumer.admit();
        self.step("admitted", json!({}));
    }

    fn push(&mut self, what: &str, records: &[(Kind, u16, u64, Option<u64>, usize)]) {
        let mut pushed = true;
        let shown: Vec<_> = records
            .iter()
            .map(|(kind, message_type, call, extension, len)| {
                let payload: Vec<u8> = (0..*len).map(|at| at as u8).collect();
                pushed &=
                    self.producer.push(RecordClass::Bulk, *kind, *message_type, *call, *extension, &payload).unwrap();
                json!({
                    "kind": *kind as u8, "type": message_type, "call": call.to_string(),
                    "extension": extension.map(|extension| extension.to_string()), "payload": hex(&payload),
                })
            })
            .collect();
        let wake = self.producer.publish();
        self.step(what, json!({
            "push": shown, "pushed": pushed, "rings": wake.needed(), "position": self.producer.position().to_string(),
        }));
    }

    fn consume(&mut self, what: &str) {
        let mut wake = Wake::NO;
        let mut taken = Vec::new();
        while let Some(record) = self.consumer.peek().unwrap() {
            wake |= self.consumer.advance(&record);
            taken.push(record.id.to_string());
        }
        wake |= self.consumer.relieve();
        self.step(
            what,
            json!({
                "consume": taken, "rings": wake.needed(), "position": self.consumer.position().to_string(),
            }),
        );
    }

    fn arm(&mut self, what: &str) {
        let (armed, wake) = self.consumer.arm();
        self.step(what, json!({ "sleep": armed == Armed::Asleep, "rings": wake.needed() }));
    }

    fn disarm(&mut self, what: &str) {
        self.consumer.disarm();
        self.step(what, json!({ "awake": true }));
    }

    fn await_room(&mut self, what: &str) {
        let sleeps = self.producer.await_room().unwrap();
        self.step(what, json!({ "await_room": sleeps }));
    }

    /// Notes a step, with the words that it changed.
    fn step(&mut self, what: &str, mut step: Value) {
        let mut changed = serde_json::Map::new();
        for offset in (0..self.view.len()).step_by(8) {
            let word = self.view.load(offset, Ordering::Relaxed);
            if self.words.insert(offset, word).unwrap_or(0) != word {
                changed.insert(format!("{offset:#06x}"), word.to_string().into());
            }
        }
        step["what"] = what.into();
        step["words"] = changed.into();
        self.steps.push(step);
    }
}
