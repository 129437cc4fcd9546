//! Which instance gets a call.
//!
//! Instances say what they offer when they are asked, and how many calls they have when that changes. What this server gave
//! them itself it knows better: of what an instance says, its own calls are taken off once, and counted as they are.
//!
//! Nothing here is a promise: an instance that is thought to be there and is not costs a call another try, because NATS says
//! that nobody listens. Where no instance fits, NATS chooses.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{message_type::FleetType, settings::Choice};

/// Most instances that are known.
const MOST_INSTANCES: usize = 4096;
/// Most pairs of an instance and a type that it offers.
const MOST_PLACES: usize = 65_536;
/// Most bytes of the name of its server.
const MOST_NAME: usize = 64;
/// Most sessions that are known, of which those are forgotten that were quiet for longest.
const MOST_SESSIONS: usize = 16_384;
/// An instance that has not said for so long what it offers is forgotten. It is asked every minute.
const FORGET: Duration = Duration::from_secs(200);
/// For so long nothing more goes to an instance that refused a call.
const AVOID: Duration = Duration::from_secs(1);

/// The instances, as far as they say what they have.
#[derive(Debug)]
pub(crate) struct Choices {
    choice: Choice,
    hasher: RandomState,
    known: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    instances: HashMap<u64, Row>,
    /// Who offers a type, by its name.
    places: HashMap<String, Vec<Place>>,
    /// Which instance has a session, and when it called last.
    sessions: HashMap<u64, (u64, Instant)>,
    draws: u64,
}

#[derive(Debug)]
struct Row {
    /// The name of its server, as it says, cut where it is too long.
    server: String,
    /// Calls of this server that it has.
    own: Arc<AtomicU64>,
    /// Calls of others that it has, as far as it said.
    others: u64,
    /// When it said last what it offers.
    seen: Instant,
    avoid_until: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
struct Place {
    instance: u64,
    style: u8,
    codec: u8,
    schema: u64,
}

/// An instance, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// 16 hexadecimal digits.
    pub(crate) id: String,
    pub(crate) server: String,
    /// Calls of the fleet that it has, and those of them that are of this server.
    pub(crate) calls: u64,
    pub(crate) own: u64,
    /// It has refused a call just now.
    pub(crate) is_avoided: bool,
}

/// An instance that was chosen. As long as this lives, it counts as having the call.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) instance: u64,
    own: Arc<AtomicU64>,
}

impl Drop for Chosen {
    fn drop(&mut self) {
        self.own.fetch_sub(1, Relaxed);
    }
}

impl Choices {
    pub(crate) fn new(choice: Choice) -> Self {
        Self { choice, hasher: RandomState::new(), known: Mutex::default() }
    }

    /// Whether it matters here what instances say of their load.
    pub(crate) fn hears_loads(&self) -> bool {
        self.choice != Choice::Queue
    }

    fn known(&self) -> MutexGuard<'_, Table> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An instance says that it offers these, and takes calls that are sent to it alone.
    pub(crate) fn learn(&self, (instance, server): (u64, &str), types: impl Iterator<Item = FleetType>, now: Instant) {
        let mut known = self.known();
        if !self.hears_loads() || !known.instances.contains_key(&instance) && known.instances.len() >= MOST_INSTANCES {
            return;
        }
        if known.instances.contains_key(&instance) {
            known.withdraw(instance);
        }
        let mut places: usize = known.places.values().map(Vec::len).sum();
        for FleetType { name, style, codec, schema } in types {
            if places < MOST_PLACES {
                places += 1;
                known.places.entry(name).or_default().push(Place { instance, style, codec, schema });
            }
        }
        let server = &server[..server.floor_char_boundary(MOST_NAME)];
        let new = || Row { server: server.to_owned(), own: Arc::default(), others: 0, seen: now, avoid_until: None };
        known.instances.entry(instance).or_insert_with(new).seen = now;
    }

