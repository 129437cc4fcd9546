//! Forwards calls of this server to the fleet.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::Message;
use bellrope::client::ErrorCode;
use bellrope::server::{Behind, ChunkReceiver, ChunkSender, HandlerError, OwnedCall};
use tokio::{
    sync::{Notify, oneshot, watch},
    time::{timeout, timeout_at},
};

use super::{
    attempt::{Attempt, Ended},
    calls::Table,
    choice::{Choices, Chosen},
    schemas::FetchedSchemas,
};
use crate::{
    clock::Clock,
    counters::{Counters, count},
    frame::{self, Down, DownKind},
    link::Link,
    message_type::FleetType,
    names::is_name,
    signing::{Asks, Signer},
};

/// How often a call is offered to the fleet, if it is proven each time that nobody has run it.
const TRIES: u32 = 5;
/// The first of them go to an instance that is chosen here; the others leave that to NATS, which knows who is there.
const CHOSEN_TRIES: usize = 3;
/// The first pause between two of them; each is twice as long as the one before. Interest in a type that came just now has
/// then reached all servers of a cluster, and who asks at once again after `NotExecuted` asks nobody to death.
const PAUSE: Duration = Duration::from_millis(5);
/// How long a call waits for a link that is being made.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a call of a server that signs waits for an instance that was lost just now and may say that it is there: it is asked
/// within a second, and where NATS draws nobody knows who asks. So long a call waits for the instance that its session names, too.
const AWAIT: Duration = Duration::from_millis(1300);
/// How long it may take to learn a schema.
const ASK_FOR_SCHEMA: Duration = Duration::from_secs(5);

/// What came of asking the fleet.
enum Asked {
    /// The call has ended, or may have run.
    Ended(Result<Vec<u8>, HandlerError>),
    /// It is proven that nobody has run it.
    NotRun(HandlerError),
}

/// Forwards calls to the fleet.
#[derive(Debug)]
pub(crate) struct Importer {
    table: Table,
    pub(crate) choices: Choices,
    schemas: FetchedSchemas,
    link: watch::Sender<Option<Arc<Link>>>,
    /// Told when instances are to be asked what they offer: one was lost, or none is known.
    wants_instances: Notify,
    /// Grows when an instance has said what it offers.
    learnt: watch::Sender<u64>,
    /// Dropped with it: the thread in which calls are forwarded is needed no longer.
    _needed: oneshot::Sender<Infallible>,
}

impl Importer {
    /// `name` is that of this server, told with each call. `needed` is dropped when no call can be forwarded any more.
    pub(crate) fn new(
        name: String,
        choices: Choices,
        clock: Clock,
        counters: Arc<Counters>,
        signer: Option<Signer>,
        needed: oneshot::Sender<Infallible>,
    ) -> Arc<Self> {
        let table = Table::new(name, clock, counters, signer);
        let schemas = FetchedSchemas::default();
        Arc::new(Self {
            table,
            choices,
            schemas,
            link: watch::Sender::new(None),
            wants_instances: Notify::new(),
            learnt: watch::Sender::new(0),
            _needed: needed,
        })
    }

    /// There is a link.
    pub(crate) fn linked(&self, link: &Arc<Link>) {
        self.link.send_replace(Some(Arc::clone(link)));
    }

    /// The link is lost, and with it all that was handed over.
    pub(crate) fn unlinked(&self) {
        self.link.send_replace(None);
        self.table.lose_all();
    }

    /// Takes what NATS brought for this side.
    pub(crate) fn take(&self, link: &Arc<Link>, message: &Message) {
        self.table.take(link, message);
    }

    /// An instance has said what it offers.
    pub(super) fn has_learnt(&self) {
        self.learnt.send_modify(|learnt| *learnt += 1);
    }

