//! The places that connections take, and who gives way when there is none left.
//!
//! A connection that has not asked anything yet costs its client nothing, so it is the first to give way: the oldest of
//! them, from the address that has most. One that waits for its next request comes after those, then one whose request comes
//! too slowly, then one whose reader has not taken anything for a while, and where the listener says so, any whose answer is
//! on its way out. One whose request is being worked on never gives way, nor one whose request comes as it should.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// How long a reader may take nothing of its answer before that counts as unread.
const READS_WITHIN: Duration = Duration::from_secs(1);
/// How long a request may come beside what its bytes take.
const GRACE: Duration = Duration::from_secs(1);
/// Bytes a second at which it has to come then.
const LEAST_RATE: u64 = 16 * 1024 * 1024;

/// How many places there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlaceLimits {
    /// For all connections.
    pub(super) all: usize,
    /// For those of one address.
    pub(super) of_address: usize,
    /// Whether one whose answer is on its way out gives way, too.
    pub(super) answers_give_way: bool,
}

/// The places of one listener.
#[derive(Debug)]
pub(super) struct Places {
    limits: PlaceLimits,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// By a number that grows: the first is the oldest.
    by_number: BTreeMap<u64, Connection>,
    /// None has none.
    by_address: HashMap<IpAddr, usize>,
    next: u64,
}

#[derive(Debug)]
struct Connection {
    address: IpAddr,
    doing: Doing,
    /// Since when it is at that.
    since: Instant,
    /// Since when its reader takes nothing, if it does not.
    unread_since: Option<Instant>,
    shared: Arc<Shared>,
}

/// What a connection says and hears without the table of all places.
#[derive(Debug, Default)]
struct Shared {
    /// Tells it to leave.
    leave: Notify,
    /// Bytes of its request that came, as far as they were read from the socket.
    came: AtomicU64,
    /// Whether all of its answer was said and the socket has not taken it yet.
    said: AtomicBool,
}

/// What a connection is at, in the order in which they give way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Doing {
    /// It has never sent a whole request.
    Silent,
    /// It was answered, and may send another one.
    Idle,
    /// The head of its request has come, and the body comes too slowly.
    Late,
    /// Its answer is on its way out, and nobody takes it.
    Unread,
    /// Its answer is on its way out.
    Answering,
    /// The head of its request has come, and the body has not.
    Sending,
    /// Its request is being worked on.
    Asking,
}

/// One connection's place, free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    shared: Arc<Shared>,
}

/// There is no place, and nobody gives way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoPlace {
    /// When the holder of a place may give way, if it goes on as it does.
    pub(super) maybe_at: Option<Instant>,
}

impl Places {
    pub(super) fn new(limits: PlaceLimits) -> Arc<Self> {
        Arc::new(Self { limits, taken: Mutex::default() })
    }

    /// Takes a place for a connection from this address. Says whether another one has lost its place for it.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Result<(Place, bool), NoPlace> {
        let mut taken = self.lock();
        let of_address = taken.by_address.get(&address).copied().unwrap_or(0);
        let only = if of_address >= self.limits.of_address { Some(address) } else { None };
        let displaces = only.is_some() || taken.by_number.len() >= self.limits.all;
        if displaces {
            let loser = taken.who_gives_way(only, self.limits.answers_give_way)?;
            if let Some(connection) = taken.remove(loser) {
                connection.shared.leave.notify_one();
            }
        }
        let (number, shared) = (taken.next, Arc::<Shared>::default());
        taken.next += 1;
        let (doing, since) = (Doing::Silent, Instant::now());
        let connection = Connection { address, doing, since, unread_since: None, shared: Arc::clone(&shared) };
        taken.by_number.insert(number, connection);
        *taken.by_address.entry(address).or_default() += 1;
        Ok((Place { places: Arc::clone(self), number, shared }, displaces))
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// The number of the connection that gives way, of this address alone where one is named.
    fn who_gives_way(&self, only: Option<IpAddr>, answers_too: bool) -> Result<u64, NoPlace> {
        let (last, now) = (if answers_too { Doing::Answering } else { Doing::Unread }, Instant::now());
        let of_address = |connection: &Connection| self.by_address.get(&connection.address).copied().unwrap_or(0);
        let asked = || {
            let all = self.by_number.iter();
            all.filter(|(_, connection)| only.is_none_or(|address| address == connection.address))
        };
        let candidates = asked().filter(|(_, connection)| connection.standing(now) <= last);
        // Those that do least first, then those of the address that has most, then the oldest.
        let first = candidates.min_by_key(|(number, connection)| {
            (connection.standing(now), std::cmp::Reverse(of_address(connection)), **number)
        });
        let maybe_at = || asked().filter_map(|(_, connection)| connection.gives_way_at()).min();
        first.map(|(number, _)| *number).ok_or_else(|| NoPlace { maybe_at: maybe_at() })
    }

