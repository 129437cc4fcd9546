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
//! The two highest bits of a closed breaker say what stands in its table of callers: that breakers of some are open, so
//! that admission must ask, and that some have failed, so that a success must be told.

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
const SOME_FAILED: u64 = 1 << 62;
const SOME_OPEN: u64 = 1 << 63;
const FLAGS: u64 = SOME_FAILED | SOME_OPEN;
/// Most failures that are counted here.
const MAX_FAILURES: u32 = (1 << 30) - 1;

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

    /// Closed, by itself or by hand, and for every caller.
    #[inline]
    pub(super) fn admits_all(self) -> bool {
        // Of the modes, these two are the ones without the higher two bits.
        self.0 & (SOME_OPEN | MODE_MASK & !(Mode::ForcedClosed as u64)) == 0
    }

    /// Whether this is the closed state that `key` came from, with nothing counted.
    #[inline]
    pub(super) fn is_closed_without_failure(self, key: u32) -> bool {
        // If they are equal, there is no flag and no count in the word, and its mode is the key's.
        self.0 == u64::from(key) && key & (MODE_MASK & !(Mode::ForcedClosed as u64)) as u32 == 0
    }

    pub(super) fn failures(self) -> u32 {
        (self.0 >> COUNTS) as u32 & MAX_FAILURES
    }

    pub(super) fn with_failures(self, failures: u32) -> Self {
        Self(self.0 & FLAGS | u64::from(self.key()) | u64::from(failures.min(MAX_FAILURES)) << COUNTS)
    }

    /// Of a closed breaker: whether anything stands in its table of callers.
    pub(super) fn has_callers(self) -> bool {
        self.0 & FLAGS != 0
    }

    pub(super) fn with_callers(self, failed: bool, open: bool) -> Self {
        let flags = if failed { SOME_FAILED } else { 0 } | if open { SOME_OPEN } else { 0 };
        Self(self.0 & !FLAGS | flags)
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

/// A probe of one caller's breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProbeOf {
    pub(super) row: usize,
    /// Which half-open state of which row: never the same twice, within what a key can hold.
    pub(super) round: u32,
}

impl ProbeOf {
    /// The bits of a round.
    pub(super) const ROUNDS: u32 = (1 << 24) - 1;
}

/// What the key of a permit stands for. Where it is no state's, its lowest bits are a mode that there is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// A call that the closed breaker admitted, or a probe of nobody in particular.
    State(u32),
    /// A probe of one caller's breaker.
    OfCaller(ProbeOf),
    /// A probe of the breaker of all, whose caller is known by its place.
    Placed { place: usize, generation: u32 },
}

const OF_CALLER: u32 = 5;
const PLACED: u32 = 6;
const ROW_BITS: u32 = 5;
const PLACE_BITS: u32 = 13;
const GENERATION_MASK: u32 = u16::MAX as u32;

/// Probes whose callers are known that may be out at once.
pub(super) const PLACES: usize = 1 << PLACE_BITS;

impl From<u32> for Key {
    fn from(bits: u32) -> Self {
        let rest = bits >> MODE_BITS;
        match bits & MODE_MASK as u32 {
            OF_CALLER => {
                Self::OfCaller(ProbeOf { row: (rest & ((1 << ROW_BITS) - 1)) as usize, round: rest >> ROW_BITS })
            }
            PLACED => Self::Placed { place: (rest & ((1 << PLACE_BITS) - 1)) as usize, generation: rest >> PLACE_BITS },
            _ => Self::State(bits),
        }
    }
}

impl Key {
    pub(super) fn bits(self) -> u32 {
        match self {
            Self::State(bits) => bits,
            Self::OfCaller(ProbeOf { row, round }) => (round << ROW_BITS | row as u32) << MODE_BITS | OF_CALLER,
            Self::Placed { place, generation } => (generation << PLACE_BITS | place as u32) << MODE_BITS | PLACED,
        }
    }
}

impl Word {
    /// As much of the generation as the key of a placed probe holds.
    pub(super) fn short_generation(self) -> u32 {
        (self.key() >> MODE_BITS) & GENERATION_MASK
    }
}

/// Whether a permit with this key is a probe's.
#[inline]
pub(super) fn is_probe(key: u32) -> bool {
    u64::from(key) & MODE_MASK >= Mode::HalfOpen as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_what_it_stands_for() {
        for key in [
            Key::State(Word::new(Mode::Closed, 7).key()),
            Key::State(Word::new(Mode::HalfOpen, 7).key()),
            Key::OfCaller(ProbeOf { row: 31, round: ProbeOf::ROUNDS }),
            Key::OfCaller(ProbeOf { row: 0, round: 1 }),
            Key::Placed { place: PLACES - 1, generation: GENERATION_MASK },
            Key::Placed { place: 3, generation: 0 },
        ] {
            assert_eq!(Key::from(key.bits()), key);
            assert_eq!(is_probe(key.bits()), key != Key::State(Word::new(Mode::Closed, 7).key()));
        }
    }

    #[test]
    fn the_key_of_a_placed_probe_has_the_lower_half_of_the_generation() {
        for (generation, short) in [(7, 7), (0xffff, 0xffff), (0x1_0000, 0), (0x1234_5678, 0x5678)] {
            let word = Word::new(Mode::HalfOpen, generation).with_probe();
            assert_eq!(word.short_generation(), short);
        }
    }

    #[test]
    fn what_is_counted_and_what_is_said_of_callers_do_not_meet() {
        let word = Word::new(Mode::Closed, 3).with_failures(9);
        assert!(!word.has_callers());
        let word = word.with_callers(true, false);
        assert_eq!((word.failures(), word.has_callers(), word.admits_all()), (9, true, true));
        let word = word.with_failures(u32::MAX).with_callers(true, true);
        assert_eq!(
            (word.failures(), word.admits_all(), word.key()),
            (MAX_FAILURES, false, Word::new(Mode::Closed, 3).key())
        );
        assert_eq!(word.with_callers(false, false).with_failures(0), Word::new(Mode::Closed, 3));
    }
}
