//! What the machine offers.

use bellrope::server::{ServerConfig, SpinPolicy};
use bellrope_shm::proc;
use bellrope_shm::{SharedMemory, process};

use super::finding::Finding;

/// Bytes of memory that are made, sealed and mapped for a try.
const TRY_BYTES: usize = 8192;
/// The most that is: the rings of the largest settings.
const MOST_TRIED: usize = 32 * 1024 * 1024;
/// Descriptors that a server has besides its connections: files, sockets, event queues, providers.
const OTHER_DESCRIPTORS: u64 = 128;

/// Sealed memory, as every connection has it.
pub(super) fn memfd(config: Option<&ServerConfig>) -> Finding {
    let check = "sealed memory";
    // As much as a connection has, where that is known: a limit may allow less.
    let rings = |config: &ServerConfig| (2 * config.ring_bytes as usize).clamp(TRY_BYTES, MOST_TRIED);
    let bytes = config.map_or(TRY_BYTES, rings);
    let made = SharedMemory::create(bytes).map_err(|error| error.to_string());
    let opened = made.and_then(|(_, fd)| SharedMemory::open(&fd, bytes).map_err(|error| error.to_string()));
    match opened {
        Ok(_) => Finding::ok(check, "memfd with seals works"),
        Err(error) => {
            let fix = "use Linux 3.17 or newer, let memfd_create through where a sandbox filters system calls, and allow \
                       files as large as two rings (ulimit -f)";
            let fault = format!("memfd with seals does not work: {error}");
            match config {
                Some(config) if !config.stream_transport => Finding::fail(check, fault, fix),
                _ => {
                    Finding::warn(check, format!("{fault}; connections go over the socket alone, which is slower"), fix)
                }
            }
        }
    }
}

/// Descriptors of processes, by which one is told apart from a later one with its number.
pub(super) fn pidfd() -> Finding {
    let (check, release) = ("kernel", proc::kernel_release().unwrap_or_default());
    match version(&release) {
        Some(version) if version >= (5, 3) => Finding::ok(check, format!("Linux {release}: pidfd is there")),
        Some(_) => Finding::warn(
            check,
            format!("Linux {release} has no pidfd, and a number of a process may be used again"),
            "use Linux 5.3 or newer",
        ),
        None => Finding::warn(check, "the kernel does not say its version", "mount /proc"),
    }
}

/// The kernel's clock: one that needs a system call costs more than a whole call of ours.
pub(super) fn clock() -> Finding {
    let source = proc::clock_source().unwrap_or_default();
    match source.as_str() {
        "tsc" | "kvm-clock" | "hyperv_clocksource_tsc_page" | "arch_sys_counter" => {
            Finding::ok("clock", format!("{source}, read without a system call"))
        }
        "" => Finding::ok("clock", "the kernel does not say which"),
        _ => Finding::warn(
            "clock",
            format!("{source}, which takes a system call to read"),
            "boot with clocksource=tsc where the processor has an invariant one",
        ),
    }
}

/// A connection is a descriptor.
pub(super) fn descriptors(connections: u32) -> Finding {
    let (check, needed) = ("descriptors", u64::from(connections) + OTHER_DESCRIPTORS);
    let Some(proc::DescriptorLimits { soft, hard }) = proc::descriptor_limits() else {
        return Finding::warn(check, "the system does not say how many may be open", "mount /proc");
    };
    let words = |limit: u64| if limit == u64::MAX { "no limit".to_owned() } else { limit.to_string() };
    let found = format!("soft limit {}, hard {}, max_connections {connections}", words(soft), words(hard));
    if hard < needed {
        let fix = format!(
            "raise the hard limit to {needed} (LimitNOFILE= in the unit, ulimit -Hn), or lower max_connections"
        );
        return Finding::warn(check, found, fix);
    }
    Finding::ok(check, format!("{found}; a server raises the soft limit itself"))
}

