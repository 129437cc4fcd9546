//! A bound on bytes that many connections share.
//!
//! **Absent on purpose**: nothing waits here. A connection that gets no reservation leaves its message where it is, in
//! the ring, and asks again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Bytes a second at which a large request has to come while others wait for its room.
const LEAST_RATE: u64 = 16 * 1024 * 1024;

/// The last part of the budget, one in so many, is for connections that hold no more than as much; the last part of that for
/// processes, and the last of that for users. So those that have nothing yet find some room beside one that takes all it gets,
/// however many connections or processes that has.
const KEPT_BACK: [u64; 3] = [8, 16, 32];
/// One part in so many of what somebody holds is little beside it.
const LITTLE: u64 = 16;
/// Whoever holds no more than one part in so many of the budget counts as one who holds nothing: otherwise what a stream holds that
/// is open would keep a large message out.
const NOTHING: u64 = 64;

/// How many bytes all connections of a server may hold outside their rings.
#[derive(Debug)]
pub struct BufferBudget {
    /// Bytes. Never exceeded.
    limit: u64,
    /// Bytes reserved now, from 0 to `limit`.
    used: AtomicU64,
    /// Those who wait for room.
    waiting: AtomicU64,
    /// Bytes they wait for, as far as they said.
    wanted: AtomicU64,
    /// Holders that belong to nobody and hold or want something.
    active: AtomicU64,
}

/// Somebody who waits for room in a [`BufferBudget`], until this is dropped.
#[derive(Debug)]
pub struct BudgetWaiter {
    budget: Arc<BufferBudget>,
    of: Option<(Arc<Holder>, u64)>,
}

/// Bytes of a [`BufferBudget`] that are somebody's until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<BufferBudget>,
    bytes: u64,
    /// Of these, what its holder got because it was little.
    little: u64,
    holder: Option<Arc<Holder>>,
}

/// Who holds bytes of a budget: a connection, and above it the process and the user that it belongs to.
///
/// One that is alone may have nearly all. While others wait, none that already holds something gets more than its share:
/// the budget, divided among the users that hold or want some of it, each user's share divided among its processes, and
/// that among their connections.
#[derive(Debug)]
pub struct Holder {
    budget: Arc<BufferBudget>,
    above: Option<Arc<Holder>>,
    /// Bytes.
    held: AtomicU64,
    /// Of these, what this one got because it was little beside the rest.
    little: AtomicU64,
    /// Reservations, and waits for some.
    uses: AtomicU64,
    /// Those of them who wait.
    waiting: AtomicU64,
    /// Holders right below that hold or want something.
    active: AtomicU64,
}

impl BufferBudget {
    /// A budget of `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        let [used, waiting, wanted, active] = [(); 4].map(|()| AtomicU64::new(0));
        Arc::new(Self { limit, used, waiting, wanted, active })
    }

    /// Bytes in all.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes reserved now. It may have changed when the caller looks at it.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Counts somebody among those who wait for room. Nothing is reserved by that.
    #[must_use]
    pub fn wait(self: &Arc<Self>) -> BudgetWaiter {
        self.waiting.fetch_add(1, Relaxed);
        BudgetWaiter { budget: Arc::clone(self), of: None }
    }

    /// Whether anybody waits for room. It may have changed when the caller looks at it.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.waiting() > 0
    }

    /// How many wait for room.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Relaxed)
    }

    /// Bytes that have to become free before all who wait find room.
    #[must_use]
    pub fn lacking(&self) -> u64 {
        self.used().saturating_add(self.wanted.load(Relaxed)).saturating_sub(self.limit)
    }

    /// Reserves `bytes`, if there are as many left.
    ///
    /// ```
    /// use bellrope_proto::BufferBudget;
    ///
    /// let budget = BufferBudget::new(100);
    /// let most = budget.reserve(70).unwrap();
    /// assert!(budget.reserve(31).is_none());
    /// drop(most);
    /// assert!(budget.reserve(31).is_some());
    /// assert_eq!(budget.used(), 0);
    /// ```
    #[must_use]
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        // Only the number matters, no data hangs on it: relaxed.
        let taken = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Relaxed, Relaxed, taken).ok()?;
        Some(Reservation { budget: Arc::clone(self), bytes, little: 0, holder: None })
    }
}

