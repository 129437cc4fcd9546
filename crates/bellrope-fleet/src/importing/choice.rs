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

use crate::{frame::start_of, message_type::FleetType, settings::Choice};

/// Most instances that are known.
const MOST_INSTANCES: usize = 4096;
/// Most pairs of an instance and a type that it offers.
const MOST_PLACES: usize = 65_536;
/// Most bytes of the name of its server.
const MOST_NAME: usize = 64;
/// Most sessions that are known, of which those are forgotten that were quiet for longest.
const MOST_SESSIONS: usize = 16_384;
/// An instance that has not said for so long what it offers is forgotten. It is asked every minute.
pub(super) const FORGET: Duration = Duration::from_secs(200);
/// An instance that lost its link comes back with another one within this time, or not at all: until then its sessions wait for
/// it, and their calls go elsewhere.
const BACK: Duration = Duration::from_secs(5);
/// Most instances of which that is awaited.
const MOST_LOST: usize = 256;
/// For so long nothing more goes to an instance that refused a call.
const AVOID: Duration = Duration::from_secs(1);

/// The instances, as far as they say what they have.
#[derive(Debug)]
pub(crate) struct Choices {
    choice: Choice,
    /// Whether an instance that refused a call just now is better than one that NATS draws, where there is no other.
    knows_best: bool,
    hasher: RandomState,
    known: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// By the number of its link.
    instances: HashMap<u64, Row>,
    /// The link of each instance, by the number that it keeps whatever link it has.
    links: HashMap<u64, u64>,
    /// Instances whose link was lost: which one, and when. Each may come back with another one.
    lost: HashMap<u64, (u64, Instant)>,
    /// Who offers a type, by its name.
    places: HashMap<String, Vec<Place>>,
    /// Which instance has a session, by the number that it keeps, and when it called last.
    sessions: HashMap<u64, (u64, Instant)>,
    draws: u64,
}

/// An instance that says what it offers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Learnt<'a> {
    /// The number of its link.
    pub(crate) instance: u64,
    /// The number that it keeps when it has another link.
    pub(crate) member: u64,
    /// The name of its server, as it says.
    pub(crate) server: &'a str,
}

#[derive(Debug)]
struct Row {
    /// The name of its server, as it says, cut where it is too long.
    server: String,
    /// The number that the instance keeps.
    member: u64,
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
pub(crate) struct KnownInstance {
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
        Self { choice, knows_best: false, hasher: RandomState::new(), known: Mutex::default() }
    }

    /// The same for a server that signs its calls: it leaves one to NATS only where it knows nobody.
    pub(crate) fn signing(self, signs: bool) -> Self {
        Self { knows_best: signs, ..self }
    }

    /// Whether it matters here what instances say of their load.
    pub(crate) fn hears_loads(&self) -> bool {
        self.choice != Choice::Queue
    }

    fn known(&self) -> MutexGuard<'_, Table> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An instance says that it offers these, and takes calls that are sent to its link alone.
    pub(crate) fn learn(&self, learnt: Learnt<'_>, types: impl Iterator<Item = FleetType>, now: Instant) {
        let Learnt { instance, member, server } = learnt;
        let mut known = self.known();
        // What it has now is another link than before: that one is gone.
        if let Some(before) = known.links.get(&member).copied().filter(|before| *before != instance) {
            known.remove(before);
        }
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
        let server = start_of(server, MOST_NAME);
        let new =
            || Row { member, server: server.to_owned(), own: Arc::default(), others: 0, seen: now, avoid_until: None };
        known.instances.entry(instance).or_insert_with(new).seen = now;
        if known.links.insert(member, instance) != Some(instance) {
            // Where NATS brought a session before anybody had heard of the instance, it is known by its link.
            known.sessions.values_mut().filter(|(home, _)| *home == instance).for_each(|(home, _)| *home = member);
        }
        known.lost.remove(&member);
    }

    /// Whether a session names an instance that was not heard of, or not since it lost its link.
    pub(super) fn misses(&self, session: &str) -> bool {
        self.hears_loads() && place_in(session).is_some_and(|place| !self.known().links.contains_key(&place))
    }

    /// Whether an instance lost a call or its link just now, and may be there still.
    pub(super) fn awaits(&self, now: Instant) -> bool {
        self.hears_loads() && self.known().lost.values().any(|(_, at)| now.saturating_duration_since(*at) <= BACK)
    }

