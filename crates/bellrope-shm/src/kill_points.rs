//! Points in the code at which a process can be told to kill itself, so that a test sees what is left then.
//!
//! Only with the feature `kill-points`, which is for tests alone: then `BELLROPE_KILL_AT=NAME:COUNT` in the environment
//! sends SIGKILL to the process when it reaches the point of that name for the COUNT-th time. Without the feature,
//! reaching a point is nothing at all.

/// Whether points can be armed in this build.
pub const ARMABLE: bool = cfg!(all(feature = "kill-points", not(loom)));

/// Declares the points of a crate: an enum with a name for each, of which `ALL` is the table.
///
/// A name begins with the side that comes to the point, `client.` or `server.`; any other name means that both do.
///
/// ```
/// bellrope_shm::kill_points! {
///     /// Where a door can be left.
///     pub enum Door {
///         /// It is open.
///         Opened = "door.opened",
///         /// It is closed again.
///         Closed = "door.closed",
///     }
/// }
///
/// Door::Opened.reached(); // nothing, unless the environment says otherwise
/// assert_eq!(Door::ALL.map(Door::name), ["door.opened", "door.closed"]);
/// ```
#[macro_export]
macro_rules! kill_points {
    (
        $(#[$about:meta])*
        $visibility:vis enum $table:ident { $($(#[$what:meta])* $point:ident = $name:literal,)* }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $visibility enum $table { $($(#[$what])* $point,)* }

        impl $table {
            /// All of them.
            $visibility const ALL: [Self; [$($name),*].len()] = [$(Self::$point),*];

            /// The name by which the environment arms it.
            #[must_use]
            $visibility const fn name(self) -> &'static str {
                match self { $(Self::$point => $name,)* }
            }

            /// The process is at this point. It may be its end.
            #[inline(always)]
            $visibility fn reached(self) {
                if $crate::kill_points::ARMABLE {
                    $crate::kill_points::reached(self.name());
                }
            }
        }
    };
}

#[cfg(all(feature = "kill-points", not(loom)))]
thread_local! {
    static INTRUDER: std::cell::RefCell<Option<Intruder>> = const { std::cell::RefCell::new(None) };
}

/// Something that is done at every point that a thread reaches.
pub type Intruder = Box<dyn FnMut()>;

/// Has something done at every point that this thread reaches from now on, or nothing any more: for tests that play a
/// peer which writes into shared memory while we are at work. Nothing is ever done where points cannot be armed.
pub fn intrude(intruder: Option<Intruder>) {
    #[cfg(all(feature = "kill-points", not(loom)))]
    INTRUDER.set(intruder);
    #[cfg(not(all(feature = "kill-points", not(loom))))]
    drop(intruder);
}

/// Kills the process if the point of this name is armed and was reached often enough: see
/// [`kill_points!`](crate::kill_points!).
#[cfg(not(all(feature = "kill-points", not(loom))))]
pub fn reached(_name: &str) {}

/// Kills the process if the point of this name is armed and was reached often enough: see
/// [`kill_points!`](crate::kill_points!).
///
/// # Panics
/// If `BELLROPE_KILL_AT` is not `NAME:COUNT`.
#[cfg(all(feature = "kill-points", not(loom)))]
pub fn reached(name: &str) {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    };

    static ARMED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static TIMES: AtomicU64 = AtomicU64::new(0);

    if let Some(mut intruder) = INTRUDER.take() {
        intruder();
        INTRUDER.set(Some(intruder));
    }
    let armed = ARMED.get_or_init(|| {
        let text = std::env::var("BELLROPE_KILL_AT").ok()?;
        let parsed = text.split_once(':').and_then(|(name, count)| Some((name.to_owned(), count.parse().ok()?)));
        Some(parsed.unwrap_or_else(|| panic!("BELLROPE_KILL_AT={text} is not NAME:COUNT")))
    });
    let Some((point, count)) = armed else { return };
    if point == name && TIMES.fetch_add(1, Ordering::Relaxed) + 1 == *count {
        crate::system::process::kill_self();
        // The signal may take this thread a moment later, and it must not get any further.
        loop {
            std::thread::park();
        }
    }
}