    /// The instances that are known.
    pub(crate) fn instances(&self) -> Vec<Known> {
        let (now, known) = (Instant::now(), self.known());
        let shown = known.instances.iter().map(|(instance, row)| {
            let own = row.own.load(Relaxed);
            Known {
                id: format!("{instance:016x}"),
                server: row.server.clone(),
                calls: row.others.saturating_add(own),
                own,
                is_avoided: row.avoid_until.is_some_and(|until| now < until),
            }
        });
        shown.collect()
    }

    /// An instance says how many calls it has.
    pub(super) fn loaded(&self, instance: u64, running: u64) {
        if let Some(row) = self.known().instances.get_mut(&instance) {
            row.others = running.saturating_sub(row.own.load(Relaxed));
        }
    }

    /// An instance is gone, as far as can be seen from here.
    pub(super) fn forget(&self, instance: u64) {
        let mut known = self.known();
        known.withdraw(instance);
        known.instances.remove(&instance);
    }

    /// An instance has refused a call, and is there still.
    pub(super) fn avoid(&self, instance: u64, now: Instant) {
        if let Some(row) = self.known().instances.get_mut(&instance) {
            row.avoid_until = Some(now + AVOID);
        }
    }

    /// Forgets whom nobody has heard of for long.
    pub(super) fn sweep(&self, now: Instant) {
        let mut known = self.known();
        let is_old = |row: &Row| now.saturating_duration_since(row.seen) > FORGET;
        let old: Vec<_> = known.instances.iter().filter(|(_, row)| is_old(row)).map(|(id, _)| *id).collect();
        for instance in old {
            known.withdraw(instance);
            known.instances.remove(&instance);
        }
    }

    /// NATS chose this instance for a call of a session: it stays there, if it is nowhere yet.
    pub(super) fn settle(&self, session: &str, instance: u64, now: Instant) {
        let Some(session) = self.session(session) else { return };
        let mut known = self.known();
        if known.home(session, now).is_none() {
            known.settle(session, instance, now);
        }
    }

    /// The number of a session, where these matter. An empty text is none.
    fn session(&self, text: &str) -> Option<u64> {
        (self.choice == Choice::Sticky && !text.is_empty()).then(|| self.hasher.hash_one(text))
    }

    /// Chooses who gets a call: whoever has its session, else of two that are drawn the one that has less to do, and never
    /// one of those that had it before. `None` leaves it to NATS.
    pub(super) fn choose(&self, wanted: &FleetType, session: &str, tried: &[u64], now: Instant) -> Option<Chosen> {
        if !self.hears_loads() {
            return None;
        }
        let session = self.session(session);
        let mut known = self.known();
        let home = session.and_then(|session| known.home(session, now));
        let instance = match home {
            // It may be full for a moment, or have other types. Then somebody else gets this call, and not the session.
            Some(home) if known.offers(home, wanted) && !tried.contains(&home) => home,
            Some(_) => known.least(wanted, tried, now)?,
            None => {
                let instance = known.least(wanted, tried, now)?;
                session.into_iter().for_each(|session| known.settle(session, instance, now));
                instance
            }
        };
        let own = Arc::clone(&known.instances.get(&instance)?.own);
        own.fetch_add(1, Relaxed);
        Some(Chosen { instance, own })
    }
}

impl Table {
    /// An instance offers nothing any more.
    fn withdraw(&mut self, instance: u64) {
        self.places.retain(|_, places| {
            places.retain(|place| place.instance != instance);
            !places.is_empty()
        });
    }

    /// Who has a session and is there still.
    fn home(&mut self, session: u64, now: Instant) -> Option<u64> {
        let (instance, called) = self.sessions.get_mut(&session)?;
        *called = now;
        self.instances.contains_key(instance).then_some(*instance)
    }

