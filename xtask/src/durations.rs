//! Times are `Duration`s in what users write in Rust: no public name of the libraries says a unit of time. Keys of files and
//! messages do, by `#[serde(rename)]`.

use std::path::Path;

use crate::{
    api::{LIBRARIES, surface},
    found::Found,
};

/// Public names that say a unit all the same, each with the reason.
const SAID: [(&str, &str); 4] = [
    (
        "bellrope_proto::connection::InboundRequest.deadline_us",
        "a moment, on the clock that its server told its clients",
    ),
    ("bellrope_proto::handshake::Welcome.clock_us", "that clock, as it travels"),
    ("bellrope_shm::clock::monotonic_us", "a moment, on the clock that deadlines are told on"),
    ("bellrope_shm::clock::ticks_per_ns", "a rate"),
];

const UNITS: [&str; 15] = [
    "ns", "us", "ms", "s", "nanos", "micros", "millis", "secs", "seconds", "minutes", "hours", "days", "weeks",
    "months", "years",
];

/// Looks for public names that end with a unit of time.
///
/// # Errors
/// A file cannot be read or is not Rust.
pub fn check(root: &Path) -> anyhow::Result<Found> {
    let (mut all, mut faults) = (0, Vec::new());
    for library in LIBRARIES {
        let paths = surface::paths(&library.replace('-', "_"), &root.join("crates").join(library).join("src/lib.rs"))?;
        all += paths.len();
        faults.extend(
            SAID.iter()
                .filter(|(path, _)| path.starts_with(&format!("{}::", library.replace('-', "_"))))
                .filter(|(path, _)| !paths.contains(*path))
                .map(|(path, _)| format!("{path} is there no more: take it out of the list")),
        );
        let wrong = paths.into_iter().filter(|path| says_unit(path) && SAID.iter().all(|(said, _)| said != path));
        faults.extend(wrong.map(|path| format!("{path}: make it a Duration, with the unit in the key alone")));
    }
    Ok(Found::new(format!("{all} public paths"), faults))
}

fn says_unit(path: &str) -> bool {
    let unit = path.rsplit_once('_').map(|(_, last)| last.to_ascii_lowercase());
    unit.is_some_and(|unit| UNITS.contains(&unit.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_at_the_end_of_a_name_is_found() {
        for wrong in ["a::B.keep_s", "a::BOUNDS_US", "a::B::of_days", "a::B.uptime_seconds"] {
            assert!(says_unit(wrong), "{wrong}");
        }
        for fine in ["a::B.keep", "a_b::Cost.micros", "a::B::seconds", "a::B.rss_kb", "a::token_names"] {
            assert!(!says_unit(fine), "{fine}");
        }
    }
}
