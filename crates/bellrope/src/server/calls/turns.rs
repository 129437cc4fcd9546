//! Async work is taken in turns between connections. Of one connection's tasks the runtime has only a few at a time in its
//! queue; those that could begin or go on as well wait here, in order. So whoever begins a call waits for a few polls of
//! each other connection, and not for all the calls that these have begun before.
//!
//! A task is spawned when it first has its turn. It is polled with a waker of its own, which wakes the runtime's when it
//! has its turn again. One that nobody wants any more is dropped in its turn, too: of a connection that hangs up in the middle of
//! a thousand calls the runtime would have a thousand tasks to drop before it begins anybody else's.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

use bellrope_proto::Holder;
use tokio::runtime::Handle;

/// Tasks of one connection that the runtime has at a time, if it has no more threads than that: more than one, so that
/// one of which a poll takes long does not keep its neighbours waiting where the runtime has moved it aside.
const AT_ONCE: usize = 4;
/// Tasks of one process that the runtime has at a time, or twice as many as it has threads, if the process has no more connections
/// than that: many connections have fewer each, and one at the least.
const OF_PROCESS: usize = 16;

/// The tasks of one connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turns(Arc<Mutex<Queue>>);

/// How many of a connection's tasks may have a turn at a time, because of what others of its process have.
#[derive(Debug)]
struct Share {
    /// Of the process.
    in_all: usize,
    /// The connection, which knows how many of its process there are.
    of: Option<Arc<Holder>>,
}

impl Default for Share {
    fn default() -> Self {
        Self { in_all: OF_PROCESS, of: None }
    }
}

impl Share {
    /// As it is now: others come and go while a task runs.
    fn tasks(&self) -> usize {
        let connections = self.of.as_ref().map_or(1, |holder| holder.sharers());
        (self.in_all / usize::try_from(connections).unwrap_or(usize::MAX).max(1)).max(1)
    }
}

/// Ends a task early when asked to.
#[derive(Debug)]
pub(crate) struct TaskHandle(Arc<Task>);

#[derive(Debug, Default)]
struct Queue {
    /// How many tasks have a turn.
    having: usize,
    share: Share,
    /// Those that wait for one, the first in front. No task is in a queue twice.
    waiting: VecDeque<Arc<Task>>,
    /// Those that have one and were not told yet.
    due: VecDeque<Arc<Task>>,
    /// Whether a thread is telling them: another one that finds some leaves them to it.
    telling: bool,
}

struct Task {
    turns: Turns,
    runtime: Handle,
    /// How many of its connection's tasks may have a turn at a time.
    at_once: usize,
    /// A [`State`]; read and written with the queue locked.
    state: AtomicU8,
    /// Whether it is to be dropped when it has its turn; read and written with the queue locked.
    unwanted: AtomicBool,
    /// What it does, until it is spawned.
    unborn: Mutex<Option<Work>>,
    /// The runtime's, known from the first poll on.
    waker: OnceLock<Waker>,
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody has woken it.
    Idle,
    Waiting,
    /// It has a turn, and the runtime has it in its queue, or is about to.
    Due,
    Polled,
    /// It was woken while it was being polled.
    PolledAndWoken,
    Ended,
}

impl Turns {
    /// Has the runtime run `work`, whenever it has a turn.
    pub(crate) fn spawn(&self, runtime: &Handle, work: impl Future<Output = ()> + Send + 'static) -> TaskHandle {
        let task = Arc::new(Task {
            turns: self.clone(),
            runtime: runtime.clone(),
            at_once: AT_ONCE.max(runtime.metrics().num_workers()),
            state: AtomicU8::new(State::Idle as u8),
            unwanted: AtomicBool::new(false),
            unborn: Mutex::new(Some(Box::pin(work))),
            waker: OnceLock::new(),
        });
        task.wake_by_ref();
        TaskHandle(task)
    }

    /// Says whose tasks these are, on this runtime.
    pub(crate) fn are_of(&self, holder: &Arc<Holder>, runtime: &Handle) -> &Self {
        let share = &mut self.queue().share;
        share.in_all = OF_PROCESS.max(2 * runtime.metrics().num_workers());
        share.of.get_or_insert_with(|| Arc::clone(holder));
        self
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells those that are due.
    fn tell<'a>(&'a self, mut queue: MutexGuard<'a, Queue>) {
        // A runtime that has ended drops what it is given, and whose turn it is then is told in the loop below this one.
        if std::mem::replace(&mut queue.telling, true) {
            return;
        }
        while let Some(task) = queue.due.pop_front() {
            drop(queue);
            task.go_on();
            queue = self.queue();
        }
        queue.telling = false;
    }
}

