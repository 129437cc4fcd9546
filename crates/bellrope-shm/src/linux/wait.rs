//! Sleeping until a socket, a notifier or a shared word has something to say.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::AtomicU32,
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll},
    io::Errno,
    thread::futex,
};

/// What can be waited for: a [`Socket`](crate::socket::Socket), a [`Notifier`], a listener.
pub trait Waitable: AsFd {}

impl<T: AsFd> Waitable for T {}

/// Waits until `source` is readable or hung up, at most `timeout`. Answers whether it is; a signal counts as "no".
///
/// # Errors
/// What the kernel says.
pub fn readable(source: impl Waitable, timeout: Option<Duration>) -> io::Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(source.as_fd(), PollFlags::IN)];
    match rustix::event::poll(&mut fds, timeout.map(timespec).as_ref()) {
        Ok(count) => Ok(count > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Waits until one of two is readable or hung up, at most `timeout`. Answers whether the second is; a signal
/// counts as "no".
///
/// # Errors
/// What the kernel says.
pub fn either_readable(first: impl Waitable, second: impl Waitable, timeout: Option<Duration>) -> io::Result<bool> {
    let (first, second) = (first.as_fd(), second.as_fd());
    let mut fds = [PollFd::from_borrowed_fd(first, PollFlags::IN), PollFd::from_borrowed_fd(second, PollFlags::IN)];
    match rustix::event::poll(&mut fds, timeout.map(timespec).as_ref()) {
        Ok(_) => Ok(!fds[1].revents().is_empty()),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// One thing that happened to something that a [`Poller`] watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The key it was added with.
    pub key: u64,
    /// Whether the other end hung up (there may still be bytes to read).
    pub hung_up: bool,
}

/// Events taken from the kernel at once.
const EVENTS: usize = 128;

/// A level-triggered set of what is watched for readability and hang-ups.
#[derive(Debug)]
pub struct Poller {
    fd: OwnedFd,
    events: Vec<Event>,
}

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self { fd: epoll::create(epoll::CreateFlags::CLOEXEC)?, events: Vec::new() })
    }

    /// Watches `source` under `key`.
    ///
    /// # Errors
    /// What the kernel says: already added, out of watches.
    pub fn add(&self, source: impl Waitable, key: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        Ok(epoll::add(&self.fd, source, epoll::EventData::new_u64(key), flags)?)
    }

    /// Watches under `key` for the other end of `source` to hang up, and for nothing else.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_for_hang_up(&self, source: impl Waitable, key: u64) -> io::Result<()> {
        Ok(epoll::add(&self.fd, source, epoll::EventData::new_u64(key), epoll::EventFlags::RDHUP)?)
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
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<&[Event]> {
        let mut buffer = [MaybeUninit::uninit(); EVENTS];
        let timeout = timeout.map(timespec);
        self.events.clear();
        match epoll::wait(&self.fd, &mut buffer, timeout.as_ref()) {
            Ok((seen, _)) => self.events.extend(seen.iter().map(|event| {
                let flags = event.flags;
                let gone = epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
                Event { key: event.data.u64(), hung_up: flags.intersects(gone) }
            })),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
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
        Ok(Self { fd: rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
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
        assert!(!either_readable(&right, &wake, Some(Duration::ZERO)).unwrap());
        left.ring();
        assert!(!either_readable(&right, &wake, None).unwrap(), "the first");
        wake.wake();
        assert!(either_readable(&right, &wake, None).unwrap(), "the second");
    }

    #[test]
    fn who_watches_for_a_hang_up_hears_no_rings() {
        let (left, right) = Socket::pair().unwrap();
        let mut poller = Poller::new().unwrap();
        poller.add_for_hang_up(&right, 3).unwrap();
        left.ring();
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), []);
        left.shutdown();
        assert_eq!(poller.wait(None).unwrap(), [Event { key: 3, hung_up: true }]);
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
        assert_eq!(poller.wait(None).unwrap(), [Event { key: 7, hung_up: false }]);
        right.drain(16).unwrap();

        wake.wake();
        assert_eq!(poller.wait(None).unwrap(), [Event { key: 9, hung_up: false }]);
        wake.clear();

        drop(left);
        assert_eq!(poller.wait(None).unwrap(), [Event { key: 7, hung_up: true }]);
        poller.remove(&right).unwrap();
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), []);
    }
}
