//! The peers, each in its best configuration: a server that echoes what it gets, and a client for the meters.

mod bare;
mod bellrope;
mod clients;
pub(crate) mod grpc;
mod iceoryx;
mod ipc_channel;
mod limit;
mod process;
mod shmipc;
mod socket;
mod tarpc;
mod typed;

use std::path::Path;

use ::bellrope::client::SpinPolicy;
use anyhow::bail;

use crate::{
    meter::{Measured, measure},
    plan::{Peer, Task},
};

/// The server's side: says where it is, and echoes until standard input ends.
pub(crate) fn serve(peer: Peer, home: &Path, task: &Task) -> anyhow::Result<()> {
    match peer {
        Peer::CacheLine => limit::serve(limit::Wait::Spinning),
        Peer::Futex => limit::serve(limit::Wait::Asleep),
        Peer::BareSlots => bare::serve(task),
        Peer::BellropeSpinning => bellrope::serve(home, SpinPolicy::Always),
        Peer::Bellrope => bellrope::serve(home, SpinPolicy::Adaptive),
        Peer::BellropeSleeping => bellrope::serve(home, SpinPolicy::Never),
        Peer::BellropeTypedSpinning => typed::serve(home, SpinPolicy::Always),
        Peer::BellropeTypedSleeping => typed::serve(home, SpinPolicy::Never),
        Peer::IceoryxPolling => iceoryx::serve(home, task, iceoryx::Wait::Polling),
        Peer::IceoryxEvents => iceoryx::serve(home, task, iceoryx::Wait::Events),
        Peer::UnixSocket => socket::serve(home),
        Peer::Tonic => grpc::serve(home),
        Peer::Tarpc => tarpc::serve(home),
        Peer::IpcChannel => ipc_channel::serve(),
        Peer::Shmipc => shmipc::serve(home, task),
        Peer::NodeJson | Peer::NodeAdvanced | Peer::NodeSocket => bail!("Node's side is a script"),
    }
}

/// The client's side: connects and measures.
pub(crate) fn call(peer: Peer, home: &Path, address: &str, server: u32, task: &Task) -> anyhow::Result<Measured> {
    process::end_with_parent(); // whatever it waits for
    match peer {
        Peer::CacheLine => measure(task, server, &mut limit::Pinger::open(address, limit::Wait::Spinning)?),
        Peer::Futex => measure(task, server, &mut limit::Pinger::open(address, limit::Wait::Asleep)?),
        Peer::BareSlots => measure(task, server, &mut bare::Client::open(address, task)?),
        Peer::BellropeSpinning => {
            measure(task, server, &mut bellrope::Client::connect(address, task, SpinPolicy::Always)?)
        }
        Peer::Bellrope => measure(task, server, &mut bellrope::Client::connect(address, task, SpinPolicy::Adaptive)?),
        Peer::BellropeSleeping => {
            measure(task, server, &mut bellrope::Client::connect(address, task, SpinPolicy::Never)?)
        }
        Peer::BellropeTypedSpinning => {
            measure(task, server, &mut typed::Client::connect(address, task, SpinPolicy::Always)?)
        }
        Peer::BellropeTypedSleeping => {
            measure(task, server, &mut typed::Client::connect(address, task, SpinPolicy::Never)?)
        }
        Peer::IceoryxPolling => {
            measure(task, server, &mut iceoryx::Client::connect(home, task, iceoryx::Wait::Polling)?)
        }
        Peer::IceoryxEvents => measure(task, server, &mut iceoryx::Client::connect(home, task, iceoryx::Wait::Events)?),
        Peer::UnixSocket => measure(task, server, &mut socket::Client::connect(address, task)?),
        Peer::Tonic => measure(task, server, &mut grpc::Client::connect(address, task)?),
        Peer::Tarpc => measure(task, server, &mut tarpc::Client::connect(address, task)?),
        Peer::IpcChannel => measure(task, server, &mut ipc_channel::Client::connect(address, task)?),
        Peer::Shmipc => measure(task, server, &mut shmipc::Client::connect(home, address, task)?),
        Peer::NodeJson | Peer::NodeAdvanced | Peer::NodeSocket => bail!("Node's side is a script"),
    }
}
