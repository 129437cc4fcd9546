//! Sleeping until a socket, a notifier or a shared word has something to say.

use std::{
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll},
    io::Errno,
    thread::futex,
};

use super::denied::named;

/// What can be waited for: a [`Socket`](crate::socket::Socket), a [`Notifier`], a listener.
pub trait Waitable: AsFd {}

impl<T: AsFd> Waitable for T {}

/// What a socket is waited for, beside its hang-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Bytes to read.
    Bytes,
    /// Bytes to read, or room for bytes to write.
    BytesOrRoom,
}

impl Interest {
    fn to_poll(self) -> PollFlags {
        match self {
            Self::Bytes => PollFlags::IN,
            Self::BytesOrRoom => PollFlags::IN.union(PollFlags::OUT),
        }
    }

    fn to_epoll(self) -> epoll::EventFlags {
        match self {
            Self::Bytes => epoll::EventFlags::IN,
            Self::BytesOrRoom => epoll::EventFlags::IN.union(epoll::EventFlags::OUT),
        }
    }
}

/// Waits until `source` is readable or hung up, at most `timeout`. Answers whether it is; a signal counts as "no".
///
/// # Errors
/// What the kernel says.
pub fn readable(source: impl Waitable, timeout: Option<Duration>) -> io::Result<bool> {
    ready(source, Interest::Bytes, timeout)
}

/// As [`readable`], for whatever one is interested in.
///
/// # Errors
/// What the kernel says.
pub fn ready(source: impl Waitable, interest: Interest, timeout: Option<Duration>) -> io::Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(source.as_fd(), interest.to_poll())];
    match rustix::event::poll(&mut fds, timeout.map(timespec).as_ref()) {
        Ok(count) => Ok(count > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(named("ppoll")(errno)),
    }
}

/// Waits until the first of two is [`ready`] or the second is readable or hung up, at most `timeout`. Answers whether the
/// second is; a signal counts as "no".
///
/// # Errors
/// What the kernel says.
pub fn either_ready(
    first: impl Waitable,
    interest: Interest,
    second: impl Waitable,
    timeout: Option<Duration>,
) -> io::Result<bool> {
    let (first, second) = (first.as_fd(), second.as_fd());
    let mut fds =
        [PollFd::from_borrowed_fd(first, interest.to_poll()), PollFd::from_borrowed_fd(second, PollFlags::IN)];
    match rustix::event::poll(&mut fds, timeout.map(timespec).as_ref()) {
        Ok(_) => Ok(!fds[1].revents().is_empty()),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(named("ppoll")(errno)),
    }
}

/// One thing that happened to something that a [`Poller`] watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollEvent {
    /// The key it was added with.
    pub key: u64,
    /// Whether the other end hung up (there may still be bytes to read).
    pub hung_up: bool,
}

/// Events that one [`Poller::wait`] returns at the most. Where it returns as many, there may be more.
pub const EVENTS: usize = 128;

/// A set of what is watched for readability and hang-ups: level-triggered, but what is [added by its
/// edges](Self::add_edges).
#[derive(Debug)]
pub struct Poller {
    fd: Arc<OwnedFd>,
    events: Vec<PollEvent>,
}

/// How something is watched by its edges, to be changed by whoever serves it.
#[derive(Debug)]
pub struct EdgeWatch {
    fd: Arc<OwnedFd>,
    key: u64,
    interest: Interest,
}

impl EdgeWatch {
    /// Watches `source`, the very one that was added, for this from now on. What is the case now is reported anew.
    ///
    /// # Errors
    /// If it is watched no longer.
    pub fn watch_for(&mut self, source: impl Waitable, interest: Interest) -> io::Result<()> {
        if self.interest != interest {
            epoll::modify(&self.fd, source, epoll::EventData::new_u64(self.key), edges(interest))?;
            self.interest = interest;
        }
        Ok(())
    }
}

