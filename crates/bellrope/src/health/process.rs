//! What the kernel knows of this process. What can not be read is absent, never zero.

use bellrope_shm::{proc, process};

use crate::MemoryUse;

/// One reading.
#[derive(Debug, Default)]
pub(super) struct ProcessFacts {
    pub(super) cpu_seconds: f64,
    /// Seconds since 1970, see [`ProcessFacts::start_time`].
    pub(super) started: Option<f64>,
    pub(super) memory: Option<MemoryUse>,
    pub(super) virtual_bytes: Option<u64>,
    pub(super) open_fds: Option<u64>,
    /// `None` also if there is no limit.
    pub(super) max_fds: Option<u64>,
}

impl ProcessFacts {
    pub(super) fn now(started: Option<f64>) -> Self {
        Self {
            cpu_seconds: process::cpu_time_us() as f64 / 1e6,
            started,
            memory: MemoryUse::of(std::process::id()).ok(),
            virtual_bytes: proc::virtual_bytes(),
            open_fds: proc::open_descriptors(),
            max_fds: proc::descriptor_limits().map(|limits| limits.soft).filter(|soft| *soft < u64::MAX),
        }
    }

    /// When this process was started, in seconds since 1970. To be asked once: see [`proc::start_time`].
    pub(super) fn start_time() -> Option<f64> {
        proc::start_time()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_has_everything() {
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        let facts = ProcessFacts::now(None);
        assert!(facts.open_fds.unwrap() >= 4, "standard streams and {file:?}");
        assert!(facts.virtual_bytes.unwrap() > facts.memory.unwrap().rss_kb * 1024);
        assert!(facts.cpu_seconds > 0.0);
    }
}
