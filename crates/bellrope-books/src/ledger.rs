//! Rows on their way into the ledger: a bounded queue, and a thread that writes them in batches. Whoever adds a row never
//! waits; what finds no place is counted.

pub(crate) mod store;

use std::mem;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::reserve::{LedgerQuestion, Sum};
use crate::row::Row;
use store::{Store, StoreError};

/// The target of its log lines, which filters name: it stays when the file moves.
const TARGET: &str = "bellrope_books::ledger";

/// Rows that may wait, at about 300 bytes each.
const MAX_WAITING: usize = 4_096;
/// How long after rows were written the next ones are gathered, to be written together.
const GATHER: Duration = Duration::from_millis(200);
/// How long after a failure writing is tried again: doubled each time, up to the second.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// How soon as the end has come.
const LAST_TRIES: Duration = Duration::from_millis(50);
/// How often the log says that the ledger fails.
const SAY: Duration = Duration::from_secs(60);
/// How often rows are looked for that are too old.
const PRUNE: Duration = Duration::from_secs(3_600);
/// How often is read what other servers spent.
const READ: Duration = Duration::from_secs(5);

/// What the ledger asks of its owner, in its own thread.
pub(crate) trait LedgerOwner: Send + Sync {
    /// From which moment on rows are kept; `None`: the clock cannot be trusted now.
    fn oldest_ms(&self) -> Option<i64>;
    /// What is to be read: what others spent.
    fn questions(&self) -> Vec<LedgerQuestion>;
    /// The answer to one of these.
    fn answered(&self, question: &LedgerQuestion, sums: Vec<(String, Sum)>);
}

/// The way to the ledger. Clones lead to the same.
#[derive(Clone)]
pub(crate) struct Ledger(Arc<Inner>);

struct Inner {
    path: PathBuf,
    /// Tells rows of this start from those of others.
    server: i64,
    queue: Mutex<Queue>,
    changed: Condvar,
    /// Rows were written, or it is over.
    settled: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
    written: AtomicU64,
    lost: Arc<AtomicU64>,
    trouble: Mutex<Option<String>>,
}

#[derive(Default)]
struct Queue {
    rows: Vec<Row>,
    /// Being written now.
    writing: usize,
    /// How many rows there have been so far, and how many of them are in the file.
    added: u64,
    settled: u64,
    /// Whether somebody waits for what is there: nothing more is gathered.
    hurry: bool,
    /// Until when what waits may still be written, as the end has come.
    stop: Option<Instant>,
    is_over: bool,
}

impl Ledger {
    /// A ledger in this file, which is opened with the first row. `server`: a random number.
    pub(crate) fn new(path: PathBuf, server: i64) -> Self {
        Self(Arc::new(Inner {
            path,
            server,
            queue: Mutex::default(),
            changed: Condvar::new(),
            settled: Condvar::new(),
            thread: Mutex::default(),
            written: AtomicU64::new(0),
            lost: Arc::default(),
            trouble: Mutex::default(),
        }))
    }

    /// Reads now what others spent, before anything is asked of this server. Makes no file.
    pub(crate) fn read_now(&self, owner: &dyn LedgerOwner) {
        if !self.0.path.exists() {
            return;
        }
        let outcome = Store::open(&self.0.path).and_then(|store| read(&store, self.0.server, owner));
        if let Err(error) = outcome {
            self.0.fail(&error, &mut None);
        }
    }

    /// Adds a row. It is lost if too many wait.
    pub(crate) fn add(&self, row: Row, owner: &Arc<dyn LedgerOwner>) {
        let mut queue = self.0.queue();
        if queue.is_over || queue.rows.len() + queue.writing >= MAX_WAITING {
            self.0.lost.fetch_add(1, Relaxed);
            return;
        }
        queue.rows.push(row);
        queue.added += 1;
        let wakes = queue.rows.len() == 1 || queue.rows.len() == MAX_WAITING / 2;
        drop(queue);
        if wakes {
            self.start(owner);
            self.0.changed.notify_one();
        }
    }

    /// Starts the thread if there is none.
    fn start(&self, owner: &Arc<dyn LedgerOwner>) {
        let mut thread = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_some() {
            return;
        }
        let (shared, owner) = (Arc::clone(&self.0), Arc::clone(owner));
        let writing = move || shared.write_all(&*owner);
        match thread::Builder::new().name("bellrope-books".to_owned()).stack_size(256 * 1024).spawn(writing) {
            Ok(started) => *thread = Some(started),
            Err(source) => self.0.fail(&StoreError::Make { path: self.0.path.clone(), source }, &mut None),
        }
    }

