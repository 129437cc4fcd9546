//! What the kernel knows of this process. What can not be read is absent, never zero.

use bellrope_shm::{proc, process};

use bellrope::status::MemoryUse;

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
        Self {
            cpu_seconds: process::cpu_time().as_secs_f64(),
            started,
            memory: MemoryUse::of(std::process::id()).ok(),
            virtual_bytes: proc::virtual_bytes(),
            open_fds: proc::open_descriptors(),
            max_fds: proc::descriptor_limits().map(|limits| limits.soft).filter(|soft| *soft < u64::MAX),
        }
    }

    /// When this process was started, in seconds since 1970. To be asked once: see [`proc::start_time`].
    pub(crate) fn start_time() -> Option<f64> {
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
