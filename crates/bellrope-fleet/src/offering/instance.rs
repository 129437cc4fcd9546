//! The calls from the fleet that run here.

mod beats;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use async_nats::Message;
use bellrope::{
    client::{ErrorCode, Style},
    service::SCHEMA,
};
use tokio::{
    sync::{Notify, Semaphore},
    task::AbortHandle,
};

use super::{
    guests::{Guest, Guests},
    incoming::{self, Door, FromCaller, ROOM_UNIT},
    offers::Offers,
    peers::{Came, Peers, Verdict},
    replay::Number,
    running::{Fault, Running, options},
    sending::say,
    shares::{Share, Shares},
};
use crate::{
    counters::{Counters, count},
    flow::Credit,
    frame::{self, Down, DownKind, Head, ItemPart, SIGNED, Up, UpKind, bounded},
    link::Link,
    message_type::{asks_for_schema, style_of},
    services::Offered,
    settings::FleetSettings,
    signing::{Signed, Trust},
};

/// Most bytes of a request or chunk. The local server has a limit of its own, which is lower by default.
const MOST_ITEM: u64 = 64 * 1024 * 1024;
/// How long the calls of a link that is lost may take to leave their handlers.
const LEAVING: Duration = Duration::from_millis(100);

/// What this side does for the fleet, as long as a link lives.
#[derive(Debug)]
pub(crate) struct Instance {
    link: Arc<Link>,
    guests: Arc<Guests>,
    offers: Arc<Offers>,
    calls: Mutex<HashMap<Key, Slot>>,
    peers: Mutex<Peers>,
    trust: Arc<Trust>,
    shares: Shares,
    most: usize,
    /// Of the call that began last.
    serial: AtomicU64,
    room: Arc<Semaphore>,
    draining: AtomicBool,
    ended: Notify,
    said: Mutex<Said>,
    counters: Arc<Counters>,
}

/// What everybody was told last of how many calls run here.
#[derive(Debug, Default)]
struct Said {
    running: usize,
    at: Option<Instant>,
}

/// The number of a link, and that of a call of it.
type Key = (u64, u64);

#[derive(Debug)]
struct Slot {
    /// Another call may have the number of one that was ended.
    serial: u64,
    door: Door,
    credit: Credit,
    task: AbortHandle,
    /// Of a stream: what tells its task that the caller has left.
    left: Option<Arc<Notify>>,
    _share: Share,
}

impl Slot {
    /// Ends a call whose caller has gone, and may come back for what its handler keeps.
    fn leave(&self) {
        match &self.left {
            Some(left) => left.notify_one(),
            None => self.task.abort(),
        }
    }
}

/// Who asks for a call.
#[derive(Debug, Default)]
struct Asking {
    /// `None`: nobody who is believed to be somebody.
    guest: Option<Guest>,
    /// What the local server is told of who that is, or nothing.
    vouched: String,
}

/// A call in the table, as long as its task lives.
struct Registered(Arc<Instance>, Key, u64);

impl Drop for Registered {
    fn drop(&mut self) {
        let Self(instance, key, serial) = self;
        let mut calls = instance.calls();
        if calls.get(key).is_some_and(|slot| slot.serial == *serial) {
            calls.remove(key);
        }
        drop(calls);
        self.0.ended.notify_waiters();
    }
}

impl Instance {
    pub(crate) fn new(
        link: Arc<Link>,
        guests: Arc<Guests>,
        offers: Arc<Offers>,
        settings: &FleetSettings,
        counters: Arc<Counters>,
        trust: Arc<Trust>,
    ) -> Arc<Self> {
        let room = Arc::new(Semaphore::new((u64::from(settings.assembly_bytes) / ROOM_UNIT) as usize));
        Arc::new(Self {
            link,
            guests,
            offers,
            calls: Mutex::default(),
            peers: Mutex::default(),
            trust,
            shares: Shares::default(),
            most: settings.max_in_flight as usize,
            serial: AtomicU64::new(0),
            room,
            draining: AtomicBool::new(false),
            ended: Notify::new(),
            said: Mutex::default(),
            counters,
        })
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<Key, Slot>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls that run now.
    pub(crate) fn running(&self) -> usize {
        self.calls().len()
    }

    /// Takes a call that came on the subject of a type, or of this instance and a type: NATS decides who may send there, so
    /// it must be a call of that type.
    pub(crate) fn receive(self: &Arc<Self>, message: &Message) {
        let is_there = |name: &str| {
            let subject = message.subject.as_str();
            subject == self.link.calls(name) || subject == self.link.calls_at(self.link.id, name)
        };
        match frame::read::<Up<'_>>(&message.payload) {
            Ok((Up { what: UpKind::Call(head), .. }, _)) if is_there(head.name) => {
                let signed = message.headers.as_ref().filter(|_| !self.trust.is_empty()).and_then(Signed::of);
                self.take_call(&Came { message: message.payload.clone(), signed: signed.map(Arc::new) });
            }
            _ => count(&self.counters.foreign),
        }
    }

