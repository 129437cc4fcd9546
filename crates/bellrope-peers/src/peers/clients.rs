//! Many asynchronous clients of one thread, whichever peer they call.

use std::cell::RefCell;

use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::runtime::Runtime;

use super::process;
use crate::{meter::Answers, plan::Task};

/// A client for each connection, and the runtime that they need.
pub(super) struct Clients<C> {
    pub(super) runtime: Runtime,
    /// At least one.
    pub(super) clients: Vec<C>,
}

impl<C: Clone> Clients<C> {
    /// Connects as often as the task says.
    pub(super) fn connect(task: &Task, connect: impl AsyncFn() -> anyhow::Result<C>) -> anyhow::Result<Self> {
        let runtime = process::runtime()?;
        let clients = (0..task.connections).map(|_| runtime.block_on(connect())).collect::<anyhow::Result<_>>()?;
        Ok(Self { runtime, clients })
    }

    /// Keeps `depth` calls under way on each connection until the meter has had enough, and takes all answers.
    pub(super) fn keep_busy<R: AsRef<[u8]>>(
        &self,
        meter: &mut Answers,
        depth: usize,
        call: &impl AsyncFn(&mut C, Bytes) -> anyhow::Result<R>,
    ) -> anyhow::Result<()> {
        let meter = RefCell::new(meter);
        // One call after the other; as many of these run at once as calls are under way.
        let busy = async |mut client: C| -> anyhow::Result<()> {
            loop {
                let Some(data) = meter.borrow_mut().next().map(Bytes::copy_from_slice) else { return Ok(()) };
                let reply = call(&mut client, data).await?;
                meter.borrow_mut().answered(reply.as_ref())?;
            }
        };
        let callers = self.clients.iter().flat_map(|client| (0..depth).map(|_| busy(client.clone())));
        self.runtime.block_on(try_join_all(callers))?;
        Ok(())
    }
}
