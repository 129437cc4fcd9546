//! The places that connections take, and who gives way when there is none left.
//!
//! A connection that has not asked anything yet costs its client nothing, so it is the first to give way: the oldest of
//! them, from the address that has most. One that waits for its next request comes after those, then one whose request has
//! not come whole, then one whose reader has not taken anything for a while, and where the listener says so, any whose answer
//! is on its way out. One whose request is being worked on never gives way.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// How long a reader may take nothing of its answer before that counts as unread.
const READS_WITHIN: Duration = Duration::from_secs(1);

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
    /// Since when its reader takes nothing, if it does not.
    unread_since: Option<Instant>,
    leave: Arc<Notify>,
}

/// What a connection is at, in the order in which they give way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Doing {
    /// It has never sent a whole request.
    Silent,
    /// It was answered, and may send another one.
    Idle,
    /// The head of its request has come, and the body has not.
    Sending,
    /// Its answer is on its way out, and nobody takes it.
    Unread,
    /// Its answer is on its way out.
    Answering,
    /// Its request is being worked on.
    Asking,
}

/// One connection's place, free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    leave: Arc<Notify>,
}

impl Places {
    pub(super) fn new(limits: PlaceLimits) -> Arc<Self> {
        Arc::new(Self { limits, taken: Mutex::default() })
    }

    /// Takes a place for a connection from this address. Says whether another one has lost its place for it. `None`: there
    /// is none, and nobody gives way.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<(Place, bool)> {
        let mut taken = self.lock();
        let of_address = taken.by_address.get(&address).copied().unwrap_or(0);
        let only = if of_address >= self.limits.of_address { Some(address) } else { None };
        let displaces = only.is_some() || taken.by_number.len() >= self.limits.all;
        if displaces {
            let loser = taken.who_gives_way(only, self.limits.answers_give_way)?;
            if let Some(connection) = taken.remove(loser) {
                connection.leave.notify_one();
            }
        }
        let (number, leave) = (taken.next, Arc::<Notify>::default());
        taken.next += 1;
        let connection = Connection { address, doing: Doing::Silent, unread_since: None, leave: Arc::clone(&leave) };
        taken.by_number.insert(number, connection);
        *taken.by_address.entry(address).or_default() += 1;
        Some((Place { places: Arc::clone(self), number, leave }, displaces))
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// The number of the connection that gives way, of this address alone where one is named.
    fn who_gives_way(&self, only: Option<IpAddr>, answers_too: bool) -> Option<u64> {
        let (last, now) = (if answers_too { Doing::Answering } else { Doing::Unread }, Instant::now());
        let of_address = |connection: &Connection| self.by_address.get(&connection.address).copied().unwrap_or(0);
        let candidates = self.by_number.iter().filter(|(_, connection)| {
            connection.standing(now) <= last && only.is_none_or(|address| address == connection.address)
        });
        // Those that do least first, then those of the address that has most, then the oldest.
        let first = candidates.min_by_key(|(number, connection)| {
            (connection.standing(now), std::cmp::Reverse(of_address(connection)), **number)
        });
        first.map(|(number, _)| *number)
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
        let is_unread = self.unread_since.is_some_and(|since| now.saturating_duration_since(since) >= READS_WITHIN);
        if is_unread && self.doing == Doing::Answering { Doing::Unread } else { self.doing }
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
        if let Some(connection) = self.places.lock().by_number.get_mut(&self.number) {
            connection.doing = doing;
        }
    }

    /// Returns when the connection has lost its place to another one.
    pub(super) async fn lost(&self) {
        self.leave.notified().await;
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
        assert!(places.take(host(1)).is_none(), "an answer is not cut off where that is not said");
        drop(asking);
        assert!(places.take(host(1)).is_some());
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
            let mut taken = places.lock();
            taken.by_number.get_mut(&place.number).unwrap().unread_since = Instant::now().checked_sub(READS_WITHIN);
        };
        let take = || places.take(host(1)).map(|(place, _)| place.is_now(Doing::Asking)).is_some();
        let next = || {
            let (place, _) = places.take(host(1)).unwrap();
            place.is_now(Doing::Asking);
            place
        };
        let _first = next();
        assert!(is_out(&idle) && !is_out(&sending));
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
