//! iceoryx2's request-response. Requests and responses are loaned from shared memory and written in place; the payload
//! is copied in once on either side, as it is for everybody here, and read where it lies.

use std::{collections::VecDeque, path::Path, sync::atomic::Ordering, time::Duration};

use anyhow::Context;
use iceoryx2::{
    pending_response::PendingResponse,
    port::{client, listener::Listener, notifier::Notifier, server},
    prelude::*,
    service::port_factory::{event, request_response},
};

use super::process;
use crate::{
    meter::{Answers, Caller, RoundTrips},
    plan::Task,
};

type Port = client::Client<ipc::Service, [u8], (), [u8], ()>;
type Pending = PendingResponse<ipc::Service, [u8], (), [u8], ()>;

/// How long a listener sleeps before it looks whether it is still needed.
const NAP: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    Polling,
    Events,
}

/// What both sides open by name.
struct Services {
    calls: request_response::PortFactory<ipc::Service, [u8], (), [u8], ()>,
    /// Rung for the server.
    requests: event::PortFactory<ipc::Service>,
    /// Rung for the client.
    responses: event::PortFactory<ipc::Service>,
    /// Last, so that it outlives them.
    _node: Node<ipc::Service>,
}

impl Services {
    fn open(home: &Path, task: &Task) -> anyhow::Result<Self> {
        set_log_level(LogLevel::Error);
        let mut config = Config::default();
        let root = home.to_str().context("a path that is no text")?;
        let prefix = home.file_name().and_then(|name| name.to_str()).context("a folder without a name")?;
        config.global.set_root_path(&iceoryx2::prelude::Path::new(root.as_bytes())?);
        config.global.prefix = FileName::new(format!("{prefix}_").as_bytes())?;
        let node = NodeBuilder::new().config(&config).create::<ipc::Service>()?;
        let calls = node
            .service_builder(&"echo".try_into()?)
            .request_response::<[u8], [u8]>()
            .max_servers(1)
            .max_clients(task.connections)
            .max_active_requests_per_client(task.depth.max(1))
            .max_response_buffer_size(1)
            .open_or_create()?;
        let bell = |name: &str| -> anyhow::Result<_> {
            Ok(node.service_builder(&name.try_into()?).event().max_listeners(1).max_notifiers(1).open_or_create()?)
        };
        let (requests, responses) = (bell("requests")?, bell("responses")?);
        Ok(Self { calls, requests, responses, _node: node })
    }
}

pub(super) fn serve(home: &Path, task: &Task, wait: Wait) -> anyhow::Result<()> {
    let gone = process::parent_is_gone();
    let services = Services::open(home, task)?;
    let server = services.calls.server_builder().initial_max_slice_len(task.size).create()?;
    let listener = services.requests.listener_builder().create()?;
    let notifier = services.responses.notifier_builder().create()?;
    process::ready("-")?;
    while !gone.load(Ordering::Relaxed) {
        if answer_all(&server)? {
            if wait == Wait::Events {
                notifier.notify()?;
            }
        } else if wait == Wait::Events {
            listener.timed_wait(|_| {}, NAP)?;
        } else {
            std::hint::spin_loop();
        }
    }
    Ok(())
}

/// Answers what is there. `false`: nothing was.
fn answer_all(server: &server::Server<ipc::Service, [u8], (), [u8], ()>) -> anyhow::Result<bool> {
    let mut any = false;
    while let Some(request) = server.receive()? {
        any = true;
        let payload = request.payload();
        request.loan_slice_uninit(payload.len())?.write_from_slice(payload).send()?;
    }
    Ok(any)
}

pub(super) struct Client {
    clients: Vec<Port>,
    doorbell: Doorbell,
    _services: Services,
}

struct Doorbell {
    wait: Wait,
    notifier: Notifier<ipc::Service>,
    listener: Listener<ipc::Service>,
}

impl Client {
    pub(super) fn connect(home: &Path, task: &Task, wait: Wait) -> anyhow::Result<Self> {
        let services = Services::open(home, task)?;
        let connect = |_| services.calls.client_builder().initial_max_slice_len(task.size).create();
        let clients = (0..task.connections).map(connect).collect::<Result<_, _>>()?;
        let notifier = services.requests.notifier_builder().create()?;
        let listener = services.responses.listener_builder().create()?;
        Ok(Self { clients, doorbell: Doorbell { wait, notifier, listener }, _services: services })
    }
}

impl Doorbell {
    /// After a request.
    fn ring(&self) -> anyhow::Result<()> {
        if self.wait == Wait::Events {
            self.notifier.notify()?;
        }
        Ok(())
    }

    /// When no response is there.
    fn rest(&self) -> anyhow::Result<()> {
        match self.wait {
            Wait::Polling => std::hint::spin_loop(),
            Wait::Events => _ = self.listener.timed_wait(|_| {}, NAP)?,
        }
        Ok(())
    }
}

impl Caller for Client {
    fn round_trips(&mut self, meter: &mut RoundTrips) -> anyhow::Result<()> {
        let client = &self.clients[0];
        while let Some(payload) = meter.next() {
            let pending = client.loan_slice_uninit(payload.len())?.write_from_slice(payload).send()?;
            self.doorbell.ring()?;
            loop {
                if let Some(response) = pending.receive()? {
                    meter.answered(response.payload())?;
                    break;
                }
                self.doorbell.rest()?;
            }
        }
        Ok(())
    }

    fn keep_busy(&mut self, meter: &mut Answers, depth: usize) -> anyhow::Result<()> {
        let mut pending: Vec<VecDeque<Pending>> = self.clients.iter().map(|_| VecDeque::with_capacity(depth)).collect();
        loop {
            let (mut answered, mut sent, mut under_way) = (false, false, 0);
            for (client, pending) in self.clients.iter().zip(&mut pending) {
                while let Some(oldest) = pending.front() {
                    let Some(response) = oldest.receive()? else { break };
                    meter.answered(response.payload())?;
                    drop(response);
                    pending.pop_front();
                    answered = true;
                }
                while pending.len() < depth {
                    let Some(payload) = meter.next() else { break };
                    pending.push_back(client.loan_slice_uninit(payload.len())?.write_from_slice(payload).send()?);
                    sent = true;
                }
                under_way += pending.len();
            }
            if under_way == 0 {
                return Ok(());
            }
            if sent {
                self.doorbell.ring()?;
            }
            if !answered {
                self.doorbell.rest()?;
            }
        }
    }
}
