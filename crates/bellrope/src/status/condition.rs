//! What the threads of a server report of themselves: whether their loops turn, and whether new connections are welcome.

use std::sync::atomic::Ordering;
#[cfg(feature = "tokio")]
use std::time::Duration;

use super::{Metrics, Readiness};

/// How long the loops of the server may take to answer. Below the second that probes commonly wait.
#[cfg(feature = "tokio")]
const PATIENCE: Duration = Duration::from_millis(500);
/// How often their answers are looked for.
#[cfg(feature = "tokio")]
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A question that was put to the loops of a server: see [`Metrics::probe`]. The default is one that every loop has
/// answered.
#[derive(Debug, Clone, Copy, Default)]
pub struct LivenessProbe(u64);

/// What the loops of a server report of themselves: the acceptor whether it takes connections, and which loops do not
/// answer.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("echo.sock");
/// use bellrope::{Server, status::{Health, Status}};
///
/// let server = Server::builder().in_place("echo", |_| Ok(())).bind(&path)?;
/// let metrics = server.metrics();
/// let condition = metrics.condition().await;
/// println!("{}: {:?}, {:?}", condition.status(), condition.not_ready(), condition.wedged());
/// assert_eq!(Health::new(&metrics, &condition).status, condition.status());
/// assert_eq!(Status::new(&metrics, &condition).health.types[0].name, "echo");
/// let all: Status = serde_json::from_str(&metrics.overview().await)?;
/// assert_eq!(all.health.types[0].name, "echo");
///
/// // For whoever asks again and again, without waiting: the answers are those to the question before.
/// let probe = metrics.probe();
/// println!("{}", metrics.condition_since(probe).status());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Condition {
    readiness: Readiness,
    max_connections: u64,
    /// The loops that did not answer: workers by their number.
    silent_workers: Vec<usize>,
    silent_acceptor: bool,
}

impl Condition {
    fn new(metrics: &Metrics, mut silent: Vec<usize>) -> Self {
        let loops = silent.len();
        silent.retain(|index| *index != metrics.acceptor());
        Self {
            readiness: metrics.readiness(),
            max_connections: metrics.max_connections.load(Ordering::Relaxed),
            silent_acceptor: silent.len() < loops,
            silent_workers: silent,
        }
    }

    /// One word: `healthy`, `starting`, `stopping`, `full`, `exhausted` or `wedged`.
    #[must_use]
    pub fn status(&self) -> &'static str {
        match self.readiness {
            _ if self.wedged().is_some() => "wedged",
            Readiness::Starting => "starting",
            _ if self.silent_acceptor => "wedged",
            Readiness::Ready => "healthy",
            Readiness::Stopping => "stopping",
            Readiness::Full => "full",
            Readiness::Exhausted => "exhausted",
        }
    }

    /// Why a worker's loop does not turn; `None` if all do.
    #[must_use]
    pub fn wedged(&self) -> Option<String> {
        let first = self.silent_workers.first()?;
        let more = match self.silent_workers.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        Some(format!("worker {first}{more} does not answer: a handler holds it up, or its thread is gone"))
    }

    /// Why new connections should go elsewhere; `None` if they are welcome.
    #[must_use]
    pub fn not_ready(&self) -> Option<String> {
        let reason = match self.readiness {
            Readiness::Stopping => "the server is stopping",
            _ if !self.silent_workers.is_empty() => return self.wedged(),
            Readiness::Starting => "the server is starting",
            _ if self.silent_acceptor => "the acceptor does not answer",
            Readiness::Full => {
                return Some(format!("{} connections are open, the limit max_connections", self.max_connections));
            }
            Readiness::Exhausted => "the system has no descriptor left for another connection",
            Readiness::Ready => return None,
        };
        Some(reason.to_owned())
    }

    /// Whether a loop has not answered.
    #[cfg(feature = "tokio")]
    fn is_silent(&self) -> bool {
        self.silent_acceptor || !self.silent_workers.is_empty()
    }
}

impl Metrics {
    /// Asks every loop of the server whether it turns, and returns at once. [`Metrics::condition_since`] shows which
    /// loops have answered. [Example](Condition).
    pub fn probe(&self) -> LivenessProbe {
        LivenessProbe(self.liveness().ask())
    }

    /// What the loops report, where a loop that has not answered this probe counts as silent. To be asked when every loop
    /// has had the time to answer. [Example](Condition).
    #[must_use]
    pub fn condition_since(&self, probe: LivenessProbe) -> Condition {
        Condition::new(self, self.liveness().unanswered(probe.0).collect())
    }

    /// Asks the loops of the server, and waits for their answers, for half a second at most. Runs on tokio, with its
    /// timer. [Example](Condition).
    #[cfg(feature = "tokio")]
    pub async fn condition(&self) -> Condition {
        let (probe, until) = (self.probe(), tokio::time::Instant::now() + PATIENCE);
        loop {
            let condition = self.condition_since(probe);
            if !condition.is_silent() || tokio::time::Instant::now() >= until {
                return condition;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown of a server that says this of itself while these workers, and perhaps its acceptor, say nothing.
    fn shown(readiness: Readiness, silent_workers: &[usize], silent_acceptor: bool) -> (&'static str, Option<String>) {
        let silent_workers = silent_workers.to_vec();
        let condition = Condition { readiness, max_connections: 7, silent_workers, silent_acceptor };
        (condition.status(), condition.not_ready())
    }

    #[test]
    fn a_server_that_takes_no_connections_says_why() {
        let said = |reason: &str| Some(reason.to_owned());
        assert_eq!(shown(Readiness::Ready, &[], false), ("healthy", None));
        assert_eq!(
            shown(Readiness::Exhausted, &[], false),
            ("exhausted", said("the system has no descriptor left for another connection"))
        );
        assert_eq!(shown(Readiness::Ready, &[], true), ("wedged", said("the acceptor does not answer")));
        assert_eq!(shown(Readiness::Starting, &[], true), ("starting", said("the server is starting")));
        assert_eq!(shown(Readiness::Stopping, &[], false), ("stopping", said("the server is stopping")));
        let full = said("7 connections are open, the limit max_connections");
        assert_eq!(shown(Readiness::Full, &[], false), ("full", full));
        let wedged = said("worker 2, and 1 more does not answer: a handler holds it up, or its thread is gone");
        assert_eq!(shown(Readiness::Ready, &[2, 5], true), ("wedged", wedged));
    }
}
