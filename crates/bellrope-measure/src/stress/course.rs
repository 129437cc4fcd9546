//! How a suite is run, and when it is over.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use bellrope::client::{ClientConfig, Transport};
use bellrope_proto::stream::READ_AHEAD;

/// How a suite is run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Course {
    pub(super) quick: bool,
    pub(super) seconds: Option<f64>,
    pub(super) seed: u64,
    /// Of all clients.
    pub(super) transport: Transport,
}

/// When a suite is over.
#[derive(Debug, Clone, Copy)]
pub(super) enum Extent {
    /// After so many steps.
    Count(u64),
    /// After so long.
    Time(Duration),
}

impl Course {
    /// The extent of a suite that counts its steps.
    pub(super) fn count(self, full: u64) -> Extent {
        match self.seconds {
            Some(seconds) => Extent::Time(Duration::from_secs_f64(seconds)),
            None => Extent::Count(if self.quick { full / 10 } else { full }),
        }
    }

    /// How its clients connect.
    pub(super) fn client(self, socket: impl Into<PathBuf>) -> ClientConfig {
        ClientConfig::new(socket).transport(self.transport)
    }

    /// Most KiB that a server holds of a connection beside its rings, because of its transport.
    pub(super) fn read_ahead_kb(self) -> f64 {
        if self.transport == Transport::Stream { READ_AHEAD as f64 / 1024.0 } else { 0.0 }
    }

    /// How long a suite runs that has a time.
    pub(super) fn time(self, full: f64, quick: f64) -> Duration {
        Duration::from_secs_f64(self.seconds.unwrap_or(if self.quick { quick } else { full }))
    }
}

impl Extent {
    /// Whether `done` steps since `start` are enough.
    pub(super) fn is_over(self, done: u64, start: Instant) -> bool {
        self.share(done, start) >= 1.0
    }

    /// How much of it is over after `done` steps since `start`, from 0 to 1.
    pub(super) fn share(self, done: u64, start: Instant) -> f64 {
        let share = match self {
            Self::Count(count) => done as f64 / count as f64,
            Self::Time(time) => start.elapsed().as_secs_f64() / time.as_secs_f64(),
        };
        share.min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_ends_after_its_count_a_tenth_of_it_or_the_seconds_asked_for() {
        let course = Course { quick: false, seconds: None, seed: 1, transport: Transport::Shm };
        let (whole, quick) = (course.count(500), Course { quick: true, ..course }.count(500));
        let start = Instant::now();
        assert!(!whole.is_over(499, start) && whole.is_over(500, start) && whole.is_over(501, start));
        assert!(!quick.is_over(49, start) && quick.is_over(50, start));
        assert_eq!([0, 250, 500, 900].map(|done| whole.share(done, start)), [0.0, 0.5, 1.0, 1.0]);
        let seconds = Course { seconds: Some(3600.0), ..course }.count(500);
        assert!(!seconds.is_over(u64::MAX, start), "a time is not up because of steps");
        assert_eq!(seconds.share(0, start - Duration::from_secs(3600)), 1.0);
    }
}
