//! A program under test: what it says, how it ends. None outlives its test.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus},
    sync::{Arc, Condvar, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// Nothing that a test waits for takes longer, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// The variable that says where a process leaves its counts while line coverage is measured.
pub const COVERAGE: &str = "LLVM_PROFILE_FILE";
/// How long a process whose test is over may take to end by itself, and with it what it started.
const GRACE: Duration = Duration::from_secs(2);
/// The same while line coverage is measured: it writes its counts as it ends, and half of them count for nothing.
const COUNTING_GRACE: Duration = Duration::from_secs(30);

/// A process under way. Dropping it asks it to end, and kills it if it does not.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stderr: Arc<Heard>,
    listening: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts a process and listens to its standard error, if that is piped.
    ///
    /// # Panics
    /// If it cannot be started.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stderr = Arc::<Heard>::default();
        let listening = child.stderr.take().map(|pipe| {
            let heard = Arc::clone(&stderr);
            std::thread::spawn(move || heard.listen(pipe))
        });
        Self { child, stderr, listening }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its standard output, once.
    ///
    /// # Panics
    /// If that is not piped, or was taken.
    pub fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().unwrap()
    }

    /// Its standard input, once.
    ///
    /// # Panics
    /// If that is not piped, or was taken.
    pub fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    /// Waits until this text stands on standard error; returns its line.
    ///
    /// # Panics
    /// If it does not come.
    #[track_caller]
    pub fn said(&self, text: &str) -> String {
        self.said_times(text, 1)
    }

    /// Waits until this text stands on standard error in so many lines; returns the last of them.
    ///
    /// # Panics
    /// If they do not come.
    #[track_caller]
    pub fn said_times(&self, text: &str, times: usize) -> String {
        let missing = |(said, over): &mut (String, bool)| {
            said.lines().filter(|line| line.contains(text)).count() < times && !*over
        };
        let state = self.stderr.state.lock().unwrap();
        let (state, _) = self.stderr.news.wait_timeout_while(state, PATIENCE, missing).unwrap();
        let line = state.0.lines().filter(|line| line.contains(text)).nth(times - 1);
        line.unwrap_or_else(|| panic!("{text:?} was not said {times} times, but:\n{}", state.0)).to_owned()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If it has ended and was waited for.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// How it ended, if it has.
    ///
    /// # Panics
    /// If the system does not tell.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Asks it to end, and waits for it.
    ///
    /// # Panics
    /// If it does not end.
    #[track_caller]
    pub fn stop(self) -> Finished {
        self.signal(Signal::TERM);
        self.finish()
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// If it does not come.
    #[track_caller]
    pub fn finish(self) -> Finished {
        self.finish_within(PATIENCE)
    }

    /// Waits for the end of a process that may take so long.
    ///
    /// # Panics
    /// If it does not come, or standard output is not UTF-8.
    #[track_caller]
    pub fn finish_within(mut self, limit: Duration) -> Finished {
        let reading = self.child.stdout.take().map(|mut pipe| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                pipe.read_to_end(&mut bytes).unwrap();
                String::from_utf8(bytes).unwrap()
            })
        });
        let status = self.ends_within(limit).unwrap_or_else(|| panic!("it did not end within {limit:?}"));
        let stdout = reading.map(|reading| reading.join().unwrap()).unwrap_or_default();
        if let Some(listening) = self.listening.take() {
            listening.join().unwrap();
        }
        let stderr = self.stderr.state.lock().unwrap().0.clone();
        Finished { code: status.code(), stdout, stderr }
    }

    fn ends_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            match self.child.try_wait().unwrap() {
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
                ended => return ended,
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let grace = if std::env::var_os(COVERAGE).is_some() { COUNTING_GRACE } else { GRACE };
            if self.ends_within(grace).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }
}

/// What a process that has ended left behind.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl Finished {
    /// Standard output of a process that succeeded.
    ///
    /// # Panics
    /// If it failed.
    #[track_caller]
    pub fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// Standard error of a process that failed with this exit code and printed no result.
    ///
    /// # Panics
    /// If it did anything else.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!((self.code, &*self.stdout), (Some(code), ""), "{self:?}");
        self.stderr
    }
}

/// What a process said so far on standard error, and whether no more can come.
#[derive(Debug, Default)]
struct Heard {
    state: Mutex<(String, bool)>,
    news: Condvar,
}

impl Heard {
    fn listen(&self, pipe: impl Read) {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            self.state.lock().unwrap().0.push_str(&String::from_utf8_lossy(&line));
            self.news.notify_all();
            line.clear();
        }
        self.state.lock().unwrap().1 = true;
        self.news.notify_all();
    }
}
