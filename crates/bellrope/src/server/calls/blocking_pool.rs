//! Threads for handlers that block, and whose turn it is to have one.
//!
//! A thread that is free goes to the process that has fewest, of its connections in turns. So a process with a thousand calls waiting
//! holds up nobody else's first one. A process that has a thread leaves an eighth of all of them free, so that one whose calls never
//! end leaves some to others. A process id of 0 stands for all processes of a user that the kernel does not name.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, ErrorKind},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bellrope_proto::keeps_for;
use tokio::{
    sync::oneshot,
    task::{JoinError, spawn_blocking},
};

use crate::{
    breaker::Caller,
    server::{error::HandlerError, handler::owned_call::OwnedCall},
};

/// Of all threads, what a process leaves free that has one already.
const LEFT_FREE: usize = 8;
/// How often a handler that has waited for its caller for too long looks whether another call waits for its thread.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How long no call that waits has had a thread, where callers that send a little now and then keep them.
const STARVES: Duration = Duration::from_secs(1);

/// The threads that handlers may block.
#[derive(Debug, Clone, Default)]
pub(crate) struct BlockingPool(Arc<Mutex<Pool>>);

/// A process of a user, or one on another machine for which a part of our own process calls.
type Process = (u32, Caller);

#[derive(Debug, Default)]
struct Pool {
    /// How many there are.
    threads: usize,
    /// How many of them are taken.
    taken: usize,
    /// Calls that wait for one.
    waiting: usize,
    /// When one last had a turn, or began to wait where none did.
    last_turn: Option<Instant>,
    /// Counts those that came, and turns.
    ticks: u64,
    /// Those that have a thread or wait for one.
    processes: HashMap<Process, Line>,
}

/// What one process has, and what of it waits.
#[derive(Debug, Default)]
struct Line {
    /// Threads that it has.
    has: usize,
    /// When it last had a turn, or came.
    turn: u64,
    /// The calls of each of its connections that wait. Whose turn is next is first. None is empty.
    connections: VecDeque<(u64, Calls)>,
}

/// Calls of one connection that wait, by their numbers, which grow.
type Calls = VecDeque<(u64, oneshot::Sender<Permit>)>;

/// A thread of the pool, until it is dropped.
#[derive(Debug)]
struct Permit {
    pool: BlockingPool,
    process: Process,
}

/// A call's place among those that wait. It is given up when it is dropped.
#[derive(Debug)]
struct Place {
    pool: BlockingPool,
    process: Process,
    connection: u64,
    number: u64,
    called: oneshot::Receiver<Permit>,
}

/// How long a handler on one of these threads waits for its caller, which is to send or to read.
#[derive(Debug, Clone)]
pub(crate) struct CallerPatience {
    pool: BlockingPool,
    /// At once, with others waiting for the thread. In all, where others get none.
    stall_timeout: Duration,
    /// For how long it has waited so far, and for how many bytes.
    waited: Duration,
    came: u64,
}

impl BlockingPool {
    /// Lets so many handlers run at once.
    pub(crate) fn open(&self, threads: usize) {
        self.change(|pool| pool.threads = threads);
    }

