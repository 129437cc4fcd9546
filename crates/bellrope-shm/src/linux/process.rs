//! Facts about this process and the machine, and the few settings of it that Bellrope changes.

use std::{
    fs::File,
    io,
    os::{
        fd::{BorrowedFd, FromRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

pub use super::limits::{check_memory, in_the_way_of_a_thread, raise_descriptor_limit};
use super::{clock, proc};

/// The effective user id.
#[must_use]
pub fn user_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Locks a file for this process alone, if nobody else holds it; it is given back when the file is closed. `false` if
/// somebody does.
///
/// # Errors
/// What the system says.
pub fn try_lock(file: &File) -> io::Result<bool> {
    match rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives a lock back before its file is closed, and whichever descriptor of the file it was taken with.
///
/// # Errors
/// What the system says.
pub fn unlock(file: &File) -> io::Result<()> {
    Ok(rustix::fs::flock(file, rustix::fs::FlockOperation::Unlock)?)
}

/// Whether a user id that the kernel told us names a user. In a user namespace it puts one number, 65534 as a rule, in the
/// place of every user that the namespace does not map, so that number says nothing about who it is.
#[must_use]
pub fn names_user(uid: u32) -> bool {
    uid != proc::overflow_user() || proc::maps_user(uid)
}

/// What the system has too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// This process has as many descriptors as it may have.
    ProcessDescriptors,
    /// The machine has.
    MachineDescriptors,
    /// Too many descriptors of this user are on their way through sockets (`ETOOMANYREFS`).
    DescriptorsInFlight,
    /// Memory.
    Memory,
}

/// What an error of the system says there is too little of, if that is what it says.
#[must_use]
pub fn shortage(error: &io::Error) -> Option<Shortage> {
    Some(match rustix::io::Errno::from_io_error(error)? {
        rustix::io::Errno::MFILE => Shortage::ProcessDescriptors,
        rustix::io::Errno::NFILE => Shortage::MachineDescriptors,
        rustix::io::Errno::TOOMANYREFS => Shortage::DescriptorsInFlight,
        rustix::io::Errno::NOMEM | rustix::io::Errno::NOBUFS => Shortage::Memory,
        _ => return None,
    })
}

/// CPUs this thread may run on, at least one.
#[must_use]
pub fn usable_cpus() -> usize {
    rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count() as usize).max(1)
}

/// CPUs of the machine that are online, at least one. Peers may run on any of them, whatever this process may use.
#[must_use]
pub fn online_cpus() -> usize {
    proc::online_cpus().unwrap_or_else(usable_cpus).max(1)
}

/// Pins the calling thread to the `nth` (modulo their number) of the CPUs it may run on.
///
/// # Errors
/// What the kernel says.
pub fn pin_to_cpu(nth: usize) -> io::Result<()> {
    let usable = rustix::thread::sched_getaffinity(None)?;
    let cpus: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| usable.is_set(*cpu)).collect();
    let Some(cpu) = cpus.get(nth % cpus.len().max(1)) else {
        return Ok(());
    };
    pin_to(*cpu)
}

/// Pins the calling thread to the CPU of this number.
///
/// # Errors
/// What the kernel says; [`io::ErrorKind::InvalidInput`] where no mask has room for it.
pub fn pin_to(cpu: usize) -> io::Result<()> {
    if cpu >= rustix::thread::CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut one = rustix::thread::CpuSet::new();
    one.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &one)?)
}

/// Whether this thread may run on the CPU of this number.
#[must_use]
pub fn may_run_on(cpu: usize) -> bool {
    cpu < rustix::thread::CpuSet::MAX_CPU
        && rustix::thread::sched_getaffinity(None).is_ok_and(|usable| usable.is_set(cpu))
}

/// The CPUs that this thread may run on, the smallest number first.
#[must_use]
pub fn usable_cpu_numbers() -> Vec<usize> {
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| may_run_on(*cpu)).collect()
}

/// Takes the code and constants of the program and its libraries out of this process's resident set. What is still
/// needed comes back from the page cache when it is next used; what is not, such as all that only starting up needed,
/// stays away. Returns the bytes of address space given back, 0 if the system does not say where they are.
#[expect(unsafe_code, reason = "advice about a mapping needs its address")]
pub fn drop_program_pages() -> usize {
    let mut given_back = 0;
    for range in proc::constant_mappings().unwrap_or_default() {
        // SAFETY: a private mapping of a file, executable or before its file's code, was never writable: it holds
        // nothing but the file's own bytes (relocated data lies behind the code). Dropping its pages loses nothing; the
        // next access maps the same bytes again.
        let dropped = unsafe {
            rustix::mm::madvise(range.start as *mut std::ffi::c_void, range.len(), rustix::mm::Advice::LinuxDontNeed)
        };
        if dropped.is_ok() {
            given_back += range.len();
        }
    }
    given_back
}

