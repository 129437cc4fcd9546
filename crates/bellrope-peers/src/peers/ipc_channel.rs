//! ipc-channel: a channel in each direction. One connection has channels of bytes and a thread that waits for them;
//! where there are many, a set of receivers waits for all, as is this library's way, and messages are typed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use ipc_channel::ipc::{
    self, IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcReceiver, IpcReceiverSet, IpcSelectionResult,
    IpcSender,
};
use serde::{Deserialize, Serialize};

use super::process;
use crate::{
    meter::{Answers, Caller, RoundTrips},
    plan::Task,
};

/// The server's ends, which the client makes and sends.
#[derive(Serialize, Deserialize)]
enum Ends {
    One(IpcBytesReceiver, IpcBytesSender),
    /// Some of many; the rest follows.
    Some(Vec<(IpcReceiver<Bytes>, IpcSender<Bytes>)>),
    /// There are no more.
    All,
}

/// Connections whose ends fit into one message: it takes 64 descriptors.
const ENDS_AT_ONCE: usize = 30;

pub(super) fn serve() -> anyhow::Result<()> {
    process::end_with_parent();
    let (server, name) = IpcOneShotServer::<Ends>::new().context("making a server")?;
    process::ready(name)?;
    let (more, mut ends) = server.accept()?;
    let mut connections = Connections::new()?;
    loop {
        match ends {
            Ends::One(requests, responses) => {
                // Until the client is gone, which is no fault.
                while let Ok(request) = requests.recv() {
                    responses.send(&request)?;
                }
                return Ok(());
            }
            Ends::Some(some) => {
                for (receiver, sender) in some {
                    connections.add(receiver, sender)?;
                }
                ends = more.recv()?;
            }
            Ends::All => break,
        }
    }
    while connections.take(|sender, payload| Ok(sender.send(payload)?))? {}
    Ok(())
}

/// A set of receivers, each with the sender of the same connection.
pub(super) struct Connections {
    set: IpcReceiverSet,
    senders: std::collections::HashMap<u64, IpcSender<Bytes>>,
}

impl Connections {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { set: IpcReceiverSet::new()?, senders: std::collections::HashMap::new() })
    }

    fn add(&mut self, receiver: IpcReceiver<Bytes>, sender: IpcSender<Bytes>) -> anyhow::Result<()> {
        self.senders.insert(self.set.add(receiver)?, sender);
        Ok(())
    }

    /// Waits, and hands out all that has come. `false`: the other side is gone.
    fn take(&mut self, mut each: impl FnMut(&IpcSender<Bytes>, Bytes) -> anyhow::Result<()>) -> anyhow::Result<bool> {
        for event in self.set.select()? {
            match event {
                IpcSelectionResult::MessageReceived(id, message) => each(&self.senders[&id], message.to()?)?,
                IpcSelectionResult::ChannelClosed(_) => return Ok(false),
            }
        }
        Ok(true)
    }
}

pub(super) enum Client {
    One(IpcBytesSender, IpcBytesReceiver),
    Many(Connections),
}

impl Client {
    pub(super) fn connect(address: &str, task: &Task) -> anyhow::Result<Self> {
        let server = IpcSender::<Ends>::connect(address.to_owned()).context("connecting")?;
        if task.connections == 1 {
            let ((sender, requests), (responses, receiver)) = (ipc::bytes_channel()?, ipc::bytes_channel()?);
            server.send(Ends::One(requests, responses))?;
            return Ok(Self::One(sender, receiver));
        }
        let (mut ours, mut ends) = (Connections::new()?, Vec::new());
        for _ in 0..task.connections {
            let ((sender, requests), (responses, receiver)) = (ipc::channel()?, ipc::channel()?);
            ends.push((requests, responses));
            ours.add(receiver, sender)?;
            if ends.len() == ENDS_AT_ONCE {
                server.send(Ends::Some(std::mem::take(&mut ends)))?;
            }
        }
        server.send(Ends::Some(ends))?;
        server.send(Ends::All)?;
        Ok(Self::Many(ours))
    }
}

impl Caller for Client {
    fn round_trips(&mut self, meter: &mut RoundTrips) -> anyhow::Result<()> {
        let Self::One(sender, receiver) = self else { bail!("round trips are those of one connection") };
        while let Some(payload) = meter.next() {
            sender.send(payload)?;
            meter.answered(&receiver.recv()?)?;
        }
        Ok(())
    }

    fn keep_busy(&mut self, meter: &mut Answers, depth: usize) -> anyhow::Result<()> {
        match self {
            Self::One(sender, receiver) => busy(sender, receiver, meter, depth),
            Self::Many(connections) => {
                ensure!(depth == 1, "over many connections one call each is under way");
                busy_many(connections, meter)
            }
        }
    }
}

/// Sending blocks, so it has a thread of its own: else both sides might wait for each other.
fn busy(sender: &IpcBytesSender, receiver: &IpcBytesReceiver, meter: &mut Answers, depth: usize) -> anyhow::Result<()> {
    let mut payload = meter.next().context("nothing to send")?.to_vec();
    let (answered, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (taken, ended, sender) = (Arc::clone(&answered), Arc::clone(&over), sender.clone());
    let sending = thread::spawn(move || -> anyhow::Result<usize> {
        let mut sent = 0_usize;
        while !ended.load(Ordering::Acquire) {
            if sent - taken.load(Ordering::Acquire) == depth {
                thread::park();
                continue;
            }
            let last = payload.len() - 1;
            payload[0] = sent as u8;
            payload[last] = sent as u8;
            sender.send(&payload)?;
            sent += 1;
        }
        Ok(sent)
    });
    let mut count = 0;
    while meter.wants_more() {
        meter.answered(&receiver.recv()?)?;
        count += 1;
        answered.store(count, Ordering::Release);
        sending.thread().unpark();
    }
    over.store(true, Ordering::Release);
    sending.thread().unpark();
    // It may be in the middle of a large message: its answers are taken until it has ended.
    while !sending.is_finished() {
        if let Ok(reply) = receiver.try_recv() {
            meter.answered(&reply)?;
            count += 1;
        }
    }
    let sent = sending.join().map_err(|_| anyhow::anyhow!("the sending thread panicked"))??;
    while count < sent {
        meter.answered(&receiver.recv()?)?;
        count += 1;
    }
    Ok(())
}

fn busy_many(connections: &mut Connections, meter: &mut Answers) -> anyhow::Result<()> {
    let mut under_way = 0;
    for sender in connections.senders.values() {
        let Some(payload) = meter.next() else { break };
        sender.send(Bytes::copy_from_slice(payload))?;
        under_way += 1;
    }
    while under_way > 0 {
        let alive = connections.take(|sender, reply| {
            meter.answered(&reply)?;
            match meter.next() {
                Some(payload) => sender.send(Bytes::copy_from_slice(payload))?,
                None => under_way -= 1,
            }
            Ok(())
        })?;
        ensure!(alive, "the server hung up");
    }
    Ok(())
}
