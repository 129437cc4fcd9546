//! Facts about this process and the machine, and the few settings of it that Bellrope changes.

use std::{
    io,
    os::fd::{BorrowedFd, FromRawFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::process::Resource;

/// The effective user id.
#[must_use]
pub fn user_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// CPUs this thread may run on, at least one.
#[must_use]
pub fn usable_cpus() -> usize {
    rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count() as usize).max(1)
}

/// CPUs of the machine that are online, at least one. Peers may run on any of them, whatever this process may use.
#[must_use]
pub fn online_cpus() -> usize {
    // A list of ranges such as `0-3,8`.
    let count = |list: &str| {
        list.trim().split(',').try_fold(0_usize, |sum, range| {
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            let (from, to): (usize, usize) = (from.parse().ok()?, to.parse().ok()?);
            Some(sum + to.checked_sub(from)? + 1)
        })
    };
    let listed = std::fs::read_to_string("/sys/devices/system/cpu/online").ok().and_then(|list| count(&list));
    listed.unwrap_or_else(usable_cpus).max(1)
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
    let mut one = rustix::thread::CpuSet::new();
    one.set(*cpu);
    Ok(rustix::thread::sched_setaffinity(None, &one)?)
}

/// Raises the soft limit on open descriptors to the hard one and returns what it is now (`None`: unlimited).
pub fn raise_descriptor_limit() -> Option<u64> {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let soft = limit.current;
        limit.current = limit.maximum;
        if rustix::process::setrlimit(Resource::Nofile, limit).is_err() {
            return soft;
        }
    }
    limit.current
}

/// Takes the code and constants of the program and its libraries out of this process's resident set. What is still
/// needed comes back from the page cache when it is next used; what is not, such as all that only starting up needed,
/// stays away. Returns the bytes of address space given back, 0 if the system does not say where they are.
#[expect(unsafe_code, reason = "advice about a mapping needs its address")]
pub fn drop_program_pages() -> usize {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return 0 };
    let mut given_back = 0;
    for range in constant_mappings(&maps) {
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

/// The mappings in `/proc/PID/maps` that hold code, or constants that lie before the code of the same file.
fn constant_mappings(maps: &str) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    // Read-only mappings of one file that may turn out to lie before its code.
    let mut before_code: (&str, Vec<std::ops::Range<usize>>) = ("", Vec::new());
    for line in maps.lines() {
        // address-address permissions offset device inode path
        let mut fields = line.split_whitespace();
        let (Some(range), Some(permissions), Some(path)) = (fields.next(), fields.next(), fields.nth(3)) else {
            continue;
        };
        let range = range
            .split_once('-')
            .and_then(|(from, to)| Some(usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?));
        let Some(range) = range.filter(|_| path.starts_with('/')) else { continue };
        if before_code.0 != path {
            before_code = (path, Vec::new());
        }
        match permissions {
            "r--p" => before_code.1.push(range),
            "r-xp" => {
                found.append(&mut before_code.1);
                found.push(range);
            }
            _ => before_code.1.clear(),
        }
    }
    found
}

/// Most descriptors that a service manager is expected to hand over.
const MAX_INHERITED: i32 = 64;
/// The first of them, by the protocol of systemd's `sd_listen_fds(3)`.
const FIRST_INHERITED: i32 = 3;

/// The descriptors that a service manager has opened for this process, as `LISTEN_PID` and `LISTEN_FDS` tell; none where
/// these are not meant for us. They can be taken once; later calls find none.
///
/// # Errors
/// `LISTEN_FDS` is no number from 0 to 64, or names a descriptor that is not open.
#[expect(unsafe_code, reason = "taking over a descriptor that another program opened")]
pub fn inherited_descriptors() -> io::Result<Vec<OwnedFd>> {
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
    Ok(descriptors.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect())
}

/// Whether a descriptor is a Unix stream socket that listens.
#[must_use]
pub fn is_unix_listener(fd: &OwnedFd) -> bool {
    use rustix::net::{AddressFamily, SocketType, sockopt};
    sockopt::socket_domain(fd) == Ok(AddressFamily::UNIX)
        && sockopt::socket_type(fd) == Ok(SocketType::STREAM)
        && sockopt::socket_acceptconn(fd) == Ok(true)
}

/// CPU time that this process has used so far, in microseconds.
#[must_use]
pub fn cpu_time_us() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    u64::try_from(time.tv_sec * 1_000_000 + time.tv_nsec / 1_000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_descriptor_limit_is_raised_to_the_hard_one() {
        let first = super::raise_descriptor_limit();
        assert_eq!(super::raise_descriptor_limit(), first);
    }

    #[test]
    fn a_listener_is_told_from_other_descriptors() {
        let home = std::env::temp_dir().join(format!("bellrope-listener-{}", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&home).unwrap();
        std::fs::remove_file(&home).unwrap();
        assert!(super::is_unix_listener(&listener.into()));
        let (left, _right) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(!super::is_unix_listener(&left.into()));
        assert!(!super::is_unix_listener(&std::fs::File::open("/dev/null").unwrap().into()));
        assert!(super::inherited_descriptors().unwrap().is_empty(), "none is meant for this process");
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
            let test = "process::tests::a_number_of_inherited_descriptors_that_is_none_is_refused";
            return ["-1", "65", "some"].into_iter().for_each(|count| run_with_inherited(test, count));
        };
        let error = super::inherited_descriptors().unwrap_err();
        assert_eq!(error.to_string(), "LISTEN_FDS is not a number from 0 to 64", "{count}");
    }

    #[test]
    fn inherited_descriptors_can_be_taken_once() {
        if std::env::var("LISTEN_FDS").is_err() {
            return run_with_inherited("process::tests::inherited_descriptors_can_be_taken_once", "1");
        }
        assert_eq!(super::inherited_descriptors().unwrap().len(), 1);
        assert!(super::inherited_descriptors().unwrap().is_empty());
    }

    #[test]
    fn a_program_without_its_pages_runs_on() {
        assert!(super::drop_program_pages() > 0);
        assert!(super::usable_cpus() >= 1);
    }

    /// KiB of heap and stacks that are resident.
    #[cfg(target_env = "gnu")]
    fn anonymous_kib() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn a_heap_that_is_pinned_from_above_is_given_back() {
        // Alone in its process: what other tests hold and free meanwhile would be measured too.
        if std::env::var("BELLROPE_TEST_ALONE").is_err() {
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            let test = "process::tests::a_heap_that_is_pinned_from_above_is_given_back";
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
    fn only_code_and_the_constants_before_it_are_dropped() {
        let maps = "\
1000-2000 r--p 00000000 fe:00 12 /bin/x
2000-4000 r-xp 00001000 fe:00 12 /bin/x
4000-5000 r--p 00003000 fe:00 12 /bin/x
5000-6000 rw-p 00004000 fe:00 12 /bin/x
6000-7000 rw-p 00000000 00:00 0 [heap]
7000-8000 r--p 00000000 fe:00 13 /data/file
8000-9000 r-xp 00000000 00:00 0 [vdso]
";
        assert_eq!(super::constant_mappings(maps), [0x1000..0x2000, 0x2000..0x4000]);
    }

    #[test]
    fn a_thread_can_be_pinned() {
        std::thread::spawn(|| {
            super::pin_to_cpu(0).unwrap();
            assert_eq!(super::usable_cpus(), 1);
            assert!(super::online_cpus() >= 1);
        })
        .join()
        .unwrap();
    }
}