/// Gives the pages of the heap on which nothing lives any more back to the system. The C library does so by itself for
/// what lies above everything that lives, and keeps the rest: one small thing that stays can hold a burst's megabytes.
/// Threads that allocate wait meanwhile, for as long as it takes to walk the heap. Returns whether anything was given
/// back; always `false` where the C library is not glibc.
#[expect(unsafe_code, reason = "a call into the C library")]
pub fn trim_heap() -> bool {
    // SAFETY: it takes the allocator's own locks, and touches nothing that is allocated.
    #[cfg(target_env = "gnu")]
    let given_back = unsafe { libc::malloc_trim(0) } != 0;
    #[cfg(not(target_env = "gnu"))]
    let given_back = false;
    given_back
}

/// Most descriptors that a service manager is expected to hand over.
const MAX_INHERITED: i32 = 64;
/// The first of them, by the protocol of systemd's `sd_listen_fds(3)`.
const FIRST_INHERITED: i32 = 3;

/// Something that a service manager has opened for this process.
#[derive(Debug)]
pub struct Inherited(OwnedFd);

impl Inherited {
    /// The listener that it is. `None`: it is something else than a Unix stream socket that listens, and is closed.
    #[must_use]
    pub fn into_unix_listener(self) -> Option<UnixListener> {
        use rustix::net::{AddressFamily, SocketType, sockopt};
        let Self(fd) = self;
        let is_listener = sockopt::socket_domain(&fd) == Ok(AddressFamily::UNIX)
            && sockopt::socket_type(&fd) == Ok(SocketType::STREAM)
            && sockopt::socket_acceptconn(&fd) == Ok(true);
        is_listener.then(|| fd.into())
    }
}

/// What a service manager has opened for this process, as `LISTEN_PID` and `LISTEN_FDS` tell; nothing where these are not
/// meant for us. It can be taken once; later calls find nothing.
///
/// # Errors
/// `LISTEN_FDS` is no number from 0 to 64, or names a descriptor that is not open.
#[expect(unsafe_code, reason = "taking over a descriptor that another program opened")]
pub fn inherited() -> io::Result<Vec<Inherited>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<i32>());
    let meant_for_us = number("LISTEN_PID").is_some_and(|pid| pid.is_ok_and(|pid| pid as u32 == std::process::id()));
    let Some(count) = number("LISTEN_FDS").filter(|_| meant_for_us) else { return Ok(Vec::new()) };
    let count = count.ok().filter(|count| (0..=MAX_INHERITED).contains(count));
    let Some(count) = count else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "LISTEN_FDS is not a number from 0 to 64"));
    };
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let descriptors = FIRST_INHERITED..FIRST_INHERITED + count;
    for fd in descriptors.clone() {
        // SAFETY: the borrow ends with this call, which fails if nothing is open under the number.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC)?;
    }
    // SAFETY: all of them are open, as was just seen. By the protocol the manager opened them for this process (the id
    // was compared) before it ran, and to be taken by nobody else in it; `TAKEN` makes sure that this happens once.
    Ok(descriptors.map(|fd| Inherited(unsafe { OwnedFd::from_raw_fd(fd) })).collect())
}

/// CPU time that this process has used so far, to the microsecond.
#[must_use]
pub fn cpu_time() -> Duration {
    Duration::from_micros(clock::microseconds(rustix::time::ClockId::ProcessCPUTime))
}

