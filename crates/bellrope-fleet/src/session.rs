//! What happens while one link lives.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use async_nats::{Message, Subscriber};
use bellrope::AsyncClient;
use futures_util::StreamExt as _;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    counters::{Counters, count},
    importing::{Importer, Imports},
    link::{FleetError, Link, Lost, PROBE},
    offering::{Guests, Instance, Offers},
    services::{Identity, Info, Offered, Question, SERVICE, now_in_words},
    settings::FleetSettings,
    signing::Trust,
    times::BEAT,
};

/// How often the local server is asked what it serves.
const LOOK: Duration = Duration::from_secs(1);
/// How often instances are asked what they offer, beside when one says that this has changed.
const ASK: Duration = Duration::from_secs(60);
/// How long it may take, beside what it takes from here to NATS, until importing servers have heard that an instance leaves.
const HEARS: Duration = Duration::from_millis(100);
/// How long an instance that leaves takes calls that NATS draws for it, once it has said how many it takes still.
const LAST_DRAWN: Duration = Duration::from_secs(2);
/// How long after an instance was lost they are asked once more; each further pause is four times as long.
const AGAIN: Duration = Duration::from_secs(1);
/// How long after news they are asked: many instances that start at once are asked once.
const NEWS: Duration = Duration::from_millis(100);
/// How long the first answers may take before the server says that it is ready.
const FIRST_ANSWERS: Duration = Duration::from_millis(250);

/// What the server does in its fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FleetPhase {
    Serving,
    /// It takes no further calls from others.
    Draining,
    /// And none of others runs any more.
    Drained,
    Stopped,
}

/// What outlives links.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) settings: FleetSettings,
    /// The local server.
    pub(crate) socket: PathBuf,
    pub(crate) importer: Arc<Importer>,
    pub(crate) imports: Arc<Imports>,
    pub(crate) offers: Arc<Offers>,
    /// Whose word on who asks is taken.
    pub(crate) trust: Arc<Trust>,
    /// Of this server in its fleet, whatever link it has.
    pub(crate) number: u64,
    pub(crate) counters: Arc<Counters>,
    pub(crate) phase: watch::Sender<FleetPhase>,
    /// Whether the first answers are in.
    pub(crate) settled: watch::Sender<bool>,
    /// Whether there is a link.
    pub(crate) linked: AtomicBool,
    /// What this side does for the fleet by way of the link that lives.
    pub(crate) instance: Mutex<Weak<Instance>>,
}

impl Membership {
    /// Calls of others that run here.
    pub(crate) fn running(&self) -> usize {
        let instance = self.instance.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        instance.map_or(0, |instance| instance.running())
    }
}

/// One link, and what both sides do with it.
pub(crate) struct FleetSession {
    membership: Arc<Membership>,
    link: Arc<Link>,
    inbox: Subscriber,
    instance: Arc<Instance>,
}

impl FleetSession {
    /// Connects to NATS and to the local server.
    pub(crate) async fn open(membership: &Arc<Membership>) -> Result<Self, FleetError> {
        let settings = &membership.settings;
        let guests = Guests::open(membership.socket.clone()).await.map_err(|error| FleetError::Local {
            what: "the fleet cannot reach its own server",
            reason: error.to_string(),
        })?;
        let client = guests.fleet().clone();
        let (link, inbox) = Link::open(settings, &membership.counters.sent).await?;
        let link = Arc::new(link);
        let begun = Self::begin(membership, &link, guests, client).await;
        match begun {
            Ok(instance) => Ok(Self { membership: Arc::clone(membership), link, inbox, instance }),
            Err(Lost) => {
                link.end().await;
                Err(link_lost(settings))
            }
        }
    }

