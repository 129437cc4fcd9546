//! What the servers of the measurement offer each other.

use std::sync::Arc;

use anyhow::Context as _;
use bellrope::{HandlerError, Server, server::ServerBuilder};
use bellrope_fleet::{Fleet, FleetSettings};

/// As `echo`, which every server of the measurement has itself.
pub(super) const ECHO: &str = "bench.echo";
/// Bytes of a small chunk.
pub(super) const CHUNK: usize = 1024;
/// A stream: the payload says how many chunks of how many bytes, as two decimal numbers.
pub(super) const CHUNKS: &str = "bench.chunks";

/// Adds what an instance offers, and makes room for what others do.
pub(crate) fn register(builder: ServerBuilder, settings: &FleetSettings) -> ServerBuilder {
    let builder = match settings.offer.is_empty() {
        true => builder,
        false => builder.in_place(ECHO, |_| Ok(())).server_stream(CHUNKS, |call, mut chunks| async move {
            let asked = std::str::from_utf8(call.payload()).ok().and_then(|asked| {
                let (count, size) = asked.split_once(' ')?;
                Some((count.parse::<u64>().ok()?, size.parse::<u16>().ok()?))
            });
            let (count, size) = asked.ok_or_else(|| HandlerError::invalid_request("COUNT SIZE is expected"))?;
            let chunk = vec![7; size.into()];
            for _ in 0..count {
                chunks.send(&chunk).await?;
            }
            Ok(())
        }),
    };
    bellrope_fleet::prepare(builder, settings)
}

/// Joins the fleet, and shows it among the metrics.
pub(crate) fn join(settings: FleetSettings, server: &Arc<Server>, socket: &std::path::Path) -> anyhow::Result<Fleet> {
    let fleet = Fleet::join(settings, server, socket.to_owned()).context("joining the fleet")?;
    fleet.watch(&server.metrics());
    Ok(fleet)
}
