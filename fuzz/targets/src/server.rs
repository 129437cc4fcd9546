//! The server's end of a connection, whose client says and writes what it likes.

use arbitrary::{Arbitrary, Unstructured};
use bellrope_proto::{
    BufferBudget, Violation,
    connection::{Failure, Inbound, ServerConnection, Terms},
    frame::ErrorCode,
    handshake::Style,
    layout::Geometry,
    ring::{Consumer, Producer, RecordClass},
};
use bellrope_shm::{SharedMemory, View};

use crate::peer::{Intruder, Scribble, kind};

const MAX_MESSAGE: u32 = 16 * 1024;
const MAX_IN_FLIGHT: u32 = 8;
/// What a worker does of one connection before the next has its turn.
const TURN: usize = 64;

#[derive(Debug, Arbitrary)]
enum Act {
    /// The client sends a record, such as it is.
    Frame {
        kind: u8,
        message_type: u8,
        id: u8,
        extension: Option<Number>,
        len: u16,
    },
    Requests(Scribble),
    Responses(Scribble),
    Between(Scribble),
    /// The client reads so many answers.
    Read(u8),
    /// The worker's turn.
    Visit,
    /// A handler's doing.
    Respond {
        id: u8,
        len: u16,
        fails: bool,
    },
    Chunk {
        id: u8,
        len: u16,
    },
    Finish {
        id: u8,
        fails: bool,
    },
    Consume,
    Sleep,
}

#[derive(Debug, Arbitrary)]
enum Number {
    Small(u8),
    Large(u64),
}

/// The server neither panics nor goes beyond its limits, whatever the client sends or writes: each turn ends, and so does
/// the connection with its first violation.
pub fn server(input: &[u8]) {
    let geometry = Geometry::new(4096).expect("a capacity");
    for geometry in [geometry, geometry.into_compact()] {
        server_over(geometry, input);
    }
}

fn server_over(geometry: Geometry, input: &[u8]) {
    let terms = Terms { geometry, max_message: MAX_MESSAGE, max_in_flight: MAX_IN_FLIGHT, stream_window: 512 };
    let memory = SharedMemory::anonymous(geometry.mapping_len());
    let (requests, responses) = (memory.view(geometry.requests()), memory.view(geometry.responses()));
    let mut end = End {
        server: ServerConnection::new(&memory, terms).hearing_metadata().hearing_leaving(),
        taken: Vec::new(),
        scratch: vec![0; terms.max_record()],
        spill: Vec::new(),
    };
    let mut client = Client {
        producer: Producer::new(requests.clone(), geometry),
        consumer: Consumer::new(responses.clone(), geometry),
        intruder: Intruder::new(requests.clone(), geometry),
        geometry,
        requests,
        responses,
    };
    let mut input = Unstructured::new(input);
    while !input.is_empty() {
        let Ok(act) = Act::arbitrary(&mut input) else { return };
        let Some(act) = client.act(act) else { continue };
        if end.act(&act).is_err() {
            return;
        }
        assert!(end.server.open_calls() <= MAX_IN_FLIGHT as usize, "{} calls are open", end.server.open_calls());
    }
}

struct Client {
    producer: Producer,
    consumer: Consumer,
    intruder: Intruder,
    geometry: Geometry,
    requests: View,
    responses: View,
}

impl Client {
    /// Does what is the client's to do, and gives back what is not.
    fn act(&mut self, act: Act) -> Option<Act> {
        let next = self.producer.position();
        match act {
            Act::Frame { kind: bits, message_type, id, extension, len } => {
                let extension = extension.map(|number| match number {
                    Number::Small(number) => number.into(),
                    Number::Large(number) => number,
                });
                let payload = vec![id; usize::from(len) % (self.geometry.max_payload() as usize + 1)];
                let (kind, message_type) = (kind(bits), u16::from(message_type % 6));
                let _ = self.producer.push(RecordClass::Control, kind, message_type, id.into(), extension, &payload);
                let _ = self.producer.publish();
            }
            Act::Requests(scribble) => scribble.write(&self.requests, self.geometry, next),
            Act::Responses(scribble) => {
                scribble.write(&self.responses, self.geometry, self.consumer.position());
            }
            Act::Between(scribble) => self.intruder.add(scribble, next),
            Act::Read(count) => {
                for _ in 0..count {
                    let Ok(Some(record)) = self.consumer.peek() else { break };
                    let _ = self.consumer.advance(&record);
                }
                let _ = self.consumer.relieve();
            }
            theirs => return Some(theirs),
        }
        None
    }
}

