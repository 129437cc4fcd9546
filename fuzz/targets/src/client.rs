//! The client's end of a connection, whose server says and writes what it likes.

use arbitrary::{Arbitrary, Unstructured};
use bellrope_proto::{
    Violation,
    connection::{AnswerKind, ClientConnection, Loss, Sending, SubmitError, Terms},
    handshake::Style,
    layout::Geometry,
    ring::{Consumer, Producer, RecordClass},
};
use bellrope_shm::{SharedMemory, View};

use crate::peer::{Intruder, Scribble, kind};

const MAX_MESSAGE: u32 = 16 * 1024;
const MAX_IN_FLIGHT: u32 = 8;
const TURN: usize = 64;

#[derive(Debug, Arbitrary)]
enum Act {
    Submit {
        style: u8,
        len: u16,
    },
    BeginLarge {
        len: u16,
    },
    PushLarge,
    SendChunk {
        call: u8,
        len: u16,
    },
    EndUpload {
        call: u8,
    },
    Cancel {
        call: u8,
    },
    /// Takes what came.
    Receive,
    Consume,
    Sleep {
        for_room: bool,
    },
    /// The server sends a record, such as it is.
    Frame {
        kind: u8,
        message_type: u8,
        call: u8,
        extension: Option<Number>,
        len: u16,
    },
    Requests(Scribble),
    Responses(Scribble),
    Between(Scribble),
    /// The server reads so many requests.
    Read(u8),
}

#[derive(Debug, Arbitrary)]
enum Number {
    Small(u8),
    Large(u64),
}

/// The client neither panics nor goes beyond its limits, whatever the server sends or writes: each call ends at most once,
/// and only those under way do, until the first violation.
pub fn client(input: &[u8]) {
    let geometry = Geometry::new(4096).expect("a capacity");
    for geometry in [geometry, geometry.into_compact()] {
        client_over(geometry, input);
    }
}

fn client_over(geometry: Geometry, input: &[u8]) {
    let terms = Terms { geometry, max_message: MAX_MESSAGE, max_in_flight: MAX_IN_FLIGHT, stream_window: 512 };
    let memory = SharedMemory::anonymous(geometry.mapping_len());
    let (requests, responses) = (memory.view(geometry.requests()), memory.view(geometry.responses()));
    let mut end = End {
        client: ClientConnection::new(&memory, terms).hearing_types(),
        calls: Vec::new(),
        sending: None,
        taken: Vec::new(),
    };
    let mut server = Server {
        producer: Producer::new(responses.clone(), geometry),
        consumer: Consumer::new(requests.clone(), geometry),
        intruder: Intruder::new(responses.clone(), geometry),
        geometry,
        requests,
        responses,
    };
    let mut input = Unstructured::new(input);
    while !input.is_empty() {
        let Ok(act) = Act::arbitrary(&mut input) else { break };
        let Some(act) = server.act(act, &end.calls) else { continue };
        if end.act(&act).is_err() {
            break;
        }
        assert_eq!(end.client.in_flight(), end.calls.len());
    }
    for call in &end.calls {
        assert!(matches!(end.client.loss(*call), Loss::NotExecuted | Loss::Unknown));
    }
}

struct Server {
    producer: Producer,
    consumer: Consumer,
    intruder: Intruder,
    geometry: Geometry,
    requests: View,
    responses: View,
}

impl Server {
    /// Does what is the server's to do, and gives back what is not.
    fn act(&mut self, act: Act, calls: &[u64]) -> Option<Act> {
        let next = self.producer.position();
        match act {
            Act::Frame { kind: bits, message_type, call, extension, len } => {
                let id = pick(calls, call).unwrap_or(call.into());
                let extension = extension.map(|number| match number {
                    Number::Small(number) => number.into(),
                    Number::Large(number) => number,
                });
                let payload = vec![call; usize::from(len) % (self.geometry.max_payload() as usize + 1)];
                let message_type = u16::from(message_type % 12);
                let _ = self.producer.push(RecordClass::Control, kind(bits), message_type, id, extension, &payload);
                let _ = self.producer.publish();
            }
            Act::Responses(scribble) => scribble.write(&self.responses, self.geometry, next),
            Act::Requests(scribble) => scribble.write(&self.requests, self.geometry, self.consumer.position()),
            Act::Between(scribble) => self.intruder.add(scribble, next),
            Act::Read(count) => {
                for _ in 0..count {
                    let Ok(Some(record)) = self.consumer.peek() else { break };
                    let _ = self.consumer.advance(&record);
                    self.consumer.admit();
                }
                let _ = self.consumer.relieve();
            }
            theirs => return Some(theirs),
        }
        None
    }
}

