//! The room that the bodies of all requests take together, and which of them gives up its own.
//!
//! A body takes room as it comes. One that comes too slowly loses its room as soon as another one finds none: otherwise those
//! that stop in their middle would keep all others out for as long as a body may take. That holds for small ones as well:
//! there may be so many that they fill the room together.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// How long a body may take beside what its bytes take, while others find no room.
const GRACE: Duration = Duration::from_secs(1);
/// KiB a second at which one has to come then.
const LEAST_RATE: u32 = 16 * 1024;

/// All bodies that are under way.
#[derive(Debug)]
pub(super) struct Bodies {
    /// In KiB.
    room: Arc<Semaphore>,
    coming: Mutex<All>,
}

/// Those that hold room and may lose it.
#[derive(Debug, Default)]
struct All {
    /// By a number that grows: the first is the oldest.
    by_number: BTreeMap<u64, Coming>,
    next: u64,
}

#[derive(Debug)]
struct Coming {
    began: Instant,
    kib: u32,
    leave: Arc<Notify>,
}

/// A body as it comes.
#[derive(Debug)]
pub(super) struct ComingRoom<'a> {
    bodies: &'a Bodies,
    began: Instant,
    kib: u32,
    taken: Option<OwnedSemaphorePermit>,
    /// Its number among those that may be put out, if it holds something, and what tells it to leave.
    known: Option<(u64, Arc<Notify>)>,
}

/// What came of asking for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Room,
    NoRoom,
    /// It came too slowly, and others need what it holds.
    PutOut,
}

impl Bodies {
    /// With so much room, in KiB.
    pub(super) fn new(kib: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(kib)), coming: Mutex::default() }
    }

    /// A body begins to come.
    pub(super) fn begin(&self) -> ComingRoom<'_> {
        ComingRoom { bodies: self, began: Instant::now(), kib: 0, taken: None, known: None }
    }

    /// Has those leave that come too slowly, the largest first and of equal ones the oldest, until so many KiB are free for the one
    /// that asks. None leaves for one that is to leave before it. Whether one does.
    fn put_out_for(&self, asking: Option<u64>, kib: u32, now: Instant) -> bool {
        let mut coming = self.coming();
        let late = coming.by_number.iter().filter(|(_, body)| body.is_late(now));
        let mut late: Vec<_> = late.map(|(number, body)| (Reverse(body.kib), *number)).collect();
        late.sort_unstable();
        let mut lacking = kib.saturating_sub(u32::try_from(self.room.available_permits()).unwrap_or(u32::MAX));
        // Since it was looked for, others may have given enough back.
        let mut any = lacking == 0;
        for (Reverse(kib), number) in late {
            if lacking == 0 || Some(number) == asking {
                break;
            }
            if let Some(body) = coming.by_number.remove(&number) {
                body.leave.notify_one();
                any = true;
            }
            lacking = lacking.saturating_sub(kib);
        }
        any
    }

    fn coming(&self) -> MutexGuard<'_, All> {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Coming {
    fn is_late(&self, now: Instant) -> bool {
        let may_take = GRACE + Duration::from_secs(1) * self.kib / LEAST_RATE;
        now.saturating_duration_since(self.began) > may_take
    }
}

impl ComingRoom<'_> {
    /// Takes room for so much more, in KiB.
    pub(super) async fn take(&mut self, kib: u32) -> Taken {
        let room = &self.bodies.room;
        let taken = match Arc::clone(room).try_acquire_many_owned(kib) {
            Ok(taken) => taken,
            Err(_) => {
                let number = self.known.as_ref().map(|(number, _)| *number);
                if !self.bodies.put_out_for(number, kib, Instant::now()) {
                    return Taken::NoRoom;
                }
                let free = Arc::clone(room).acquire_many_owned(kib);
                // It may be put out itself while it waits, and the others wait for what it holds.
                let taken = tokio::select! {
                    biased;
                    () = self.put_out() => return Taken::PutOut,
                    taken = timeout(GRACE, free) => taken,
                };
                let Ok(Ok(taken)) = taken else { return Taken::NoRoom };
                taken
            }
        };
        match &mut self.taken {
            Some(before) => before.merge(taken),
            None => self.taken = Some(taken),
        }
        self.kib += kib;
        self.note();
        Taken::Room
    }

    /// Returns when this body is to leave.
    pub(super) async fn put_out(&self) {
        match &self.known {
            Some((_, leave)) => leave.notified().await,
            None => std::future::pending().await,
        }
    }

    /// The body has come: what it holds.
    pub(super) fn has_come(mut self) -> Option<OwnedSemaphorePermit> {
        self.taken.take()
    }

    fn note(&mut self) {
        let mut coming = self.bodies.coming();
        if let Some((number, _)) = &self.known {
            // One that is to leave is not there any more.
            if let Some(body) = coming.by_number.get_mut(number) {
                body.kib = self.kib;
            }
            return;
        }
        let (number, leave) = (coming.next, Arc::<Notify>::default());
        coming.next += 1;
        coming.by_number.insert(number, Coming { began: self.began, kib: self.kib, leave: Arc::clone(&leave) });
        self.known = Some((number, leave));
    }
}

