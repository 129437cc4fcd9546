//! The one word that says all about a breaker's state.
//!
//! ```text
//! 63           32 31           3 2    0
//! +--------------+--------------+------+
//! |    counts    |  generation  | mode |
//! +--------------+--------------+------+
//! ```
//!
//! Mode and generation together are the *key* of a permit: a permit settles only the state it came from. The counts are
//! failures in a row while closed, and while half-open probes that are out (low half) and that went well (high half).

use super::state::BreakerState;

/// How a breaker came to do what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Closed = 0,
    ForcedClosed = 1,
    Open = 2,
    ForcedOpen = 3,
    HalfOpen = 4,
}

impl Mode {
    pub(super) fn state(self) -> BreakerState {
        match self {
            Self::Closed | Self::ForcedClosed => BreakerState::Closed,
            Self::Open | Self::ForcedOpen => BreakerState::Open,
            Self::HalfOpen => BreakerState::HalfOpen,
        }
    }

    pub(super) fn is_forced(self) -> bool {
        matches!(self, Self::ForcedClosed | Self::ForcedOpen)
    }
}

const MODE_BITS: u32 = 3;
const MODE_MASK: u64 = (1 << MODE_BITS) - 1;
const COUNTS: u32 = 32;
/// One in the counts of a half-open breaker.
const PROBE: u64 = 1 << COUNTS;
const SUCCESS: u64 = 1 << (COUNTS + 16);

/// See the picture above. After 2^29 changes of state a generation comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word(u64);

impl From<u64> for Word {
    #[inline]
    fn from(bits: u64) -> Self {
        Self(bits)
    }
}

impl Word {
    pub(super) fn new(mode: Mode, generation: u32) -> Self {
        Self(u64::from(generation << MODE_BITS) | mode as u64)
    }

    /// The same breaker in another state: the next generation, all counts zero.
    pub(super) fn next(self, mode: Mode) -> Self {
        Self::new(mode, (self.key() >> MODE_BITS).wrapping_add(1))
    }

    #[inline]
    pub(super) fn bits(self) -> u64 {
        self.0
    }

    #[inline]
    pub(super) fn key(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    pub(super) fn mode(self) -> Mode {
        match self.0 & MODE_MASK {
            0 => Mode::Closed,
            1 => Mode::ForcedClosed,
            2 => Mode::Open,
            3 => Mode::ForcedOpen,
            _ => Mode::HalfOpen,
        }
    }

    /// Closed, by itself or by hand.
    #[inline]
    pub(super) fn admits_all(self) -> bool {
        self.0 & MODE_MASK <= Mode::ForcedClosed as u64
    }

    /// Whether this is the closed state that `key` came from, with nothing counted.
    #[inline]
    pub(super) fn is_closed_without_failure(self, key: u32) -> bool {
        self.0 == u64::from(key) && self.admits_all()
    }

    pub(super) fn failures(self) -> u32 {
        (self.0 >> COUNTS) as u32
    }

    pub(super) fn with_failures(self, failures: u32) -> Self {
        Self(u64::from(self.key()) | u64::from(failures) << COUNTS)
    }

    pub(super) fn probes(self) -> u32 {
        (self.0 / PROBE) as u32 & 0xffff
    }

    pub(super) fn successes(self) -> u32 {
        (self.0 / SUCCESS) as u32
    }

    pub(super) fn with_probe(self) -> Self {
        Self(self.0 + PROBE)
    }

    pub(super) fn without_probe(self) -> Self {
        Self(self.0 - PROBE)
    }

    pub(super) fn with_success(self) -> Self {
        Self(self.0 + SUCCESS)
    }
}

/// Whether a permit with this key is a probe's.
#[inline]
pub(super) fn is_probe(key: u32) -> bool {
    u64::from(key) & MODE_MASK == Mode::HalfOpen as u64
}
