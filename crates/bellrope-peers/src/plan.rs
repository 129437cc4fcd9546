//! What is measured: which peers, at which sizes, for how long.

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Bytes of a call in each direction.
pub(crate) const SIZES: [usize; 4] = [64, 1024, 64 * 1024, 1024 * 1024];
/// Sizes that are also measured over [`MANY`] connections.
pub(crate) const SIZES_OF_MANY: [usize; 2] = [64, 1024];
/// Connections where there are many; one call of each is under way.
pub(crate) const MANY: usize = 100;
/// Calls under way on a lone connection when calls a second are counted.
pub(crate) const WINDOW: usize = 64;
/// Pause between calls that are apart.
pub(crate) const GAP: Duration = Duration::from_millis(1);

/// A way to call another process, in one of its modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    /// The limit of whatever spins: one cache line to and fro.
    CacheLine,
    /// The limit of whatever carries a payload: bare slots in shared memory, both sides spinning.
    BareSlots,
    /// The limit of whatever sleeps: two processes that wait on a futex.
    Futex,
    /// Bellrope, both sides spinning.
    BellropeSpinning,
    /// Bellrope as it comes.
    Bellrope,
    /// Bellrope, both sides sleeping at once.
    BellropeSleeping,
    /// Bellrope with types: a method of a service, as postcard, both sides spinning.
    BellropeTypedSpinning,
    /// The same, both sides sleeping at once.
    BellropeTypedSleeping,
    /// iceoryx2's request-response, both sides polling.
    IceoryxPolling,
    /// iceoryx2's request-response, both sides waiting for its events.
    IceoryxEvents,
    /// Frames with their length in front, over a Unix socket and tokio.
    UnixSocket,
    /// gRPC over a Unix socket.
    Tonic,
    /// tarpc's typed calls as bincode, over a Unix socket.
    Tarpc,
    /// ipc-channel's channels of bytes.
    IpcChannel,
    /// shmipc, woken by eventfd.
    Shmipc,
    /// Node's child_process, messages as JSON.
    NodeJson,
    /// Node's child_process, messages by structured clone.
    NodeAdvanced,
    /// Frames with their length in front, over a Unix socket and Node's net.
    NodeSocket,
}

/// How a peer waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// For as long as it takes, without giving up its CPU.
    Spinning,
    /// In the kernel, until it is woken; Bellrope as it comes spins for up to 50 us before.
    Sleeping,
}

impl Peer {
    /// What it is called on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What it is called in tables.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::CacheLine => "limit: cache-line ping-pong",
            Self::BareSlots => "limit: bare slots",
            Self::Futex => "limit: futex ping-pong",
            Self::BellropeSpinning => "Bellrope, `always`",
            Self::Bellrope => "Bellrope, `adaptive` (default)",
            Self::BellropeSleeping => "Bellrope, `never`",
            Self::BellropeTypedSpinning => "Bellrope, typed, `always`",
            Self::BellropeTypedSleeping => "Bellrope, typed, `never`",
            Self::IceoryxPolling => "iceoryx2, polling",
            Self::IceoryxEvents => "iceoryx2, events",
            Self::UnixSocket => "tokio Unix socket",
            Self::Tonic => "tonic over a Unix socket",
            Self::Tarpc => "tarpc over a Unix socket",
            Self::IpcChannel => "ipc-channel",
            Self::Shmipc => "shmipc",
            Self::NodeJson => "Node child_process, json",
            Self::NodeAdvanced => "Node child_process, advanced",
            Self::NodeSocket => "Node net Unix socket",
        }
    }

    pub(crate) fn mode(self) -> Mode {
        match self {
            Self::CacheLine | Self::BareSlots | Self::IceoryxPolling => Mode::Spinning,
            Self::BellropeSpinning | Self::BellropeTypedSpinning => Mode::Spinning,
            _ => Mode::Sleeping,
        }
    }

    /// Where both sides run, but for what is measured by where they do.
    pub(crate) fn place(self) -> Placed {
        if self.mode() == Mode::Spinning { Placed::Apart } else { Placed::ByScheduler }
    }

    /// Whether this is what the machine allows, and not a way to call.
    pub(crate) fn is_limit(self) -> bool {
        matches!(self, Self::CacheLine | Self::BareSlots | Self::Futex)
    }

    /// Whether it carries what it is given, rather than a bare word.
    fn carries(self) -> bool {
        !matches!(self, Self::CacheLine | Self::Futex)
    }

    pub(crate) fn is_bellrope(self) -> bool {
        matches!(self, Self::Bellrope | Self::BellropeSpinning | Self::BellropeSleeping) || self.is_typed_bellrope()
    }

    /// Whether its payloads are values of a service, as tarpc's and tonic's are.
    fn is_typed_bellrope(self) -> bool {
        matches!(self, Self::BellropeTypedSpinning | Self::BellropeTypedSleeping)
    }

    pub(crate) fn is_node(self) -> bool {
        matches!(self, Self::NodeJson | Self::NodeAdvanced | Self::NodeSocket)
    }

    /// Whether a process has one connection by nature, to the process that it started.
    pub(crate) fn is_one_to_one(self) -> bool {
        matches!(self, Self::NodeJson | Self::NodeAdvanced)
    }

    /// Whether its client starts its own server.
    pub(crate) fn brings_its_server(self) -> bool {
        self.is_one_to_one()
    }
}