impl Drop for ComingRoom<'_> {
    fn drop(&mut self) {
        if let Some((number, _)) = &self.known {
            self.bodies.coming().by_number.remove(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u32 = 1_000;

    /// Has a body have begun so long ago.
    fn began_before(body: &ComingRoom<'_>, ago: Duration) {
        let number = body.known.as_ref().unwrap().0;
        body.bodies.coming().by_number.get_mut(&number).unwrap().began = Instant::now().checked_sub(ago).unwrap();
    }

    async fn is_put_out(body: &ComingRoom<'_>) -> bool {
        timeout(Duration::from_millis(1), body.put_out()).await.is_ok()
    }

    // Fault 62.
    #[tokio::test]
    async fn the_largest_that_comes_too_slowly_loses_its_room_when_another_finds_none() {
        let bodies = Bodies::new(ALL as usize);
        let [mut large, mut larger, mut quick, mut small] = [(); 4].map(|()| bodies.begin());
        for (body, kib) in [(&mut large, 300), (&mut larger, 500), (&mut quick, 190), (&mut small, 10)] {
            assert_eq!(body.take(kib).await, Taken::Room);
        }
        for body in [&large, &larger] {
            began_before(body, Duration::from_secs(10));
        }
        let mut next = bodies.begin();
        {
            let mut taking = std::pin::pin!(next.take(100));
            assert!(timeout(Duration::from_millis(1), taking.as_mut()).await.is_err(), "it waits for that room");
            assert!(is_put_out(&larger).await && !is_put_out(&large).await && !is_put_out(&quick).await);
            drop(larger);
            assert_eq!(taking.await, Taken::Room);
        }
        assert_eq!(next.take(400).await, Taken::Room);
        let mut last = bodies.begin();
        drop(large);
        assert_eq!(
            (last.take(300).await, last.take(1).await),
            (Taken::Room, Taken::NoRoom),
            "none of the others is slow"
        );
        drop((next, last));
        let held = quick.has_come();
        let all = |bodies: &Bodies| bodies.room.available_permits() as u32;
        assert_eq!((held.as_ref().map(|held| held.num_permits()), all(&bodies)), (Some(190), ALL - 200));
        drop((held, small));
        assert_eq!((all(&bodies), bodies.coming().by_number.len()), (ALL, 0));
    }

    // Fault 62.
    #[tokio::test]
    async fn small_ones_that_fill_the_room_together_lose_it_the_oldest_first_and_no_more_than_have_to() {
        let bodies = Bodies::new(ALL as usize);
        let mut many: Vec<_> = (0..100).map(|_| bodies.begin()).collect();
        for body in &mut many {
            assert_eq!(body.take(10).await, Taken::Room);
            began_before(body, Duration::from_secs(10));
        }
        let mut next = bodies.begin();
        {
            let mut taking = std::pin::pin!(next.take(25));
            assert!(timeout(Duration::from_millis(1), taking.as_mut()).await.is_err());
            assert!(is_put_out(&many[0]).await && is_put_out(&many[2]).await && !is_put_out(&many[3]).await);
            drop(many);
            assert_eq!(taking.await, Taken::Room);
        }
    }

    // Fault 62.
    #[tokio::test]
    async fn none_puts_itself_out_and_one_that_waits_for_room_gives_up_its_own_when_it_is_told_to() {
        let bodies = Bodies::new(ALL as usize);
        let [mut first, mut second] = [(); 2].map(|()| bodies.begin());
        assert_eq!((first.take(600).await, second.take(400).await), (Taken::Room, Taken::Room));
        began_before(&first, Duration::from_secs(10));
        assert_eq!(first.take(1).await, Taken::NoRoom, "it is the largest that is late");
        assert!(!is_put_out(&first).await);
        began_before(&second, Duration::from_secs(10));
        assert_eq!(first.take(1).await, Taken::NoRoom, "no smaller one leaves for it");
        let mut waits = std::pin::pin!(second.take(1));
        assert!(timeout(Duration::from_millis(1), waits.as_mut()).await.is_err(), "the first one leaves for it");
        let mut third = bodies.begin();
        let mut last = std::pin::pin!(third.take(1));
        assert!(timeout(Duration::from_millis(1), last.as_mut()).await.is_err());
        assert_eq!(waits.await, Taken::PutOut, "at once, not when it has waited in vain");
        drop(first);
        assert_eq!(last.await, Taken::Room);
    }

    #[test]
    fn each_byte_buys_time() {
        let now = Instant::now();
        let body = |kib, millis| Coming {
            began: now.checked_sub(Duration::from_millis(millis)).unwrap(),
            kib,
            leave: Arc::default(),
        };
        assert!(!body(16 * 1024, 1_999).is_late(now) && body(16 * 1024, 2_001).is_late(now));
        assert!(!body(0, 1_000).is_late(now) && body(0, 1_001).is_late(now));
    }
}
