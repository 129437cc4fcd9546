//! What a process uses, as the kernel counts it.

use anyhow::Context;

/// CPU time of all threads of a process that are alive, in microseconds.
pub(crate) fn cpu_us(pid: u32) -> anyhow::Result<f64> {
    let folder = format!("/proc/{pid}/task");
    let mut ns = 0_u64;
    for thread in std::fs::read_dir(&folder).with_context(|| format!("reading {folder}"))? {
        let path = thread?.path().join("schedstat");
        // A thread may have ended since; a machine without the file is told so.
        match std::fs::read_to_string(&path) {
            Ok(text) => ns += text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && folder_has(&folder, "schedstat") => {}
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }
    Ok(ns as f64 / 1000.0)
}

/// Resident memory of a process (VmRSS), in KiB.
pub(crate) fn resident_kb(pid: u32) -> anyhow::Result<u64> {
    Ok(bellrope::status::MemoryUse::of(pid).with_context(|| format!("reading the memory of process {pid}"))?.rss_kb)
}

fn folder_has(task_folder: &str, file: &str) -> bool {
    std::path::Path::new(task_folder).with_file_name(file).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_a_thread_computes_is_counted() {
        let pid = std::process::id();
        let before = cpu_us(pid).unwrap();
        let start = std::time::Instant::now();
        // Other threads of the tests may end meanwhile and take their time with them: only a rise is waited for.
        while cpu_us(pid).unwrap() <= before {
            assert!(start.elapsed() < std::time::Duration::from_secs(10), "CPU time does not rise");
        }
        assert!(resident_kb(pid).unwrap() > 0);
    }
}
