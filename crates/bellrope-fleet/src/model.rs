//! What a fleet of some size asks of NATS, as arithmetic.

use serde::Serialize;

use crate::times::{BEAT, EACH_HEARER};

/// A fleet.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Size {
    /// Servers that import, such as those of editors.
    pub importing: u64,
    /// Servers that offer.
    pub instances: u64,
    /// Message types that each instance offers.
    pub types: u64,
    /// Small unary calls of one importing server, a second.
    pub calls_per_second: f64,
    /// Streams that one importing server has under way.
    pub streams: f64,
    /// Chunks of one stream, a second.
    pub chunks_per_second: f64,
}

/// What that takes. A message counts once when it is published and once for each who gets it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Load {
    /// Connections to NATS, all together.
    pub connections: u64,
    /// Subscriptions, all together.
    pub subscriptions: u64,
    /// Messages published, a second: those of calls.
    pub call_messages_per_second: f64,
    /// Messages published, a second, at most: chunks, without credit. Chunks that are there at once share a message.
    pub chunk_messages_per_second: f64,
    /// Messages published, a second, by which both sides of streams say that they live. None while nothing is under way.
    pub beat_messages_per_second: f64,
    /// Messages delivered, a second, at most, by which instances say to everybody what they have to do. None while nothing
    /// changes.
    pub load_deliveries_per_second: f64,
    /// Answers, once, when all importing servers ask at the same time what the instances offer.
    pub answers_at_a_common_start: u64,
    /// The same a second, from then on.
    pub discovery_messages_per_second: f64,
    /// Bytes of all NATS servers together for connections that rest.
    pub nats_bytes: u64,
    /// NATS servers that so many connections need, by NATS's own limit (`max_connections`, 65,536 unless it is set).
    pub nats_servers: u64,
    /// Most bytes that one importing server holds for its streams under way, at this side of NATS.
    pub importing_bytes: f64,
}

/// Messages of a small unary call: the call and its answer.
pub const MESSAGES_OF_A_CALL: f64 = 2.0;
/// How often an importing server asks what the instances offer, in seconds.
const ASKED_EVERY_S: f64 = 60.0;
/// Subscriptions of an instance beside those of its types: its own inbox, its own calls, and the nine of the services
/// interface.
const OF_AN_INSTANCE: u64 = 11;
/// Those of an importing server: its inbox, the news and the loads.
const OF_AN_IMPORTING_SERVER: u64 = 3;

/// Resident bytes of a `nats-server` 2.9 for each of 4,000 connections with three subscriptions, in which nothing happens.
const NATS_BYTES_OF_A_CONNECTION: u64 = 20 * 1024;
/// Most connections of a NATS server that says nothing else.
const NATS_CONNECTIONS: u64 = 65_536;

/// What a fleet of this size takes. What is more than a number of 64 bits holds is the largest of them.
///
/// ```
/// use bellrope_fleet::{Size, load};
///
/// let size = Size {
///     importing: 10_000,
///     instances: 1_000,
///     types: 10,
///     calls_per_second: 1.0,
///     streams: 0.1,
///     chunks_per_second: 50.0,
/// };
/// let load = load(size);
/// assert_eq!(load.connections, 11_000);
/// assert_eq!(load.call_messages_per_second, 20_000.0);
/// assert_eq!(load.load_deliveries_per_second, 1_000_000.0);
/// ```
#[must_use]
pub fn load(size: Size) -> Load {
    let (importing, instances) = (size.importing as f64, size.instances as f64);
    let streams = importing * size.streams;
    let beats = 1.0 / BEAT.as_secs_f64();
    // One for each pair that has something under way, and of several streams of one pair still one.
    let pairs = streams.min(importing * instances);
    let connections = size.importing.saturating_add(size.instances);
    let subscriptions_of_instances = size.instances.saturating_mul(OF_AN_INSTANCE.saturating_add(size.types));
    let hearers = u32::try_from(size.importing).unwrap_or(u32::MAX);
    Load {
        connections,
        subscriptions: size.importing.saturating_mul(OF_AN_IMPORTING_SERVER).saturating_add(subscriptions_of_instances),
        call_messages_per_second: importing * size.calls_per_second * MESSAGES_OF_A_CALL,
        chunk_messages_per_second: streams * size.chunks_per_second,
        beat_messages_per_second: 2.0 * pairs * beats,
        load_deliveries_per_second: instances * importing / BEAT.max(EACH_HEARER.saturating_mul(hearers)).as_secs_f64(),
        answers_at_a_common_start: size.importing.saturating_mul(size.instances),
        discovery_messages_per_second: importing * (1.0 + instances) / ASKED_EVERY_S,
        nats_bytes: connections.saturating_mul(NATS_BYTES_OF_A_CONNECTION),
        nats_servers: connections.div_ceil(NATS_CONNECTIONS),
        importing_bytes: size.streams.ceil() * crate::flow::WINDOW as f64 * 1.5,
    }
}
