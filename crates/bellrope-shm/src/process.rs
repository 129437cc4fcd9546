//! Facts about this process and the machine, and the few settings of it that Bellrope changes.

use std::io;

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
