//! The server's side of one simulated connection: what a worker does with a visit, and handlers that answer later.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bellrope_proto::{
    BudgetWaiter, BufferBudget, Reservation,
    connection::{Announced, Failure, Inbound, InboundRequest, ServerConnection},
    frame::{ErrorCode, Rejection},
    keeps_for,
    ring::Armed,
};
use bellrope_testkit::{
    ledger::{Event, Flow},
    payload,
};

use super::world::{Plan, Setting, Sleep};

/// Microseconds that a request waits for the budget before it is refused.
const PATIENCE_US: u64 = 3_000;
/// How long a large request may keep us waiting while others wait for room, beyond what its parts buy.
const GRACE: Duration = Duration::from_micros(300);
/// What a call that is answered later reserves beyond its payload.
const OVERHEAD: u64 = 1_000;
/// One call in so many kills the server between its request and its answer.
const DEADLY: u32 = 400;

pub(crate) struct Server {
    pub(crate) connection: ServerConnection<Vec<u8>>,
    pub(crate) sleep: Sleep,
    budget: Arc<BufferBudget>,
    open: BTreeMap<u64, Open>,
    /// Streams that their handlers have ended. Until such an end has been sent, its caller may still cancel.
    ended: BTreeSet<u64>,
    starved_since: Option<u64>,
    waiting: Option<BudgetWaiter>,
    /// How long its large request has kept us waiting, and when we last looked, in microseconds.
    idle: u64,
    looked: u64,
    spill: Vec<u8>,
    max_message: usize,
}

/// A call whose handler is at work.
struct Open {
    call: u64,
    plan: Plan,
    _reservation: Reservation,
    /// Chunks sent and to be sent.
    sent: u64,
    due: u64,
    /// Sizes of the chunks that came and were not consumed.
    unconsumed: Vec<usize>,
    upload_ended: bool,
}

/// The server died.
pub(crate) struct Died;

impl Server {
    pub(crate) fn new(connection: ServerConnection<Vec<u8>>, budget: &Arc<BufferBudget>, max_message: usize) -> Self {
        Self {
            connection,
            sleep: Sleep::default(),
            budget: Arc::clone(budget),
            open: BTreeMap::new(),
            ended: BTreeSet::new(),
            starved_since: None,
            waiting: None,
            idle: 0,
            looked: 0,
            spill: Vec::new(),
            max_message,
        }
    }

    /// Whether every call has been answered and nothing waits.
    pub(crate) fn is_done(&self) -> bool {
        self.open.is_empty()
            && self.connection.open_calls() == 0
            && !self.connection.wants_room()
            && !self.connection.is_assembling()
    }