fn edges(interest: Interest) -> epoll::EventFlags {
    interest.to_epoll() | epoll::EventFlags::RDHUP | epoll::EventFlags::ET
}

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn new() -> io::Result<Self> {
        let fd = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(named("epoll_create1"))?;
        Ok(Self { fd: Arc::new(fd), events: Vec::new() })
    }

    /// The same set once more: one thread may wait for it while another changes what is watched.
    #[must_use]
    pub fn another(&self) -> Self {
        Self { fd: Arc::clone(&self.fd), events: Vec::new() }
    }

    /// Watches `source` under `key`.
    ///
    /// # Errors
    /// What the kernel says: already added, out of watches.
    pub fn add(&self, source: impl Waitable, key: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        epoll::add(&self.fd, source, epoll::EventData::new_u64(key), flags).map_err(named("epoll_ctl"))
    }

    /// Watches under `key` for the other end of `source` to hang up, and for nothing else.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_for_hang_up(&self, source: impl Waitable, key: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::RDHUP;
        epoll::add(&self.fd, source, epoll::EventData::new_u64(key), flags).map_err(named("epoll_ctl"))
    }

    /// Watches `source` under `key` for bytes and hang-ups, and reports each when it comes, once: whoever is told reads until
    /// nothing is left, or remembers that something is.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_edges(&self, source: impl Waitable, key: u64) -> io::Result<EdgeWatch> {
        let interest = Interest::Bytes;
        epoll::add(&self.fd, source, epoll::EventData::new_u64(key), edges(interest)).map_err(named("epoll_ctl"))?;
        Ok(EdgeWatch { fd: Arc::clone(&self.fd), key, interest })
    }

    /// Whether all can be had that async runtimes wait and wake with, one system call among it that [`Self::wait`] does without:
    /// where a filter denies that, the threads of tokio end as they begin. Of the others it would not say which is denied.
    ///
    /// # Errors
    /// It cannot; the error names the call that is denied.
    #[expect(unsafe_code, reason = "it is the C library's function that is to be tried")]
    pub fn check_runtime_waits() -> io::Result<()> {
        let (set, wake) = (Self::new()?, Notifier::new()?);
        set.add(&wake, 0)?;
        // It hears of signals so.
        UnixStream::pair().map_err(|error| Errno::from_io_error(&error).map_or(error, named("socketpair")))?;
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: the descriptor is open as long as `set` lives, and there is room for the one event that may be written.
        match unsafe { libc::epoll_wait(set.fd.as_raw_fd(), &raw mut event, 1, 0) } {
            -1 => {
                let error = io::Error::last_os_error();
                Err(Errno::from_io_error(&error).map_or(error, named("epoll_wait")))
            }
            _ => Ok(()),
        }
    }

    /// Whether this waiting works at all.
    ///
    /// # Errors
    /// It does not; the error names the call that is denied.
    pub fn check_waits() -> io::Result<()> {
        Self::new()?.wait(Some(Duration::ZERO)).map(drop)
    }

    /// Stops watching `source`.
    ///
    /// # Errors
    /// If it was not watched.
    pub fn remove(&self, source: impl Waitable) -> io::Result<()> {
        Ok(epoll::delete(&self.fd, source)?)
    }

    /// Waits at most `timeout` (`None`: for ever) and returns what happened. A signal ends the wait with nothing.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<&[PollEvent]> {
        let mut buffer = [MaybeUninit::uninit(); EVENTS];
        let timeout = timeout.map(timespec);
        self.events.clear();
        match epoll::wait(&self.fd, &mut buffer, timeout.as_ref()) {
            Ok((seen, _)) => self.events.extend(seen.iter().map(|event| {
                let flags = event.flags;
                let gone = epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
                PollEvent { key: event.data.u64(), hung_up: flags.intersects(gone) }
            })),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(named("epoll_pwait")(errno)),
        }
        Ok(&self.events)
    }
}

/// What one thread of this process makes readable to wake another. Never shared with a peer.
#[derive(Debug)]
pub struct Notifier {
    fd: OwnedFd,
}

impl AsFd for Notifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Notifier {
    /// One that is not readable yet.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self { fd: rustix::event::eventfd(0, flags).map_err(named("eventfd2"))? })
    }

    /// Makes it readable.
    pub fn wake(&self) {
        // The only possible failure is a counter at its maximum, which is readable already.
        let _ = rustix::io::write(&self.fd, &1_u64.to_ne_bytes());
    }

    /// Makes it unreadable again.
    pub fn clear(&self) {
        let _ = rustix::io::read(&self.fd, &mut [0_u8; 8]);
    }
}