/// What one pair of processes measures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Task {
    /// Bytes of a call in each direction, at least 1.
    pub(crate) size: usize,
    pub(crate) connections: usize,
    /// Calls under way on each connection when calls a second are counted; 0: they are not.
    pub(crate) depth: usize,
    /// Whether round trips are measured, on the first connection.
    pub(crate) round_trips: bool,
    /// Milliseconds for round trips on the first connection with [`GAP`] in between; 0: none.
    pub(crate) apart_ms: u64,
    /// Milliseconds for each of the others.
    pub(crate) time_ms: u64,
    /// Milliseconds before each, in which nothing is measured.
    pub(crate) warm_up_ms: u64,
    /// Where both sides run.
    pub(crate) placed: Placed,
}

/// Where server and client run. How long it takes to wake somebody depends on that more than on anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Placed {
    /// Where the scheduler puts them.
    ByScheduler,
    /// Both on one CPU.
    Together,
    /// On a CPU each.
    Apart,
}

impl Placed {
    pub(crate) const ALL: [Self; 3] = [Self::ByScheduler, Self::Together, Self::Apart];

    /// The CPUs of server and client, if these are given.
    pub(crate) fn cpus(self) -> Option<(usize, usize)> {
        match self {
            Self::ByScheduler => None,
            Self::Together => Some((0, 0)),
            Self::Apart => Some((1, 0)),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ByScheduler => "placed by the scheduler",
            Self::Together => "both on one CPU",
            Self::Apart => "a CPU each",
        }
    }
}

impl Task {
    /// What tells how quick the machine is at this moment.
    pub(crate) fn limit() -> Self {
        Self {
            size: SIZES[0],
            connections: 1,
            depth: 0,
            round_trips: true,
            apart_ms: 0,
            time_ms: 100,
            warm_up_ms: 25,
            placed: Placed::Apart,
        }
    }
}

/// How long all of it takes.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Pace {
    /// Times that everything is measured; the median is reported.
    pub(crate) rounds: usize,
    time_ms: u64,
    apart_ms: u64,
    warm_up_ms: u64,
}

impl Pace {
    pub(crate) const FULL: Self = Self { rounds: 5, time_ms: 250, apart_ms: 1_000, warm_up_ms: 50 };
    pub(crate) const QUICK: Self = Self { rounds: 1, time_ms: 100, apart_ms: 200, warm_up_ms: 25 };

    /// What is measured of a peer, in order.
    pub(crate) fn tasks(self, peer: Peer) -> Vec<Task> {
        let Self { time_ms, apart_ms, warm_up_ms, .. } = self;
        let one = |size| Task {
            size,
            connections: 1,
            depth: if peer.carries() { WINDOW } else { 0 },
            round_trips: true,
            apart_ms: if size == SIZES[0] { apart_ms } else { 0 },
            time_ms,
            warm_up_ms,
            placed: peer.place(),
        };
        let many = |size| Task { connections: MANY, depth: 1, round_trips: false, apart_ms: 0, ..one(size) };
        // A client that starts its own server hands its CPU on to it: these two are never on a CPU each.
        let places =
            if peer.brings_its_server() { &[Placed::Together][..] } else { &[Placed::Together, Placed::Apart] };
        let places = if peer.mode() == Mode::Sleeping { places } else { &[] };
        let elsewhere = places.iter().map(|placed| Task { depth: 0, placed: *placed, ..one(SIZES[0]) });
        let sizes = if peer.carries() { &SIZES[..] } else { &SIZES[..1] };
        let manys = if !peer.carries() || peer.is_one_to_one() { &[] } else { &SIZES_OF_MANY[..] };
        // Slots are used in turn, and round trips are quickest where there is but one: these two are apart.
        let splits = peer == Peer::BareSlots;
        let ones = sizes.iter().copied().map(one).flat_map(|task| {
            let windowed = Task { round_trips: false, apart_ms: 0, ..task };
            if splits { vec![Task { depth: 0, ..task }, windowed] } else { vec![task] }
        });
        ones.chain(manys.iter().copied().map(many)).chain(elsewhere).collect()
    }
}
