//! What chunks cost, and how messages are cut.

use bellrope_proto::{
    Terms,
    connection::{ClientConnection, Credit},
    frame::Kind,
    layout::Geometry,
    ring::Consumer,
};
use bellrope_shm::SharedMemory;
use serde_json::{Value, json};

enum Step {
    Send(usize),
    Consume(usize),
    Return,
    Add(u64),
}

pub(crate) fn credit() -> Value {
    use Step::{Add, Consume, Return, Send};

    let runs: [(u32, &[Step]); 4] = [
        (1000, &[Send(900), Send(900), Send(0), Consume(900), Return, Send(0), Consume(900), Consume(0), Return]),
        (65_536, &[Send(32_768), Send(32_768), Consume(32_704), Return, Consume(0), Send(65_536), Return]),
        (1, &[Send(0), Send(0), Consume(0), Return, Send(65_536)]),
        (1000, &[Send(100), Add(165), Add(164), Add(0), Add(1), Add(1 << 63), Add(u64::MAX)]),
    ];
    let runs: Vec<_> = runs.iter().map(|(window, steps)| run(*window, steps)).collect();
    json!({ "runs": runs })
}

fn run(window: u32, steps: &[Step]) -> Value {
    // Sender's and receiver's balance in one: the credit that is returned arrives at once.
    let (mut credit, mut owed) = (Credit::new(window), 0_i64);
    let steps: Vec<_> = steps
        .iter()
        .map(|step| {
            let mut shown = match step {
                Step::Send(len) => json!({ "send": len, "allowed": credit.spend(*len) }),
                Step::Consume(len) => {
                    owed += Credit::cost(*len);
                    json!({ "consume": len, "owed": owed, "due": credit.worth_returning(owed) })
                }
                Step::Return if credit.worth_returning(owed) => {
                    let returned = std::mem::take(&mut owed);
                    assert!(credit.refill(returned as u64));
                    json!({ "return": returned })
                }
                Step::Return => json!({ "return": 0 }),
                Step::Add(amount) => json!({ "add": amount.to_string(), "allowed": credit.refill(*amount) }),
            };
            shown["balance"] = (i64::from(window) - credit.spent()).into();
            shown
        })
        .collect();
    json!({ "window": window, "steps": steps })
}

pub(crate) fn parts() -> Value {
    let cases = [
        (4096, 10_000, 0),
        (4096, 10_000, 1024),
        (4096, 10_000, 1025),
        (4096, 10_000, 2048),
        (4096, 10_000, 2049),
        (4096, 500, 500),
        (256 * 1024, 10 << 20, 65_536),
        (256 * 1024, 10 << 20, 65_537),
        (256 * 1024, 10 << 20, 98_304),
        (256 * 1024, 10 << 20, 1_000_001),
        (16 * 1024 * 1024, 10 << 20, 4 << 20),
        (16 * 1024 * 1024, 10 << 20, (4 << 20) + 1),
    ];
    let cases = cases.map(|(capacity, max_message, size)| {
        let parts = cut(capacity, max_message, size);
        assert_eq!(parts.iter().sum::<usize>(), size);
        // As runs, or the last ones would fill pages.
        let (last, others) = parts.split_last().unwrap();
        let part = others.first().copied().unwrap_or(0);
        assert!(others.iter().all(|len| *len == part));
        json!({ "capacity": capacity, "max_message": max_message, "size": size, "fragments": others.len(), "part": part, "last": last })
    });
    json!({ "messages": cases })
}

/// Payload bytes of the records that a client makes of a message.
fn cut(capacity: u32, max_message: u32, size: usize) -> Vec<usize> {
    let geometry = Geometry::new(capacity).unwrap();
    let terms = Terms { geometry, max_message, max_in_flight: 1, stream_window: 1 };
    let memory = SharedMemory::anonymous(geometry.mapping_len());
    let mut client = ClientConnection::new(&memory, terms);
    let mut requests = Consumer::new(memory.view(geometry.requests()), geometry);
    let mut parts = Vec::new();
    let payload = vec![1; size];
    let mut sending = None;
    let mut whole = size <= client.max_record();
    if whole {
        client.submit(1, bellrope_proto::Style::Unary, &payload, None).unwrap();
    } else {
        sending = Some(client.begin_large(bellrope_proto::Style::Unary, size).unwrap());
    }
    loop {
        if let Some(sending) = sending.as_mut().filter(|_| !whole) {
            whole = client.push_large(sending, 1, &payload, None).unwrap();
        }
        let _ = client.commit();
        while let Some(record) = requests.peek().unwrap() {
            parts.push(record.header.len as usize);
            let _ = requests.advance(&record);
            if record.header.kind == Kind::Request {
                return parts;
            }
            assert_eq!(record.extension, size as u64);
        }
    }
}