    /// Takes what an instance said to everybody.
    pub(crate) fn take_load(&self, message: &Message) {
        match frame::read::<Down<'_>>(&message.payload) {
            Ok((Down { from, what: DownKind::Load { running }, .. }, _)) => self.choices.loaded(from, running),
            Ok((Down { from, what: DownKind::Leaving, .. }, _)) => self.choices.left(from),
            _ => count(&self.table.counters.foreign),
        }
    }

    /// Ends what is lost, and says to everybody who has calls of this side that it lives.
    pub(crate) async fn beat(&self, link: &Link) {
        self.choices.sweep(Instant::now());
        self.table.beat(link).await;
    }

    /// This side stood still for so long: nobody else's silence is judged by that.
    pub(crate) fn stood_still(&self, still: Duration) {
        self.table.stood_still(still);
    }

    /// Calls under way.
    pub(crate) fn under_way(&self) -> usize {
        self.table.under_way()
    }

    /// Answers a call of this server by asking the fleet. `own`: what answers it here, if it is proven that the fleet has not.
    pub(crate) async fn forward(
        self: Arc<Self>,
        imported: Arc<FleetType>,
        own: Option<Arc<Behind>>,
        call: OwnedCall,
        mut incoming: Option<ChunkReceiver>,
        mut outgoing: Option<ChunkSender>,
    ) -> Result<Vec<u8>, HandlerError> {
        let asked = self.ask(&imported, own.is_some(), &call, incoming.as_mut(), outgoing.as_mut()).await;
        match (asked, own) {
            (Asked::Ended(outcome), _) => outcome,
            (Asked::NotRun(_), Some(own)) => own.answer(call, incoming, outgoing).await,
            (Asked::NotRun(error), None) => {
                count(&self.table.counters.not_executed);
                Err(error)
            }
        }
    }

    /// The schema of a type of the fleet, for whoever asks for it by this call: as it was fetched before, or as an instance says
    /// now.
    pub(crate) async fn schema(&self, imported: &FleetType, call: &OwnedCall) -> Result<Vec<u8>, HandlerError> {
        if let Some(schema) = self.schemas.of(imported) {
            return Ok(schema);
        }
        let question = imported.schema_question();
        let asked = timeout(ASK_FOR_SCHEMA, self.ask(&question, false, call, None, None)).await;
        match asked {
            Ok(Asked::Ended(Ok(schema))) => self.schemas.take(imported, schema),
            // Nothing has run, whatever became of the question.
            Ok(Asked::Ended(Err(error))) if error.code() == ErrorCode::Unknown => {
                Err(HandlerError::not_executed(error.to_string()))
            }
            Ok(Asked::Ended(Err(error)) | Asked::NotRun(error)) => Err(error),
            Err(_) => Err(HandlerError::not_executed("no instance has said in time what its schema is")),
        }
    }

    /// `has_own`: somebody here answers as well, so nothing is waited for.
    async fn ask(
        &self,
        imported: &FleetType,
        has_own: bool,
        call: &OwnedCall,
        mut incoming: Option<&mut ChunkReceiver>,
        mut outgoing: Option<&mut ChunkSender>,
    ) -> Asked {
        // What asks for a schema is no call, also not of its session.
        let said = call.metadata().filter(|_| !imported.asks_for_schema());
        let session = said.and_then(|said| said.session_text()).unwrap_or_default().to_owned();
        if !imported.asks_for_schema() {
            count(&self.table.counters.forwarded);
        }
        let asks = match &self.table.signer {
            Some(signer) => {
                let token = call.token().unwrap_or_default();
                if !token.is_empty() && !is_name(&token) {
                    // Without it nobody's budget would have the call.
                    let text = "the token's name does not fit into a message of the fleet: at most 64 bytes, no control \
                                characters, and no blanks at its ends";
                    let error = HandlerError::invalid_request(text);
                    return if has_own { Asked::NotRun(error) } else { Asked::Ended(Err(error)) };
                }
                Asks { token, caller: signer.number(call.caller()) }
            }
            None => Asks::default(),
        };
        let (mut pause, mut asked, mut refused) = (PAUSE, Vec::new(), None);
        for tried in 1.. {
            let patience = if has_own { Duration::ZERO } else { PATIENCE };
            let Some(link) = self.live_link(call, patience).await else {
                return Asked::NotRun(HandlerError::not_executed("there is no connection to NATS"));
            };
            let chosen = match asked.len() < CHOSEN_TRIES {
                true => self.choose(imported, &session, &asked, (!has_own && tried == 1).then_some(call)).await,
                false => None,
            };
            // Where NATS draws, nothing is signed: what was refused to somebody is not asked again in nobody's name.
            if let (None, Some(error), true) = (&chosen, refused.take(), self.table.signer.is_some()) {
                return Asked::NotRun(error);
            }
            // Nor is the call of a token, whose budget would not have it.
            if chosen.is_none() && !asks.token.is_empty() && self.choices.hears_loads() {
                self.wants_instances.notify_one();
                if tried >= TRIES || has_own {
                    let text = "no instance is known that could be told whose call this is";
                    return Asked::NotRun(HandlerError::not_executed(text));
                }
                tokio::time::sleep(pause).await;
                pause *= 2;
                continue;
            }
            let to = chosen.as_ref().map(|chosen| chosen.instance);
            let (table, choices) = (&self.table, &self.choices);
            let (link, session, asks) = (&link, session.as_str(), &asks);
            let attempt = Attempt { table, link, imported, call, to, choices, session, asks };
            let ended = attempt.run(incoming.as_deref_mut(), outgoing.as_deref_mut()).await;
            if let Some(instance) = to {
                asked.push(instance);
                self.note(instance, &ended, link);
            }
            drop(chosen);
            match ended {
                Ended::Answered(answer) => return Asked::Ended(Ok(answer)),
                Ended::Failed(error) => return Asked::Ended(Err(error)),
                // Nobody is there, or nobody whom NATS found.
                Ended::NotTaken { error, gone } if tried >= TRIES || has_own && gone && to.is_none() => {
                    return Asked::NotRun(error);
                }
                Ended::NotTaken { error, gone } => refused = (!gone).then_some(error),
                Ended::Lost(reason) => {
                    if !imported.asks_for_schema() {
                        count(&self.table.counters.unknown);
                    }
                    return Asked::Ended(Err(HandlerError::unknown(reason)));
                }
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        unreachable!("the last try returns")
    }

    /// Chooses who gets a call. If that is nobody, but one was lost just now that may be there still, a patient call of a server
    /// that signs waits until it says so; and so does one whose session names an instance that was not heard of.
    async fn choose(
        &self,
        imported: &FleetType,
        session: &str,
        asked: &[u64],
        patient: Option<&OwnedCall>,
    ) -> Option<Chosen> {
        let mut learnt = self.learnt.subscribe();
        let patience = patient.filter(|_| self.table.signer.is_some() || self.choices.misses(session));
        let patience = patience.map(|call| call.time_left().map_or(AWAIT, |left| left.min(AWAIT)));
        let until = patience.map(|patience| tokio::time::Instant::now() + patience);
        loop {
            let now = Instant::now();
            let choose = || self.choices.choose(imported, session, asked, now);
            let misses = until.is_some() && self.choices.misses(session);
            let chosen = if misses { None } else { choose() };
            let until = until.filter(|_| misses || chosen.is_none() && self.choices.awaits(now));
            let Some(until) = until else { return chosen };
            self.wants_instances.notify_one();
            if !matches!(timeout_at(until, learnt.changed()).await, Ok(Ok(()))) {
                return if misses { choose() } else { None };
            }
        }
    }

    /// Waits until instances are to be asked what they offer.
    pub(crate) async fn wants_instances(&self) {
        self.wants_instances.notified().await;
    }

    /// What the end of a call says of the instance that was chosen for it.
    fn note(&self, instance: u64, ended: &Ended, link: &Link) {
        if matches!(ended, Ended::NotTaken { gone: true, .. } | Ended::Lost(_)) {
            self.wants_instances.notify_one();
        }
        match ended {
            Ended::NotTaken { gone: true, .. } => self.choices.lost(instance, Instant::now()),
            Ended::NotTaken { .. } if !link.is_lost() => self.choices.avoid(instance, Instant::now()),
            // Its calls end at once: without this it would seem to have the least to do of all.
            Ended::Lost(_) if !link.is_lost() => self.choices.lost(instance, Instant::now()),
            _ => {}
        }
    }

    /// The link, or the next one if that comes in time.
    async fn live_link(&self, call: &OwnedCall, patience: Duration) -> Option<Arc<Link>> {
        let is_live = |link: &Option<Arc<Link>>| link.as_ref().is_some_and(|link| !link.is_lost());
        let patience = call.time_left().map_or(patience, |left| left.min(patience));
        let mut links = self.link.subscribe();
        let found = timeout(patience, links.wait_for(is_live)).await;
        found.ok()?.ok()?.clone()
    }
}
