//! Async work is taken in turns between connections. Of one connection's tasks the runtime has only a few at a time in its
//! queue; those that could begin or go on as well wait here, in order. So whoever begins a call waits for a few polls of
//! each other connection, and not for all the calls that these have begun before.
//!
//! A task is spawned when it first has its turn. It is polled with a waker of its own, which wakes the runtime's when it
//! has its turn again.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

use tokio::{runtime::Handle, task::AbortHandle};

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
struct Share(usize);

impl Default for Share {
    fn default() -> Self {
        Self(OF_PROCESS)
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
    /// Whether somebody is telling them: whoever else finds some leaves them to him.
    telling: bool,
}

struct Task {
    turns: Turns,
    runtime: Handle,
    /// How many of its connection's tasks may have a turn at a time.
    at_once: usize,
    /// A [`State`]; read and written with the queue locked.
    state: AtomicU8,
    life: Mutex<Life>,
    /// The runtime's, known from the first poll on.
    waker: OnceLock<Waker>,
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What there is of a task.
enum Life {
    Unborn(Work),
    Spawned(AbortHandle),
    /// For the moment between the two.
    Changing,
}

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
            life: Mutex::new(Life::Unborn(Box::pin(work))),
            waker: OnceLock::new(),
        });
        task.wake_by_ref();
        TaskHandle(task)
    }

    /// Says how many connections of its process have tasks on this runtime, this one among them.
    pub(crate) fn are_of(&self, connections: u64, runtime: &Handle) -> &Self {
        let of_process = OF_PROCESS.max(2 * runtime.metrics().num_workers());
        let connections = usize::try_from(connections).unwrap_or(usize::MAX).max(1);
        self.queue().share = Share((of_process / connections).max(1));
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
    /// Drops the task, on its runtime, unless it has ended.
    pub(crate) fn abort(&self) {
        let mut life = self.0.life();
        if let Life::Spawned(handle) = self.0.spawned(&mut life) {
            handle.abort();
        }
    }
}

impl Queue {
    /// A task needs its turn no longer: the next one has it, if that is the connection's share.
    fn pass_on(&mut self) {
        self.having -= 1;
        while self.waiting.front().is_some_and(|next| self.having < next.at_once.min(self.share.0)) {
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

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Spawns it, unless it is.
    fn spawned<'a>(self: &Arc<Self>, life: &'a mut Life) -> &'a Life {
        *life = match std::mem::replace(life, Life::Changing) {
            Life::Unborn(work) => {
                let in_turns = InTurns { task: Arc::clone(self), waker: Waker::from(Arc::clone(self)), work };
                Life::Spawned(self.runtime.spawn(in_turns).abort_handle())
            }
            spawned => spawned,
        };
        life
    }

    /// Tells the runtime that it is this one's turn.
    fn go_on(self: &Arc<Self>) {
        match self.waker.get() {
            Some(waker) => waker.wake_by_ref(),
            None => drop(self.spawned(&mut self.life())),
        }
    }

    /// A poll has ended, and there is more to do.
    fn rest(self: &Arc<Self>) {
        let mut queue = self.turns.queue();
        if self.is(State::PolledAndWoken) {
            self.set(State::Waiting);
            queue.waiting.push_back(Arc::clone(self));
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
        let mut queue = self.turns.queue();
        if self.is(State::Polled) {
            self.set(State::PolledAndWoken);
        } else if self.is(State::Idle) && queue.having < self.at_once.min(queue.share.0) {
            queue.having += 1;
            self.set(State::Due);
            queue.due.push_back(Arc::clone(self));
            self.turns.tell(queue);
        } else if self.is(State::Idle) {
            self.set(State::Waiting);
            queue.waiting.push_back(Arc::clone(self));
        }
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