    /// Whether an instance offers just this, or one that lost its link may come back with it.
    pub(super) fn is_offered(&self, offered: &FleetType, now: Instant) -> bool {
        let known = self.known();
        let is_awaited = |(_, at): &(u64, Instant)| now.saturating_duration_since(*at) <= BACK;
        let FleetType { name, style, codec, schema } = offered;
        let is_it = |place: &Place| (place.style, place.codec, place.schema) == (*style, *codec, *schema);
        known.lost.values().any(is_awaited) || known.places.get(name).is_some_and(|places| places.iter().any(is_it))
    }

    /// The instances that are known.
    pub(crate) fn instances(&self) -> Vec<KnownInstance> {
        let (now, known) = (Instant::now(), self.known());
        let shown = known.instances.iter().map(|(instance, row)| {
            let own = row.own.load(Relaxed);
            KnownInstance {
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

    /// An instance says that it goes: its sessions move at once.
    pub(super) fn left(&self, instance: u64) {
        let mut known = self.known();
        known.remove(instance);
        known.lost.retain(|_, (link, _)| *link != instance);
    }

    /// An instance is gone, as far as can be seen from here. It may be its link alone.
    pub(super) fn lost(&self, instance: u64, now: Instant) {
        let mut known = self.known();
        let Some(row) = known.remove(instance) else { return };
        known.lost.retain(|_, (_, at)| now.saturating_duration_since(*at) <= BACK);
        if known.lost.len() < MOST_LOST {
            known.lost.insert(row.member, (instance, now));
        }
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
            known.remove(instance);
        }
    }

    /// NATS chose this instance for a call of a session: it stays there, if it is nowhere yet.
    pub(super) fn settle(&self, session: &str, instance: u64, now: Instant) {
        let Some(session) = self.session(session) else { return };
        let mut known = self.known();
        if matches!(known.home(session, now), Home::None | Home::Gone) {
            known.settle(session, instance, now);
        }
    }

    /// The number of a session, where these matter. An empty text is none.
    fn session(&self, text: &str) -> Option<u64> {
        (self.choice == Choice::Sticky && !text.is_empty()).then(|| self.hasher.hash_one(text))
    }

    /// Chooses who gets a call: whom its session names, else whoever has its session, else of two that are drawn the one that has
    /// less to do, and never one of those that had it before. `None` leaves it to NATS.
    pub(super) fn choose(&self, wanted: &FleetType, session: &str, tried: &[u64], now: Instant) -> Option<Chosen> {
        if !self.hears_loads() {
            return None;
        }
        let mut known = self.known();
        let named = place_in(session).and_then(|place| known.links.get(&place).copied());
        let session = self.session(session);
        let home = named.map(Home::At);
        let home = home.unwrap_or_else(|| session.map_or(Home::None, |session| known.home(session, now)));
        let instance = match home {
            // It may be full for a moment, or have other types. Then somebody else gets this call, and not the session.
            Home::At(home) if known.offers(home, wanted) && !tried.contains(&home) => home,
            Home::At(_) => known.least(wanted, tried, now, self.knows_best)?,
            Home::Awaited => {
                let stand_in = session.and_then(|session| known.stand_in(session, wanted, tried, now));
                stand_in.or_else(|| known.least(wanted, tried, now, self.knows_best))?
            }
            Home::Gone | Home::None => {
                let is_gone = session.filter(|_| home == Home::Gone);
                let stand_in = is_gone.and_then(|session| known.stand_in(session, wanted, tried, now));
                let instance = stand_in.or_else(|| known.least(wanted, tried, now, self.knows_best))?;
                session.into_iter().for_each(|session| known.settle(session, instance, now));
                instance
            }
        };
        let own = Arc::clone(&known.instances.get(&instance)?.own);
        own.fetch_add(1, Relaxed);
        Some(Chosen { instance, own })
    }
}

/// Where a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Home {
    /// At the instance with this link.
    At(u64),
    /// At one whose link was lost just now.
    Awaited,
    /// Where it was, nobody is any more.
    Gone,
    /// It was nowhere yet.
    None,
}

impl Table {
    /// A link is there no more.
    fn remove(&mut self, instance: u64) -> Option<Row> {
        self.withdraw(instance);
        let row = self.instances.remove(&instance)?;
        if self.links.get(&row.member) == Some(&instance) {
            self.links.remove(&row.member);
        }
        Some(row)
    }

    /// An instance offers nothing any more.
    fn withdraw(&mut self, instance: u64) {
        self.places.retain(|_, places| {
            places.retain(|place| place.instance != instance);
            !places.is_empty()
        });
    }

    /// Who has a session, if that is there still or may come back.
    fn home(&mut self, session: u64, now: Instant) -> Home {
        let Some((member, called)) = self.sessions.get_mut(&session) else { return Home::None };
        *called = now;
        let is_awaited = |(_, at): &(u64, Instant)| now.saturating_duration_since(*at) <= BACK;
        match self.links.get(member) {
            Some(link) => Home::At(*link),
            None if self.lost.get(member).is_some_and(is_awaited) => Home::Awaited,
            None => Home::Gone,
        }
    }

    /// A session stays at this instance from now on.
    fn settle(&mut self, session: u64, instance: u64, now: Instant) {
        // One that nobody has heard of yet is known by its link until then.
        let member = self.instances.get(&instance).map_or(instance, |row| row.member);
        if self.sessions.len() >= MOST_SESSIONS && !self.sessions.contains_key(&session) {
            // Half of them at once, so that this is rare.
            let mut called: Vec<_> = self.sessions.values().map(|(_, called)| *called).collect();
            let (_, middle, _) = called.select_nth_unstable(MOST_SESSIONS / 2);
            let middle = *middle;
            self.sessions.retain(|_, (_, called)| *called > middle);
        }
        self.sessions.insert(session, (member, now));
    }

    fn offers(&self, instance: u64, wanted: &FleetType) -> bool {
        let places = self.places.get(&wanted.name).into_iter().flatten();
        places.into_iter().any(|place| place.instance == instance && place.fits(wanted))
    }

    /// Who has a session's calls while its own instance is awaited, and has the session if that stays away: the same for all of
    /// them, so that its cache is warm after the first.
    fn stand_in(&self, session: u64, wanted: &FleetType, tried: &[u64], now: Instant) -> Option<u64> {
        let places = self.places.get(&wanted.name)?.iter().filter(|place| place.fits(wanted));
        let ready = places.filter_map(|place| {
            let row = self.instances.get(&place.instance).filter(|_| !tried.contains(&place.instance))?;
            let is_avoided = row.avoid_until.is_some_and(|until| now < until);
            (!is_avoided).then_some((draw(&mut (session ^ row.member)), place.instance))
        });
        ready.max().map(|(_, instance)| instance)
    }

    /// Of two that are drawn, the one that has less to do; of those that refused just now only if there is no other, and if
    /// `or_avoided`. Whoever always took the least of all would, with others that heard the same, run to one instance until it
    /// says so.
    fn least(&mut self, wanted: &FleetType, tried: &[u64], now: Instant, or_avoided: bool) -> Option<u64> {
        let is_avoided = |row: &Row| row.avoid_until.is_some_and(|until| now < until);
        let least = self.least_of(wanted, tried, |row| !is_avoided(row));
        if or_avoided { least.or_else(|| self.least_of(wanted, tried, is_avoided)) } else { least }
    }

    fn least_of(&mut self, wanted: &FleetType, tried: &[u64], is_one: impl Fn(&Row) -> bool) -> Option<u64> {
        let mut draws = self.draws;
        let mut drawn: [Option<(u64, u64)>; 2] = [None; 2];
        let mut seen = 0;
        for place in self.places.get(&wanted.name)?.iter().filter(|place| place.fits(wanted)) {
            let Some(row) = self.instances.get(&place.instance) else { continue };
            if tried.contains(&place.instance) || !is_one(row) {
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
        match wanted.asks_for_schema() {
            true => wanted.has_schema(self.codec, self.schema),
            false => self.style == wanted.style && wanted.means_the_same(self.codec, self.schema),
        }
    }
}

/// The number of the instance that a session names: what is kept there for the caller is nowhere else.
fn place_in(session: &str) -> Option<u64> {
    let (_, place) = session.rsplit_once('@')?;
    let is_place = place.len() == 16 && place.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_place.then(|| u64::from_str_radix(place, 16).ok()).flatten()
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

    fn at(instance: u64) -> Learnt<'static> {
        Learnt { instance, member: instance, server: "there" }
    }

    fn with(choice: Choice, instances: &[u64], now: Instant) -> Choices {
        let choices = Choices::new(choice);
        instances.iter().for_each(|instance| choices.learn(at(*instance), [wanted()].into_iter(), now));
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
        let choices = choices.signing(true);
        choices.avoid(2, now);
        assert!(choices.choose(&wanted(), "", &[], now).is_some(), "an instance that is known");
        assert_eq!(choices.choose(&wanted(), "", &[2], now).map(|chosen| chosen.instance), Some(1));
        assert!(choices.choose(&wanted(), "", &[1, 2], now).is_none());
        let chosen = |tried: &[u64], at| choices.choose(&wanted(), "", tried, at).map(|chosen| chosen.instance);
        choices.left(2);
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
        choices.left(home);
        let next = chosen(&[]);
        assert_ne!(next, home);
        choices.learn(at(home), [wanted()].into_iter(), now);
        choices.loaded(next, 1000);
        assert!((0..100).all(|_| chosen(&[]) == next));
    }

    #[test]
    fn a_session_waits_for_an_instance_that_lost_its_link_and_not_for_ever() {
        let now = Instant::now();
        let choices = with(Choice::Sticky, &[1, 2, 3], now);
        let chosen = |at| choices.choose(&wanted(), "window 3", &[], at).unwrap().instance;
        let home = chosen(now);
        choices.lost(home, now);
        let stand_in = chosen(now + BACK);
        assert!(stand_in != home && (0..100).all(|_| chosen(now + BACK) == stand_in), "one for all of its calls");
        // It has another link, under which it is the same.
        choices.learn(Learnt { instance: 77, ..at(home) }, [wanted()].into_iter(), now + BACK);
        assert!((0..100).all(|_| chosen(now + BACK) == 77));
        // The new link may be heard of before anybody has seen the end of the old one.
        choices.learn(Learnt { instance: 78, ..at(home) }, [wanted()].into_iter(), now + BACK);
        assert!((0..100).all(|_| chosen(now + BACK) == 78));
        assert_eq!(choices.known().instances.len(), 3);
        choices.lost(78, now + BACK);
        let other = if home == 2 { 3 } else { 2 };
        choices.lost(other, now + BACK);
        choices.left(other);
        assert!(!choices.known().lost.contains_key(&other), "it has said that it goes");
        choices.learn(at(other), [wanted()].into_iter(), now + BACK);
        let next = chosen(now + 3 * BACK);
        assert_ne!(next, 78);
        choices.learn(Learnt { instance: 79, ..at(home) }, [wanted()].into_iter(), now + 3 * BACK);
        assert!((0..100).all(|_| chosen(now + 3 * BACK) == next), "it came too late");
        for member in 1_000..2_000 {
            choices.learn(at(member), [wanted()].into_iter(), now);
            choices.lost(member, now);
        }
        assert!(choices.known().lost.len() <= MOST_LOST && choices.known().links.len() <= 3);
    }

    #[test]
    fn a_session_that_names_an_instance_is_there_whatever_link_that_has_and_whoever_asks() {
        let now = Instant::now();
        for choice in [Choice::Sticky, Choice::Least] {
            // Each is an importing server that was started anew.
            for member in [1, 2, 3, 2, 1] {
                let choices = with(choice, &[1, 2, 3], now);
                let session = format!("any@{member:016x}");
                let chosen = || choices.choose(&wanted(), &session, &[], now).unwrap().instance;
                assert_eq!((chosen(), choices.misses(&session)), (member, false));
                choices.learn(Learnt { instance: 77, ..at(member) }, [wanted()].into_iter(), now);
                assert_eq!(chosen(), 77);
                choices.lost(77, now);
                assert!(choices.misses(&session) && chosen() != 77);
            }
        }
        let choices = with(Choice::Sticky, &[1], now);
        for none in ["", "window 3", "a@b", "@", "x@000000000000000G", "x@+000000000000001", "x@00000000000000001"] {
            assert_eq!((place_in(none), choices.misses(none)), (None, false), "{none}");
        }
        assert!(choices.misses("x@00000000000000ff"));
        assert!(!with(Choice::Queue, &[1], now).misses("x@00000000000000ff"), "nobody is chosen");
    }

    #[test]
    fn a_session_stays_where_nats_brought_it_before_anybody_was_known() {
        let now = Instant::now();
        let choices = Choices::new(Choice::Sticky);
        choices.settle("window 3", 2, now);
        let there = |instance| Learnt { member: 100 + instance, ..at(instance) };
        [1, 2, 3].iter().for_each(|instance| choices.learn(there(*instance), [wanted()].into_iter(), now));
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
            choices.learn(at(instance), many().take(if instance < 1700 { 40 } else { 0 }), now);
        }
        choices.learn(at(0), [wanted()].into_iter(), now);
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