    /// A session stays at this instance from now on.
    fn settle(&mut self, session: u64, instance: u64, now: Instant) {
        if self.sessions.len() >= MOST_SESSIONS && !self.sessions.contains_key(&session) {
            // Half of them at once, so that this is rare.
            let mut called: Vec<_> = self.sessions.values().map(|(_, called)| *called).collect();
            let (_, middle, _) = called.select_nth_unstable(MOST_SESSIONS / 2);
            let middle = *middle;
            self.sessions.retain(|_, (_, called)| *called > middle);
        }
        self.sessions.insert(session, (instance, now));
    }

    fn offers(&self, instance: u64, wanted: &FleetType) -> bool {
        let places = self.places.get(&wanted.name).into_iter().flatten();
        places.into_iter().any(|place| place.instance == instance && place.fits(wanted))
    }

    /// Of two that are drawn, the one that has less to do. Whoever always took the least of all would, with others that heard
    /// the same, run to one instance until it says so.
    fn least(&mut self, wanted: &FleetType, tried: &[u64], now: Instant) -> Option<u64> {
        let mut draws = self.draws;
        let mut drawn: [Option<(u64, u64)>; 2] = [None; 2];
        let mut seen = 0;
        for place in self.places.get(&wanted.name)?.iter().filter(|place| place.fits(wanted)) {
            let Some(row) = self.instances.get(&place.instance) else { continue };
            if tried.contains(&place.instance) || row.avoid_until.is_some_and(|until| now < until) {
                continue;
            }
            let load = row.others.saturating_add(row.own.load(Relaxed));
            // Each pair is as likely as any other (reservoir sampling), and so is their order.
            let at = if seen < 2 { seen } else { draw(&mut draws) % (seen + 1) };
            seen += 1;
            if let Some(slot) = usize::try_from(at).ok().and_then(|at| drawn.get_mut(at)) {
                *slot = Some((load, place.instance));
            }
        }
        let swap = draw(&mut draws).is_multiple_of(2);
        self.draws = draws;
        match drawn {
            [Some(one), Some(other)] => {
                let (first, second) = if swap { (other, one) } else { (one, other) };
                Some(if second.0 < first.0 { second.1 } else { first.1 })
            }
            [one, other] => one.or(other).map(|(_, instance)| instance),
        }
    }
}

impl Place {
    fn fits(&self, wanted: &FleetType) -> bool {
        self.style == wanted.style && wanted.means_the_same(self.codec, self.schema)
    }
}

