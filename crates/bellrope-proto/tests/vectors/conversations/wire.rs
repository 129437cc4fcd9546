//! A client and a server with a wire between them that notes what travels.

use std::collections::HashMap;

use bellrope_proto::{
    BufferBudget, Failure, Style, Terms,
    connection::{ClientConnection, Inbound, Sending, ServerConnection},
    frame::Rejection,
    layout::Geometry,
    ring::{Consumer, Producer, RecordClass},
};
use bellrope_shm::SharedMemory;
use serde_json::{Value, json};

use crate::bytes::{Travelling, hex};

pub(crate) fn terms() -> Terms {
    Terms { geometry: Geometry::new(4096).unwrap(), max_message: 16_384, max_in_flight: 8, stream_window: 1000 }
}

/// Calls are numbered from 1 on the wire; a client of ours has ids of another form.
pub(crate) struct Wire {
    client: ClientConnection,
    server: ServerConnection<Vec<u8>>,
    /// Out of the client's ring and into the server's; out of the server's and into the client's.
    requests: (Consumer, Producer),
    responses: (Consumer, Producer),
    own_ids: HashMap<u64, u64>,
    styles: HashMap<u64, Style>,
    accept_large: bool,
    steps: Vec<Value>,
}

impl Wire {
    pub(crate) fn new() -> Self {
        let terms = terms();
        let geometry = terms.geometry;
        let [of_client, of_server] = [(); 2].map(|()| SharedMemory::anonymous(geometry.mapping_len()));
        let ends =
            |from: &std::sync::Arc<SharedMemory>, to: &std::sync::Arc<SharedMemory>, range: std::ops::Range<usize>| {
                (Consumer::new(from.view(range.clone()), geometry), Producer::new(to.view(range), geometry))
            };
        Self {
            client: ClientConnection::new(&of_client, terms),
            server: ServerConnection::new(&of_server, terms),
            requests: ends(&of_client, &of_server, geometry.requests()),
            responses: ends(&of_server, &of_client, geometry.responses()),
            own_ids: HashMap::new(),
            styles: HashMap::new(),
            accept_large: true,
            steps: Vec::new(),
        }
    }

    pub(crate) fn steps(self) -> Value {
        self.steps.into()
    }

    pub(crate) fn call(&mut self, style: Style, payload: &[u8], deadline_us: Option<u64>) -> u64 {
        let own = self.client.submit(number(style), style, payload, deadline_us).unwrap();
        self.begun(own, style)
    }

    pub(crate) fn large_call(&mut self, payload: &[u8]) -> u64 {
        let mut sending = self.client.begin_large(Style::Unary, payload.len()).unwrap();
        let call = self.begun(sending.id, Style::Unary);
        while !self.push_large(&mut sending, payload) {}
        call
    }

    /// A large request that the server refuses after its first part.
    pub(crate) fn refuse_large(&mut self, payload: &[u8]) {
        self.accept_large = false;
        self.large_call(payload);
        self.accept_large = true;
    }

    pub(crate) fn respond(&mut self, call: u64, payload: &[u8]) {
        self.server.respond(call, Ok(payload.to_vec())).unwrap();
        self.carry();
    }

    pub(crate) fn fail(&mut self, call: u64, failure: Failure) {
        self.server.respond(call, Err(failure)).unwrap();
        self.carry();
    }

    pub(crate) fn send_chunk(&mut self, call: u64, payload: &[u8]) {
        self.server.chunk(call, payload.to_vec()).unwrap();
        self.carry();
    }

    pub(crate) fn finish(&mut self, call: u64, outcome: Result<(), Failure>) {
        self.server.finish(call, outcome).unwrap();
        self.carry();
    }

    /// Answers `false` if the chunk lacks credit.
    pub(crate) fn upload(&mut self, call: u64, payload: &[u8]) -> bool {
        let sent = self.client.send_chunk(self.own_ids[&call], payload).is_ok();
        self.carry();
        sent
    }

    pub(crate) fn end_upload(&mut self, call: u64) {
        self.client.end_upload(self.own_ids[&call]).unwrap();
        self.carry();
    }

    pub(crate) fn cancel(&mut self, call: u64) {
        assert!(self.client.cancel(self.own_ids[&call]).unwrap());
        self.carry();
    }

    pub(crate) fn consume_at_client(&mut self, call: u64, len: usize) {
        self.client.consumed(self.own_ids[&call], len).unwrap();
        self.carry();
    }