/// Sleeps while the word is `expected`, until somebody [wakes](wake_word) those who sleep on it, at most `timeout`. May
/// return early.
pub(crate) fn on_word(word: &AtomicU32, expected: u32, timeout: Duration) -> io::Result<()> {
    match futex::wait(word, futex::Flags::empty(), expected, Some(&timespec(timeout))) {
        Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Wakes everybody, of all processes, who sleeps on the word.
pub(crate) fn wake_word(word: &AtomicU32) {
    // It fails for no word that is mapped.
    let woken = futex::wake(word, futex::Flags::empty(), u32::MAX >> 1);
    debug_assert!(woken.is_ok(), "{woken:?}");
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::Socket;

    #[test]
    fn readable_waits_for_a_ring_or_the_timeout() {
        let (left, right) = Socket::pair().unwrap();
        assert!(!readable(&right, Some(Duration::ZERO)).unwrap());
        left.ring();
        assert!(readable(&right, Some(Duration::from_secs(10))).unwrap());
    }

    #[test]
    fn the_second_of_two_ends_the_wait_too() {
        let (left, right) = Socket::pair().unwrap();
        let wake = Notifier::new().unwrap();
        let either = |interest, timeout| either_ready(&right, interest, &wake, timeout).unwrap();
        assert!(!either(Interest::Bytes, Some(Duration::ZERO)));
        assert!(!either(Interest::BytesOrRoom, None), "there is room in the first");
        left.ring();
        assert!(!either(Interest::Bytes, None), "the first");
        wake.wake();
        assert!(either(Interest::Bytes, None), "the second");
    }

    #[test]
    fn who_waits_for_room_wakes_when_the_other_side_reads() {
        let (left, right) = Socket::pair().unwrap();
        left.set_nonblocking(true).unwrap();
        while left.send(&[0; 4096]).is_ok() {}
        let now = Some(Duration::ZERO);
        assert!(!ready(&left, Interest::BytesOrRoom, now).unwrap());
        let mut poller = Poller::new().unwrap();
        let mut watch = poller.add_edges(&left, 5).unwrap();
        watch.watch_for(&left, Interest::BytesOrRoom).unwrap();
        assert_eq!(poller.wait(now).unwrap(), []);
        let mut bytes = vec![0; 1 << 20];
        assert!(right.receive(&mut bytes).unwrap() > 0);
        assert!(ready(&left, Interest::BytesOrRoom, now).unwrap());
        assert_eq!(poller.wait(None).unwrap(), [PollEvent { key: 5, hung_up: false }]);
        assert_eq!(poller.wait(now).unwrap(), [], "once");
        watch.watch_for(&left, Interest::Bytes).unwrap();
        right.ring();
        assert_eq!(poller.wait(None).unwrap(), [PollEvent { key: 5, hung_up: false }]);
        assert_eq!(poller.wait(now).unwrap(), [], "though it was not read");
        drop(right);
        assert_eq!(poller.wait(None).unwrap(), [PollEvent { key: 5, hung_up: true }]);
    }

    #[test]
    fn who_watches_for_a_hang_up_hears_no_rings() {
        let (left, right) = Socket::pair().unwrap();
        let mut poller = Poller::new().unwrap();
        poller.add_for_hang_up(&right, 3).unwrap();
        left.ring();
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), []);
        left.shutdown();
        assert_eq!(poller.wait(None).unwrap(), [PollEvent { key: 3, hung_up: true }]);
    }

    #[test]
    fn what_one_adds_to_a_set_the_other_waits_for() {
        let (left, right) = Socket::pair().unwrap();
        let poller = Poller::new().unwrap();
        let mut another = poller.another();
        poller.add(&right, 7).unwrap();
        left.ring();
        assert_eq!(another.wait(None).unwrap(), [PollEvent { key: 7, hung_up: false }]);
        poller.remove(&right).unwrap();
        assert_eq!(another.wait(Some(Duration::ZERO)).unwrap(), []);
    }

    #[test]
    fn a_poller_reports_rings_hang_ups_and_wakes_under_their_keys() {
        let (left, right) = Socket::pair().unwrap();
        let wake = Notifier::new().unwrap();
        let mut poller = Poller::new().unwrap();
        poller.add(&right, 7).unwrap();
        poller.add(&wake, 9).unwrap();
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), []);

        left.ring();
        assert_eq!(poller.wait(None).unwrap(), [PollEvent { key: 7, hung_up: false }]);
        right.drain(16).unwrap();

        wake.wake();
        assert_eq!(poller.wait(None).unwrap(), [PollEvent { key: 9, hung_up: false }]);
        wake.clear();

        drop(left);
        assert_eq!(poller.wait(None).unwrap(), [PollEvent { key: 7, hung_up: true }]);
        poller.remove(&right).unwrap();
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), []);
    }
}