    /// Runs the handler of this call when it is its turn. A call that ends while it waits never runs.
    pub(crate) fn run<T, F>(
        &self,
        call: OwnedCall,
        handler: F,
    ) -> impl Future<Output = Result<T, HandlerError>> + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&OwnedCall, CallerPatience) -> Result<T, HandlerError> + Send + 'static,
    {
        // By its number alone: another process that has it later is not there while this one's calls are.
        let process = (call.user, call.remote.unwrap_or(Caller::Process { pid: call.pid, started: 0 }));
        let pool = self.clone();
        let patience = CallerPatience { pool, stall_timeout: call.stall_timeout, waited: Duration::ZERO, came: 0 };
        let pool = self.clone();
        async move {
            let mut place = pool.wait(process, call.connection());
            let permit = (&mut place.called).await.expect("a place is kept until it is called");
            drop(place);
            // tokio panics where the system has no thread for it, and keeps the task for when there is one: what it was to do is
            // taken out of it then, so that it neither runs after all nor keeps a place.
            let work = Arc::new(Mutex::new(Some((handler, call, patience, permit))));
            let taken = Arc::clone(&work);
            let run = move || {
                let taken = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
                taken.map(|(handler, call, patience, permit)| {
                    let outcome = handler(&call, patience);
                    drop(permit);
                    outcome
                })
            };
            let Ok(ran) = catch_unwind(AssertUnwindSafe(|| spawn_blocking(run))) else {
                let left = work.lock().unwrap_or_else(PoisonError::into_inner).take();
                return Err(match left {
                    Some(_) => HandlerError::not_executed("the system has no thread for this call"),
                    // A thread that was there has begun with it meanwhile.
                    None => HandlerError::unknown("the system had no thread for this call, and then it began"),
                });
            };
            drop(work);
            match ran.await.map_err(JoinError::try_into_panic) {
                Ok(Some(outcome)) => outcome,
                Ok(None) => Err(HandlerError::failure("its work was taken away")),
                // To be caught like that of any handler.
                Err(Ok(panic)) => resume_unwind(panic),
                Err(Err(_)) => Err(HandlerError::failure("the runtime is going away")),
            }
        }
    }

    /// Takes a place among those that wait.
    fn wait(&self, process: Process, connection: u64) -> Place {
        let (call, called) = oneshot::channel();
        let mut number = 0;
        self.change(|pool| {
            if pool.waiting == 0 {
                pool.last_turn = Some(Instant::now());
            }
            pool.ticks += 1;
            pool.waiting += 1;
            number = pool.ticks;
            let line = pool.processes.entry(process).or_insert(Line { turn: number, ..Line::default() });
            match line.connections.iter_mut().find(|(of, _)| *of == connection) {
                Some((_, calls)) => calls.push_back((number, call)),
                None => line.connections.push_back((connection, VecDeque::from([(number, call)]))),
            }
        });
        Place { pool: self.clone(), process, connection, number, called }
    }

    /// Changes something, and gives the threads that are free to those whose turn it is.
    fn change(&self, change: impl FnOnce(&mut Pool)) {
        let mut given = Vec::new();
        {
            let mut pool = self.lock();
            change(&mut pool);
            while let Some((process, call)) = pool.next() {
                given.push((call, Permit { pool: self.clone(), process }));
            }
        }
        // One that has gone meanwhile leaves its thread to the next.
        given.into_iter().for_each(|(call, permit)| drop(call.send(permit)));
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// Takes a free thread for the call whose turn it is, if there are both.
    fn next(&mut self) -> Option<(Process, oneshot::Sender<Permit>)> {
        let free = self.threads.saturating_sub(self.taken);
        if free == 0 || self.waiting == 0 {
            return None;
        }
        let leaves = self.threads / LEFT_FREE;
        let may = |line: &Line| !line.connections.is_empty() && (line.has == 0 || free > leaves);
        let all = self.processes.iter_mut().filter(|(_, line)| may(line));
        let (process, line) = all.min_by_key(|(_, line)| (line.has, line.turn))?;
        let (connection, mut calls) = line.connections.pop_front()?;
        let (_, call) = calls.pop_front()?;
        if !calls.is_empty() {
            line.connections.push_back((connection, calls));
        }
        self.ticks += 1;
        self.taken += 1;
        self.waiting -= 1;
        self.last_turn = Some(Instant::now());
        line.has += 1;
        line.turn = self.ticks;
        Some((*process, call))
    }

    /// Changes what one process has, and forgets it if that is nothing.
    fn of(&mut self, process: Process, change: impl FnOnce(&mut Line)) {
        let Some(line) = self.processes.get_mut(&process) else { return };
        change(line);
        if line.has == 0 && line.connections.is_empty() {
            self.processes.remove(&process);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.pool.change(|pool| {
            pool.taken -= 1;
            pool.of(self.process, |line| line.has -= 1);
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut pool = self.pool.lock();
        let mut gone = None;
        pool.of(self.process, |line| {
            let Some(at) = line.connections.iter().position(|(of, _)| *of == self.connection) else { return };
            let calls = &mut line.connections[at].1;
            if let Ok(place) = calls.binary_search_by_key(&self.number, |(number, _)| *number) {
                gone = calls.remove(place);
            }
            if calls.is_empty() {
                drop(line.connections.remove(at));
            }
        });
        pool.waiting -= usize::from(gone.is_some());
        drop(pool);
        // Wakes whoever was to be called. That is anybody's code, and may come back for this lock.
        drop(gone);
    }
}

impl CallerPatience {
    /// How long the handler is to wait, which has waited for so long now, before that is asked again. `None`: no longer, as other
    /// calls wait for its thread. A caller that sends or reads a little now and then does not keep it for ever, either.
    pub(crate) fn left(&self, waits: Duration) -> Option<Duration> {
        let at_once = self.stall_timeout.saturating_sub(waits);
        let in_all = keeps_for(self.stall_timeout, self.came).saturating_sub(self.waited + waits);
        if at_once > Duration::ZERO && in_all > Duration::ZERO {
            return Some(at_once.min(in_all));
        }
        let pool = self.pool.lock();
        let starves = || pool.last_turn.is_some_and(|turn| turn.elapsed() >= STARVES);
        let is_over = pool.waiting > 0 && (at_once == Duration::ZERO || starves());
        (!is_over).then_some(LOOK_AGAIN)
    }

    /// Why the handler waits no longer, given what went too slowly.
    pub(crate) fn is_over(&self, slow: &str) -> io::Error {
        let text = format!(
            "{slow} for {} ms (stall_timeout_ms) while other calls waited for a thread (blocking_threads)",
            self.stall_timeout.as_millis()
        );
        io::Error::new(ErrorKind::TimedOut, text)
    }

    /// The handler has waited for so long for so many bytes.
    pub(crate) fn waited(&mut self, waits: Duration, bytes: usize) {
        self.waited += waits;
        self.came += bytes as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
        task::{Context, Wake, Waker},
    };

    use super::*;

    const ONE: Process = (7, Caller::Process { pid: 1, started: 0 });
    const OTHER: Process = (7, Caller::Process { pid: 2, started: 0 });

    fn pool(threads: usize) -> BlockingPool {
        let pool = BlockingPool::default();
        pool.open(threads);
        pool
    }

    fn called(place: &mut Place) -> Option<Permit> {
        place.called.try_recv().ok()
    }

    // Fault 65.
    #[test]
    fn a_thread_goes_to_the_process_that_has_fewest_and_of_its_connections_in_turns() {
        let pool = pool(1);
        let mut places: Vec<_> = (0..100).map(|_| pool.wait(ONE, 1)).collect();
        let first = called(&mut places[0]).unwrap();
        let mut second_connection = pool.wait(ONE, 2);
        let mut other = pool.wait(OTHER, 3);
        drop(first);
        // The one process has none now, and came first; after its turn it is the other one's.
        let second = called(&mut other).or_else(|| called(&mut places[1])).unwrap();
        let was_others = second.process == OTHER;
        drop(second);
        let third = if was_others { called(&mut places[1]) } else { called(&mut other) }.unwrap();
        drop(third);
        let fourth = called(&mut second_connection).expect("connections take turns");
        assert_eq!(fourth.process, ONE);
        drop((fourth, places, second_connection, other));
        let pool = pool.lock();
        assert_eq!((pool.taken, pool.waiting, pool.processes.len()), (0, 0, 0), "nothing is left");
    }

    // Fault 59.
    #[test]
    fn a_process_whose_calls_never_end_leaves_threads_to_others() {
        let pool = pool(16);
        let mut endless: Vec<_> = (0..1_000).map(|number| pool.wait(ONE, number)).collect();
        let held: Vec<_> = endless.iter_mut().filter_map(called).collect();
        assert_eq!(held.len(), 14);
        let mut others: Vec<_> = (0..3).map(|_| pool.wait(OTHER, 5_000)).collect();
        let first = called(&mut others[0]).expect("one is left");
        assert!(called(&mut others[1]).is_none(), "it has one, and leaves the rest to those that have none");
        drop(first);
        let second = called(&mut others[1]).expect("its next one has its turn before a fifteenth of the first process");
        drop((second, others, endless, held));
        let pool = pool.lock();
        assert_eq!((pool.taken, pool.waiting, pool.processes.len()), (0, 0, 0), "nothing is left");
    }

    // Fault 59.
    #[test]
    fn a_caller_that_sends_a_little_now_and_then_keeps_its_thread_only_while_others_have_turns() {
        let pool = pool(1);
        let mut first = pool.wait(ONE, 1);
        let held = called(&mut first).unwrap();
        let stall_timeout = Duration::from_secs(30);
        let mut patience = CallerPatience { pool: pool.clone(), stall_timeout, waited: Duration::ZERO, came: 0 };
        assert_eq!(patience.left(Duration::from_secs(10)), Some(Duration::from_secs(20)));
        (0..4).for_each(|_| patience.waited(Duration::from_secs(10), 1));
        assert_eq!(patience.left(Duration::ZERO), Some(LOOK_AGAIN), "nobody else wants it");
        let _other = pool.wait(OTHER, 2);
        // A moment that has not come, however long the machine stands still.
        pool.lock().last_turn = Some(Instant::now() + Duration::from_secs(3_600));
        assert_eq!(patience.left(Duration::ZERO), Some(LOOK_AGAIN), "one has just begun to wait");
        assert_eq!(patience.left(stall_timeout), None, "it sends nothing at all");
        pool.lock().last_turn = Instant::now().checked_sub(STARVES);
        assert_eq!(patience.left(Duration::ZERO), None);
        // Bytes buy time.
        patience.waited(Duration::ZERO, 1 << 30);
        assert!(patience.left(Duration::ZERO).is_some_and(|left| left > LOOK_AGAIN));
        drop(held);
    }

    /// Looks whether the pool can be had, when it is woken.
    struct Looks(BlockingPool, AtomicUsize);

    impl Wake for Looks {
        fn wake(self: Arc<Self>) {
            self.1.store(if self.0.0.try_lock().is_ok() { 1 } else { 2 }, Relaxed);
        }
    }

    #[test]
    fn who_is_woken_as_a_place_is_given_up_may_use_the_pool() {
        let pool = pool(1);
        let mut first = pool.wait(ONE, 1);
        let held = called(&mut first).unwrap();
        let mut place = pool.wait(ONE, 1);
        let looks = Arc::new(Looks(pool, AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&looks));
        assert!(pin!(&mut place.called).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(place);
        assert_eq!(looks.1.load(Relaxed), 1, "it is woken with the lock free");
        drop(held);
    }

    #[test]
    fn who_gives_up_waiting_leaves_no_place_and_no_thread_behind() {
        let pool = pool(1);
        let mut first = pool.wait(ONE, 1);
        let held = called(&mut first).unwrap();
        for _ in 0..1_000 {
            drop([pool.wait(ONE, 1), pool.wait(ONE, 2), pool.wait(OTHER, 3)]);
        }
        let is_all = |pool: &Pool| (pool.waiting, pool.processes.len()) == (0, 1);
        assert!(is_all(&pool.lock()));
        // Gone between the call and its answer.
        let gone = pool.wait(OTHER, 3);
        drop(held);
        drop(gone);
        let mut last = pool.wait(ONE, 1);
        assert!(called(&mut last).is_some());
    }
}