    /// Takes what has come, at most so many messages.
    pub(crate) fn visit(&mut self, setting: &mut Setting, most: usize) -> Result<(), Died> {
        if self.connection.wants_room() {
            self.connection.flush().unwrap();
        }
        self.reclaim(setting);
        for _ in 0..most {
            let Some(inbound) = self.connection.next_inbound().unwrap() else { break };
            let goes_on = match inbound {
                Inbound::Call(request) | Inbound::Described(request, _) => self.serve(setting, &request)?,
                Inbound::Large(announced) => self.let_in(setting, &announced),
                Inbound::Part(_) => true,
                Inbound::Chunk(chunk) => {
                    let mut bytes = vec![0; chunk.len];
                    self.connection.take_chunk(&chunk, &mut bytes);
                    self.keep_chunk(setting, chunk.id, &bytes)
                }
                Inbound::Ended(id) => self.end_upload(setting, id),
                Inbound::Cancelled(id) | Inbound::Left(id) => {
                    assert!(self.open.remove(&id).is_some() || self.ended.contains(&id));
                    true
                }
            };
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    /// Serves one call. Answers `false` if it has to wait for the budget.
    fn serve(&mut self, setting: &mut Setting, request: &InboundRequest) -> Result<bool, Died> {
        let plan = Plan::from_type(request.message_type);
        let late = request.deadline_us.is_some_and(|deadline_us| setting.now_us >= deadline_us);
        let mut refusal =
            late.then(|| Failure::new(ErrorCode::DeadlineExceeded, "the deadline passed before the call was taken"));
        let mut reservation = None;
        if plan != Plan::Now && !request.large && !late {
            match self.reserve(setting, request.len as u64 + OVERHEAD) {
                Ok(Some(granted)) => reservation = Some(granted),
                Ok(None) => return Ok(false),
                Err(failure) => refusal = Some(failure),
            }
        }
        let payload = if request.large {
            let (payload, granted) = self.connection.take_large(request).unwrap();
            reservation = Some(granted);
            payload
        } else {
            let mut payload = vec![0; request.len];
            self.take(setting, request, &mut payload);
            payload
        };
        let call = payload::call_of(&payload);
        if refusal.is_none() && plan != Plan::Now && !self.connection.open(request.id, plan.style()).unwrap() {
            refusal = Some(Failure::rejected(Rejection::Busy, "too many calls are open"));
        }
        if let Some(failure) = refusal {
            self.connection.fail(request.id, failure).unwrap();
            return Ok(true);
        }
        setting.events.push(Event::Ran { call, at_us: setting.now_us });
        if setting.deaths && setting.rng.u32(0..DEADLY) == 0 {
            return Err(Died);
        }
        match reservation {
            Some(reservation) if plan != Plan::Now => {
                let (due, unconsumed) = (setting.rng.u64(0..12), Vec::new());
                let open =
                    Open { call, plan, _reservation: reservation, sent: 0, due, unconsumed, upload_ended: false };
                self.open.insert(request.id, open);
            }
            _ => self.answer(setting, request, call),
        }
        Ok(true)
    }

    /// Takes a call that came whole, in either of a worker's ways.
    fn take(&mut self, setting: &mut Setting, request: &InboundRequest, into: &mut [u8]) {
        if setting.rng.bool() && self.connection.admits_calls() {
            let front = self.connection.front();
            let mut call = self.connection.plain_call(front, request.deadline_us.is_some());
            if call.is_none() && request.deadline_us.is_none() {
                call = self.connection.plain_call_that_starts_over(front);
            }
            if let Some(call) = call {
                let found = (call.id, call.message_type, call.len, call.extension);
                let deadline_us = request.deadline_us.unwrap_or(0);
                assert_eq!(found, (request.id, request.message_type, request.len, deadline_us));
                return self.connection.take_plain(&call, into);
            }
        }
        self.connection.take(request, into);
    }

    /// Answers a call on the spot.
    fn answer(&mut self, setting: &mut Setting, request: &InboundRequest, call: u64) {
        let size = self.reply_size(setting);
        let (fails, keeps) = (setting.rng.u32(0..10) == 0, setting.rng.u32(0..10) > 0);
        let keep = |body| if keeps { Ok(body) } else { Err(Failure::new(ErrorCode::Exhausted, "no room")) };
        let reply = payload::of(call, size);
        let step = setting.rng.usize(1..=size);
        self.connection
            .answer(request.id, request.len, &mut self.spill, keep, |into| {
                reply.chunks(step).for_each(|piece| into.put(piece));
                if fails { Err(Failure::new(ErrorCode::Handler, "as it happens").into()) } else { Ok(()) }
            })
            .unwrap();
    }

    /// Now and then a reply is larger than a message may be.
    fn reply_size(&self, setting: &mut Setting) -> usize {
        let excess = if setting.rng.u32(0..100) == 0 { self.max_message } else { 0 };
        setting.size(self.connection.max_record(), self.max_message) + excess
    }

    /// Reserves memory for a request. `None`: it has to wait.
    fn reserve(&mut self, setting: &Setting, bytes: u64) -> Result<Option<Reservation>, Failure> {
        if let Some(reservation) = self.budget.reserve(bytes) {
            (self.starved_since, self.waiting) = (None, None);
            return Ok(Some(reservation));
        }
        let since = *self.starved_since.get_or_insert(setting.now_us);
        if setting.now_us - since < PATIENCE_US {
            self.waiting.get_or_insert_with(|| self.budget.wait());
            return Ok(None);
        }
        (self.starved_since, self.waiting) = (None, None);
        Err(Failure::rejected(Rejection::Busy, "the budget has no room"))
    }

    /// Takes the room of a request that comes too slowly away, if others wait for it.
    fn reclaim(&mut self, setting: &Setting) {
        let Some(unfinished) = self.connection.unfinished() else { return };
        if !self.connection.is_ready() || self.connection.is_stalled() {
            self.idle += setting.now_us - self.looked;
        }
        self.looked = setting.now_us;
        let idle = Duration::from_micros(self.idle);
        if self.budget.is_wanted() && idle >= keeps_for(GRACE, unfinished.filled) {
            let failure = Failure::rejected(Rejection::Busy, "others wait for its room");
            assert!(self.connection.revoke_large(failure).unwrap());
        }
    }

    fn let_in(&mut self, setting: &Setting, announced: &Announced) -> bool {
        match self.reserve(setting, announced.size) {
            Ok(Some(reservation)) => {
                self.connection.accept_large(announced, vec![0; announced.size as usize], reservation);
                (self.idle, self.looked) = (0, setting.now_us);
            }
            Ok(None) => return false,
            Err(failure) => self.connection.refuse_large(announced, failure).unwrap(),
        }
        true
    }

    fn keep_chunk(&mut self, setting: &mut Setting, id: u64, bytes: &[u8]) -> bool {
        let (call, number) = payload::chunk_of(bytes);
        let open = self.open.get_mut(&id).expect("chunks of a closed call are dropped");
        assert_eq!(call, open.call, "a chunk reaches its handler");
        open.unconsumed.push(bytes.len());
        setting.events.push(Event::Chunk { call, flow: Flow::Up, number });
        true
    }

    fn end_upload(&mut self, setting: &mut Setting, id: u64) -> bool {
        let open = self.open.get_mut(&id).expect("the end of a closed call's stream is dropped");
        open.upload_ended = true;
        let (call, flow) = (open.call, Flow::Up);
        setting.events.push(Event::Whole { call, flow, total: setting.totals[&(call, flow)] });
        true
    }

    /// Lets one handler do something. Answers whether there is one at work.
    pub(crate) fn act(&mut self, setting: &mut Setting) -> bool {
        let ids: Vec<_> = self.open.keys().copied().collect();
        let Some(id) = setting.rng.choice(ids) else { return false };
        let max_record = self.connection.max_record();
        let open = self.open.get_mut(&id).expect("one of those");
        if !open.unconsumed.is_empty() && setting.rng.bool() {
            self.connection.consumed(id, open.unconsumed.remove(0)).unwrap();
            return true;
        }
        let streams = open.plan.style().streams();
        if streams && open.sent < open.due {
            let chunk = payload::chunk(open.call, open.sent, setting.chunk_size(max_record));
            open.sent += 1;
            self.connection.chunk(id, chunk).unwrap();
            return true;
        }
        // A handler may answer before its caller's stream has ended, but rarely does.
        if open.plan.style().uploads() && !open.upload_ended && setting.rng.u32(0..20) > 0 {
            return true;
        }
        let (call, fails) = (open.call, setting.rng.u32(0..10) == 0);
        let failure = Failure::new(ErrorCode::Handler, "as it happens");
        if streams {
            setting.totals.insert((call, Flow::Down), open.sent);
            self.ended.insert(id);
            self.connection.finish(id, if fails { Err(failure) } else { Ok(()) }).unwrap();
        } else {
            let size = self.reply_size(setting);
            let outcome = if fails { Err(failure) } else { Ok(payload::of(call, size)) };
            self.connection.respond(id, outcome).unwrap();
        }
        self.open.remove(&id);
        true
    }

    /// Prepares to sleep, if nothing has come.
    pub(crate) fn rest(&mut self) {
        if !self.sleep.asleep {
            // As with a worker, a visit comes before every try to sleep.
            self.connection.flush().unwrap();
            let armed = self.connection.arm().unwrap();
            self.sleep.armed(armed == Armed::Asleep);
        }
    }

    /// Wakes up if it was rung, or `by_itself`. Answers whether it is awake.
    pub(crate) fn wake(&mut self, by_itself: bool) -> bool {
        if self.sleep.wake(by_itself) {
            self.connection.disarm();
        }
        !self.sleep.asleep
    }
}