/// How long a large request may keep its server waiting, and the room reserved for it, while others wait for room: a
/// `grace`, and a second for every 16 MiB of it that came. Each part buys time, but a tiny one next to none. Only time in
/// which nothing of it was there to be taken counts: that of a server which is busy with others is not its client's fault.
///
/// ```
/// use std::time::Duration;
///
/// use bellrope_proto::keeps_for;
///
/// let grace = Duration::from_millis(200);
/// assert_eq!(keeps_for(grace, 0), grace);
/// assert_eq!(keeps_for(grace, 16 * 1024 * 1024), grace + Duration::from_secs(1));
/// ```
#[must_use]
pub fn keeps_for(grace: Duration, came: u64) -> Duration {
    grace.saturating_add(Duration::from_micros(came.saturating_mul(1_000_000) / LEAST_RATE))
}

impl Reservation {
    /// Bytes reserved.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes two of it: this one keeps all but `bytes`.
    ///
    /// # Panics
    /// If it has fewer.
    #[must_use]
    pub fn split_off(&mut self, bytes: u64) -> Self {
        self.bytes = self.bytes.checked_sub(bytes).expect("no more is split off than there is");
        if let Some(holder) = &self.holder {
            holder.begin_use();
        }
        let little = self.little.min(bytes);
        self.little -= little;
        Self { budget: Arc::clone(&self.budget), bytes, little, holder: self.holder.clone() }
    }

    /// Makes one of two.
    ///
    /// # Panics
    /// If they are not of the same holder.
    #[must_use]
    pub fn joined(mut self, mut other: Self) -> Self {
        let of = |reservation: &Self| reservation.holder.as_ref().map(Arc::as_ptr);
        assert_eq!(of(&self), of(&other), "what is joined has one holder");
        // What is dropped below is none.
        self.bytes += std::mem::take(&mut other.bytes);
        self.little += std::mem::take(&mut other.little);
        self
    }

    /// Gives back all but `bytes`. A smaller reservation stays as it is.
    pub fn shrink_to(&mut self, bytes: u64) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        self.budget.used.fetch_sub(surplus, Relaxed);
        if let Some(holder) = &self.holder {
            holder.gave_back(surplus);
            let little = self.little.min(surplus);
            self.little -= little;
            holder.little.fetch_sub(little, Relaxed);
        }
    }
}

impl Holder {
    /// One who holds nothing yet, and belongs to another or to nobody.
    #[must_use]
    pub fn new(budget: &Arc<BufferBudget>, above: Option<Arc<Self>>) -> Arc<Self> {
        let zero = AtomicU64::default;
        Arc::new(Self {
            budget: Arc::clone(budget),
            above,
            held: zero(),
            little: zero(),
            uses: zero(),
            waiting: zero(),
            active: zero(),
        })
    }

    /// The budget.
    #[must_use]
    pub fn budget(&self) -> &Arc<BufferBudget> {
        &self.budget
    }

