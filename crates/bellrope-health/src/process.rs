//! What the kernel knows of this process, from `/proc`. What can not be read is absent, never zero.

use std::fs;

use bellrope::{MemoryUse, shm::process};

/// Clock ticks in a second as `/proc` counts them, the same on every architecture we run on.
const USER_HZ: f64 = 100.0;

/// One reading.
#[derive(Debug, Default)]
pub(crate) struct ProcessFacts {
    pub(crate) cpu_seconds: f64,
    /// Seconds since 1970, see [`ProcessFacts::start_time`].
    pub(crate) started: Option<f64>,
    pub(crate) memory: Option<MemoryUse>,
    pub(crate) virtual_bytes: Option<u64>,
    pub(crate) open_fds: Option<u64>,
    /// `None` also if there is no limit.
    pub(crate) max_fds: Option<u64>,
}

impl ProcessFacts {
    pub(crate) fn now(started: Option<f64>) -> Self {
        let limits = fs::read_to_string("/proc/self/limits").ok();
        Self {
            cpu_seconds: process::cpu_time_us() as f64 / 1e6,
            started,
            memory: MemoryUse::of(std::process::id()).ok(),
            virtual_bytes: stat_field(23),
            // Reading the directory takes one itself.
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|entries| (entries.count() as u64).saturating_sub(1)),
            max_fds: limits.as_deref().and_then(max_open_files),
        }
    }

    /// When this process was started, in seconds since 1970. To be asked once: the kernel works it out from the wall
    /// clock, so it moves a little when that is set.
    pub(crate) fn start_time() -> Option<f64> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let boot: u64 = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        Some(boot as f64 + stat_field(22)? as f64 / USER_HZ)
    }
}

/// A number in `/proc/self/stat`, counted from 1 as in proc(5), from the third on.
fn stat_field(number: usize) -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in brackets, which may hold anything, brackets and spaces too.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(number.checked_sub(3)?)?.parse().ok()
}

/// The soft limit in a text like that of `/proc/self/limits`.
fn max_open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn the_start_was_not_long_ago_and_not_in_the_future() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let started = ProcessFacts::start_time().unwrap();
        // The boot time is cut to whole seconds.
        assert!(started <= now + 1.0 && started > now - 3600.0, "started at {started}, now {now}");
    }

    #[test]
    fn a_reading_has_everything() {
        let file = fs::File::open("/proc/self/stat").unwrap();
        let facts = ProcessFacts::now(None);
        assert!(facts.open_fds.unwrap() >= 4, "standard streams and {file:?}");
        assert!(facts.virtual_bytes.unwrap() > facts.memory.unwrap().rss_kb * 1024);
        assert!(facts.cpu_seconds > 0.0);
    }

    #[test]
    fn a_limit_is_read_and_no_limit_is_none() {
        let text = |soft: &str| format!("Limit  Soft Limit  Hard Limit  Units\nMax open files  {soft}  4096  files\n");
        assert_eq!(max_open_files(&text("1024")), Some(1024));
        assert_eq!(max_open_files(&text("unlimited")), None);
    }
}
