//! Networks that a test makes of network namespaces: a hub with the NATS server, and members with a link to it, which can be cut
//! in each direction by itself. Nothing of it is seen outside.

use std::{
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use bellrope_testkit::skipped;

/// A network. It is gone with this, and so are its namespaces once the processes in them have ended.
pub(crate) struct Network {
    tag: String,
    members: Vec<String>,
}

/// What is cut of the link between a member and the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Nothing arrives at either side.
    Both,
    /// What the member sends is lost.
    FromMember,
    /// What the member is sent is lost.
    ToMember,
}

/// The address of nobody: frames for it are thrown away by whoever gets them.
const NOBODY: &str = "02:00:00:00:00:99";

impl Network {
    /// Makes one with members of these names, or says why the test is skipped.
    pub(crate) fn of(members: &[&str]) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let tag = format!("br{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::SeqCst));
        let network = Self { tag, members: members.iter().map(|name| (*name).to_owned()).collect() };
        if let Err(error) = network.make() {
            skipped(&format!(
                "a test of fleets: no network namespaces can be made here, which needs `ip` and root: {error}"
            ));
            return None;
        }
        Some(network)
    }

    fn make(&self) -> Result<(), String> {
        let hub = self.hub();
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "set", "lo", "up"])?;
        for number in 0..self.members.len() {
            let (member, port) = (self.member(number), format!("h{number}"));
            ip(&["netns", "add", &member])?;
            ip(&["-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "m0", "netns", &member])?;
            for (space, device, end) in [(&hub, port.as_str(), 1), (&member, "m0", 2)] {
                ip(&["-n", space, "addr", "add", &format!("{}/24", address(number, end)), "dev", device])?;
                ip(&["-n", space, "link", "set", device, "up"])?;
            }
            ip(&["-n", &member, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    /// The namespace of the NATS server.
    pub(crate) fn hub(&self) -> String {
        format!("{}-hub", self.tag)
    }

    /// The namespace of a member.
    pub(crate) fn namespace(&self, name: &str) -> String {
        self.member(self.number(name))
    }

    /// The hub's address, as a member has it.
    pub(crate) fn address_of_hub(&self, name: &str) -> String {
        address(self.number(name), 1)
    }

    fn number(&self, name: &str) -> usize {
        self.members.iter().position(|member| member == name).unwrap()
    }

    fn member(&self, number: usize) -> String {
        format!("{}-{number}", self.tag)
    }

    /// Cuts a link: no connection is ended, and nobody is told.
    pub(crate) fn cut(&self, name: &str, what: Cut) {
        let number = self.number(name);
        match what {
            Cut::Both => ip(&["-n", &self.hub(), "link", "set", &format!("h{number}"), "down"]).unwrap(),
            Cut::FromMember => self.neighbour(&self.member(number), "m0", &address(number, 1), NOBODY),
            Cut::ToMember => self.neighbour(&self.hub(), &format!("h{number}"), &address(number, 2), NOBODY),
        }
    }

    /// Makes it whole again.
    pub(crate) fn heal(&self, name: &str) {
        let number = self.number(name);
        let (hub, member, port) = (self.hub(), self.member(number), format!("h{number}"));
        ip(&["-n", &hub, "link", "set", &port, "up"]).unwrap();
        let [at_hub, at_member] = [hardware(&hub, &port), hardware(&member, "m0")];
        self.neighbour(&member, "m0", &address(number, 1), &at_hub);
        self.neighbour(&hub, &port, &address(number, 2), &at_member);
    }

    /// Has a side send what is for an address to this hardware.
    #[expect(clippy::unused_self, reason = "only namespaces of a network are touched")]
    fn neighbour(&self, space: &str, device: &str, address: &str, hardware: &str) {
        let change = ["neigh", "replace", address, "lladdr", hardware, "dev", device, "nud", "permanent"];
        ip(&[&["-n", space][..], &change].concat()).unwrap();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for space in (0..self.members.len()).map(|number| self.member(number)).chain([self.hub()]) {
            let _ = ip(&["netns", "del", &space]);
        }
    }
}

/// The address of one end of the link of a member: 1 for the hub's.
fn address(number: usize, end: u8) -> String {
    format!("10.213.{number}.{end}")
}

fn hardware(space: &str, device: &str) -> String {
    let shown = Command::new("ip").args(["-n", space, "-o", "link", "show", device]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    shown.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap().to_owned()
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let ran = Command::new("ip").args(arguments).stdin(Stdio::null()).output();
    let ran = ran.map_err(|error| format!("ip: {error}"))?;
    match ran.status.success() {
        true => Ok(()),
        false => Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&ran.stderr).trim())),
    }
}
