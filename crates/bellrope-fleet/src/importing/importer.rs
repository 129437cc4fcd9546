//! Forwards calls of this server to the fleet.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::Message;
use bellrope::server::{ChunkReceiver, ChunkSender, HandlerError, OwnedCall};
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};

use super::{
    attempt::{Attempt, Ended},
    calls::Table,
    choice::Choices,
};
use crate::{
    clock::Clock,
    counters::{Counters, count},
    frame::{self, Down, DownKind},
    link::Link,
    message_type::FleetType,
    signing::{Asks, Signer, is_name},
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

/// Forwards calls to the fleet.
#[derive(Debug)]
pub(crate) struct Importer {
    table: Table,
    pub(crate) choices: Choices,
    link: watch::Sender<Option<Arc<Link>>>,
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
        Arc::new(Self { table, choices, link: watch::Sender::new(None), _needed: needed })
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

    /// Calls under way.
    pub(crate) fn under_way(&self) -> usize {
        self.table.under_way()
    }

    /// Answers a call of this server by asking the fleet.
    pub(crate) async fn forward(
        self: Arc<Self>,
        imported: Arc<FleetType>,
        call: OwnedCall,
        mut incoming: Option<ChunkReceiver>,
        mut outgoing: Option<ChunkSender>,
    ) -> Result<Vec<u8>, HandlerError> {
        count(&self.table.counters.forwarded);
        let session = call.metadata().and_then(|said| said.session_text()).unwrap_or_default().to_owned();
        let asks = self.table.signer.as_ref().map_or_else(Asks::default, |signer| Asks {
            token: call.token().filter(|token| is_name(token)).unwrap_or_default(),
            caller: signer.number(call.caller()),
        });
        let (mut pause, mut asked, mut refused) = (PAUSE, Vec::new(), None);
        for tried in 1.. {
            let Some(link) = self.live_link(&call).await else {
                return Err(HandlerError::not_executed("there is no connection to NATS"));
            };
            let chosen = match asked.len() < CHOSEN_TRIES {
                true => self.choices.choose(&imported, &session, &asked, Instant::now()),
                false => None,
            };
            // Where NATS draws, nothing is signed: what was refused to somebody is not asked again in nobody's name.
            if let (None, Some(error), true) = (&chosen, refused.take(), self.table.signer.is_some()) {
                count(&self.table.counters.not_executed);
                return Err(error);
            }
            let to = chosen.as_ref().map(|chosen| chosen.instance);
            let (table, choices) = (&self.table, &self.choices);
            let (link, imported, call, session, asks) = (&link, &*imported, &call, session.as_str(), &asks);
            let attempt = Attempt { table, link, imported, call, to, choices, session, asks };
            let ended = attempt.run(incoming.as_mut(), outgoing.as_mut()).await;
            if let Some(instance) = to {
                asked.push(instance);
                self.note(instance, &ended, link);
            }
            drop(chosen);
            match ended {
                Ended::Answered(answer) => return Ok(answer),
                Ended::Failed(error) => return Err(error),
                Ended::NotTaken { error, .. } if tried >= TRIES => {
                    count(&self.table.counters.not_executed);
                    return Err(error);
                }
                Ended::NotTaken { error, gone } => refused = (!gone).then_some(error),
                Ended::Lost(reason) => {
                    count(&self.table.counters.unknown);
                    return Err(HandlerError::unknown(reason));
                }
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        unreachable!("the last try returns")
    }

    /// What the end of a call says of the instance that was chosen for it.
    fn note(&self, instance: u64, ended: &Ended, link: &Link) {
        match ended {
            Ended::NotTaken { gone: true, .. } => self.choices.lost(instance, Instant::now()),
            Ended::NotTaken { .. } if !link.is_lost() => self.choices.avoid(instance, Instant::now()),
            // Its calls end at once: without this it would seem to have the least to do of all.
            Ended::Lost(_) if !link.is_lost() => self.choices.lost(instance, Instant::now()),
            _ => {}
        }
    }

    /// The link, or the next one if that comes in time.
    async fn live_link(&self, call: &OwnedCall) -> Option<Arc<Link>> {
        let is_live = |link: &Option<Arc<Link>>| link.as_ref().is_some_and(|link| !link.is_lost());
        let patience = call.time_left().map_or(PATIENCE, |left| left.min(PATIENCE));
        let mut links = self.link.subscribe();
        let found = timeout(patience, links.wait_for(is_live)).await;
        found.ok()?.ok()?.clone()
    }
}
