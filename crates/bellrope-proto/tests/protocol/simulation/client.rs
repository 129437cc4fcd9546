//! The client's side of one simulated connection: callers that send, wait, consume and give up.

use std::collections::BTreeMap;

use bellrope_proto::{
    connection::{Answer, AnswerKind, ClientConnection, Loss, Sending, SubmitError},
    frame::ErrorCode,
    handshake::Style,
    ring::Armed,
};
use bellrope_testkit::{
    ledger::{Event, Flow, Outcome},
    payload,
};

use super::{
    wire::Wire,
    world::{Plan, Setting, Sleep},
};

pub(crate) struct Client {
    pub(crate) connection: ClientConnection,
    pub(crate) sleep: Sleep,
    /// The connection's number in the ledger.
    number: u64,
    /// Calls under way, by the connection's id for them.
    calls: BTreeMap<u64, Call>,
    /// The request that is on its way in parts.
    sending: Option<Large>,
    /// What has come of a response in parts.
    partial: Vec<u8>,
    /// Whether something could not be sent for lack of room since it last slept.
    lacks_room: bool,
}

struct Call {
    call: u64,
    deadline_us: Option<u64>,
    upload: Upload,
    /// Sizes of the chunks that came and were not consumed.
    unconsumed: Vec<usize>,
}

/// A stream to the server.
#[derive(Clone, Copy)]
enum Upload {
    None,
    Open { sent: u64, due: u64 },
}

struct Large {
    sending: Sending,
    plan: Plan,
    deadline_us: Option<u64>,
    payload: Vec<u8>,
}

impl Client {
    pub(crate) fn new(connection: ClientConnection, number: u64) -> Self {
        Self {
            connection,
            sleep: Sleep::default(),
            number,
            calls: BTreeMap::new(),
            sending: None,
            partial: Vec::new(),
            lacks_room: false,
        }
    }