    pub(crate) fn consume_at_server(&mut self, call: u64, len: usize) {
        self.server.consumed(call, len).unwrap();
        self.carry();
    }

    fn begun(&mut self, own: u64, style: Style) -> u64 {
        let call = self.own_ids.len() as u64 + 1;
        self.own_ids.insert(call, own);
        self.styles.insert(call, style);
        self.carry();
        call
    }

    fn push_large(&mut self, sending: &mut Sending, payload: &[u8]) -> bool {
        let sent = self.client.push_large(sending, number(Style::Unary), payload, None).unwrap();
        self.carry();
        sent
    }

    /// Takes every record to the other end, until there are none.
    fn carry(&mut self) {
        loop {
            let _ = self.client.commit();
            let _ = self.server.commit();
            let own_ids = &self.own_ids;
            let to_wire = |own: u64| own_ids.iter().find(|(_, id)| **id == own).map_or(0, |(call, _)| *call);
            let requests = pass(&mut self.requests, to_wire);
            let responses = pass(&mut self.responses, |call| own_ids[&call]);
            let (of_client, of_server) = (requests.len(), responses.len());
            // The server knows calls by their numbers on the wire, so on either side these are what is noted.
            self.steps.extend(requests.iter().map(|record| step("client", record)));
            self.steps.extend(
                responses
                    .iter()
                    .map(|record| step("server", &Travelling { call: to_wire(record.call), ..record.clone() })),
            );
            self.take();
            if of_client + of_server == 0 {
                return;
            }
        }
    }

    /// Lets both ends take what has come. Nothing is consumed or answered yet, but a large request that is refused.
    fn take(&mut self) {
        while let Some(inbound) = self.server.next_inbound().unwrap() {
            match inbound {
                Inbound::Call(request) | Inbound::Described(request, _) => {
                    if request.large {
                        self.server.take_large(&request).unwrap();
                    } else {
                        self.server.take(&request, &mut vec![0; request.len]);
                    }
                    assert!(self.server.open(request.id, self.styles[&request.id]).unwrap());
                }
                Inbound::Large(announced) if self.accept_large => {
                    let reservation = BufferBudget::new(announced.size).reserve(announced.size).unwrap();
                    self.server.accept_large(&announced, vec![0; announced.size as usize], reservation);
                }
                Inbound::Large(announced) => {
                    let failure = Failure::rejected(Rejection::Busy, "no room");
                    self.server.refuse_large(&announced, failure).unwrap();
                }
                Inbound::Chunk(chunk) => self.server.take_chunk(&chunk, &mut vec![0; chunk.len]),
                Inbound::Part(_) | Inbound::Ended(_) | Inbound::Cancelled(_) | Inbound::Left(_) => {}
            }
        }
        while let Some(answer) = self.client.next_answer().unwrap() {
            self.client.take(&answer, &mut vec![0; answer.len]);
        }
    }
}

fn number(style: Style) -> u16 {
    1 + [Style::Unary, Style::ServerStream, Style::ClientStream, Style::Duplex]
        .iter()
        .position(|known| *known == style)
        .unwrap() as u16
}

/// Moves the records of one ring into another, under other ids, and answers with them as they were put there.
fn pass((from, to): &mut (Consumer, Producer), id: impl Fn(u64) -> u64) -> Vec<Travelling> {
    let mut passed = Vec::new();
    while let Some(record) = from.peek().unwrap() {
        let mut payload = vec![0; record.header.len as usize];
        from.read(&record, 0, &mut payload);
        let _ = from.advance(&record);
        let extension = record.header.extended.then_some(record.extension);
        let header = record.header;
        let travelling = Travelling::new(header.kind, header.message_type, id(record.id), extension, &payload);
        let Travelling { kind, message_type, call, extension, payload } = &travelling;
        assert!(to.push(RecordClass::Bulk, *kind, *message_type, *call, *extension, payload).unwrap());
        passed.push(travelling);
    }
    let _ = to.publish();
    let _ = from.relieve();
    passed
}

fn step(from: &str, record: &Travelling) -> Value {
    let Travelling { kind, message_type, call, extension, payload } = record;
    let what = format!("{kind:?}").to_lowercase();
    json!({
        "from": from, "kind": what, "type": message_type, "call": call.to_string(),
        "extension": extension.map(|extension| extension.to_string()), "payload": hex(payload),
        "bytes": hex(&record.encode()),
    })
}