/// What the server may come to hold at the very most.
/// `most`: in bytes. `has_port`: whether an API port is among it.
pub(super) fn memory(config: &ServerConfig, most: u64, has_port: bool) -> Finding {
    let of_port = if has_port { ", the API port" } else { "" };
    let Some(there) = [proc::available_memory(), proc::memory_limit_of_group()].into_iter().flatten().min() else {
        return Finding::warn("memory", "the system does not say how much is there", "mount /proc");
    };
    let mib = |bytes: u64| bytes / 1_048_576;
    let found = format!(
        "{} MiB there; at the very most {} MiB in {} connections, the buffer budget{of_port} and answers that are kept",
        mib(there),
        mib(most),
        config.max_connections
    );
    if config.buffer_budget_bytes > there {
        let fix = "lower server.buffer_budget_bytes below what is there";
        return Finding::fail("memory", found, fix);
    }
    if most > there {
        let fix = "typically two pages a connection are in use; where every client may be hostile lower \
                    server.max_connections or server.ring_bytes";
        return Finding::warn("memory", found, fix);
    }
    Finding::ok("memory", found)
}

/// Whether spinning can pay.
pub(super) fn cpus(config: &ServerConfig) -> Finding {
    let (cpus, workers) = (process::usable_cpus(), config.workers as usize);
    let found = format!("{cpus} of {} may be used, spin is {}", process::online_cpus(), spin(config.spin));
    if config.spin == SpinPolicy::Always && workers.max(1) >= cpus {
        return Finding::warn(
            "CPUs",
            found,
            "a spinning worker leaves no CPU to its callers: set server.spin to adaptive",
        );
    }
    if workers > cpus {
        return Finding::warn(
            "CPUs",
            format!("{found}, with {workers} workers"),
            "set server.workers to no more than CPUs",
        );
    }
    Finding::ok("CPUs", found)
}

fn spin(policy: SpinPolicy) -> &'static str {
    match policy {
        SpinPolicy::Never => "never",
        SpinPolicy::Always => "always",
        _ => "adaptive",
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        assert_eq!(version("6.18.44-fc-amd"), Some((6, 18)));
        assert_eq!(version("5.3"), Some((5, 3)));
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn a_limit_below_what_the_settings_need_is_a_warning_with_its_fix() {
        let finding = descriptors(u32::MAX);
        // Whoever has no limit at all is no worse off.
        assert!(finding.level == Level::Ok || finding.fix.unwrap().contains("max_connections"));
        let mut config = ServerConfig::default();
        config.buffer_budget_bytes = u64::MAX;
        let finding = memory(&config, config.memory_bound(), false);
        assert_eq!((finding.level, finding.fix.unwrap().contains("buffer_budget_bytes")), (Level::Fail, true));
        // Rings that no machine has room for, if all were in use.
        config.buffer_budget_bytes = 0;
        (config.max_connections, config.ring_bytes) = (u32::MAX, 1 << 30);
        let finding = memory(&config, config.memory_bound(), false);
        assert_eq!((finding.level, finding.fix.unwrap().contains("server.max_connections")), (Level::Warn, true));
    }

    #[test]
    fn workers_that_leave_no_cpu_to_their_callers_are_a_warning() {
        let mut config = ServerConfig::default();
        let many = 5_000;
        let mut found = |spin, workers| {
            (config.spin, config.workers) = (spin, workers);
            let Finding { level, found, fix, .. } = cpus(&config);
            (level, found, fix.unwrap_or_default())
        };
        let (level, said, fix) = found(SpinPolicy::Always, many);
        assert_eq!((level, said.ends_with("spin is always")), (Level::Warn, true), "{said}");
        assert_eq!(fix, "a spinning worker leaves no CPU to its callers: set server.spin to adaptive");
        let (level, said, fix) = found(SpinPolicy::Never, many);
        assert_eq!((level, said.ends_with("spin is never, with 5000 workers")), (Level::Warn, true), "{said}");
        assert_eq!(fix, "set server.workers to no more than CPUs");
        let (level, said, _) = found(SpinPolicy::Adaptive, 1);
        assert_eq!((level, said.ends_with("spin is adaptive")), (Level::Ok, true), "{said}");
    }
}
