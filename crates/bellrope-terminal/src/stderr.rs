//! Standard error for programs that run for long: a bounded queue, and one thread that writes.
//!
//! Standard error may be a pipe that nobody reads, and then a write to it never ends. A program that has called [`start`]
//! writes there from one thread alone, which nothing else waits for. A line that finds no room in the queue is dropped and
//! counted, and when everything that waited is written, a line says how many were. Programs that have not called it write at
//! once. A program may have its lines [written elsewhere](write_elsewhere) from some moment on.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    sync::{
        Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

/// Bytes that wait at the most.
const MOST_BYTES: usize = 256 * 1024;
/// Lines that wait at the most.
const MOST_LINES: usize = 2_048;
/// Between two tries on a standard error that does not block.
const PAUSE: Duration = Duration::from_millis(10);
/// Virtual memory of the thread's stack; only touched pages count.
const STACK_BYTES: usize = 64 * 1024;

/// The queue of this process.
static QUEUE: LazyLock<Arc<Queue>> = LazyLock::new(Arc::default);
static STARTED: AtomicBool = AtomicBool::new(false);

/// Where lines go instead of standard error.
type Elsewhere = Box<dyn Write + Send>;

/// Lines on their way.
#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    /// Taken by the thread that writes, and once by whoever sets it.
    elsewhere: Mutex<Option<Elsewhere>>,
    /// Something waits.
    filled: Condvar,
    /// Nothing waits, and nothing is being written.
    empty: Condvar,
    lost: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Whether one is being written.
    writing: bool,
    /// Lines lost since the last time that this was said.
    untold: u64,
}

/// Has everything written by a thread of its own from now on.
///
/// # Errors
/// The system has no thread or descriptor for it; then everything stays as it was.
pub fn start() -> io::Result<()> {
    // A descriptor of our own: whoever holds the lock of the standard library's handle may be blocked in it.
    let into = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let queue = Arc::clone(&QUEUE);
    let run = move || queue.write_all(into);
    thread::Builder::new().name("bellrope-stderr".to_owned()).stack_size(STACK_BYTES).spawn(run)?;
    STARTED.store(true, Relaxed);
    Ok(())
}

/// Has everything that comes from now on written into a log, a line with each write. What came before goes to standard
/// error; it is waited for, at most for so long. Does nothing before [`start`].
pub fn write_elsewhere(log: impl Write + Send + 'static, patience: Duration) {
    flush(patience);
    *QUEUE.elsewhere.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(log));
}

/// Writes a line, or as many as the text has, at once or in its turn. Never fails: there is nobody to tell.
pub(crate) fn write(text: &[u8]) {
    match STARTED.load(Relaxed) {
        true => QUEUE.push(text),
        false => drop(io::stderr().write_all(text)),
    }
}

/// Waits until everything is written, at most so long. What waits then is lost with the process.
pub fn flush(patience: Duration) {
    if STARTED.load(Relaxed) {
        QUEUE.wait_until_empty(patience);
    }
}

/// Lines that were lost so far: no room in the queue, or nowhere to write them.
#[must_use]
pub fn lost() -> Arc<AtomicU64> {
    Arc::clone(&QUEUE.lost)
}

/// Where a logger writes: each write is a whole line.
#[derive(Debug, Clone, Copy, Default)]
pub struct LineWriter;

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        write(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Queue {
    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.lines.len() >= MOST_LINES || state.bytes.saturating_add(line.len()) > MOST_BYTES {
            state.untold += 1;
            self.lost.fetch_add(1, Relaxed);
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line.to_vec());
        self.filled.notify_one();
    }

    /// Writes whatever comes, for ever.
    fn write_all(&self, mut into: impl Write) {
        loop {
            let line = self.next();
            let mut elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
            // A log takes a line whole, so that it is told apart from the next.
            let written = match &mut *elsewhere {
                Some(log) => log.write_all(&line),
                None => {
                    drop(elsewhere);
                    write_line(&mut into, &line)
                }
            };
            self.note(&written);
        }
    }

    /// The next line. The one before it is written now.
    fn next(&self) -> Vec<u8> {
        let mut state = self.lock();
        state.writing = false;
        loop {
            if let Some(line) = state.lines.pop_front() {
                state.bytes -= line.len();
                state.writing = true;
                return line;
            }
            // Not before, or there would be such a line between any two while lines are lost.
            if state.untold > 0 {
                let untold = std::mem::take(&mut state.untold);
                state.writing = true;
                return format!("{untold} lines of the log were lost: the lines before them were not read\n")
                    .into_bytes();
            }
            self.empty.notify_all();
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Counts a line that could not be written: the disk is full, the file too large, the reader gone.
    fn note(&self, written: &io::Result<()>) {
        if written.is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    fn wait_until_empty(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        while state.writing || !state.lines.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            (state, _) = self.empty.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Held for no longer than a line takes to be put in or taken out, never while one is written.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a line, however long that takes: nothing waits for this thread.
fn write_line(into: &mut impl Write, line: &[u8]) -> io::Result<()> {
    let mut left = line;
    while !left.is_empty() {
        match into.write(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => left = &left[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Whoever gave it to us, or shares it with us, has made it so.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::unix::net::UnixStream};

    use super::*;

    const LINE: [u8; 100] = [b'x'; 100];

    // Fault 61.
    #[test]
    fn where_nobody_reads_lines_are_lost_and_counted_and_whoever_logs_never_waits() {
        let queue = Arc::<Queue>::default();
        let (into, mut reader) = UnixStream::pair().unwrap();
        let writer = Arc::clone(&queue);
        thread::spawn(move || writer.write_all(into));
        // More than socket and queue hold together. That this ends at all is the point of it.
        let pushed = 20_000;
        (0..pushed).for_each(|_| queue.push(&LINE));
        let lost = queue.lost.load(Relaxed);
        assert!(lost > 0 && lost < pushed);
        {
            let state = queue.lock();
            assert!(state.lines.len() <= MOST_LINES && state.bytes <= MOST_BYTES);
        }
        queue.wait_until_empty(Duration::from_millis(20));
        assert!(!queue.lock().lines.is_empty(), "there is nobody to write them to");

        // When somebody reads at last, everything that was kept comes, and how much was not.
        let told = format!("{lost} lines of the log were lost: the lines before them were not read\n");
        let mut read = vec![0; (pushed - lost) as usize * LINE.len() + told.len()];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(String::from_utf8(read).unwrap().trim_start_matches('x'), told);
        queue.wait_until_empty(Duration::from_secs(60));
        assert!(queue.lock().lines.is_empty());
    }

    // Faults 61, 68.
    #[test]
    fn a_line_that_cannot_be_written_is_lost_and_counted_and_the_next_is_tried() {
        let queue = Arc::<Queue>::default();
        let (into, reader) = UnixStream::pair().unwrap();
        drop(reader);
        let writer = Arc::clone(&queue);
        thread::spawn(move || writer.write_all(into));
        (0..3).for_each(|_| queue.push(&LINE));
        queue.wait_until_empty(Duration::from_secs(60));
        assert_eq!(queue.lost.load(Relaxed), 3);
    }
}
