//! Work that comes to a server by another way than its socket.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Work that comes to a server by another way than its socket, as over HTTP. A server that is to end when nobody uses it
/// ([`exit_when_idle`](crate::server::ServerConfig#structfield.exit_when_idle)) goes on as long as there is some.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("echo.sock");
/// let server = bellrope::Server::builder().in_place("echo", |_| Ok(())).bind(&path)?;
/// let activity = server.metrics().activity();
/// let working = activity.begin();
/// // ... a request that came over HTTP is answered ...
/// drop(working);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Activity(Arc<Counts>);

/// Some work under way, until this is dropped.
#[derive(Debug)]
pub struct Working(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    under_way: AtomicU64,
    ended: AtomicU64,
}

impl Activity {
    /// Begins some work. [Example](Self).
    #[must_use]
    pub fn begin(&self) -> Working {
        self.0.under_way.fetch_add(1, Ordering::Relaxed);
        Working(Arc::clone(&self.0))
    }

    /// Whether something is under way, and how much has ended.
    pub(crate) fn state(&self) -> (bool, u64) {
        // Pairs with the release in `drop`: whoever finds the work over finds it counted.
        let under_way = self.0.under_way.load(Ordering::Acquire) > 0;
        (under_way, self.0.ended.load(Ordering::Relaxed))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
        // Pairs with the acquire in `state`.
        self.0.under_way.fetch_sub(1, Ordering::Release);
    }
}
