//! What goes wrong, in which order: all of it follows from a seed.

use fastrand::Rng;

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fault {
    /// The server is killed, and started again at once.
    KillServer,
    /// A client process that floods with calls of `size` bytes is killed after a while.
    KillClient { size: usize, after_ms: u64 },
    /// A client breaks the protocol through its mapping.
    Corrupt(Corruption),
    /// Somebody sends bytes that are no handshake.
    Babble { bytes: Vec<u8> },
    /// A handler keeps the server's worker for so long.
    HoldServer { ms: u8 },
    /// A client sends calls and reads no answer, for the next few faults.
    ReadNothing { size: usize },
    /// A client begins a large message of so many bytes and does not go on, for the next few faults.
    FinishNothing { bytes: u64 },
    /// A client announces a message that is larger than allowed by so many bytes.
    Oversize { by: u64 },
    /// So many senders have large calls under way, more than the buffer budget holds.
    PressMemory { senders: u64, size: usize, ms: u64 },
    /// So many connections are full of calls of a few bytes.
    Flood { connections: u32, size: usize, ms: u64 },
    /// So many connections are made and dropped.
    ComeAndGo { connections: u32 },
}

/// How a client breaks the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Corruption {
    /// A header word that no record has.
    Header,
    /// A record that is longer than one may be.
    Length,
    /// One that claims 4 GiB.
    HugeLength,
    /// A pad record that leads nowhere.
    Pad,
    /// A record that only the server sends.
    Direction,
    /// A record without what its kind needs.
    Form,
    /// A position that was never reached.
    Position,
    /// A page of bytes that follow from this seed.
    Noise(u64),
}

/// Names of the kinds of faults, as a report has them.
pub(super) const KINDS: [&str; 11] = [
    "kill_server",
    "kill_client",
    "corrupt_frames",
    "babble",
    "hold_server",
    "read_nothing",
    "finish_nothing",
    "oversize",
    "press_memory",
    "flood",
    "come_and_go",
];

impl Fault {
    /// Which of [`KINDS`] it is.
    pub(super) fn kind(&self) -> usize {
        match self {
            Self::KillServer => 0,
            Self::KillClient { .. } => 1,
            Self::Corrupt(_) => 2,
            Self::Babble { .. } => 3,
            Self::HoldServer { .. } => 4,
            Self::ReadNothing { .. } => 5,
            Self::FinishNothing { .. } => 6,
            Self::Oversize { .. } => 7,
            Self::PressMemory { .. } => 8,
            Self::Flood { .. } => 9,
            Self::ComeAndGo { .. } => 10,
        }
    }
}

/// Faults without end. The same seed has the same ones in the same order.
pub(super) struct Plan {
    rng: Rng,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed) }
    }
}

impl Iterator for Plan {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        let rng = &mut self.rng;
        Some(match rng.u32(0..100) {
            0..12 => Fault::KillServer,
            12..22 => Fault::KillClient { size: rng.usize(0..4096), after_ms: rng.u64(1..15) },
            22..42 => Fault::Corrupt(match rng.u32(0..10) {
                0 => Corruption::Header,
                1 => Corruption::Length,
                2 => Corruption::HugeLength,
                3 => Corruption::Pad,
                4 => Corruption::Direction,
                5 => Corruption::Form,
                6 => Corruption::Position,
                _ => Corruption::Noise(rng.u64(..)),
            }),
            42..48 => {
                let len = rng.usize(1..300);
                Fault::Babble { bytes: std::iter::repeat_with(|| rng.u8(..)).take(len).collect() }
            }
            48..56 => Fault::HoldServer { ms: rng.u8(1..40) },
            56..62 => Fault::ReadNothing { size: rng.usize(0..4096) },
            62..68 => Fault::FinishNothing { bytes: rng.u64(100_000..1_000_000) },
            68..74 => Fault::Oversize { by: rng.u64(1..1 << 32) },
            74..84 => {
                Fault::PressMemory { senders: rng.u64(2..12), size: rng.usize(200_000..1_000_000), ms: rng.u64(10..60) }
            }
            84..94 => Fault::Flood { connections: rng.u32(1..8), size: rng.usize(0..9), ms: rng.u64(10..60) },
            _ => Fault::ComeAndGo { connections: rng.u32(10..150) },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_faults_and_every_kind_comes() {
        let faults = |seed| Plan::new(seed).take(500).collect::<Vec<_>>();
        assert_eq!(faults(7), faults(7));
        assert_ne!(faults(7), faults(8));
        let seen = faults(7).iter().map(Fault::kind).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(seen.len(), KINDS.len());
    }
}