    /// Bytes held now.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held.load(Relaxed)
    }

    /// How many of those that belong to the same hold or want something: of a connection, connections of its process.
    #[must_use]
    pub fn sharers(&self) -> u64 {
        self.siblings().load(Relaxed)
    }

    /// Reserves `bytes`, if there are as many left and they may be this holder's.
    ///
    /// ```
    /// use bellrope_proto::{BufferBudget, Holder};
    ///
    /// let budget = BufferBudget::new(1000);
    /// let [greedy, modest] = [(); 2].map(|()| Holder::new(&budget, None));
    /// let most = greedy.reserve(800).unwrap();
    /// assert!(greedy.reserve(100).is_none(), "the last eighth is for those who hold little");
    /// let little = modest.reserve(100).unwrap();
    /// let waits = modest.wait(300);
    /// assert!(greedy.reserve(1).is_none(), "who holds more than half gets nothing while the other waits");
    /// assert_eq!(greedy.exceeds_share(), Some(500));
    /// assert_eq!(modest.exceeds_share(), None);
    /// ```
    #[must_use]
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        if self.may_have(bytes) { self.take(bytes) } else { None }
    }

    /// As [`Self::reserve`], for what is under way: a little beside what this holder has already is given whoever waits, in all a
    /// sixteenth of the rest. They wait for the end of what is under way, so it must not wait for theirs.
    ///
    /// ```
    /// use bellrope_proto::{BufferBudget, Holder};
    ///
    /// let budget = BufferBudget::new(1000);
    /// let [greedy, modest] = [(); 2].map(|()| Holder::new(&budget, None));
    /// let most = greedy.reserve(800).unwrap();
    /// let waits = modest.wait(300);
    /// assert!(greedy.reserve(10).is_none(), "the other waits");
    /// let more = greedy.reserve_more(30).unwrap();
    /// assert!(greedy.reserve_more(100).is_none(), "that is not little");
    /// assert!(greedy.reserve_more(21).is_none(), "with what it got already neither is this");
    /// drop(more);
    /// assert!(greedy.reserve_more(21).is_some());
    /// ```
    #[must_use]
    pub fn reserve_more(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        if let Some(reservation) = self.reserve(bytes) {
            return Some(reservation);
        }
        let most = self.budget.limit - self.budget.limit / KEPT_BACK[1];
        if self.budget.used().saturating_add(bytes) > most {
            return None;
        }
        // What was little stays little, however often it is asked for.
        let grown = |little: u64| {
            let sum = little.saturating_add(bytes);
            (sum <= self.held().saturating_sub(little) / LITTLE).then_some(sum)
        };
        self.little.fetch_update(Relaxed, Relaxed, grown).ok()?;
        let taken = self.take(bytes);
        match taken {
            Some(mut reservation) => {
                reservation.little = bytes;
                Some(reservation)
            }
            None => {
                self.little.fetch_sub(bytes, Relaxed);
                None
            }
        }
    }

    fn take(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        let mut reservation = self.budget.reserve(bytes)?;
        for holder in self.chain() {
            holder.held.fetch_add(bytes, Relaxed);
        }
        self.begin_use();
        reservation.holder = Some(Arc::clone(self));
        Some(reservation)
    }

    /// Counts this holder among those who wait for room, for so many bytes. Nothing is reserved by that.
    #[must_use]
    pub fn wait(self: &Arc<Self>, bytes: u64) -> BudgetWaiter {
        let mut waiting = self.budget.wait();
        self.budget.wanted.fetch_add(bytes, Relaxed);
        for holder in self.chain() {
            holder.waiting.fetch_add(1, Relaxed);
        }
        self.begin_use();
        waiting.of = Some((Arc::clone(self), bytes));
        waiting
    }

    /// The share that this holder, its process or its user holds more than, while others wait.
    #[must_use]
    pub fn exceeds_share(&self) -> Option<u64> {
        self.chain()
            .filter(|holder| holder.others_wait())
            .map(|holder| (holder.held(), holder.share()))
            .find_map(|(held, share)| (held > share).then_some(share))
    }

    fn gave_back(&self, bytes: u64) {
        for holder in self.chain() {
            holder.held.fetch_sub(bytes, Relaxed);
        }
    }

    fn waits_no_more(&self, bytes: u64) {
        self.budget.wanted.fetch_sub(bytes, Relaxed);
        for holder in self.chain() {
            holder.waiting.fetch_sub(1, Relaxed);
        }
        self.end_use();
    }

    fn begin_use(&self) {
        for holder in self.chain() {
            if holder.uses.fetch_add(1, Relaxed) == 0 {
                holder.siblings().fetch_add(1, Relaxed);
            }
        }
    }

    fn end_use(&self) {
        for holder in self.chain() {
            if holder.uses.fetch_sub(1, Relaxed) == 1 {
                holder.siblings().fetch_sub(1, Relaxed);
            }
        }
    }

    fn may_have(&self, bytes: u64) -> bool {
        let used = self.budget.used().saturating_add(bytes);
        self.chain().zip(KEPT_BACK).all(|(holder, part)| {
            let (held, kept_back) = (holder.held(), self.budget.limit / part);
            let sum = held.saturating_add(bytes);
            held <= self.budget.limit / NOTHING
                || (sum <= kept_back || used <= self.budget.limit - kept_back)
                    && (!holder.others_wait() || sum <= holder.share())
        })
    }

    fn others_wait(&self) -> bool {
        self.budget.waiting.load(Relaxed) > self.waiting.load(Relaxed)
    }

    fn share(&self) -> u64 {
        let whole = self.above.as_ref().map_or(self.budget.limit, |above| above.share());
        whole / self.siblings().load(Relaxed).max(1)
    }

    /// How many are active of those that share with this one.
    fn siblings(&self) -> &AtomicU64 {
        self.above.as_ref().map_or(&self.budget.active, |above| &above.active)
    }

    /// This one, and those it belongs to.
    fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |holder| holder.above.as_deref())
    }
}