    /// Takes a call, or takes it again when the clock of its importing server is known.
    fn take_call(self: &Arc<Self>, came: &Came) {
        match frame::read::<Up<'_>>(&came.message) {
            Ok((Up { from, call, what: UpKind::Call(head) }, rest)) => {
                if let Err(fault) = self.begin(from, call, &head, rest, came) {
                    self.refuse(from, call, &fault);
                }
            }
            _ => count(&self.counters.foreign),
        }
    }

    /// Takes what is sent to this instance alone.
    pub(crate) fn take(self: &Arc<Self>, received: &Message) {
        let message = &received.payload;
        let Ok((Up { from, call, what }, rest)) = frame::read::<Up<'_>>(message) else {
            return count(&self.counters.foreign);
        };
        let now = Instant::now();
        self.peers().heard(from, now);
        match what {
            UpKind::Beat { clock_us, nonce } => {
                // Who signs is looked at only in an answer that was asked for.
                let asked = self.peers().asked_by(from, nonce);
                let headers = received.headers.as_ref().filter(|_| asked);
                let who = headers.and_then(|headers| self.trust.hello(&received.subject, headers, message));
                let (calls, again) = self.peers().beat(from, clock_us, nonce, who, now);
                calls.iter().for_each(|call| self.take_call(call));
                self.ask(from, again);
            }
            UpKind::Cancel => {
                let slot = self.calls().remove(&(from, call));
                match slot {
                    Some(slot) => slot.task.abort(),
                    None => self.peers().cancel(from, call),
                }
            }
            UpKind::Left => match self.calls().remove(&(from, call)) {
                Some(slot) => slot.leave(),
                None => self.peers().cancel(from, call),
            },
            UpKind::Data(part) => {
                let bytes = message.slice(message.len() - rest.len()..);
                self.put(from, call, |slot| slot.door.put(FromCaller::Data(part, bytes)));
            }
            UpKind::Finish => self.put(from, call, |slot| slot.door.put(FromCaller::Finish)),
            UpKind::Credit(bytes) => self.put(from, call, |slot| slot.credit.add(bytes)),
            // A call comes on the subject of its type, where NATS decides who may send it.
            UpKind::Call(_) => count(&self.counters.foreign),
        }
    }

    /// Does something with a call; if that is against the rules, the call ends.
    fn put(&self, from: u64, call: u64, with: impl FnOnce(&Slot) -> bool) {
        let mut calls = self.calls();
        // It may have ended meanwhile.
        let Some(slot) = calls.get(&(from, call)) else { return };
        if !with(slot) {
            let slot = calls.remove(&(from, call));
            drop(calls);
            slot.into_iter().for_each(|slot| slot.task.abort());
            let text = "more was sent than there was credit for";
            self.tell(from, call, DownKind::Failed { code: ErrorCode::Unknown.to_bits(), detail: 0, text });
        }
    }

    fn begin(self: &Arc<Self>, from: u64, call: u64, head: &Head<'_>, first: &[u8], came: &Came) -> Result<(), Fault> {
        if self.peers().was_cancelled(from, call) {
            return Ok(());
        }
        // Sent once more, by somebody who overheard it: to refuse it would say that the call that runs does not.
        if self.calls().contains_key(&(from, call)) {
            count(&self.counters.forged);
            return Ok(());
        }
        if self.draining.load(Relaxed) {
            return Err(Fault::going_away());
        }
        let offered = self.offered(head)?;
        let now = Instant::now();
        let verdict = self.peers().judge(from, call, head.begin_by_us, came, now);
        let theirs = match verdict {
            Verdict::Begin(theirs) => theirs,
            Verdict::Wait(nonce) => {
                self.ask(from, nonce);
                return Ok(());
            }
            Verdict::TooLate => {
                return Err(Fault::refused(ErrorCode::NotExecuted, "the call came too late to begin"));
            }
            Verdict::Full => return Err(Fault::busy("the instance hears of too many importing servers")),
        };
        let Some(asks) = self.asks(from, call, head, came)? else {
            // In the name of somebody else, or once more: whose call this is runs, or has run.
            count(&self.counters.forged);
            return Ok(());
        };
        let left = head.deadline_us.map(|deadline| Duration::from_micros(deadline.saturating_sub(theirs)));
        self.start((from, call), head, &asks, left, &offered, first)
    }

    /// Who asks for a call that is about to begin. `None`: somebody who pretends to be somebody else, or sends it again.
    fn asks(&self, from: u64, call: u64, head: &Head<'_>, came: &Came) -> Result<Option<Asking>, Fault> {
        let signed = came.signed.as_ref().zip(self.peers().who(from));
        let Some((signed, who)) = signed else {
            // Who signs marks it so. What signs nothing of the kind is a copy, of which the signature was taken off or broken.
            if call & SIGNED != 0 && came.signed.is_none() && !self.trust.is_empty() {
                return Ok(None);
            }
            let is_new = self.peers().note_unsigned(from, call, Instant::now());
            // One caller, whoever it is.
            return Ok(is_new.then(|| Asking { guest: None, vouched: "fleet".to_owned() }));
        };
        let subject = self.link.calls_at(self.link.id, head.name);
        let Some(asks) = who.asks(&subject, signed, &came.message) else { return Ok(None) };
        let number = self.peers().note_begun(from, call);
        match number {
            // A copy without its signature may have come first, and from now on may not begin.
            Number::New if !self.peers().note_unsigned(from, call, Instant::now()) => return Ok(None),
            Number::New => {}
            Number::Again => return Ok(None),
            Number::TooOld => {
                return Err(Fault::refused(ErrorCode::NotExecuted, "many later calls were faster than this one"));
            }
        }
        if !asks_for_schema(head.style) {
            count(&self.counters.signed);
        }
        let name = if head.caller.is_empty() { who.name() } else { head.caller };
        let vouched = match asks.token.as_str() {
            // A caller may have any name. None makes it one who has a token.
            "" if name.starts_with("token ") => format!("caller {name}"),
            "" => name.to_owned(),
            token => format!("token {token}"),
        };
        let guest = Guest { server: who.number, caller: asks.caller };
        Ok(Some(Asking { guest: Some(guest), vouched }))
    }

    /// What is offered under this name, if the caller means the same by it.
    fn offered(&self, head: &Head<'_>) -> Result<Arc<Offered>, Fault> {
        let offered = self.offers.find(head.name);
        let offered = offered.ok_or_else(|| Fault::refused(ErrorCode::NotExecuted, "it is offered no longer"))?;
        let ours = &offered.imported;
        if asks_for_schema(head.style) {
            let has_it = ours.has_schema(head.codec, head.schema);
            let another = || Fault::refused(ErrorCode::NotExecuted, "the instance has another version of this method");
            return has_it.then_some(Arc::clone(&offered)).ok_or_else(another);
        }
        if ours.style != head.style {
            return Err(Fault::refused(ErrorCode::NotExecuted, "the instance answers it in another style"));
        }
        if !ours.means_the_same(head.codec, head.schema) {
            let text = "the instance has another version of this method, and its codec sends no names";
            return Err(Fault::refused(ErrorCode::NotExecuted, text));
        }
        Ok(offered)
    }

    fn start(
        self: &Arc<Self>,
        (from, call): Key,
        head: &Head<'_>,
        asking: &Asking,
        left: Option<Duration>,
        offered: &Arc<Offered>,
        first: &[u8],
    ) -> Result<(), Fault> {
        let schema_of = asks_for_schema(head.style).then_some(head.name);
        let style = if schema_of.is_some() { Some(Style::Unary) } else { style_of(head.style) };
        let Some(style) = style else {
            return Err(Fault::refused(ErrorCode::NotExecuted, "the style is unknown"));
        };
        let mut calls = self.calls();
        if calls.len() >= self.most {
            return Err(Fault::busy("the instance has as many calls as it may (fleet.max_in_flight)"));
        }
        // Whose names are believed, leave each other room; so does the crowd of all others.
        let most = if self.trust.is_empty() { self.most } else { self.most.div_ceil(2) };
        let Some(share) = self.shares.take(asking.guest.map(|guest| guest.server), most) else {
            return Err(Fault::busy(
                "half of the calls that the instance may have are this server's (fleet.max_in_flight)",
            ));
        };
        if calls.contains_key(&(from, call)) {
            // Nobody of ours sends one twice.
            count(&self.counters.foreign);
            return Ok(());
        }
        if schema_of.is_none() {
            count(&self.counters.taken);
        }
        let most = if schema_of.is_some() { 0 } else { MOST_ITEM };
        let (door, incoming) = incoming::channel(&self.room, most);
        let (credit, left_by_caller) = (Credit::new(), Arc::<Notify>::default());
        let running = Running {
            link: Arc::clone(&self.link),
            guests: Arc::clone(&self.guests),
            guest: asking.guest,
            name: schema_of.map_or(head.name, |_| SCHEMA).to_owned(),
            question: schema_of.map(|name| serde_json::json!({ "method": name }).to_string().into_bytes()),
            style,
            options: options(head, &asking.vouched, left),
            from,
            call,
            incoming,
            credit: credit.clone(),
            left: Arc::clone(&left_by_caller),
        };
        let (part, first) = (ItemPart { seq: 0, size: head.size }, first.to_vec());
        let is_question = schema_of.is_some();
        let serial = self.serial.fetch_add(1, Relaxed);
        let (registered, offered) = (Registered(Arc::clone(self), (from, call), serial), Arc::clone(offered));
        let task = self.link.spawn(async move {
            let registered = registered;
            let began = Instant::now();
            let outcome = running.run(part, &first).await;
            // Of a caller that went away nobody is to blame.
            let failed = outcome.as_ref().is_err_and(|fault| *fault != Fault::Lost);
            // Its statistics are of calls.
            if !is_question {
                offered.ended(began.elapsed(), failed);
            }
            if let Err(fault) = outcome {
                registered.0.report(from, call, fault).await;
            }
        });
        calls.insert(
            (from, call),
            Slot {
                serial,
                door,
                credit,
                task,
                left: (style == Style::ServerStream).then_some(left_by_caller),
                _share: share,
            },
        );
        Ok(())
    }

    /// Says how a call failed.
    async fn report(&self, from: u64, call: u64, fault: Fault) {
        if let Some(what) = said(&fault) {
            // If the link is lost, the importing server knows as much by that.
            let _ = say(&self.link, from, call, what, &[]).await;
        }
    }

    fn refuse(&self, from: u64, call: u64, fault: &Fault) {
        count(&self.counters.refused);
        if let Some(what) = said(fault) {
            self.tell(from, call, what);
        }
    }

    fn tell(&self, from: u64, call: u64, what: DownKind<'_>) {
        let message = frame::write(&Down { from: self.link.id, call, what }, &[]);
        self.link.post(self.link.inbox(from, "down"), message);
    }

    fn ask(&self, from: u64, nonce: Option<u64>) {
        if let Some(nonce) = nonce {
            self.tell(from, 0, DownKind::Ask { nonce });
        }
    }
}

/// What is said of a call that failed, unless nobody can be told.
fn said(fault: &Fault) -> Option<DownKind<'_>> {
    match fault {
        Fault::Failed { code, detail, text } => {
            Some(DownKind::Failed { code: code.to_bits(), detail: *detail, text: bounded(text) })
        }
        Fault::Refused { code, detail, text } => {
            Some(DownKind::Refused { code: code.to_bits(), detail: *detail, text: bounded(text) })
        }
        Fault::Lost => None,
    }
}