struct End {
    client: ClientConnection,
    /// Those under way.
    calls: Vec<u64>,
    sending: Option<(Sending, Vec<u8>)>,
    /// Chunks that the application has not consumed yet.
    taken: Vec<(u64, usize)>,
}

impl End {
    fn act(&mut self, act: &Act) -> Result<(), Violation> {
        match *act {
            Act::Submit { style, len } => {
                let style =
                    [Style::Unary, Style::ServerStream, Style::ClientStream, Style::Duplex][usize::from(style) % 4];
                let payload = vec![7; usize::from(len) % 1100];
                if let Some(id) = sent(self.client.submit(1, style, &payload, None))? {
                    self.calls.push(id);
                }
            }
            Act::BeginLarge { len } => {
                if let Some(sending) = sent(self.client.begin_large(Style::Unary, len.into()))? {
                    self.calls.push(sending.id);
                    self.sending = Some((sending, vec![9; len.into()]));
                }
            }
            Act::PushLarge => {
                if let Some((mut sending, payload)) = self.sending.take()
                    && !self.client.push_large(&mut sending, 1, &payload, None)?
                {
                    self.sending = Some((sending, payload));
                }
            }
            Act::SendChunk { call, len } => {
                if let Some(id) = pick(&self.calls, call) {
                    let _ = sent(self.client.send_chunk(id, &vec![3; usize::from(len) % 1100]))?;
                }
            }
            Act::EndUpload { call } => {
                if let Some(id) = pick(&self.calls, call) {
                    self.client.end_upload(id)?;
                }
            }
            Act::Cancel { call } => {
                if let Some(id) = pick(&self.calls, call) {
                    assert!(self.client.cancel(id)?, "it was under way");
                    self.ended(id);
                }
            }
            Act::Consume => {
                if let Some((id, len)) = self.taken.pop() {
                    self.client.consumed(id, len)?;
                }
            }
            Act::Sleep { for_room } => {
                let _ = self.client.arm(for_room)?;
                let _ = self.client.commit();
                self.client.disarm();
            }
            _ => self.receive()?,
        }
        let _ = self.client.commit();
        Ok(())
    }

    fn receive(&mut self) -> Result<(), Violation> {
        for _ in 0..TURN {
            let Some(answer) = self.client.next_answer()? else { break };
            let is_change = matches!(answer.kind, AnswerKind::Types { .. });
            assert!(is_change || self.calls.contains(&answer.id), "an answer to a call that is not under way");
            assert!(answer.at + answer.len <= MAX_MESSAGE as usize, "beyond the largest message");
            let mut payload = vec![0; answer.len];
            self.client.take(&answer, &mut payload);
            if answer.kind == AnswerKind::Chunk {
                self.taken.push((answer.id, answer.len));
            }
            if answer.kind.is_last() {
                self.ended(answer.id);
            }
        }
        Ok(())
    }

    fn ended(&mut self, id: u64) {
        self.calls.retain(|call| *call != id);
        self.taken.retain(|(call, _)| *call != id);
    }
}

/// What was sent, if it was. The server's violation alone ends the connection.
fn sent<T>(outcome: Result<T, SubmitError>) -> Result<Option<T>, Violation> {
    match outcome {
        Ok(sent) => Ok(Some(sent)),
        Err(SubmitError::Violation(violation)) => Err(violation),
        Err(_) => Ok(None),
    }
}

fn pick(calls: &[u64], which: u8) -> Option<u64> {
    (!calls.is_empty()).then(|| calls[usize::from(which) % calls.len()])
}
