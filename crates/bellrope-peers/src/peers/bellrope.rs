//! Bellrope: `in_place` handlers, exclusive connections. What does not fit a record is submitted; answers that come meanwhile
//! are kept by the connection, and taken before the next call is sent: while they are in the cache.

use std::path::Path;

use anyhow::Context;
use bellrope::{
    Server,
    client::{ClientConfig, Connection, MessageType, SpinPolicy},
    server::ServerConfig,
};

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
    /// Whether a message is larger than a record.
    large: bool,
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
        Ok(Self { connections, large: task.size > LARGEST_RECORD, reply: Vec::new() })
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
        for (connection, echo) in &mut self.connections {
            refill(connection, *echo, meter, depth, self.large, &mut self.reply)?;
        }
        loop {
            let mut under_way = 0;
            for (connection, echo) in &mut self.connections {
                if connection.in_flight() > 0 {
                    connection.wait(&mut self.reply)?.outcome?;
                    meter.answered(&self.reply)?;
                    take(connection, meter, &mut self.reply)?;
                }
                refill(connection, *echo, meter, depth, self.large, &mut self.reply)?;
                under_way += connection.in_flight();
            }
            if under_way == 0 {
                return Ok(());
            }
        }
    }
}

fn refill(
    connection: &mut Connection,
    echo: MessageType,
    meter: &mut Answers,
    depth: usize,
    large: bool,
    reply: &mut Vec<u8>,
) -> anyhow::Result<()> {
    while connection.in_flight() < depth {
        let Some(payload) = meter.next() else { break };
        if large {
            connection.submit(echo, payload)?;
            take(connection, meter, reply)?;
        } else if connection.queue(echo, payload)?.is_none() {
            break; // no room: first some answers have to be taken
        }
    }
    connection.flush();
    Ok(())
}

/// Takes the answers that are there.
fn take(connection: &mut Connection, meter: &mut Answers, reply: &mut Vec<u8>) -> anyhow::Result<()> {
    while let Some(completion) = connection.poll(reply)? {
        completion.outcome?;
        meter.answered(reply)?;
    }
    Ok(())
}
