//! How soon each side learns of the other's death.

use std::time::Duration;

/// How often each side says that it lives, to whoever has calls with it.
pub(crate) const BEAT: Duration = Duration::from_millis(200);
/// Who was silent for so long is gone. With a beat more that is still within a second.
pub(crate) const LOST: Duration = Duration::from_millis(800);
/// By how much the clock of an importing server may be thought to be behind: an answer to a question of what it says that
/// took longer than this says too little.
pub(crate) const EXACT: Duration = Duration::from_millis(200);
/// An answer that took longer than this is none. Between that and [`EXACT`] it counts as saying too little by all the time it took.
pub(crate) const ANSWERED_WITHIN: Duration = Duration::from_millis(500);
/// How soon after it was handed over a call may begin. What NATS brings later is refused: it was given up by then.
pub(crate) const BEGIN_WITHIN: Duration = Duration::from_millis(550);

// With some room for clocks that drift apart.
const _: () = assert!(BEGIN_WITHIN.as_millis() + EXACT.as_millis() < LOST.as_millis());

/// How much longer an instance keeps its load to itself for each importing server that hears it.
pub(crate) const EACH_HEARER: Duration = Duration::from_millis(1);