    /// Begins all that is done by way of a link.
    async fn begin(
        membership: &Arc<Membership>,
        link: &Arc<Link>,
        guests: Guests,
        client: AsyncClient,
    ) -> Result<Arc<Instance>, Lost> {
        let settings = &membership.settings;
        let (offers, counters, trust) =
            (Arc::clone(&membership.offers), Arc::clone(&membership.counters), Arc::clone(&membership.trust));
        let instance = Instance::new(Arc::clone(link), Arc::new(guests), offers, settings, counters, trust);
        *membership.instance.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&instance);
        if membership.offers.is_wanted() {
            answer_questions(membership, link, &instance).await?;
            link.spawn(offer(Arc::clone(membership), Arc::clone(link), client, Arc::clone(&instance)));
        }
        if membership.imports.is_wanted() {
            let news = link.subscribe(link.news()).await?;
            if membership.importer.choices.hears_loads() {
                let loads = link.subscribe(link.loads()).await?;
                link.spawn(hear_loads(Arc::clone(membership), loads));
            }
            link.spawn(discover(Arc::clone(membership), Arc::clone(link), news));
        } else {
            membership.settled.send_replace(true);
        }
        link.spawn(beat(Arc::clone(membership), Arc::clone(link), Arc::clone(&instance)));
        count(&membership.counters.links);
        Ok(instance)
    }

    /// Runs until the link is lost, or the server leaves the fleet.
    pub(crate) async fn run(mut self) {
        let membership = Arc::clone(&self.membership);
        membership.importer.linked(&self.link);
        let mut phases = membership.phase.subscribe();
        let link = Arc::clone(&self.link);
        let lost = link.lost();
        tokio::pin!(lost);
        loop {
            tokio::select! {
                message = self.inbox.next() => match message {
                    Some(message) => self.take(&message),
                    None => break,
                },
                () = &mut lost => break,
                () = reached(&mut phases, FleetPhase::Stopped) => {
                    self.link.flush().await;
                    break;
                }
            }
        }
        self.link.close();
        self.instance.leave_all().await;
        membership.importer.unlinked();
        membership.offers.clear();
        self.link.end().await;
    }

    fn take(&self, message: &Message) {
        // `PREFIX.to.ID.WHAT`: nobody else's subjects reach this inbox.
        let what = message.subject.split('.').nth(3).unwrap_or_default();
        match what {
            "down" => self.membership.importer.take(&self.link, message),
            "up" => self.instance.take(message),
            PROBE => self.link.came_back(),
            "info" => match Info::read(&message.payload, &self.membership.settings.prefix) {
                Some(info) if info.id != format!("{:016x}", self.link.id) => self.membership.imports.learn(&info),
                Some(_) => {}
                // Services of others answer as well, of other fleets too.
                None if message.status.is_some() => {}
                None => count(&self.membership.counters.foreign),
            },
            _ => {}
        }
    }
}

/// Waits until the server is as far as that.
async fn reached(phases: &mut watch::Receiver<FleetPhase>, phase: FleetPhase) {
    let _ = phases.wait_for(|now| *now >= phase).await;
}

fn link_lost(settings: &FleetSettings) -> FleetError {
    FleetError::NoServer { servers: settings.shown_servers(), reason: "the connection was lost at once".to_owned() }
}