    /// Whether every call has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.calls.is_empty() && self.sending.is_none()
    }

    /// Makes a call, if there is room for it.
    pub(crate) fn submit(&mut self, setting: &mut Setting) {
        let plan = Plan::any(&mut setting.rng);
        let call = setting.new_call();
        let size = setting.size(self.connection.max_record(), self.connection.max_message());
        let payload = payload::of(call, size);
        let deadline_us = setting.rng.bool().then(|| setting.now_us + setting.rng.u64(0..20_000));
        let is_large = size > self.connection.max_record();
        let begun = if is_large {
            self.connection.begin_large(plan.style(), size).map(|sending| {
                let id = sending.id;
                self.sending = Some(Large { sending, plan, deadline_us, payload });
                id
            })
        } else {
            self.connection.submit(plan as u16, plan.style(), &payload, deadline_us)
        };
        match begun {
            Ok(id) => {
                setting.events.push(Event::Begun { call, deadline_us });
                let due = setting.rng.u64(0..12);
                let upload = if plan.style().uploads() { Upload::Open { sent: 0, due } } else { Upload::None };
                self.calls.insert(id, Call { call, deadline_us, upload, unconsumed: Vec::new() });
                if is_large {
                    self.push(setting);
                } else {
                    setting.events.push(Event::Sent { call, connection: self.number });
                }
            }
            Err(SubmitError::Full | SubmitError::TooManyInFlight { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Sends further parts of the large request.
    pub(crate) fn push(&mut self, setting: &mut Setting) {
        let Some(Large { sending, plan, deadline_us, payload }) = &mut self.sending else { return };
        if !self.connection.push_large(sending, *plan as u16, payload, *deadline_us).unwrap() {
            self.lacks_room = true;
            return;
        }
        // If its call has ended meanwhile, it has not left whole.
        if let Some(Call { call, .. }) = self.calls.get(&sending.id) {
            setting.events.push(Event::Sent { call: *call, connection: self.number });
        }
        self.sending = None;
    }

    /// Sends the next chunk of any stream, or its end.
    pub(crate) fn upload(&mut self, setting: &mut Setting) {
        if let Some(id) = setting.rng.choice(self.uploads()) {
            self.upload_of(setting, id);
        }
    }

    /// Sends whatever can be sent.
    pub(crate) fn send_all(&mut self, setting: &mut Setting) {
        self.push(setting);
        for id in self.uploads() {
            while self.upload_of(setting, id) {}
        }
    }

    /// Calls with an open stream to the server whose requests have left.
    fn uploads(&self) -> Vec<u64> {
        let on_its_way = self.sending.as_ref().map(|large| large.sending.id);
        let open = |(id, call): &(&u64, &Call)| matches!(call.upload, Upload::Open { .. }) && Some(**id) != on_its_way;
        self.calls.iter().filter(open).map(|(id, _)| *id).collect()
    }

    /// Answers whether anything was sent.
    fn upload_of(&mut self, setting: &mut Setting, id: u64) -> bool {
        let Some(call) = self.calls.get_mut(&id) else { return false };
        let Upload::Open { sent, due } = call.upload else { return false };
        if sent == due {
            if self.sleep.asleep {
                return false;
            }
            self.connection.end_upload(id).unwrap();
            setting.totals.insert((call.call, Flow::Up), sent);
            call.upload = Upload::None;
            return true;
        }
        let chunk = payload::chunk(call.call, sent, setting.chunk_size(self.connection.max_record()));
        match self.connection.send_chunk(id, &chunk) {
            Ok(accepted) => {
                assert!(accepted, "the call is under way and its stream open");
                call.upload = Upload::Open { sent: sent + 1, due };
                true
            }
            Err(SubmitError::Full) => {
                self.lacks_room |= !self.connection.lacks_credit(id);
                false
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Consumes a chunk, so that its credit goes back. Answers whether there was one.
    pub(crate) fn consume(&mut self, setting: &mut Setting) -> bool {
        let has_chunks = |(_, call): &(&u64, &mut Call)| !call.unconsumed.is_empty();
        let chosen = setting.rng.choice(self.calls.iter_mut().filter(has_chunks).collect::<Vec<_>>());
        let Some((&id, call)) = chosen else { return false };
        let len = call.unconsumed.remove(0);
        self.connection.consumed(id, len).unwrap();
        true
    }

    /// Gives up a call: any, or one whose deadline has passed.
    pub(crate) fn give_up(&mut self, setting: &mut Setting, late_only: bool) {
        let now_us = setting.now_us;
        let fits = |call: &Call| !late_only || call.deadline_us.is_some_and(|deadline_us| deadline_us <= now_us);
        let ids: Vec<_> = self.calls.iter().filter(|(_, call)| fits(call)).map(|(id, _)| *id).collect();
        let Some(id) = setting.rng.choice(ids) else { return };
        assert!(self.connection.cancel(id).unwrap(), "it was under way");
        self.end(setting, id, Outcome::GivenUp);
        // Who sends the parts may learn of it at once, or with the next part.
        if self.sending.as_ref().is_some_and(|large| large.sending.id == id) && setting.rng.bool() {
            self.sending = None;
        }
    }

    /// Takes at most so many answers.
    pub(crate) fn take(&mut self, setting: &mut Setting, most: usize) -> bool {
        for taken in 0..most {
            if setting.rng.bool() && self.take_straight(setting) {
                continue;
            }
            let Some(answer) = self.connection.next_answer().unwrap() else { return taken > 0 };
            let mut bytes = vec![0; answer.len];
            self.connection.take(&answer, &mut bytes);
            self.receive(setting, &answer, &bytes);
        }
        true
    }

    /// Takes the response at the front, if that goes the straight way.
    fn take_straight(&mut self, setting: &mut Setting) -> bool {
        let mut bytes = Vec::new();
        let buffer = &mut bytes;
        let taken = self.connection.take_response(move |len| {
            buffer.resize(len, 0);
            buffer
        });
        let Some(id) = taken else { return false };
        assert!(self.calls.contains_key(&id), "an answer is for a call under way");
        self.end(setting, id, Outcome::Answered { by: payload::call_of(&bytes) });
        true
    }

    fn receive(&mut self, setting: &mut Setting, answer: &Answer, bytes: &[u8]) {
        let id = answer.id;
        let call = self.calls.get_mut(&id).expect("an answer is for a call under way");
        match answer.kind {
            AnswerKind::Credit => {}
            AnswerKind::Types { .. } => unreachable!("nobody asked for it"),
            // Whole ones pass between the parts of a large one.
            AnswerKind::Response if answer.at == 0 => {
                let by = payload::call_of(bytes);
                self.end(setting, id, Outcome::Answered { by });
            }
            AnswerKind::Part { .. } | AnswerKind::Response => {
                assert!(answer.at <= self.partial.len(), "parts come in order");
                self.partial.truncate(answer.at);
                self.partial.extend_from_slice(bytes);
                if answer.kind == AnswerKind::Response {
                    let by = payload::call_of(&self.partial);
                    self.end(setting, id, Outcome::Answered { by });
                }
            }
            AnswerKind::Error { code, .. } => {
                let outcome = match code {
                    ErrorCode::Handler | ErrorCode::Exhausted | ErrorCode::MessageTooLarge => Outcome::Failed,
                    ErrorCode::Rejected | ErrorCode::DeadlineExceeded => Outcome::Refused,
                    other => panic!("{other}"),
                };
                self.end(setting, id, outcome);
            }
            AnswerKind::Chunk => {
                let (made_for, number) = payload::chunk_of(bytes);
                assert_eq!(made_for, call.call, "a chunk reaches its caller");
                call.unconsumed.push(bytes.len());
                setting.events.push(Event::Chunk { call: made_for, flow: Flow::Down, number });
            }
            AnswerKind::End => {
                let total = setting.totals[&(call.call, Flow::Down)];
                setting.events.push(Event::Whole { call: call.call, flow: Flow::Down, total });
                self.end(setting, id, Outcome::Finished);
            }
        }
    }

    fn end(&mut self, setting: &mut Setting, id: u64, outcome: Outcome) {
        let call = self.calls.remove(&id).expect("a call ends once").call;
        setting.events.push(Event::Ended { call, outcome });
    }

    /// Prepares to sleep, if nothing has come.
    pub(crate) fn rest(&mut self) {
        if self.sleep.asleep {
            return;
        }
        let armed = self.connection.arm(self.lacks_room).unwrap();
        self.sleep.armed(armed == Armed::Asleep);
        self.lacks_room &= !self.sleep.asleep;
    }

    /// Wakes up if it was rung, or if a caller has to wait for room, or `by_itself`. Answers whether it is awake.
    pub(crate) fn wake(&mut self, by_itself: bool) -> bool {
        if self.sleep.wake(by_itself || self.lacks_room) {
            self.connection.disarm();
            self.connection.flush().unwrap();
        }
        !self.sleep.asleep
    }

    /// The server is gone: takes what it left, then asks how every other call ended.
    pub(crate) fn lose_server(mut self, setting: &mut Setting, mut wire: Option<Wire>) {
        // What has arrived counts, however much more of it there is than the ring has room for.
        let mut goes_on = true;
        while goes_on {
            wire.as_mut().map(Wire::turn_client);
            let took = self.take(setting, 1000) || self.connection.is_ready();
            goes_on = took || self.connection.commit().needed();
        }
        assert_eq!(self.connection.in_flight(), self.calls.len());
        let ids: Vec<_> = self.connection.calls().collect();
        for id in ids {
            let loss = self.connection.loss(id);
            if let Some(wire) = &wire {
                assert_eq!(wire.unread(), 0, "all that arrived was read");
                let proof = match wire.verdict(id) {
                    Loss::NotExecuted => Event::Spared { call: self.calls[&id].call },
                    Loss::Unknown => Event::Unprovable { call: self.calls[&id].call },
                };
                setting.events.push(proof);
            }
            let outcome = match loss {
                Loss::NotExecuted => Outcome::NotExecuted,
                Loss::Unknown => Outcome::Unknown,
            };
            self.end(setting, id, outcome);
        }
        assert!(self.calls.is_empty(), "the connection knows of every call");
    }

    /// The client itself dies.
    pub(crate) fn die(self, setting: &mut Setting) {
        let died = |call: &Call| Event::Ended { call: call.call, outcome: Outcome::CallerDied };
        setting.events.extend(self.calls.values().map(died));
    }
}

impl Plan {
    pub(crate) fn style(self) -> Style {
        match self {
            Self::Now | Self::Later => Style::Unary,
            Self::Stream => Style::ServerStream,
            Self::Upload => Style::ClientStream,
            Self::Duplex => Style::Duplex,
        }
    }
}
