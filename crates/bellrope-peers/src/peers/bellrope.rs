//! Bellrope: `unary` handlers, exclusive connections. One of those sends one large message at a time, so many large
//! calls under way are those of an async client.

use std::{cell::RefCell, path::Path};

use anyhow::Context;
use bellrope::{
    AsyncClient, Server,
    client::{ClientConfig, Connection, MessageType, SpinPolicy},
    server::ServerConfig,
};
use futures_util::future::try_join_all;
use tokio::runtime::Runtime;

use super::process;
use crate::{
    meter::{Answers, Caller, RoundTrips},
    plan::Task,
};

/// Bytes of a message that still is one record: a quarter of a ring.
const LARGEST_RECORD: usize = 64 * 1024;

pub(super) fn serve(home: &Path, spin: SpinPolicy) -> anyhow::Result<()> {
    let mut config = ServerConfig::default();
    config.spin = spin;
    let path = home.join("run").join("bellrope.sock");
    let server = Server::builder().config(config).in_place("echo", |_| Ok(())).bind(&path)?;
    process::ready(path.display())?;
    process::wait_for_parent();
    server.shutdown();
    Ok(())
}

pub(super) struct Client {
    connections: Vec<(Connection, MessageType)>,
    large: Option<(Runtime, AsyncClient)>,
    reply: Vec<u8>,
}

impl Client {
    pub(super) fn connect(address: &str, task: &Task, spin: SpinPolicy) -> anyhow::Result<Self> {
        let mut config = ClientConfig::new(address);
        config.spin = spin;
        let connect = |_| -> anyhow::Result<_> {
            let connection = Connection::with(&config).context("connecting")?;
            let echo = connection.message_type("echo")?;
            Ok((connection, echo))
        };
        let connections = (0..task.connections).map(connect).collect::<anyhow::Result<_>>()?;
        let large = if task.size > LARGEST_RECORD {
            let runtime = process::runtime()?;
            let client = runtime.block_on(AsyncClient::with(config)).context("connecting")?;
            Some((runtime, client))
        } else {
            None
        };
        Ok(Self { connections, large, reply: Vec::new() })
    }
}

impl Caller for Client {
    fn round_trips(&mut self, meter: &mut RoundTrips) -> anyhow::Result<()> {
        let (connection, echo) = &mut self.connections[0];
        while let Some(payload) = meter.next() {
            connection.call(*echo, payload, &mut self.reply)?;
            meter.answered(&self.reply)?;
        }
        Ok(())
    }

    /// One connection after the other: its answers, of which there is at least one to wait for, then new calls.
    fn keep_busy(&mut self, meter: &mut Answers, depth: usize) -> anyhow::Result<()> {
        if let Some((runtime, client)) = &self.large {
            let meter = RefCell::new(meter);
            runtime.block_on(try_join_all((0..depth).map(|_| busy(client, &meter))))?;
            return Ok(());
        }
        for (connection, echo) in &mut self.connections {
            refill(connection, *echo, meter, depth)?;
        }
        loop {
            let mut under_way = 0;
            for (connection, echo) in &mut self.connections {
                if connection.in_flight() > 0 {
                    connection.wait(&mut self.reply)?.outcome?;
                    meter.answered(&self.reply)?;
                    while let Some(completion) = connection.poll(&mut self.reply)? {
                        completion.outcome?;
                        meter.answered(&self.reply)?;
                    }
                }
                refill(connection, *echo, meter, depth)?;
                under_way += connection.in_flight();
            }
            if under_way == 0 {
                return Ok(());
            }
        }
    }
}

/// One call after the other; as many of these run at once as calls are under way.
async fn busy(client: &AsyncClient, meter: &RefCell<&mut Answers>) -> anyhow::Result<()> {
    let mut payload = Vec::new();
    loop {
        payload.clear();
        match meter.borrow_mut().next() {
            Some(next) => payload.extend_from_slice(next),
            None => return Ok(()),
        }
        let reply = client.call("echo", &payload).await?;
        meter.borrow_mut().answered(&reply)?;
    }
}

fn refill(connection: &mut Connection, echo: MessageType, meter: &mut Answers, depth: usize) -> anyhow::Result<()> {
    while connection.in_flight() < depth {
        let Some(payload) = meter.next() else { break };
        if connection.queue(echo, payload)?.is_none() {
            break; // no room: first some answers have to be taken
        }
    }
    connection.flush();
    Ok(())
}
