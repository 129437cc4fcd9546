//! Clocks that jump.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Only a clock that may be set, or that goes on while the machine sleeps, can jump.
const JUMPING: [&str; 5] = ["SystemTime", "Realtime", "CLOCK_REALTIME", "Boottime", "CLOCK_BOOTTIME"];

/// Notes when settings were last read, for people and for Prometheus; nothing waits for that time or compares it.
const TELLS_THE_DATE: &str = "status/settings.rs";

/// The Rust files below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = |path: PathBuf| if path.is_dir() { sources(&path) } else { vec![path] };
    entries.flat_map(files).collect()
}

// Fault 41.
#[test]
fn no_clock_that_can_jump_is_read_below_the_gateway() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut monotonic = 0;
    for name in ["bellrope-shm", "bellrope-proto", "bellrope"] {
        for file in sources(&crates.join(name).join("src")) {
            if file.ends_with(TELLS_THE_DATE) {
                continue;
            }
            let source = fs::read_to_string(&file).unwrap();
            // What stands in unit tests measures against the machine.
            let code = source.split("#[cfg(test)]\nmod tests").next().unwrap();
            for clock in JUMPING {
                assert!(!code.contains(clock), "{} reads {clock}; use Instant or clock::monotonic_us", file.display());
            }
            monotonic += code.matches("Instant::now").count() + code.matches("ClockId::Monotonic").count();
        }
    }
    assert!(monotonic > 20, "the sources were not found");
}
