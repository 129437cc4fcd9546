//! Message types of Bellrope servers on other machines, by way of [NATS](https://nats.io).
//!
//! A server [joins](Fleet::join) a fleet with a connection to NATS. Others may call what it offers, and what it imports is
//! called by its own clients as if it were served here. A call keeps its promises: it runs at most once, it ends exactly once,
//! and if whoever had it is lost, its caller learns whether it may have run. `docs/fleet.md` of the repository says how.
//!
//! The crate knows nothing of AI, and the server nothing of fleets: on both sides calls go through the server's own socket
//! or handlers, with the limits, breakers and counters that hold for all calls.
#![forbid(unsafe_code)]

mod clock;
mod counters;
mod exhibit;
mod fleet;
mod flow;
mod frame;
mod importing;
mod latencies;
mod link;
mod listing;
mod message_type;
mod model;
mod names;
mod offering;
mod services;
mod session;
mod settings;
mod signing;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod strangers;
mod times;

use bellrope::{server::ServerBuilder, status::OPERATOR};

pub use self::{
    counters::Counters,
    fleet::Fleet,
    link::FleetError,
    listing::{Listed, ListedType, Onlooker, instances},
    model::{Load, MESSAGES_OF_A_CALL, Size, load},
    settings::{Choice, FleetSettings, Order, SettingFault},
    signing::WhoAsks,
};

/// The example of this crate's README, compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Most types that a server takes in from its fleet.
const ROOM: u32 = 1024;

/// Makes room in a server for the types of its fleet, and takes out what it leaves to that ([`Order::Only`]), or puts
/// that behind it ([`Order::First`]): until the server joins, and if it never does, it answers those itself. Call it after all
/// other types are registered.
#[must_use]
pub fn prepare(builder: ServerBuilder, settings: &FleetSettings) -> ServerBuilder {
    if !settings.is_wanted() || settings.import.is_empty() {
        return builder;
    }
    let left = |name: &str| settings.leaves_to_fleet(name) && !name.starts_with(OPERATOR);
    let builder = builder.room_for_types(ROOM);
    let builder = match settings.order {
        Order::First => importing::in_front(builder.behind(left)),
        Order::Local | Order::Only => builder.without(left),
    };
    builder.schemas_elsewhere()
}