/// The next number of a sequence without pattern: splitmix64.
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> FleetType {
        FleetType { name: "ai.chat".into(), style: 0, codec: 2, schema: 7 }
    }

    fn with(choice: Choice, instances: &[u64], now: Instant) -> Choices {
        let choices = Choices::new(choice);
        instances.iter().for_each(|instance| choices.learn((*instance, "there"), [wanted()].into_iter(), now));
        choices
    }

    #[test]
    fn whoever_has_less_to_do_gets_the_call_and_what_was_given_to_it_counts_at_once() {
        let now = Instant::now();
        let choices = with(Choice::Least, &[1, 2], now);
        choices.loaded(1, 5);
        let held: Vec<_> = (0..5).map(|_| choices.choose(&wanted(), "", &[], now).unwrap()).collect();
        assert!(held.iter().all(|chosen| chosen.instance == 2), "{held:?}");
        // It says the same itself: its five are not counted twice.
        choices.loaded(2, 5);
        choices.loaded(1, 6);
        assert_eq!(choices.choose(&wanted(), "", &[], now).unwrap().instance, 2);
        drop(held);
        choices.loaded(1, 0);
        choices.loaded(2, 1);
        assert_eq!(choices.choose(&wanted(), "", &[], now).unwrap().instance, 1);
    }

    #[test]
    fn of_many_that_have_the_same_to_do_each_gets_its_share() {
        let now = Instant::now();
        let choices = with(Choice::Least, &[1, 2, 3, 4], now);
        let mut counts = [0; 5];
        for _ in 0..4000 {
            counts[choices.choose(&wanted(), "", &[], now).unwrap().instance as usize] += 1;
        }
        assert!(counts[1..].iter().all(|count| (700..1300).contains(count)), "{counts:?}");
    }

    #[test]
    fn who_refused_is_left_alone_for_a_second_and_who_is_gone_or_was_tried_gets_nothing() {
        let now = Instant::now();
        let choices = with(Choice::Least, &[1, 2], now);
        let chosen = |tried: &[u64], at| choices.choose(&wanted(), "", tried, at).map(|chosen| chosen.instance);
        choices.avoid(1, now);
        assert_eq!(chosen(&[], now), Some(2));
        assert_eq!(chosen(&[2], now), None, "NATS chooses");
        assert_eq!(chosen(&[2], now + AVOID), Some(1));
        choices.forget(2);
        assert_eq!(chosen(&[], now + AVOID), Some(1));
        choices.sweep(now + FORGET + AVOID);
        assert_eq!(chosen(&[], now + AVOID), None);
    }

    #[test]
    fn a_session_stays_until_its_instance_goes_also_when_that_refuses_once() {
        let now = Instant::now();
        let choices = with(Choice::Sticky, &[1, 2, 3], now);
        let chosen = |tried: &[u64]| choices.choose(&wanted(), "window 3", tried, now).unwrap().instance;
        let home = chosen(&[]);
        choices.loaded(home, 1000);
        choices.avoid(home, now);
        assert_ne!(chosen(&[home]), home);
        assert!((0..100).all(|_| chosen(&[]) == home));
        choices.forget(home);
        let next = chosen(&[]);
        assert_ne!(next, home);
        choices.learn((home, "there"), [wanted()].into_iter(), now);
        choices.loaded(next, 1000);
        assert!((0..100).all(|_| chosen(&[]) == next));
    }

    #[test]
    fn a_session_stays_where_nats_brought_it_before_anybody_was_known() {
        let now = Instant::now();
        let choices = Choices::new(Choice::Sticky);
        choices.settle("window 3", 2, now);
        [1, 2, 3].iter().for_each(|instance| choices.learn((*instance, "there"), [wanted()].into_iter(), now));
        choices.settle("window 3", 1, now);
        assert!((0..100).all(|_| choices.choose(&wanted(), "window 3", &[], now).unwrap().instance == 2));
    }

    #[test]
    fn nobody_gets_a_call_that_it_would_refuse_for_its_version_and_a_queue_chooses_nobody() {
        let now = Instant::now();
        let choices = with(Choice::Least, &[1], now);
        for other in [FleetType { schema: 8, ..wanted() }, FleetType { style: 1, ..wanted() }] {
            assert!(choices.choose(&other, "", &[], now).is_none(), "{other:?}");
        }
        assert!(with(Choice::Queue, &[1], now).choose(&wanted(), "", &[], now).is_none());
    }

    #[test]
    fn what_is_known_is_bounded() {
        let now = Instant::now();
        let choices = Choices::new(Choice::Sticky);
        let many = || (0..40).map(|n| FleetType { name: format!("type {n}"), ..wanted() });
        for instance in 0..MOST_INSTANCES as u64 + 10 {
            choices.learn((instance, ""), many().take(if instance < 1700 { 40 } else { 0 }), now);
        }
        choices.learn((0, ""), [wanted()].into_iter(), now);
        for session in 0..MOST_SESSIONS + 10 {
            let at = now + Duration::from_micros(session as u64);
            choices.choose(&wanted(), &session.to_string(), &[], at).unwrap();
        }
        let known = choices.known();
        assert_eq!(known.instances.len(), MOST_INSTANCES);
        assert!(known.places.values().map(Vec::len).sum::<usize>() <= MOST_PLACES);
        assert!(known.sessions.len() <= MOST_SESSIONS);
        // The latest ones are still there.
        let latest = choices.hasher.hash_one((MOST_SESSIONS + 9).to_string().as_str());
        assert!(known.sessions.contains_key(&latest));
    }
}
