//! What is done at each beat of a link, and when it ends: whose callers are gone, what everybody is told.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use bellrope::client::ErrorCode;
use tokio::time::timeout;

use super::{
    super::{running::Fault, sending::say},
    Instance, LEAVING, Said, Slot,
};
use crate::{
    counters::count,
    frame::{self, Down, DownKind, Up},
    times::EACH_HEARER,
};

impl Instance {
    /// This side stood still for so long: nobody else's silence is judged by that.
    pub(crate) fn stood_still(&self, still: Duration) {
        self.peers().stood_still(still, Instant::now());
    }

    /// Ends the calls of importing servers that are gone, and says to all others which calls are here.
    pub(crate) async fn beat(self: &Arc<Self>) {
        let now = Instant::now();
        let late = self.peers().sweep(now);
        for message in late {
            if let Ok((Up { from, call, .. }, _)) = frame::read::<Up<'_>>(&message.message) {
                let text = "the importing server's clock could not be asked in time: it is busy, or the way from here to it \
                            and back takes longer than 350 ms";
                self.refuse(from, call, &Fault::refused(ErrorCode::NotExecuted, text));
            }
        }
        let mut held = HashMap::<u64, Vec<u8>>::new();
        for (from, call) in self.calls().keys() {
            held.entry(*from).or_default().extend_from_slice(&call.to_le_bytes());
        }
        // Those that wait for a clock, too: their callers wait for as long as this side lives, and hear that they may not begin.
        for (from, call) in self.peers().waiting() {
            held.entry(from).or_default().extend_from_slice(&call.to_le_bytes());
        }
        let gone: HashSet<u64> = held.keys().copied().filter(|from| self.peers().is_gone(*from, now)).collect();
        if !gone.is_empty() {
            let orphans: Vec<_> = self.calls().extract_if(|(from, _), _| gone.contains(from)).collect();
            for (_, slot) in orphans {
                count(&self.counters.orphaned);
                slot.leave();
            }
        }
        for (from, calls) in held.into_iter().filter(|(from, _)| !gone.contains(from)) {
            // As many numbers as fit.
            for calls in calls.chunks(self.link.part() / 8 * 8) {
                if say(&self.link, from, 0, DownKind::Holding, calls).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Says to everybody how many calls run here, if that has changed: at each beat, and with many importing servers less
    /// often, so that NATS carries about a thousand of these messages a second for each instance.
    pub(crate) async fn say_load(&self) {
        let (now, running) = (Instant::now(), self.running());
        let pause = EACH_HEARER.saturating_mul(u32::try_from(self.peers().len()).unwrap_or(u32::MAX));
        {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            let is_soon = said.at.is_some_and(|at| now.saturating_duration_since(at) < pause);
            if said.running == running || is_soon {
                return;
            }
            *said = Said { running, at: Some(now) };
        }
        self.say_to_all(DownKind::Load { running: running as u64 }).await;
    }

    /// Says to everybody that this instance goes.
    pub(crate) async fn say_leaving(&self) {
        self.say_to_all(DownKind::Leaving).await;
    }

    async fn say_to_all(&self, what: DownKind<'_>) {
        let message = frame::write(&Down { from: self.link.id, call: 0, what }, &[]);
        // If the link is lost, nobody takes this instance for one that is there.
        let _ = self.link.publish(self.link.loads(), None, message).await;
    }

    /// Takes no further calls. Those that come still, and those that wait for a clock, are refused, and asked of somebody else.
    pub(crate) async fn begin_drain(&self) {
        self.draining.store(true, Relaxed);
        let waiting = self.peers().give_up();
        for came in waiting {
            if let Ok((Up { from, call, .. }, _)) = frame::read::<Up<'_>>(&came.message) {
                count(&self.counters.refused);
                self.report(from, call, Fault::going_away()).await;
            }
        }
    }

    /// Ends all calls, as nobody is to be reached who made them. Their callers may come back by another link.
    pub(crate) async fn leave_all(&self) {
        self.calls().values().for_each(Slot::leave);
        let _ = timeout(LEAVING, self.idle()).await;
    }

    /// Waits until no call runs any more.
    pub(crate) async fn idle(&self) {
        loop {
            let ended = self.ended.notified();
            if self.calls().is_empty() {
                return;
            }
            ended.await;
        }
    }
}