/// Says that this side lives, and ends what is lost, as long as the link lives.
async fn beat(membership: Arc<Membership>, link: Arc<Link>, instance: Arc<Instance>) {
    let mut ticks = interval(BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Who stood still itself has not read yet what others said meanwhile.
    let stood_still = |still| {
        membership.importer.stood_still(still);
        instance.stood_still(still);
    };
    let beats = async {
        loop {
            ticks.tick().await;
            membership.importer.beat(&link).await;
            membership.imports.follow(Instant::now());
            instance.beat().await;
            instance.say_load().await;
        }
    };
    noticing(stood_still, beats).await;
}

/// Does what is to be done, and tells before that for how long this thread stood still, if it did. To wait for NATS is not
/// to stand still: what others say is read meanwhile.
async fn noticing<T>(stood_still: impl Fn(Duration), doing: impl Future<Output = T>) -> T {
    let mut ticks = interval(BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(doing);
    loop {
        tokio::select! {
            biased;
            due = ticks.tick() => {
                let still = due.elapsed();
                if still > BEAT {
                    stood_still(still);
                }
            }
            done = &mut doing => return done,
        }
    }
}

/// Hears what instances have to do.
async fn hear_loads(membership: Arc<Membership>, mut loads: Subscriber) {
    while let Some(message) = loads.next().await {
        membership.importer.take_load(&message);
    }
}

/// Offers what the local server serves.
async fn offer(membership: Arc<Membership>, link: Arc<Link>, client: AsyncClient, instance: Arc<Instance>) {
    let mut phases = membership.phase.subscribe();
    let mut takers = JoinSet::new();
    let mut stops = HashMap::<String, watch::Sender<bool>>::new();
    let Ok(own) = link.subscribe(link.calls_at(link.id, ">")).await else { return };
    // Never stopped: a call of whoever has not heard yet that this instance goes is refused as long as the link lives.
    let (_stop_own, stopped) = watch::channel(false);
    link.spawn(take_calls(own, Arc::clone(&instance), stopped));
    let mut ticks = interval(LOOK);
    let mut is_first = true;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = reached(&mut phases, FleetPhase::Draining) => break,
        }
        while takers.try_join_next().is_some() {}
        let (new, gone) = membership.offers.update(&link, client.offers(), |name| membership.imports.has(name));
        for name in &gone {
            stops.remove(name);
        }
        let changed = !new.is_empty();
        if std::mem::take(&mut is_first) && !changed {
            tracing::warn!(
                target: "bellrope::fleet",
                "nothing is offered: of what this server serves fleet.offer means nothing (types that steer a server never are)"
            );
        }
        for offered in new {
            let Ok(calls) = link.subscribe_in_group(offered.subject.clone()).await else { return };
            let (stop, stopped) = watch::channel(false);
            stops.insert(offered.imported.name.clone(), stop);
            takers.spawn(take_calls(calls, Arc::clone(&instance), stopped));
        }
        if changed {
            link.flush().await;
            let _ = link.publish(link.news(), None, Vec::new()).await;
        }
    }
    // What NATS has sent on its way here is still taken, and what others send until they have heard of it; what comes after that
    // goes to somebody else.
    instance.say_leaving().await;
    for stop in stops.values() {
        stop.send_replace(true);
    }
    let took = link.round_trip().await;
    sleep((3 * took + HEARS).min(Duration::from_secs(1))).await;
    stops.clear();
    while takers.join_next().await.is_some() {}
    instance.begin_drain().await;
    instance.idle().await;
    // What was said last has come to NATS when this comes back.
    link.round_trip().await;
    membership.phase.send_if_modified(|phase| {
        let drained = *phase == FleetPhase::Draining;
        if drained {
            *phase = FleetPhase::Drained;
        }
        drained
    });
    // Until the link ends.
    std::future::pending::<()>().await;
}

/// Takes calls of one type until its sender of `stopped` is gone, and those that were on their way then. `stopped` is told
/// some time before that it will be.
async fn take_calls(mut calls: Subscriber, instance: Arc<Instance>, mut stopped: watch::Receiver<bool>) {
    // In all, and since it is known that there is an end.
    let (mut came, mut of_late, mut is_told) = (0, 0, false);
    loop {
        tokio::select! {
            call = calls.next() => match call {
                Some(message) => {
                    (came, of_late) = (came + 1, of_late + u64::from(is_told));
                    instance.receive(&message);
                }
                None => return,
            },
            told = stopped.changed() => match told {
                Ok(()) => is_told = true,
                Err(_) => break,
            },
        }
    }
    let rest = async |calls: &mut Subscriber| {
        while let Some(message) = calls.next().await {
            instance.receive(&message);
        }
    };
    // The client of NATS forgets a subscription as soon as it has ended it: what NATS has drawn meanwhile is lost. Where calls
    // come, both are told after how many it ends, more than can be on their way, and see its end at the same one.
    if of_late > 0 && calls.unsubscribe_after(came + of_late + 2).await.is_ok() {
        let ended = timeout(LAST_DRAWN, rest(&mut calls)).await;
        if ended.is_ok() {
            return;
        }
    }
    if calls.drain().await.is_ok() {
        rest(&mut calls).await;
    }
}