    fn remove(&mut self, number: u64) -> Option<Connection> {
        let connection = self.by_number.remove(&number)?;
        if let Some(count) = self.by_address.get_mut(&connection.address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&connection.address);
            }
        }
        Some(connection)
    }
}

impl Connection {
    /// What it is at, as far as that decides who gives way.
    fn standing(&self, now: Instant) -> Doing {
        match (self.doing, self.gives_way_at().is_some_and(|at| now >= at)) {
            (Doing::Answering, true) => Doing::Unread,
            (Doing::Sending, true) => Doing::Late,
            (doing, _) => doing,
        }
    }

    /// When it gives way if nothing more of its request comes, or nothing more of its answer is taken.
    fn gives_way_at(&self) -> Option<Instant> {
        match self.doing {
            Doing::Answering => self.unread_since.map(|since| since + READS_WITHIN),
            Doing::Sending => {
                let came = self.shared.came.load(Relaxed);
                Some(self.since + GRACE + Duration::from_micros(came.saturating_mul(1_000_000) / LEAST_RATE))
            }
            _ => None,
        }
    }
}

impl Place {
    /// Says whether the reader of the connection's answer takes nothing now.
    pub(super) fn is_unread(&self, unread: bool) {
        if let Some(connection) = self.places.lock().by_number.get_mut(&self.number) {
            connection.unread_since = unread.then(Instant::now);
        }
    }

    /// Says what the connection is at now.
    pub(super) fn is_now(&self, doing: Doing) {
        // All of it under the lock: who looks for one that gives way must not see one half without the other.
        if let Some(connection) = self.places.lock().by_number.get_mut(&self.number) {
            self.shared.said.store(false, Relaxed);
            self.shared.came.store(0, Relaxed);
            (connection.doing, connection.since) = (doing, Instant::now());
        }
    }

    /// So many bytes came from its client.
    pub(super) fn came(&self, bytes: usize) {
        self.shared.came.fetch_add(bytes as u64, Relaxed);
    }

    /// All of its answer was said. It may wait for its reader for long: see [`Self::has_gone_out`].
    pub(super) fn has_said(&self) {
        self.shared.said.store(true, Relaxed);
    }

    /// The socket has taken all that was said so far.
    pub(super) fn has_gone_out(&self) {
        if self.shared.said.load(Relaxed) {
            self.is_now(Doing::Idle);
        }
    }