/// Kills this process, where a test said so. The signal may take this thread a moment later.
#[cfg(feature = "kill-points")]
pub(crate) fn kill_self() {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_that_a_process_may_not_have_is_told_from_memory_that_it_may_have() {
        if std::env::var("BELLROPE_TEST_ALONE").is_err() {
            let mut command = std::process::Command::new("sh");
            // In KiB.
            command.args(["-c", "ulimit -d 65536; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
            let test = "linux::process::tests::memory_that_a_process_may_not_have_is_told_from_memory_that_it_may_have";
            return passes(command.env("BELLROPE_TEST_ALONE", "1"), test);
        }
        (0..1_000).for_each(|_| super::check_memory(8 << 20).unwrap());
        let error = super::check_memory(64 << 20).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::OutOfMemory);
        let said = "the system gives this process no 67108864 more bytes of memory; its limit on data is 67108864 bytes \
                    (RLIMIT_DATA, ulimit -d)";
        assert_eq!(error.to_string(), said);
    }

    #[test]
    fn a_listener_is_told_from_other_descriptors() {
        let home = std::env::temp_dir().join(format!("bellrope-listener-{}", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&home).unwrap();
        std::fs::remove_file(&home).unwrap();
        let is_listener = |fd| super::Inherited(fd).into_unix_listener().is_some();
        assert!(is_listener(listener.into()));
        let (left, _right) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(!is_listener(left.into()));
        assert!(!is_listener(std::fs::File::open("/dev/null").unwrap().into()));
        assert!(super::inherited().unwrap().is_empty(), "none is meant for this process");
    }

    /// Runs one of these tests in a process for which a service manager has opened that many descriptors.
    fn run_with_inherited(test: &str, count: &str) {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\" 3</dev/null"]).arg(std::env::current_exe().unwrap());
        passes(command.env("LISTEN_FDS", count), test);
    }

    /// Claims that one of these tests passes in the process of this command.
    fn passes(command: &mut std::process::Command, test: &str) {
        let ended = command.args([test, "--exact"]).output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
    }

    #[test]
    fn a_number_of_inherited_descriptors_that_is_none_is_refused() {
        let Ok(count) = std::env::var("LISTEN_FDS") else {
            let test = "linux::process::tests::a_number_of_inherited_descriptors_that_is_none_is_refused";
            return ["-1", "65", "some"].into_iter().for_each(|count| run_with_inherited(test, count));
        };
        let error = super::inherited().unwrap_err();
        assert_eq!(error.to_string(), "LISTEN_FDS is not a number from 0 to 64", "{count}");
    }

    #[test]
    fn inherited_descriptors_can_be_taken_once() {
        if std::env::var("LISTEN_FDS").is_err() {
            return run_with_inherited("linux::process::tests::inherited_descriptors_can_be_taken_once", "1");
        }
        assert_eq!(super::inherited().unwrap().len(), 1);
        assert!(super::inherited().unwrap().is_empty());
    }

    #[test]
    fn a_program_without_its_pages_runs_on() {
        assert!(super::drop_program_pages() > 0);
        assert!(super::usable_cpus() >= 1);
    }

    /// KiB of heap and stacks that are resident.
    #[cfg(target_env = "gnu")]
    fn anonymous_kib() -> usize {
        super::proc::ProcessStatus::of(std::process::id()).unwrap().kib("RssAnon").unwrap() as usize
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn a_heap_that_is_pinned_from_above_is_given_back() {
        // Alone in its process: what other tests hold and free meanwhile would be measured too.
        if std::env::var("BELLROPE_TEST_ALONE").is_err() {
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            let test = "linux::process::tests::a_heap_that_is_pinned_from_above_is_given_back";
            return passes(command.env("BELLROPE_TEST_ALONE", "1"), test);
        }
        // Blocks too small for mappings of their own. Every second one stays, so that wherever they were put, what is
        // freed lies between others, and the allocator does not give it back by itself.
        const BLOCK: usize = 64 * 1024;
        let mut blocks: Vec<_> = (0..1_024).map(|_| Some(vec![1_u8; BLOCK])).collect();
        blocks.iter_mut().step_by(2).for_each(|block| drop(block.take()));
        let before = anonymous_kib();
        assert!(super::trim_heap());
        let given_back = before.saturating_sub(anonymous_kib());
        assert!(given_back > 16 * 1024, "{given_back} of 32,768 KiB were given back");
        assert_eq!(blocks.iter().flatten().map(|block| usize::from(block[BLOCK - 1])).sum::<usize>(), 512);
    }

    #[test]
    fn a_thread_can_be_pinned() {
        std::thread::spawn(|| {
            super::pin_to_cpu(0).unwrap();
            assert_eq!(super::usable_cpus(), 1);
            assert!(super::online_cpus() >= 1);
            let [only] = super::usable_cpu_numbers()[..] else { panic!("one CPU") };
            assert!(super::may_run_on(only) && !super::may_run_on(only + 1) && !super::may_run_on(usize::MAX));
            super::pin_to(only).unwrap();
            assert!(super::pin_to(usize::MAX).is_err());
        })
        .join()
        .unwrap();
    }
}