impl TaskHandle {
    /// Drops the task, on its runtime, unless it has ended: when it has its turn. One that waits for that already keeps its place;
    /// another comes before those of its connection that wait.
    pub(crate) fn abort(&self) {
        let queue = self.0.turns.queue();
        self.0.unwanted.store(true, Relaxed);
        self.0.woken(queue);
    }
}

impl Queue {
    /// A task needs its turn no longer: the next one has it, if that is the connection's share.
    fn pass_on(&mut self) {
        self.having -= 1;
        let share = self.share.tasks();
        while self.waiting.front().is_some_and(|next| self.having < next.at_once.min(share)) {
            let Some(next) = self.waiting.pop_front() else { return };
            next.set(State::Due);
            self.due.push_back(next);
            self.having += 1;
        }
    }
}

impl Task {
    fn set(&self, state: State) {
        self.state.store(state as u8, Relaxed);
    }

    fn is(&self, state: State) -> bool {
        self.state.load(Relaxed) == state as u8
    }

    /// Tells the runtime that it is this one's turn.
    fn go_on(self: &Arc<Self>) {
        if let Some(waker) = self.waker.get() {
            return waker.wake_by_ref();
        }
        let work = self.unborn.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(work) = work {
            let in_turns = InTurns { task: Arc::clone(self), waker: Waker::from(Arc::clone(self)), work };
            drop(self.runtime.spawn(in_turns));
        }
    }

    /// It wants a turn, if it has none and does not wait for one.
    fn woken(self: &Arc<Self>, mut queue: MutexGuard<'_, Queue>) {
        if self.is(State::Polled) {
            self.set(State::PolledAndWoken);
        } else if self.is(State::Idle) && queue.having < self.at_once.min(queue.share.tasks()) {
            queue.having += 1;
            self.set(State::Due);
            queue.due.push_back(Arc::clone(self));
            self.turns.tell(queue);
        } else if self.is(State::Idle) {
            self.wait(&mut queue);
        }
    }

    fn wait(self: &Arc<Self>, queue: &mut Queue) {
        self.set(State::Waiting);
        if self.unwanted.load(Relaxed) {
            queue.waiting.push_front(Arc::clone(self));
        } else {
            queue.waiting.push_back(Arc::clone(self));
        }
    }

    /// A poll has ended, and there is more to do.
    fn rest(self: &Arc<Self>) {
        let mut queue = self.turns.queue();
        if self.is(State::PolledAndWoken) {
            self.wait(&mut queue);
        } else {
            self.set(State::Idle);
        }
        queue.pass_on();
        self.turns.tell(queue);
    }

    /// Nothing more is to be done.
    fn end(&self) {
        let mut queue = self.turns.queue();
        let others = |other: &Arc<Self>| !std::ptr::eq(Arc::as_ptr(other), self);
        if self.is(State::Waiting) {
            queue.waiting.retain(others);
        } else if !(self.is(State::Idle) || self.is(State::Ended)) {
            queue.due.retain(others);
            queue.pass_on();
        }
        self.set(State::Ended);
        self.turns.tell(queue);
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken(self.turns.queue());
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").field("state", &self.state).finish_non_exhaustive()
    }
}

/// What the runtime runs: polls the work when it has its turn.
struct InTurns {
    task: Arc<Task>,
    /// The task's own.
    waker: Waker,
    work: Work,
}

impl Future for InTurns {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.task.waker.get_or_init(|| context.waker().clone());
        {
            let _queue = this.task.turns.queue();
            if !this.task.is(State::Due) {
                return Poll::Pending;
            }
            this.task.set(State::Polled);
            // It ends as it is dropped.
            if this.task.unwanted.load(Relaxed) {
                return Poll::Ready(());
            }
        }
        let done = this.work.as_mut().poll(&mut Context::from_waker(&this.waker));
        if done.is_pending() {
            this.task.rest();
        }
        // Else it ends as it is dropped.
        done
    }
}

impl Drop for InTurns {
    fn drop(&mut self) {
        self.task.end();
    }
}

#[cfg(test)]
mod tests;