    /// Returns when the connection has lost its place to another one.
    pub(super) async fn lost(&self) {
        self.shared.leave.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(all: usize, of_address: usize, answers_give_way: bool) -> Arc<Places> {
        Places::new(PlaceLimits { all, of_address, answers_give_way })
    }

    fn host(last: u8) -> IpAddr {
        [127, 0, 0, last].into()
    }

    fn is_out(place: &Place) -> bool {
        !place.places.lock().by_number.contains_key(&place.number)
    }

    // Fault 62.
    #[test]
    fn the_oldest_silent_one_of_the_address_with_most_gives_way() {
        let places = places(4, 4, false);
        let take = |last| places.take(host(last)).unwrap();
        let (lone, _) = take(1);
        let (asking, _) = take(2);
        asking.is_now(Doing::Asking);
        let (older, _) = take(2);
        let (newer, displaced) = take(2);
        assert!(!displaced && [&lone, &asking, &older, &newer].iter().all(|place| !is_out(place)));
        let (_fifth, displaced) = take(3);
        assert!(displaced && is_out(&older));
        assert!(![&lone, &asking, &newer].iter().any(|place| is_out(place)), "those of others, or at work, stay");
        drop(older);
        assert_eq!(places.lock().by_number.len(), 4, "its place was free already");
    }

    // Fault 62.
    #[test]
    fn whoever_is_at_work_never_gives_way_and_an_idle_one_does_after_the_silent() {
        let places = places(2, 2, false);
        let (idle, _) = places.take(host(1)).unwrap();
        idle.is_now(Doing::Idle);
        let (silent, _) = places.take(host(1)).unwrap();
        let (asking, _) = places.take(host(1)).unwrap();
        assert!(is_out(&silent) && !is_out(&idle));
        asking.is_now(Doing::Asking);
        let (answering, _) = places.take(host(1)).unwrap();
        assert!(is_out(&idle));
        answering.is_now(Doing::Answering);
        assert!(places.take(host(1)).is_err(), "an answer is not cut off where that is not said");
        drop(asking);
        assert!(places.take(host(1)).is_ok());
    }

    // Fault 62.
    #[test]
    fn one_that_sends_slowly_or_reads_nothing_gives_way_after_the_idle_and_one_that_reads_does_not() {
        let places = places(4, 4, false);
        let [idle, sending, unread, read] = [(); 4].map(|()| places.take(host(1)).unwrap().0);
        idle.is_now(Doing::Idle);
        sending.is_now(Doing::Sending);
        for answering in [&unread, &read] {
            answering.is_now(Doing::Answering);
            answering.is_unread(true);
        }
        read.is_unread(false);
        let a_while_ago = |place: &Place| {
            let (mut taken, then) = (places.lock(), Instant::now().checked_sub(GRACE).unwrap());
            let connection = taken.by_number.get_mut(&place.number).unwrap();
            connection.since = then;
            connection.unread_since = connection.unread_since.map(|_| then);
        };
        let take = || places.take(host(1)).map(|(place, _)| place.is_now(Doing::Asking)).is_ok();
        let next = || {
            let (place, _) = places.take(host(1)).unwrap();
            place.is_now(Doing::Asking);
            place
        };
        let _first = next();
        assert!(is_out(&idle) && !is_out(&sending));
        assert!(!take(), "a request that has just begun to come is not late");
        a_while_ago(&sending);
        let _second = next();
        assert!(is_out(&sending) && !is_out(&unread));
        assert!(!take(), "it may only have paused");
        a_while_ago(&unread);
        let _third = next();
        assert!(is_out(&unread) && !is_out(&read));
        assert!(!take(), "an answer that is read is not cut off");
    }

    // Fault 62.
    #[test]
    fn each_byte_of_a_request_buys_time_and_whoever_finds_no_place_learns_when_one_may_be_free() {
        let places = places(1, 1, false);
        let (sending, _) = places.take(host(1)).unwrap();
        sending.is_now(Doing::Sending);
        let maybe_at = || places.take(host(1)).map(drop).unwrap_err().maybe_at.unwrap();
        let first = maybe_at();
        assert!(first > Instant::now() && first <= Instant::now() + GRACE);
        sending.came(2 * LEAST_RATE as usize);
        assert_eq!(maybe_at(), first + Duration::from_secs(2));
        sending.is_now(Doing::Asking);
        assert_eq!(places.take(host(1)).map(drop), Err(NoPlace { maybe_at: None }), "its answer may take for ever");
    }

    // Fault 62.
    #[test]
    fn an_answer_that_was_said_whole_is_on_its_way_until_it_has_gone_out() {
        let places = places(1, 1, false);
        let (slow, _) = places.take(host(1)).unwrap();
        slow.is_now(Doing::Answering);
        slow.has_gone_out();
        slow.has_said();
        assert!(places.take(host(1)).is_err(), "its reader may only be slow");
        slow.has_gone_out();
        assert!(places.take(host(1)).is_ok() && is_out(&slow));
    }

    // Fault 62.
    #[test]
    fn one_address_has_no_more_than_its_share_and_answers_give_way_where_that_is_said() {
        let places = places(3, 2, true);
        let (first, _) = places.take(host(1)).unwrap();
        let (second, _) = places.take(host(1)).unwrap();
        let (third, displaced) = places.take(host(1)).unwrap();
        assert!(displaced && is_out(&first), "its own oldest goes");
        let (_other, displaced) = places.take(host(2)).unwrap();
        assert!(!displaced, "there is a place for another address");
        second.is_now(Doing::Asking);
        third.is_now(Doing::Answering);
        let (_fourth, _) = places.take(host(1)).unwrap();
        assert!(is_out(&third));
        assert!(places.lock().by_address.len() == 2);
    }
}