struct End {
    server: ServerConnection<Vec<u8>>,
    /// Chunks that handlers have not consumed yet.
    taken: Vec<(u64, usize)>,
    scratch: Vec<u8>,
    spill: Vec<u8>,
}

impl End {
    fn act(&mut self, act: &Act) -> Result<(), Violation> {
        let failure = || Failure::new(ErrorCode::Handler, "as asked");
        match *act {
            Act::Respond { id, len, fails } => {
                let outcome = if fails { Err(failure()) } else { Ok(vec![id; len.into()]) };
                self.server.respond(id.into(), outcome)
            }
            Act::Chunk { id, len } => self.server.chunk(id.into(), vec![id; usize::from(len) % 1100]),
            Act::Finish { id, fails } => self.server.finish(id.into(), if fails { Err(failure()) } else { Ok(()) }),
            Act::Consume => match self.taken.pop() {
                Some((id, len)) => self.server.consumed(id, len),
                None => Ok(()),
            },
            Act::Sleep => {
                let _ = self.server.arm()?;
                let _ = self.server.commit();
                self.server.disarm();
                Ok(())
            }
            _ => self.visit(),
        }
    }

    fn visit(&mut self) -> Result<(), Violation> {
        self.server.flush()?;
        for _ in 0..TURN {
            let Some(inbound) = self.server.next_inbound()? else { break };
            self.handle(&inbound)?;
        }
        let _ = self.server.commit();
        Ok(())
    }

    fn handle(&mut self, inbound: &Inbound) -> Result<(), Violation> {
        match inbound {
            Inbound::Call(request) | Inbound::Described(request, _) => {
                let payload = if request.large {
                    self.server.take_large(request)?.0
                } else {
                    self.server.take(request, &mut self.scratch[..request.len]);
                    self.scratch[..request.len].to_vec()
                };
                assert!(payload.len() <= MAX_MESSAGE as usize);
                let style = match request.message_type {
                    1 => Style::Unary,
                    2 => Style::ServerStream,
                    3 => Style::ClientStream,
                    4 => Style::Duplex,
                    _ => return self.answer(request.id, &payload),
                };
                if !self.server.open(request.id, style)? {
                    self.server.fail(request.id, Failure::new(ErrorCode::Rejected, "too many"))?;
                } else {
                    // Of an earlier call of this id nobody speaks any more.
                    self.taken.retain(|(id, _)| *id != request.id);
                }
            }
            Inbound::Large(announced) if announced.size > MAX_MESSAGE.into() => {
                let failure = Failure::too_large("request", announced.size, MAX_MESSAGE.into());
                self.server.refuse_large(announced, failure)?;
            }
            Inbound::Large(announced) => {
                let reservation = BufferBudget::new(announced.size).reserve(announced.size).expect("all of it");
                self.server.accept_large(announced, vec![0; announced.size as usize], reservation);
            }
            Inbound::Chunk(chunk) => {
                self.server.take_chunk(chunk, &mut self.scratch[..chunk.len]);
                self.taken.push((chunk.id, chunk.len));
            }
            Inbound::Ended(_) | Inbound::Cancelled(_) | Inbound::Left(_) => {}
            Inbound::Part(len) => assert!(*len <= self.server.max_record()),
        }
        Ok(())
    }

    fn answer(&mut self, id: u64, payload: &[u8]) -> Result<(), Violation> {
        let outcome = self.server.answer(id, payload.len(), &mut self.spill, Ok, |reply| {
            reply.put(payload);
            reply.put(payload);
            Ok(())
        });
        outcome.map(drop)
    }
}