impl Drop for BudgetWaiter {
    fn drop(&mut self) {
        self.budget.waiting.fetch_sub(1, Relaxed);
        if let Some((holder, bytes)) = &self.of {
            holder.waits_no_more(*bytes);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink_to(0);
        if let Some(holder) = &self.holder {
            holder.end_use();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fault 34.
    #[test]
    fn no_thread_ever_sees_more_than_the_limit_reserved() {
        let budget = BufferBudget::new(1000);
        std::thread::scope(|scope| {
            for seed in 1..=4_u64 {
                let budget = &budget;
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for step in 0..2000_u64 {
                        held.extend(budget.reserve(step * seed % 331));
                        assert!(budget.used() <= budget.limit());
                        if step % 3 == 0 {
                            held.clear();
                        }
                    }
                });
            }
        });
        assert_eq!(budget.used(), 0, "everything was given back");
    }

    #[test]
    fn room_is_wanted_as_long_as_anybody_waits_and_no_longer() {
        let budget = BufferBudget::new(10);
        let _all = budget.reserve(10);
        assert!(!budget.is_wanted(), "who has room waits for none");
        let (one, other) = (budget.wait(), budget.wait());
        assert!(budget.is_wanted());
        drop(one);
        assert!(budget.is_wanted(), "one still waits");
        drop(other);
        assert!(!budget.is_wanted());
    }

    // Fault 34.
    #[test]
    fn each_part_of_a_large_request_buys_time_by_its_size_and_a_tiny_one_next_to_none() {
        let grace = Duration::from_millis(200);
        for (came, bought_us) in [(0, 0), (1, 0), (160, 9), (1 << 20, 62_500), (16 << 20, 1_000_000)] {
            assert_eq!(keeps_for(grace, came), grace + Duration::from_micros(bought_us), "{came} bytes");
        }
        assert_eq!(keeps_for(Duration::MAX, u64::MAX), Duration::MAX);
    }

    // Fault 7.
    #[test]
    fn hostile_sizes_do_not_overflow() {
        let budget = BufferBudget::new(u64::MAX);
        let _one = budget.reserve(1).unwrap();
        assert!(budget.reserve(u64::MAX).is_none());
        let mut most = budget.reserve(u64::MAX - 1).unwrap();
        most.shrink_to(10);
        most.shrink_to(20);
        assert_eq!((most.bytes(), budget.used()), (10, 11));
    }

    // Fault 59.
    #[test]
    fn while_others_wait_a_process_with_many_connections_has_no_more_than_one_with_one() {
        let budget = BufferBudget::new(1000);
        let user = Holder::new(&budget, None);
        let [crowd, alone] = [(); 2].map(|()| Holder::new(&budget, Some(Arc::clone(&user))));
        let one = Holder::new(&budget, Some(Arc::clone(&alone)));
        let many: Vec<_> = (0..10).map(|_| Holder::new(&budget, Some(Arc::clone(&crowd)))).collect();
        let mut held: Vec<_> = many.iter().map(|holder| holder.reserve(80).unwrap()).collect();
        assert_eq!((crowd.held(), user.held(), many[0].exceeds_share()), (800, 800, None), "nobody waits");
        let waiting = one.wait(500);
        assert_eq!(budget.lacking(), 300);
        assert_eq!((many[0].exceeds_share(), one.exceeds_share()), (Some(50), None));
        let newcomer = Holder::new(&budget, Some(Arc::clone(&crowd)));
        assert!(newcomer.reserve(10).is_none(), "its process has more than its share");
        held.truncate(4);
        assert_eq!(budget.lacking(), 0);
        let granted = one.reserve(500).unwrap();
        assert_eq!((many[0].sharers(), one.sharers(), crowd.sharers()), (4, 1, 2));
        drop(waiting);
        assert!(newcomer.reserve(10).is_some());
        drop((held, granted));
        assert_eq!((user.held(), budget.used(), budget.lacking()), (0, 0, 0));
        let none = |holder: &Holder| holder.active.load(Relaxed) == 0 && holder.uses.load(Relaxed) == 0;
        assert!(none(&user) && none(&crowd) && none(&one) && budget.active.load(Relaxed) == 0);
    }

    // Fault 59.
    #[test]
    fn a_process_with_any_number_of_connections_and_a_user_with_any_number_of_processes_leave_some_room_for_others() {
        let budget = BufferBudget::new(3200);
        let [busy, other] = [(); 2].map(|()| Holder::new(&budget, None));
        let process = |of| Holder::new(&budget, Some(Arc::clone(of)));
        let one_of = |of: &Arc<Holder>| Holder::new(&budget, Some(Arc::clone(of)));
        let take = |of: &mut dyn FnMut() -> Arc<Holder>| std::iter::from_fn(|| of().reserve(10)).collect::<Vec<_>>();
        let crowd = process(&busy);
        let all_of_one = take(&mut || one_of(&crowd));
        assert_eq!(budget.used(), 3000, "a sixteenth is left for other processes");
        let all_of_many = take(&mut || one_of(&process(&busy)));
        assert_eq!(budget.used(), 3100, "a thirty-second is left for other users");
        assert!(one_of(&process(&other)).reserve(100).is_some());
        drop((all_of_one, all_of_many));
        assert_eq!(budget.used(), 0);
        // One that holds little is let into what is kept back, with all of its connections.
        let _most = Holder::new(&budget, None).reserve(3000).unwrap();
        let modest = process(&other);
        let held: Vec<_> = (0..10).map(|_| one_of(&modest).reserve(10).unwrap()).collect();
        assert_eq!((held.len(), budget.used()), (10, 3100));
    }

    // Fault 59.
    #[test]
    fn the_last_eighth_and_a_share_are_kept_to_the_byte() {
        let budget = BufferBudget::new(1000);
        let [most, modest] = [(); 2].map(|()| Holder::new(&budget, None));
        let (_most, _modest) = (most.reserve(800).unwrap(), modest.reserve(60).unwrap());
        assert!(most.may_have(15) && !most.may_have(16), "what leaves an eighth of 1000 free, and no byte more");
        assert!(modest.may_have(65) && !modest.may_have(66), "of the last eighth, up to an eighth in all");
        let half = BufferBudget::new(1000);
        let [one, other] = [(); 2].map(|()| Holder::new(&half, None));
        let (_all_of_it, _waits) = (one.reserve(500).unwrap(), other.wait(600));
        assert_eq!(one.exceeds_share(), None, "a share is no more than a share");
        assert!(!one.may_have(1) && other.may_have(375));
    }

    // Fault 59.
    #[test]
    fn what_is_little_stays_little_however_often_it_is_asked_for() {
        let budget = BufferBudget::new(10_000);
        let [greedy, modest] = [(); 2].map(|()| Holder::new(&budget, None));
        let (mut most, _waits) = (greedy.reserve(6_400).unwrap(), modest.wait(5_000));
        let little: Vec<_> = std::iter::from_fn(|| greedy.reserve_more(10)).collect();
        assert_eq!((little.len(), greedy.held()), (40, 6_800), "a sixteenth, and no more");
        let all = little.into_iter().fold(greedy.reserve_more(0).unwrap(), Reservation::joined);
        assert_eq!((all.bytes(), all.little), (400, 400));
        drop(all);
        assert_eq!(greedy.little.load(Relaxed), 0);
        // What is split off takes along what was little of it.
        most = most.joined(greedy.reserve_more(400).unwrap());
        let other = most.split_off(300);
        assert_eq!((other.little, most.little), (300, 100));
        drop((most, other));
        assert_eq!((greedy.held(), greedy.little.load(Relaxed), budget.used()), (0, 0, 0));
        assert_eq!(budget.active.load(Relaxed), 1, "one waits");
    }

    // Fault 59.
    #[test]
    fn a_large_message_finds_room_beside_an_open_stream_of_its_own_connection() {
        let budget = BufferBudget::new(64_000);
        let user = Holder::new(&budget, None);
        let process = Holder::new(&budget, Some(Arc::clone(&user)));
        let connection = Holder::new(&budget, Some(process));
        let _stream = connection.reserve(1_000).unwrap();
        let large = connection.reserve(60_000).expect("fifteen sixteenths");
        assert!(connection.reserve(1).is_none(), "now it holds much");
        drop(large);
        let _another = connection.reserve(1).unwrap();
        assert!(connection.reserve(60_000).is_none(), "a byte more counts");
    }

    #[test]
    fn what_was_split_off_is_given_back_apart() {
        let budget = BufferBudget::new(100);
        let holder = Holder::new(&budget, None);
        let mut one = holder.reserve(80).unwrap();
        let other = one.split_off(30);
        assert_eq!((one.bytes(), other.bytes(), budget.used()), (50, 30, 80));
        drop(one);
        assert_eq!((holder.held(), budget.used(), budget.active.load(Relaxed)), (30, 30, 1));
        drop(other);
        assert_eq!((holder.held(), budget.used(), budget.active.load(Relaxed)), (0, 0, 0));
    }

    // Fault 59.
    #[test]
    fn whoever_holds_nothing_gets_what_is_there_however_small_his_share() {
        let budget = BufferBudget::new(1000);
        let holders: Vec<_> = (0..100).map(|_| Holder::new(&budget, None)).collect();
        let _waiting: Vec<_> = holders.iter().map(|holder| holder.wait(10)).collect();
        let large = holders[0].reserve(900).unwrap();
        assert!(holders[0].reserve(1).is_none());
        assert_eq!(holders[0].exceeds_share(), Some(10));
        drop(large);
        assert!(holders[0].reserve(1000).is_some());
    }
}
