//! The room that the bodies of all requests take together, and who gives his up.
//!
//! A body takes room as it comes. One that comes too slowly loses its room as soon as another one finds none: otherwise a few
//! that stop in their middle would keep all others out for as long as a body may take.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// A body within this many KiB is never put out: what it holds is not worth it.
const SMALL_KIB: u32 = 64;
/// How long a body may take beside what its bytes take, while others find no room.
const GRACE: Duration = Duration::from_secs(1);
/// KiB a second at which one has to come then.
const LEAST_RATE: u32 = 16 * 1024;

/// All bodies that are under way.
#[derive(Debug)]
pub(super) struct Bodies {
    /// In KiB.
    room: Arc<Semaphore>,
    coming: Mutex<HashMap<u64, Coming>>,
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
    /// Its number among those that may be put out, if it is one, and what tells it to leave.
    known: Option<(u64, Arc<Notify>)>,
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

    /// Has the largest of those leave that come too slowly. Whether there is one.
    fn put_one_out(&self, now: Instant) -> bool {
        let mut coming = self.coming();
        let slow = coming.iter().filter(|(_, body)| body.is_late(now));
        let largest = slow.max_by_key(|(_, body)| body.kib).map(|(number, _)| *number);
        let Some(body) = largest.and_then(|number| coming.remove(&number)) else { return false };
        body.leave.notify_one();
        true
    }

    fn coming(&self) -> MutexGuard<'_, HashMap<u64, Coming>> {
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
    /// Takes room for so much more, in KiB. Whether there is some.
    pub(super) async fn take(&mut self, kib: u32) -> bool {
        let room = &self.bodies.room;
        let taken = match Arc::clone(room).try_acquire_many_owned(kib) {
            Ok(taken) => taken,
            Err(_) if !self.bodies.put_one_out(Instant::now()) => return false,
            Err(_) => match timeout(GRACE, Arc::clone(room).acquire_many_owned(kib)).await {
                Ok(Ok(taken)) => taken,
                _ => return false,
            },
        };
        match &mut self.taken {
            Some(before) => before.merge(taken),
            None => self.taken = Some(taken),
        }
        self.kib += kib;
        if self.kib > SMALL_KIB {
            self.note();
        }
        true
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
            if let Some(body) = coming.get_mut(number) {
                body.kib = self.kib;
            }
            return;
        }
        let (number, leave) = (next_number(), Arc::<Notify>::default());
        coming.insert(number, Coming { began: self.began, kib: self.kib, leave: Arc::clone(&leave) });
        self.known = Some((number, leave));
    }
}

impl Drop for ComingRoom<'_> {
    fn drop(&mut self) {
        if let Some((number, _)) = &self.known {
            self.bodies.coming().remove(number);
        }
    }
}

fn next_number() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u32 = 1_000;

    /// Has a body have begun so long ago.
    fn began_before(body: &ComingRoom<'_>, ago: Duration) {
        let number = body.known.as_ref().unwrap().0;
        body.bodies.coming().get_mut(&number).unwrap().began = Instant::now().checked_sub(ago).unwrap();
    }

    async fn is_put_out(body: &ComingRoom<'_>) -> bool {
        timeout(Duration::from_millis(1), body.put_out()).await.is_ok()
    }

    // Fault 62.
    #[tokio::test]
    async fn the_largest_that_comes_too_slowly_loses_its_room_when_another_finds_none() {
        let bodies = Bodies::new(ALL as usize);
        let [mut large, mut larger, mut quick, mut small] = [(); 4].map(|()| bodies.begin());
        assert!(large.take(300).await && larger.take(500).await && quick.take(190).await && small.take(10).await);
        for body in [&large, &larger] {
            began_before(body, Duration::from_secs(10));
        }
        let mut next = bodies.begin();
        {
            let mut taking = std::pin::pin!(next.take(100));
            assert!(timeout(Duration::from_millis(1), taking.as_mut()).await.is_err(), "it waits for that room");
            assert!(is_put_out(&larger).await && !is_put_out(&large).await && !is_put_out(&quick).await);
            drop(larger);
            assert!(taking.await);
        }
        assert!(next.take(400).await, "there is room");
        let mut last = bodies.begin();
        drop(large);
        assert!(last.take(300).await && !last.take(1).await, "none of the others is slow");
        drop((next, last));
        let held = quick.has_come();
        let all = |bodies: &Bodies| bodies.room.available_permits() as u32;
        assert_eq!((held.as_ref().map(|held| held.num_permits()), all(&bodies)), (Some(190), ALL - 200));
        drop((held, small));
        assert_eq!((all(&bodies), bodies.coming().len()), (ALL, 0));
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