    /// Has what waits written now. Whether all that was there is in the file in time.
    pub(crate) fn flush(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let mut queue = self.0.queue();
        let there = queue.added;
        while queue.settled < there && !queue.is_over {
            if !queue.hurry && !queue.rows.is_empty() {
                queue.hurry = true;
                self.0.changed.notify_one();
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
            queue = self.0.settled.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.settled >= there
    }

    /// Writes what waits, and then no more. Whether all of it was written in time.
    pub(crate) fn close(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        {
            let mut queue = self.0.queue();
            queue.stop = Some(deadline);
            self.0.changed.notify_all();
            let is_started = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner).is_some();
            while is_started && !queue.is_over {
                let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
                queue = self.0.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
            }
            queue.is_over = true;
            let left = queue.rows.len() + queue.writing;
            if left > 0 {
                self.0.lost.fetch_add(left as u64, Relaxed);
                tracing::warn!(target: TARGET, left, "rows of the ledger were not written before the end");
                return false;
            }
        }
        // It has said that it is over.
        let thread = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        thread.is_none_or(|thread| thread.join().is_ok())
    }

    /// Rows that were written.
    pub(crate) fn written(&self) -> u64 {
        self.0.written.load(Relaxed)
    }

    /// Rows that were lost.
    pub(crate) fn lost(&self) -> u64 {
        self.0.lost.load(Relaxed)
    }

    /// What is wrong with the ledger now.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Inner {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread.
    fn write_all(&self, owner: &dyn LedgerOwner) {
        let mut store = None;
        let (mut pruned, mut asked, mut said) = (None::<Instant>, None::<Instant>, None::<Instant>);
        let mut written = None::<Instant>;
        let mut again = AGAIN[0];
        while let Some(rows) = self.next_batch(written) {
            let is_due = |last: Option<Instant>, every: Duration| last.is_none_or(|last| last.elapsed() >= every);
            let outcome = self.write(&mut store, &rows);
            written = Some(Instant::now());
            let count = rows.len();
            match outcome {
                Ok(()) => {
                    self.written.fetch_add(count as u64, Relaxed);
                    if self.set_trouble(None) {
                        tracing::warn!(target: TARGET, path = %self.path.display(), "the ledger is written again");
                    }
                    let mut queue = self.queue();
                    queue.writing = 0;
                    queue.settled += count as u64;
                    drop(queue);
                    self.settled.notify_all();
                    again = AGAIN[0];
                }
                Err(error) => {
                    store = None;
                    self.fail(&error, &mut said);
                    self.put_back(rows);
                    self.wait(again);
                    again = (again * 2).min(AGAIN[1]);
                    continue;
                }
            }
            let Some(store) = &mut store else { continue };
            // What these say is said with the next row again.
            if is_due(pruned, PRUNE) {
                pruned = Some(Instant::now());
                if let Some(Err(error)) = owner.oldest_ms().map(|oldest| store.prune(oldest)) {
                    self.fail(&error, &mut said);
                }
            }
            if is_due(asked, READ) {
                asked = Some(Instant::now());
                if let Err(error) = read(store, self.server, owner) {
                    self.fail(&error, &mut said);
                }
            }
        }
        drop(store);
        self.queue().is_over = true;
        self.changed.notify_all();
        self.settled.notify_all();
    }

    /// Waits for rows, and for more where others were `written` just before. `None`: it is over.
    fn next_batch(&self, written: Option<Instant>) -> Option<Vec<Row>> {
        let mut queue = self.queue();
        if queue.stop.is_some_and(|stop| Instant::now() >= stop) {
            return None;
        }
        while queue.rows.is_empty() {
            if queue.stop.is_some() {
                return None;
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        // What comes alone is there at once for whoever reads the file next.
        let due = written.map_or_else(Instant::now, |written| written + GATHER);
        while queue.stop.is_none() && !queue.hurry && queue.rows.len() < MAX_WAITING / 2 {
            let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else { break };
            queue = self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let rows = mem::take(&mut queue.rows);
        queue.hurry = false;
        queue.writing = rows.len();
        Some(rows)
    }

    fn write(&self, store: &mut Option<Store>, rows: &[Row]) -> Result<(), StoreError> {
        // One that was moved away goes on to be written, and nobody would see it.
        if let Some(moved) = store.take_if(|store| !store.is_there()) {
            moved.leave();
        }
        let store = match store {
            Some(store) => store,
            None => store.insert(Store::open(&self.path)?),
        };
        store.write(self.server, rows)
    }

    /// Rows that were not written wait on, before those that came meanwhile.
    fn put_back(&self, mut rows: Vec<Row>) {
        let mut queue = self.queue();
        rows.append(&mut queue.rows);
        queue.rows = rows;
        queue.writing = 0;
    }

    /// Waits before the next try. As the end has come tries follow soon upon another, until it is over.
    fn wait(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut queue = self.queue();
        loop {
            let now = Instant::now();
            let due = if queue.stop.is_some() { until.min(now + LAST_TRIES) } else { until };
            let Some(left) = due.checked_duration_since(now).filter(|left| !left.is_zero()) else { return };
            let (held, waited) = self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner);
            queue = held;
            if waited.timed_out() {
                return;
            }
        }
    }

    fn fail(&self, error: &StoreError, said: &mut Option<Instant>) {
        self.set_trouble(Some(error.to_string()));
        if said.is_none_or(|said| said.elapsed() >= SAY) {
            *said = Some(Instant::now());
            let lost = self.lost.load(Relaxed);
            tracing::error!(
                target: TARGET,
                lost,
                "the ledger is not written, and answers go on: {error}; up to {MAX_WAITING} rows wait, and this is said once a minute"
            );
        }
    }

    /// Whether there was trouble before.
    fn set_trouble(&self, trouble: Option<String>) -> bool {
        let mut known = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        mem::replace(&mut *known, trouble).is_some()
    }
}

/// Reads what others spent.
fn read(store: &Store, server: i64, owner: &dyn LedgerOwner) -> Result<(), StoreError> {
    for question in owner.questions() {
        let sums = store.spent(server, &question)?;
        owner.answered(&question, sums);
    }
    Ok(())
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("path", &self.0.path).field("trouble", &self.trouble()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
