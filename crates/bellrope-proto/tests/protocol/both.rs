//! Both ends of a connection in one thread.

use bellrope_proto::{
    BufferBudget,
    connection::{
        Announced, AnswerKind, ClientConnection, Failure, Inbound, InboundRequest, ServerConnection, Terms, pair,
    },
    layout::Geometry,
};
use bellrope_shm::SharedMemory;

pub(crate) const ECHO: u16 = 1;
pub(crate) const WINDOW: u32 = 1000;
pub(crate) const MAX_MESSAGE: u32 = 1 << 20;

/// Both ends. What one has sent is committed before the other looks.
pub(crate) struct Both {
    pub(crate) client: ClientConnection,
    pub(crate) server: ServerConnection<Vec<u8>>,
    /// Whether the client had to ring.
    pub(crate) rung: bool,
    /// The response that comes in parts.
    pub(crate) partial: Vec<u8>,
}

pub(crate) fn connect(capacity: u32, max_in_flight: u32) -> Both {
    let geometry = Geometry::new(capacity).unwrap();
    let terms = Terms { geometry, max_message: MAX_MESSAGE, max_in_flight, stream_window: WINDOW };
    let (client, server) = pair(&SharedMemory::anonymous(terms.geometry.mapping_len()), terms);
    Both { client, server, rung: false, partial: Vec::new() }
}

/// Keeps every body that has to wait.
pub(crate) fn keep(body: Vec<u8>) -> Result<Vec<u8>, Failure> {
    Ok(body)
}

impl Both {
    /// The next thing that came in at the server.
    pub(crate) fn inbound(&mut self) -> Option<Inbound> {
        self.rung |= self.client.commit().needed();
        self.server.next_inbound().unwrap()
    }

    /// Takes the next call, large or small.
    pub(crate) fn take(&mut self) -> Option<(u64, Vec<u8>)> {
        loop {
            match self.inbound()? {
                Inbound::Call(request) => return Some((request.id, self.payload(&request))),
                Inbound::Large(announced) => self.accept(&announced),
                Inbound::Part(_) => {}
                other => panic!("{other:?} where a call was due"),
            }
        }
    }

    pub(crate) fn payload(&mut self, request: &InboundRequest) -> Vec<u8> {
        if request.large {
            return self.server.take_large(request).unwrap().0;
        }
        let mut payload = vec![0; request.len];
        self.server.take(request, &mut payload);
        payload
    }

    pub(crate) fn accept(&mut self, announced: &Announced) {
        let reservation = BufferBudget::new(announced.size).reserve(announced.size).unwrap();
        self.server.accept_large(announced, vec![0; announced.size as usize], reservation);
    }

    pub(crate) fn echo(&mut self) -> usize {
        let mut echoed = 0;
        while let Some((id, payload)) = self.take() {
            let answered = self.server.answer(id, payload.len(), &mut Vec::new(), keep, |reply| {
                reply.put(&payload);
                Ok(())
            });
            assert_eq!(answered, Ok(None));
            echoed += 1;
        }
        echoed
    }

    /// The next answer, whole.
    pub(crate) fn receive(&mut self) -> Option<(u64, AnswerKind, Vec<u8>)> {
        loop {
            let _ = self.server.commit();
            let answer = self.client.next_answer().unwrap()?;
            let mut payload = vec![0; answer.len];
            self.client.take(&answer, &mut payload);
            if answer.at == 0 && !matches!(answer.kind, AnswerKind::Part { .. }) {
                return Some((answer.id, answer.kind, payload));
            }
            self.partial.truncate(answer.at);
            self.partial.extend_from_slice(&payload);
            if answer.kind == AnswerKind::Response {
                return Some((answer.id, answer.kind, std::mem::take(&mut self.partial)));
            }
        }
    }
}