/// Asks the instances what they offer: at once, when one has something new, and now and then.
async fn discover(membership: Arc<Membership>, link: Arc<Link>, mut news: Subscriber) {
    let question = format!("$SRV.INFO.{SERVICE}");
    let mut next = ASK;
    loop {
        let (reply, asked) = (link.inbox(link.id, "info"), Instant::now());
        if link.publish(question.clone(), Some(reply), Vec::new()).await.is_err() {
            return;
        }
        if !*membership.settled.borrow() {
            sleep(FIRST_ANSWERS).await;
            membership.settled.send_replace(true);
        }
        tokio::select! {
            () = sleep(next) => next = (next * 4).min(ASK),
            // It may be that it only stood still: it is asked a few times.
            () = membership.importer.wants_instances() => {
                sleep(AGAIN.saturating_sub(asked.elapsed()).max(NEWS)).await;
                next = AGAIN;
            }
            said = news.next() => {
                if said.is_none() {
                    return;
                }
                sleep(NEWS).await;
                while futures_util::FutureExt::now_or_never(news.next()).flatten().is_some() {}
            }
        }
    }
}

/// Answers whoever asks NATS for services.
async fn answer_questions(
    membership: &Arc<Membership>,
    link: &Arc<Link>,
    instance: &Arc<Instance>,
) -> Result<(), Lost> {
    let started: Arc<str> = now_in_words().into();
    let nats: Arc<str> = link.nats_server().into();
    for question in [Question::Ping, Question::Info, Question::Stats] {
        for subject in question.subjects(link.id) {
            let mut asked = link.subscribe(subject).await?;
            let (membership, link, instance) = (Arc::clone(membership), Arc::clone(link), Arc::clone(instance));
            let (started, nats) = (Arc::clone(&started), Arc::clone(&nats));
            let tasks = Arc::clone(&link);
            tasks.spawn(async move {
                while let Some(Message { reply, .. }) = asked.next().await {
                    let Some(reply) = reply else { continue };
                    let settings = &membership.settings;
                    let (prefix, server) = (settings.prefix.as_str(), settings.name.as_str());
                    let identity = Identity {
                        id: link.id,
                        member: membership.number,
                        prefix,
                        server,
                        started: &started,
                        running: instance.running(),
                        is_draining: *membership.phase.borrow() >= FleetPhase::Draining,
                        nats: &nats,
                        links: membership.counters.links.load(Relaxed),
                    };
                    let all = membership.offers.all();
                    let all = all.iter().map(|offered| -> &Offered { offered });
                    let answer = identity.answer(question, &link.group(), all, link.max_payload());
                    if link.publish(reply.to_string(), None, answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_wait_is_not_to_stand_still() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let told = Mutex::new(Duration::ZERO);
        let note = |still: Duration| *told.lock().unwrap() += still;
        let waited = 10 * BEAT;
        runtime.block_on(noticing(note, async { sleep(waited).await }));
        // A loaded machine stands still at times, but not all the time that is waited.
        assert!(*told.lock().unwrap() < waited - 2 * BEAT, "{told:?}");
        let before = *told.lock().unwrap();
        runtime.block_on(noticing(note, async {
            sleep(BEAT / 2).await;
            std::thread::sleep(4 * BEAT);
            sleep(BEAT / 2).await;
        }));
        assert!(*told.lock().unwrap() - before >= 2 * BEAT, "{told:?}");
    }
}
