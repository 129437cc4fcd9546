//! Forwards calls of this server to the fleet.

use std::{sync::Arc, time::Duration};

use async_nats::Message;
use bellrope::server::{ChunkReceiver, ChunkSender, HandlerError, OwnedCall};
use tokio::{sync::watch, time::timeout};

use super::{
    attempt::{Attempt, Ended},
    calls::Table,
};
use crate::{
    clock::Clock,
    counters::{Counters, count},
    link::Link,
    message_type::FleetType,
};

/// How often a call is offered to the fleet, if it is proven each time that nobody has run it.
const TRIES: u32 = 5;
/// The first pause between two of them; each is twice as long as the one before. Interest in a type that came just now has
/// then reached all servers of a cluster, and who asks at once again after `NotExecuted` asks nobody to death.
const PAUSE: Duration = Duration::from_millis(5);
/// How long a call waits for a link that is being made.
const PATIENCE: Duration = Duration::from_secs(1);
/// Forwards calls to the fleet.
#[derive(Debug)]
pub(crate) struct Importer {
    table: Table,
    link: watch::Sender<Option<Arc<Link>>>,
}

impl Importer {
    /// `name` is that of this server, told with each call.
    pub(crate) fn new(name: String, clock: Clock, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { table: Table::new(name, clock, counters), link: watch::Sender::new(None) })
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

    /// Ends what is lost, and says to everybody who has calls of this side that it lives.
    pub(crate) async fn beat(&self, link: &Link) {
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
        let mut pause = PAUSE;
        for tried in 1.. {
            let Some(link) = self.live_link(&call).await else {
                return Err(HandlerError::not_executed("there is no connection to NATS"));
            };
            let attempt = Attempt { table: &self.table, link: &link, imported: &imported, call: &call };
            match attempt.run(incoming.as_mut(), outgoing.as_mut()).await {
                Ended::Answered(answer) => return Ok(answer),
                Ended::Failed(error) => return Err(error),
                Ended::NotTaken(error) if tried >= TRIES => {
                    count(&self.table.counters.not_executed);
                    return Err(error);
                }
                Ended::NotTaken(_) => {}
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

    /// The link, or the next one if that comes in time.
    async fn live_link(&self, call: &OwnedCall) -> Option<Arc<Link>> {
        let is_live = |link: &Option<Arc<Link>>| link.as_ref().is_some_and(|link| !link.is_lost());
        let patience = call.time_left().map_or(PATIENCE, |left| left.min(PATIENCE));
        let mut links = self.link.subscribe();
        let found = timeout(patience, links.wait_for(is_live)).await;
        found.ok()?.ok()?.clone()
    }
}
